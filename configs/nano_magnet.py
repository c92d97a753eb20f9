r"""The masked language model of `nano-magnet`, on the codes of `nano`.

    python -m audiogen_jax.train --config=configs/nano_magnet.py \
      --workdir=magnet --config.codec=nano --config.cached_codes=True \
      --config.data.mix=False --config.data.folders=CODES

Smaller than `nano_lm.py`, so that the whole model is 12 MB, and trained for
longer: a step teaches it one of four codebooks.  `launch/nano_magnet.sh` makes
the codes and the whole model.
"""

from ml_collections import ConfigDict

from configs import magnet_1p5b, nano_lm


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  if variant not in ("", "tiny"):
    raise ValueError(f"nano_magnet.py:{variant}: the only variant is tiny")
  config = magnet_1p5b.masked(nano_lm.get_config(variant))
  if not variant:
    config.lm.transformer.update(width=128, layers=4, ff=512)
    config.masking.sampling.guidance = 5.0  # of 3, 5 and 10 heard best
    config.optim.lr = 2e-3
    config.loop.steps = 3000
    config.loop.eval_every = 500
    config.loop.save_every = 250
  return config
