r"""The codec of AudioGen's paper: 16 kHz, 500 Hz, one codebook of 2048 x 128.

    python -m audiogen_jax.train --config=configs/paper_codec.py \
      --workdir=codec --config.data.folders=DATASET

Variants, joined by a plus: `2` and `4` for the codecs of two streams at 64 x
and four at 128 x, `tiny` for a small one and a short run, for example
`paper_codec.py:4+tiny`.

Confirmed of the paper (Kreuk et al., 2023): 32 x down-sampling, 2048 entries of
128, ELU and layer norm.  Remembered, and not confirmed: the strides, the
variants and their strides, 32 filters, and that the weights of the losses are
those of EnCodec (Défossez et al., 2022, §3.4).  The length of training is that
of `codec_16khz.py`.  No figure of ours yet.
"""

from ml_collections import ConfigDict

from configs import codec_16khz

# Of the decoder; encoders go through them from the end.
_RATIOS = {
  1: (4, 2, 2, 2),  # 32; not confirmed
  2: (4, 4, 2, 2),  # 64; not confirmed
  4: (4, 4, 4, 2),  # 128; not confirmed
}


def get_config(variant: str = "") -> ConfigDict:
  """One stream; `2` or `4` of them; and `tiny`."""
  words = set(filter(None, variant.split("+")))
  streams = words - {"tiny"} or {"1"}
  if len(streams) > 1 or not streams <= {"1", "2", "4"}:
    raise ValueError(f"paper_codec.py:{variant}: variants are 2, 4 and tiny")
  config = codec_16khz.get_config()
  count = int(*streams)
  config.encodec.seanet.filters = 32
  config.encodec.seanet.ratios = _RATIOS[count]
  config.encodec.seanet.norm = "layer_norm"
  config.encodec.rvq.codebooks = count
  config.weights.adversarial = 3.0
  config.weights.feature = 3.0
  config.weights.l1 = 0.1
  config.weights.msspec = 0.0
  config.weights.paper_mel = 1.0
  if "tiny" in words:
    codec_16khz.shrink(config)
    config.init_gain = 1.0  # layer norms make up for it
  return config
