r"""audio-MAGNeT-medium: "1.5B", 1.84 billion parameters, all frames at once.

    python -m audiogen_jax.train --config=configs/magnet_1p5b.py \
      --workdir=gs://BUCKET/magnet --config.data.folders=DATASET

The released recipe (audiocraft, `audio_magnet_16khz`) is that of AudioGen's
language model, `lm_1p5b.py`, but for what is trained: spans of three frames of
one codebook, drawn for each batch (Ziv et al., 2024, §3).  200,000 updates of
256 clips there, from which its mixing makes 128 rows; no figure of ours yet.

To fine-tune a published model:

    --config.init_from=facebook/audio-magnet-medium --config.optim.lr=1e-4 \
      --config.optim.schedule=constant

A small model of this recipe is `magnet_300m.py:tiny`.
"""

from ml_collections import ConfigDict

from configs import lm_1p5b


def get_config(variant: str = "") -> ConfigDict:
  """The released recipe, which has no variants."""
  if variant:
    raise ValueError(
      f"magnet_1p5b.py:{variant}: no variants; see magnet_300m.py:tiny"
    )
  return masked(lm_1p5b.get_config())


def masked(config: ConfigDict) -> ConfigDict:
  """The recipe of an autoregressive model, made one of a masked model."""
  config.task = "magnet"
  del config.guidance  # a masked model anneals it: see masking.sampling
  config.lm.pattern.kind = "parallel"
  config.lm.pattern.delays = ()
  if config.codec:
    config.codec = config.codec.replace("audiogen", "audio-magnet")
  config.masking = ConfigDict()
  config.masking.context = 5  # frames to either side, of all codebooks but one
  config.masking.span = 3
  config.masking.sampling = ConfigDict()
  # Of samples, and noted in the export.
  config.masking.sampling.decoding_steps = (
    20,
    *[10] * (config.lm.codebooks - 1),
  )
  return config
