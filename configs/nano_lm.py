r"""The language model of `nano`: 5.6 million parameters with its text encoder.

    python -m audiogen_jax.train --config=configs/nano_lm.py \
      --workdir=lm --config.codec=codec/export --config.data.folders=DATASET

Text is read byte by byte by a small T5 that is trained along, so nothing but
the model itself is needed.  `launch/nano.sh` makes the whole model.
"""

from ml_collections import ConfigDict

from configs import lm_1p5b, lm_300m, nano_codec


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  config = lm_1p5b.get_config()
  config.lm.transformer.update(width=192, layers=6, heads=4, ff=768)
  config.encodec = nano_codec.get_config().encodec
  config.lm.size = config.encodec.rvq.size
  config.codec = ""
  config.text.source = ""
  config.text.trained = True
  config.text.length = 96
  config.text.encoder.update(
    vocabulary=259, width=128, layers=2, heads=4, head_size=32, ff=512
  )
  config.lm.text_width = 128
  config.optim.lr = 1.5e-3
  config.optim.schedule = "cosine"
  config.optim.warmup = 100
  config.dtype = "float32"
  config.remat = "none"
  config.window_s = 5.0
  config.guidance = 5.0  # of 1, 3 and 5 the one heard best
  config.data.batch = 16
  config.data.workers = 0
  config.loop.steps = 1500
  config.loop.log_every = 25
  config.loop.eval_every = 250
  config.loop.save_every = 100
  config.loop.samples = 4
  if variant == "tiny":
    lm_300m.shrink(config)
    config.optim.schedule = "constant"
  elif variant:
    raise ValueError(f"nano_lm.py:{variant}: the only variant is tiny")
  return config
