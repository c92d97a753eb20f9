r"""Make-An-Audio's U-Net of 160 million parameters, under CLAP's text.

    python -m audiogen_jax.train --config=configs/maa_diffusion.py \
      --workdir=unet --config.model=MODEL --config.data.folders=DATASET

The released recipe: AdamW, 1e-5 times the rows of a batch, warm-up over 10,000
steps, gradients clipped at 1, no EMA, a tenth of the texts left out.  MODEL is
a Make-An-Audio whose autoencoder, text tower and vocoder are taken; with
`--config.start=model` its U-Net is trained on.  No figure of ours yet at full
size.  `:t5` reads texts with T5-large, as in the paper's comparison;
`:tiny` is for two CPU cores and a tiny MODEL.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, `t5` or `tiny`."""
  config = ConfigDict()
  config.task = "diffusion"
  config.optim = ConfigDict(
    dict(
      lr=3.2e-4, b1=0.9, b2=0.999, weight_decay=0.01, warmup=10_000, clip=1.0
    )
  )
  config.data = ConfigDict(
    dict(batch=32, duration_s=9.984, eval_duration_s=9.984, workers=4)
  )
  # Divides over every mesh that the batch does.
  config.data.eval_batch = config.data.get_oneway_ref("batch")
  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.rules = ConfigDict(
    dict(batch=("data", "fsdp"), channels=("tensor",), heads=("tensor",))
  )
  config.rules.ff = ("tensor",)
  config.loop = ConfigDict(
    dict(steps=400_000, log_every=100, eval_every=5000, save_every=5000)
  )
  if variant == "t5":
    config.reads = "t5"
    config.sources = ConfigDict(dict(text="google/t5-v1_1-large"))
    config.t5 = ConfigDict()
    config.t5.t5 = ConfigDict(dict(ff=2816, activation="gated-gelu"))
  elif variant == "tiny":
    config.unet = ConfigDict(
      dict(filters=32, residual_layers=1, attention=(1,), heads=2)
    )
    config.unet.context_width = 32
    config.dtype = "float32"
    config.window_s = 1.024
    config.optim.update(lr=1e-3, warmup=10)
    config.data.update(
      batch=4, duration_s=1.024, eval_duration_s=1.024, workers=0
    )
    config.loop.update(steps=50, log_every=10, eval_every=25, save_every=25)
    config.scale_batches = 2
  elif variant:
    raise ValueError(f"maa_diffusion.py:{variant}: variants are t5 and tiny")
  return config
