r"""A language model of 421 million parameters, "300M" in the published code.

    python -m audiogen_jax.train --config=configs/lm_300m.py \
      --workdir=lm --config.data.folders=DATASET

The recipe of `lm_1p5b.py` at audiocraft's `small` scale.  No figure of ours yet
at full size; those of `:tiny` are in the README:

    python -m audiogen_jax.train --config=configs/lm_300m.py:tiny \
      --workdir=lm --config.codec=CODEC --config.data.folders=DATASET
"""

from ml_collections import ConfigDict

from configs import lm_1p5b


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  config = lm_1p5b.get_config()
  config.lm.transformer.update(width=1024, layers=24, heads=16, ff=4096)
  if variant == "tiny":
    lm_1p5b.shrink(config)
  elif variant:
    raise ValueError(f"lm_300m.py:{variant}: the only variant is tiny")
  return config
