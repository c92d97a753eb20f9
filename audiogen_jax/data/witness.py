"""By which codec were these codes made?  What it made of one test sound tells.

Weights may be stored in another format or type, and processors round
differently, so neither files nor hashes of weights can be compared.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core.errors import InputError

KEY = "codec"  # of a dataset's settings
_ALIKE = (
  0.9  # of the test sound's codes; a code in hundreds may round elsewhere
)


def of(codec: Encodec) -> str:
  """The codec's codes of the test sound, codebook after codebook."""
  heard = sound(codec.config.sample_rate_hz, codec.config.channels)
  codes = codec.encode(heard[None])[0]
  return " ".join(map(str, codes.ravel()))


def check(codec: Encodec, settings: Mapping[str, Any], what: str) -> None:
  """Raises InputError unless the codec made the codes of a dataset.

  Args:
    settings: Settings of the dataset.
    what: Its name, for messages.
  """
  theirs = str(settings.get(KEY, "")).split()
  ours = of(codec).split()
  if len(theirs) != len(ours):
    raise InputError(
      f"{what} does not say by which codec its codes were made: make them again"
      " with audiogen data tokenize"
    )
  share = np.mean([a == b for a, b in zip(theirs, ours, strict=True)])
  if share < _ALIKE:
    raise InputError(
      f"the codes of {what} were made by another codec: of a test sound"
      f" {share:.0%} of the codes agree; name that codec, or make the codes"
      " again with audiogen data tokenize"
    )


def sound(rate_hz: int, channels: int) -> Float[np.ndarray, "n c"]:
  """A second of noise that comes and goes, over a rising tone."""
  time = np.arange(rate_hz, dtype=np.float64)[:, None] / rate_hz
  noise = np.random.default_rng(0).random((rate_hz, channels))
  swell = 0.1 + 0.1 * np.sin(2 * np.pi * 3 * time)
  tone = 0.1 * np.sin(2 * np.pi * (200 + 600 * time) * time)
  return (swell * (noise - 0.5) + tone).astype(np.float32)
