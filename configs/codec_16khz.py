r"""EnCodec as AudioGen-medium uses it: 16 kHz, 50 Hz, 4 codebooks of 2048.

    python -m audiogen_jax.train --config=configs/codec_16khz.py \
      --workdir=codec --config.data.folders=DATASET

The released recipe (audiocraft, `encodec_audiogen_16khz`): 400,000 updates of
64 crops of one second, on eight GPUs there; no figure of ours yet at this size.
`codec_16khz.py:tiny` is a small codec that two CPU cores train in half an hour;
its figures are in the README.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  config = ConfigDict()
  config.task = "codec"

  config.encodec = ConfigDict()
  config.encodec.sample_rate_hz = 16000
  config.encodec.seanet = ConfigDict()
  config.encodec.seanet.width = 128
  config.encodec.seanet.filters = 64
  config.encodec.seanet.ratios = (8, 5, 4, 2)  # of the decoder: 320 in all
  config.encodec.seanet.lstm_layers = 2
  config.encodec.seanet.causal = False
  config.encodec.seanet.norm = "weight_norm"
  config.encodec.rvq = ConfigDict()
  config.encodec.rvq.codebooks = 4
  config.encodec.rvq.size = 2048
  config.encodec.rvq.width = 128

  config.rvq = ConfigDict()
  config.rvq.decay = 0.99
  config.rvq.revive_below = 0.1  # 0: as published, where nothing is revived
  config.rvq.dropout = False
  config.init_gain = 1.0  # as published; see `shrink`
  config.init_batches = 4  # 12,800 latents for k-means; published: one batch

  config.adversary = ConfigDict()
  config.adversary.kinds = ("msstft",)
  config.adversary.filters = 32
  config.adversary.n_ffts = (1024, 2048, 512, 256, 128)
  config.adversary.loss = "hinge"

  # Shares of the balanced gradient.
  config.weights = ConfigDict()
  config.weights.adversarial = 4.0
  config.weights.feature = 4.0
  config.weights.l1 = 0.1
  config.weights.msspec = 2.0
  config.weights.paper_mel = 0.0
  config.weights.mel = 0.0
  config.weights.si_snr = 0.0

  config.optim = ConfigDict()
  config.optim.lr = 3e-4
  config.optim.b1 = 0.5
  config.optim.b2 = 0.9
  config.optim.schedule = "constant"
  config.optim.warmup = 0
  config.average_decay = 0.99
  config.precision = "default"  # "highest" for exact float32 on accelerators

  config.data = ConfigDict()
  config.data.folders = ""  # --config.data.folders=DATASET[@WEIGHT],...
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.batch = 64
  config.data.duration_s = 1.0
  config.data.min_fraction = 0.5
  config.data.mix = False
  config.data.workers = 4
  # Divides over every mesh that the batch does.
  config.data.eval_batch = config.data.get_oneway_ref("batch")
  config.data.eval_duration_s = 5.0

  # Parameters are small and lie whole on every device; only rows are split.
  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.rules = ConfigDict({"batch": ("data", "fsdp")})

  config.loop = ConfigDict()
  config.loop.steps = 400_000
  config.loop.seed = 0
  config.loop.log_every = 100
  config.loop.eval_every = 5000
  config.loop.save_every = 5000
  config.loop.keep = 2
  config.loop.samples = 4
  config.loop.profile_step = 0
  config.loop.wandb_project = ""

  if variant == "tiny":
    shrink(config)
  elif variant:
    raise ValueError(f"codec_16khz.py:{variant}: the only variant is tiny")
  return config


def shrink(config: ConfigDict) -> None:
  """A small codec and adversary, small batches, a short run."""
  shrink_codec(config.encodec)
  config.adversary.filters = 4
  config.adversary.n_ffts = (512, 128)
  # At 1 the loss stays for hundreds of steps where a constant would bring it.
  config.init_gain = 3**0.5
  config.init_batches = 16
  config.rvq.decay = 0.97  # latents still move fast
  config.optim.lr = 1e-3
  config.data.batch = 8
  config.data.workers = 0
  config.loop.steps = 1500
  config.loop.log_every = 25
  config.loop.eval_every = 250
  config.loop.save_every = 250


def shrink_codec(encodec: ConfigDict) -> None:
  """A small codec; one whose language model is small, too, has this shape."""
  encodec.seanet.filters = 8
  encodec.seanet.width = encodec.rvq.width = 32
  encodec.rvq.size = min(256, encodec.rvq.size)
