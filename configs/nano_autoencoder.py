r"""The mel autoencoder of `nano-diffusion`: 3.0 million parameters.

    python -m audiogen_jax.train --config=configs/nano_autoencoder.py \
      --workdir=autoencoder --config.data.folders=DATASET

The shape and losses of Make-An-Audio's, small enough for two CPU cores;
`launch/nano_diffusion.sh` makes the whole model.
"""

from ml_collections import ConfigDict

from configs import maa_autoencoder


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  if variant not in ("", "tiny"):
    raise ValueError(f"nano_autoencoder.py:{variant}: the only variant is tiny")
  config = maa_autoencoder.get_config(variant)
  config.autoencoder = ConfigDict(
    dict(
      filters=32, multipliers=(1, 1, 2, 4), residual_layers=1, attention=(3,)
    )
  )
  config.adversary = ConfigDict(dict(kinds=("patch",), filters=16))
  config.adversary_start = 1500
  config.r1_every = 16
  config.average_every = 1
  config.average_decay = 0.998
  config.dtype = "float32"
  config.optim = ConfigDict(
    dict(lr=5e-4, b1=0.5, b2=0.9, schedule="cosine", warmup=100)
  )
  config.data = ConfigDict(
    dict(batch=4, duration_s=1.28, eval_duration_s=4.992, workers=0)
  )
  config.data.eval_batch = 8
  config.loop = ConfigDict(
    dict(steps=4000, log_every=25, eval_every=250, save_every=100)
  )
  if variant == "tiny":
    config.optim.warmup = 10
    config.loop.update(steps=20, log_every=5, eval_every=10, save_every=10)
  return config
