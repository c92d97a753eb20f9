r"""audio-MAGNeT-small: 421 million parameters, "300M" in the published code.

    python -m audiogen_jax.train --config=configs/magnet_300m.py \
      --workdir=magnet --config.data.folders=DATASET

The recipe of `magnet_1p5b.py` at audiocraft's `small` scale.  No figure of ours
yet at full size.  `:tiny` is a small model, for two CPU cores and a codec such
as `codec_16khz.py:tiny` leaves.
"""

from ml_collections import ConfigDict

from configs import lm_300m, magnet_1p5b


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  if variant not in ("", "tiny"):
    raise ValueError(f"magnet_300m.py:{variant}: the only variant is tiny")
  config = magnet_1p5b.masked(lm_300m.get_config(variant))
  if variant == "tiny":
    config.masking.sampling.decoding_steps = (8, 4, 4, 4)
  return config
