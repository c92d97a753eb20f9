r"""The U-Net of `nano-diffusion`: 6.3 million parameters.

    python -m audiogen_jax.train --config=configs/nano_diffusion.py \
      --workdir=unet --config.data.folders=LATENTS \
      --config.sources.autoencoder=autoencoder/export \
      --config.sources.vocoder=vocoder/export

Texts are read by the small T5 that comes with `nano`.  LATENTS are made once by
`audiogen data tokenize`; `launch/nano_diffusion.sh` makes the whole model.
"""

from ml_collections import ConfigDict

from configs import maa_diffusion, nano_autoencoder, nano_lm, nano_vocoder


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  if variant not in ("", "tiny"):
    raise ValueError(f"nano_diffusion.py:{variant}: the only variant is tiny")
  config = maa_diffusion.get_config(variant)
  config.reads = "t5"
  config.sources = ConfigDict(dict(text="nano"))
  config.t5 = ConfigDict(dict(t5=nano_lm.get_config().text.encoder))
  config.autoencoder = nano_autoencoder.get_config().autoencoder
  config.vocoder = nano_vocoder.get_config().vocoder
  config.unet = ConfigDict(dict(filters=64, heads=4, context_width=128))
  # Both make the most of few steps.
  config.schedule = ConfigDict(dict(predicts="velocity"))
  config.min_snr = 5.0
  config.cached_latents = True
  config.dtype = "float32"
  config.average_every = 1
  config.average_decay = 0.999
  config.window_s = 5.12
  config.optim.update(lr=5e-4, schedule="cosine", warmup=100)
  config.data.update(batch=16, duration_s=5.12, eval_duration_s=5.12, workers=0)
  config.loop.update(
    steps=4000, log_every=25, eval_every=500, save_every=100, samples=4
  )
  if variant == "tiny":
    config.optim.warmup = 10
    config.data.batch = 4
    config.loop.update(steps=20, log_every=5, eval_every=10, save_every=10)
  return config
