r"""BigVGAN of 112 million parameters, as Make-An-Audio has it at 16 kHz.

    python -m audiogen_jax.train --config=configs/maa_vocoder.py \
      --workdir=vocoder --config.data.folders=DATASET

Crops of 8192 samples, 64 a step.  The learning rate falls to 0.999 of itself in
2,500 steps, BigVGAN's second version's rate; the first falls so in an epoch:
`--config.optim.decay=STEPS` has the steps of one.  With
`--config.start=model --config.model=SOURCE` a vocoder is trained on.
`:hifigan` is the HiFi-GAN of its first release, `:tiny` and `:hifigan+tiny` are
for two CPU cores.  No figure of ours yet at full size.
"""

from ml_collections import ConfigDict

_SEGMENT_S = 8192 / 16_000


def get_config(variant: str = "") -> ConfigDict:
  """BigVGAN; `hifigan`, and `tiny` of either."""
  words = set(filter(None, variant.split("+")))
  if not words <= {"hifigan", "tiny"}:
    raise ValueError(f"maa_vocoder.py:{variant}: variants are hifigan and tiny")
  config = ConfigDict()
  config.task = "vocoder"
  config.vocoder = ConfigDict()
  config.adversary = ConfigDict(dict(kinds=("mpd", "mrd"), filters=32))
  config.adversary.update(loss="mse", slope=0.1, summed=True)
  config.optim = ConfigDict(dict(lr=1e-4, b1=0.8, b2=0.99, weight_decay=0.01))
  config.optim.update(schedule="exponential", decay=2500, decay_rate=0.999)
  config.optim.clip = 1000.0
  config.data = ConfigDict(dict(batch=64, duration_s=_SEGMENT_S, workers=4))
  # Divides over every mesh that the batch does.
  config.data.eval_batch = config.data.get_oneway_ref("batch")
  config.data.eval_duration_s = 4.096
  config.loop = ConfigDict(
    dict(steps=1_000_000, log_every=100, eval_every=5000, save_every=5000)
  )
  # Parameters lie whole on every device; only rows are split.
  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.rules = ConfigDict({"batch": ("data", "fsdp")})
  if "hifigan" in words:
    config.vocoder.update(filters=512, activation="leaky_relu")
    config.vocoder.update(ratios=(8, 8, 2, 2), ratio_kernels=(16, 16, 4, 4))
    config.adversary.kinds = ("mpd", "hifi_msd")
    config.optim.update(lr=2e-4, clip=0.0)
    config.data.batch = 24
  if "tiny" in words:
    _shrink(config)
    if "hifigan" in words:
      config.adversary.filters = 4  # the fewest of hifi_msd
  return config


def _shrink(config: ConfigDict) -> None:
  """A small generator and adversary, small batches, a short run."""
  config.vocoder.update(filters=64, ratios=(8, 8, 4), ratio_kernels=(16, 16, 8))
  config.vocoder.update(kernels=(3, 7), dilations=((1, 3), (1, 3)))
  config.vocoder.paired = False
  config.adversary.filters = 2
  config.adversary.periods = (2, 5)
  config.adversary.rates = 2
  config.adversary.resolutions = ((1024, 120, 600), (512, 50, 240))
  config.optim.lr = 1e-3
  config.data.update(batch=4, eval_duration_s=1.024, workers=0)
  config.loop.update(steps=50, log_every=5, eval_every=25, save_every=25)
