r"""The codec of `nano`: 16 kHz, 50 Hz, 4 codebooks of 1024, for two CPU cores.

    python -m audiogen_jax.train --config=configs/nano_codec.py \
      --workdir=codec --config.data.folders=DATASET

Trained without an adversary, for which there is no time on a CPU.
`launch/nano.sh` makes the whole model.
"""

from ml_collections import ConfigDict

from configs import codec_16khz


def get_config(variant: str = "") -> ConfigDict:
  """The recipe, or `tiny`."""
  config = codec_16khz.get_config()
  config.encodec.seanet.filters = 16
  config.encodec.seanet.width = config.encodec.rvq.width = 64
  config.encodec.seanet.lstm_layers = 1
  config.encodec.rvq.size = 1024
  config.rvq.decay = 0.98
  config.init_gain = 3**0.5
  config.init_batches = 16
  config.adversary.kinds = ()
  config.weights.l1 = 0.3
  config.optim.lr = 1e-3
  config.optim.schedule = "cosine"
  config.optim.warmup = 50
  config.data.batch = 8
  config.data.workers = 0
  config.loop.steps = 4000
  config.loop.log_every = 25
  config.loop.eval_every = 500
  config.loop.save_every = 250
  if variant == "tiny":
    codec_16khz.shrink(config)
    config.optim.schedule = "constant"
  elif variant:
    raise ValueError(f"nano_codec.py:{variant}: the only variant is tiny")
  return config
