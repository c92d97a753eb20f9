r"""A language model of 3.26 billion parameters.

    python -m audiogen_jax.train --config=configs/lm_3b.py \
      --workdir=gs://BUCKET/lm --config.data.folders=DATASET

The recipe of `lm_1p5b.py` at audiocraft's `large` scale; `:tiny` is that of
`lm_1p5b.py`.  No figure of ours yet.
"""

from ml_collections import ConfigDict

from configs import lm_1p5b


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  config = lm_1p5b.get_config()
  config.lm.transformer.update(width=2048, layers=48, heads=32, ff=8192)
  if variant == "tiny":
    lm_1p5b.shrink(config)
  elif variant:
    raise ValueError(f"lm_3b.py:{variant}: the only variant is tiny")
  return config
