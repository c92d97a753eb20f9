r"""The language models of AudioGen's paper: "285M" and "1B".

    python -m audiogen_jax.train --config=configs/paper_lm.py:1b \
      --workdir=gs://BUCKET/lm --config.data.folders=DATASET \
      --config.codec=CODEC

Variants, joined by a plus: `1b` for the large one; `2` and `4` for the parallel
streams of `paper_codec.py:2` and `:4`; `tiny`.  For example
`paper_lm.py:1b+2`.  CODEC is the export of `paper_codec.py`.

Confirmed: one stream at 32 x, 2048 entries (the names of the folders of the
paper's page of samples, `32factor_1streams_2048codesPerBook`); T5-large, and
200,000 steps on 128 A100s for the large model (quoted from the paper by
aiportalx.com/meta-ai/audiogen).  Remembered, and not confirmed: all else, which
is layers, widths, heads, T5-base, clips of five seconds, Adam's betas, learning
rate, warm-up, batch, and that text is both prepended and looked at.

Parameters (tests/test_lm_task.py): 230M and 951M; with their text encoders,
340M and 1,285M.  Without cross-attention and with text encoders, 283M and
1,049M: that is nearer to the names, so cross-attention in the paper's models is
doubtful.  `--config.lm.transformer.cross_attention=False` leaves it out.
"""

from ml_collections import ConfigDict

from configs import lm_1p5b, lm_300m, paper_codec


def get_config(variant: str = "") -> ConfigDict:
  """The small model of one stream; see the head of this file."""
  words = set(filter(None, variant.split("+")))
  streams = words - {"tiny", "1b"} or {"1"}
  if len(streams) > 1 or not streams <= {"1", "2", "4"}:
    raise ValueError(f"paper_lm.py:{variant}: variants are 1b, 2, 4 and tiny")
  config = lm_1p5b.get_config()
  config.encodec = paper_codec.get_config(*streams).encodec
  config.lm.codebooks = config.encodec.rvq.codebooks
  config.lm.pattern.kind = "parallel"
  config.lm.pattern.delays = ()
  config.lm.prepend_text = True
  config.codec = ""
  if "1b" in words:
    config.lm.transformer.update(width=1280, layers=36, heads=20, ff=5120)
  else:
    config.lm.transformer.update(width=768, layers=24, heads=16, ff=3072)
    config.text.source = "t5-base"
    config.text.encoder.update(width=768, layers=12, heads=12, ff=3072)
    config.lm.text_width = 768
  config.optim.b2 = 0.98
  config.optim.weight_decay = 0.0
  config.window_s = 5.0
  if "tiny" in words:
    lm_300m.shrink(config)
    config.window_s = 1.0
  return config
