r"""The language model of AudioGen-medium: "1.5B", 1.84 billion parameters.

    python -m audiogen_jax.train --config=configs/lm_1p5b.py \
      --workdir=gs://BUCKET/lm --config.data.folders=DATASET

The released recipe (audiocraft, `audiogen_base_16khz`): delay pattern, 10 s,
T5-large, 200,000 updates on 64 GPUs there, each of 256 clips from which its
mixing makes 128 rows; no figure of ours yet.  Plan it for a pod first:

    audiogen plan --config configs/lm_1p5b.py --topology v5e:4x4 \
      --mesh fsdp=16 --batch 128

To fine-tune a published model, for example with adapters:

    --config.init_from=facebook/audiogen-medium --config.lora.rank=16 \
      --config.optim.lr=1e-4 --config.optim.schedule=constant

A small model of this recipe is `lm_300m.py:tiny`.
"""

from ml_collections import ConfigDict

from configs import codec_16khz


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, which has no variants."""
  config = ConfigDict()
  config.task = "lm"

  # What the codec below is: `plan` has no network.
  config.encodec = codec_16khz.get_config().encodec
  config.lm = ConfigDict()
  config.lm.codebooks = config.encodec.rvq.codebooks
  config.lm.size = config.encodec.rvq.size
  config.lm.transformer = ConfigDict()
  config.lm.transformer.width = 1536
  config.lm.transformer.layers = 48
  config.lm.transformer.heads = 24
  config.lm.transformer.ff = 6144
  config.lm.transformer.cross_attention = True
  config.lm.pattern = ConfigDict()
  config.lm.pattern.kind = "delay"
  config.lm.pattern.delays = (0, 1, 2, 3)
  config.lm.text_width = 1024
  config.lm.prepend_text = False

  config.codec = "facebook/audiogen-medium"
  config.cached_codes = False  # True for what `audiogen data tokenize` wrote

  config.text = ConfigDict()
  config.text.source = "t5-large"
  config.text.trained = False
  config.text.length = 64
  config.text.encoder = ConfigDict()
  config.text.encoder.vocabulary = 32128
  config.text.encoder.width = 1024
  config.text.encoder.layers = 24
  config.text.encoder.heads = 16
  config.text.encoder.head_size = 64
  config.text.encoder.ff = 4096
  config.text_dropout = 0.1
  config.dropout_unit = "example"  # "batch" as released
  config.mask_text_padding = True  # False as released
  config.window_s = 10.0
  config.guidance = 3.0  # noted in the export

  config.optim = ConfigDict()
  config.optim.name = "adamw"
  config.optim.lr = 5e-4
  config.optim.b1 = 0.9
  config.optim.b2 = 0.95
  config.optim.weight_decay = 0.1
  config.optim.schedule = "inverse_sqrt"
  config.optim.warmup = 3000
  config.optim.decay = 0
  config.optim.clip = 1.0
  config.accumulate = 1
  config.average_decay = 0.99
  config.average_every = 10
  config.dtype = "bfloat16"
  config.remat = "full"

  config.init_from = ""
  config.lora = ConfigDict()
  config.lora.rank = 0
  config.lora.alpha = 16.0

  config.data = ConfigDict()
  config.data.folders = ""  # --config.data.folders=DATASET[@WEIGHT],...
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.batch = 256
  config.data.duration_s = config.get_ref("window_s")
  config.data.min_fraction = 1.0
  # As configured there, where half the clips of a batch come out of it; here
  # `batch` counts the rows that come out.  The card of the released model says
  # that it had no mixing.
  config.data.mix = True
  config.data.workers = 8
  # Divides over every mesh that the batch does.
  config.data.eval_batch = config.data.get_oneway_ref("batch")
  config.data.eval_duration_s = config.get_ref("window_s")

  config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
  config.rules = ConfigDict()
  config.rules.batch = ("data", "fsdp")
  config.rules.embed = ("fsdp",)
  config.rules.heads = ("tensor",)
  config.rules.ff = ("tensor",)
  config.rules.vocab = ("tensor",)

  config.loop = ConfigDict()
  config.loop.steps = 200_000
  config.loop.seed = 0
  config.loop.log_every = 100
  config.loop.eval_every = 5000
  config.loop.save_every = 1000
  config.loop.keep = 2
  config.loop.samples = 4
  config.loop.profile_step = 0
  config.loop.wandb_project = ""

  if variant:
    raise ValueError(f"lm_1p5b.py:{variant}: no variants; see lm_300m.py:tiny")
  return config
