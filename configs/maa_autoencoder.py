r"""Make-An-Audio's mel autoencoder of 69 million parameters.

    python -m audiogen_jax.train --config=configs/maa_autoencoder.py \
      --workdir=autoencoder --config.data.folders=DATASET

The released recipe: L1 summed over a spectrogram, a KL divergence of 1e-6, a
PatchGAN that counts after 25,000 steps, R1 at each; Adam, 4.5e-6 times the rows
of a batch.  Products are bfloat16; as released, `--config.dtype=float32`.
`:paper` adds the paper's multi-window discriminator and looks at R1 every 16
steps.  No figure of ours yet at full size.  `:tiny` is for two CPU cores.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, `paper` or `tiny`."""
  config = ConfigDict()
  config.task = "autoencoder"
  config.optim = ConfigDict(dict(lr=1.44e-4, b1=0.5, b2=0.9))
  config.dtype = "bfloat16"
  config.data = ConfigDict(
    dict(batch=32, duration_s=9.984, eval_duration_s=9.984, workers=4)
  )
  # Divides over every mesh that the batch does.
  config.data.eval_batch = config.data.get_oneway_ref("batch")
  # Parameters lie whole on every device; only rows are split.
  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.rules = ConfigDict({"batch": ("data", "fsdp")})
  config.loop = ConfigDict(
    dict(steps=400_000, log_every=100, eval_every=5000, save_every=5000)
  )
  if variant == "paper":
    config.adversary = ConfigDict(dict(kinds=("patch", "window")))
    config.r1_every = 16
  elif variant == "tiny":
    config.autoencoder = ConfigDict(
      dict(filters=32, multipliers=(1, 1, 2), residual_layers=1, attention=(2,))
    )
    config.adversary = ConfigDict(
      dict(kinds=("patch", "window"), filters=8, window_filters=8)
    )
    config.adversary.windows = (16, 32)
    config.adversary_start = 25
    config.r1_every = 4
    config.dtype = "float32"
    config.optim.update(lr=1e-3)
    config.data.update(
      batch=4, duration_s=1.024, eval_duration_s=1.024, workers=0
    )
    config.loop.update(steps=50, log_every=10, eval_every=25, save_every=25)
  elif variant:
    raise ValueError(
      f"maa_autoencoder.py:{variant}: the variants are paper and tiny"
    )
  return config
