r"""The masked language model of `nano-magnet`, on the codes of `nano`.

    python -m audiogen_jax.train --config=configs/nano_magnet.py \
      --workdir=magnet --config.codec=codec/export \
      --config.data.folders=DATASET

`nano_lm.py` but for what is trained: spans of one codebook at a time.
"""

from ml_collections import ConfigDict

from configs import magnet_1p5b, nano_lm


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  if variant not in ("", "tiny"):
    raise ValueError(f"nano_magnet.py:{variant}: the only variant is tiny")
  return magnet_1p5b.masked(nano_lm.get_config(variant))
