r"""EnCodec at 24 kHz, causal, for streaming: 75 Hz, 32 codebooks of 1024.

    python -m audiogen_jax.train --config=configs/codec_24khz_causal.py \
      --workdir=codec --config.data.folders=DATASET

After audiocraft's `encodec_base_24khz`; any number of the first codebooks
makes a codec (1.5 kbit/s with two, 24 with all).  `:tiny` is small and short.
No figure of ours yet.
"""

from ml_collections import ConfigDict

from configs import codec_16khz


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  config = codec_16khz.get_config()
  config.encodec.sample_rate_hz = 24000
  config.encodec.seanet.filters = 32
  config.encodec.seanet.causal = True
  config.encodec.rvq.codebooks = 32
  config.encodec.rvq.size = 1024
  config.rvq.dropout = True
  if variant == "tiny":
    codec_16khz.shrink(config)
    config.encodec.rvq.codebooks = 8
  elif variant:
    raise ValueError(f"codec_24khz_causal.py:{variant}: the only one is tiny")
  return config
