r"""EnCodec as MusicGen uses it: 32 kHz, 50 Hz, 4 codebooks of 2048.

    python -m audiogen_jax.train --config=configs/codec_32khz.py \
      --workdir=codec --config.data.folders=DATASET

After audiocraft's `encodec_musicgen_32khz`.  `:tiny` is small and short.  No
figure of ours yet.
"""

from ml_collections import ConfigDict

from configs import codec_16khz


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, or `tiny`."""
  config = codec_16khz.get_config()
  config.encodec.sample_rate_hz = 32000
  config.encodec.seanet.ratios = (8, 5, 4, 4)
  if variant == "tiny":
    codec_16khz.shrink(config)
  elif variant:
    raise ValueError(f"codec_32khz.py:{variant}: the only variant is tiny")
  return config
