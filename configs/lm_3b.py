r"""A language model of 3.26 billion parameters.

    python -m audiogen_jax.train --config=configs/lm_3b.py \
      --workdir=gs://BUCKET/lm --config.data.folders=DATASET

The recipe of `lm_1p5b.py` at audiocraft's `large` scale.  A small model of it
is `lm_300m.py:tiny`.  No figure of ours yet.
"""

from ml_collections import ConfigDict

from configs import lm_1p5b


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, which has no variants."""
  config = lm_1p5b.get_config()
  config.lm.transformer.update(width=2048, layers=48, heads=32, ff=8192)
  if variant:
    raise ValueError(f"lm_3b.py:{variant}: no variants; see lm_300m.py:tiny")
  return config
