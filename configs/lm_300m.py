r"""A language model of 421 million parameters, "300M" in the published code.

    python -m audiogen_jax.train --config=configs/lm_300m.py \
      --workdir=lm --config.data.folders=DATASET

The recipe of `lm_1p5b.py` at audiocraft's `small` scale.  No figure of ours yet
at full size.  `:tiny`, whose figures are in the README, is a small model, for
two CPU cores and a codec such as `codec_16khz.py:tiny` leaves:

    python -m audiogen_jax.train --config=configs/lm_300m.py:tiny \
      --workdir=lm --config.codec=WORKDIR/export --config.data.folders=DATASET
"""

from ml_collections import ConfigDict

from configs import codec_16khz, lm_1p5b


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  config = lm_1p5b.get_config()
  config.lm.transformer.update(width=1024, layers=24, heads=16, ff=4096)
  if variant == "tiny":
    shrink(config)
  elif variant:
    raise ValueError(f"lm_300m.py:{variant}: the only variant is tiny")
  return config


def shrink(config: ConfigDict) -> None:
  """A small model with a text encoder of its own, a short run."""
  config.lm.transformer.update(width=128, layers=4, heads=4, ff=512)
  codec_16khz.shrink_codec(config.encodec)
  config.lm.size = config.encodec.rvq.size
  config.codec = ""
  config.text.source = ""
  config.text.trained = True
  config.text.encoder.update(
    vocabulary=259, width=64, layers=2, heads=2, head_size=32, ff=128
  )
  config.lm.text_width = 64
  config.optim.lr = 2e-3
  config.optim.warmup = 50
  config.dtype = "float32"
  config.remat = "none"
  config.window_s = 2.5
  config.data.batch = 16
  config.data.workers = 0
  config.data.mix = False
  config.loop.steps = 1000
  config.loop.log_every = 25
  config.loop.eval_every = 250
  config.loop.save_every = 250
  config.loop.samples = 2
