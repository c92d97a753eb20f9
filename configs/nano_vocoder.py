r"""The vocoder of `nano-diffusion`: a HiFi-GAN of 0.9 million parameters.

    python -m audiogen_jax.train --config=configs/nano_vocoder.py \
      --workdir=vocoder --config.data.folders=DATASET

The second, small shape of its authors (Kong et al., 2020, table 5), on the mel
spectrograms of Make-An-Audio; `launch/nano_diffusion.sh` makes the whole model.
"""

from ml_collections import ConfigDict

from configs import maa_vocoder


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  config = maa_vocoder.get_config("hifigan+tiny" if variant else "hifigan")
  config.average_every = 1
  config.average_decay = 0.998
  if variant == "tiny":
    return config
  if variant:
    raise ValueError(f"nano_vocoder.py:{variant}: the only variant is tiny")
  config.vocoder.filters = 128
  config.adversary.filters = 8
  config.optim.update(lr=5e-4, schedule="cosine", warmup=100)
  config.data.update(batch=8, eval_duration_s=2.048, workers=0)
  config.loop.update(
    steps=4000, log_every=25, eval_every=250, save_every=100, samples=2
  )
  return config
