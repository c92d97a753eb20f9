"""One check of sound at every door: of a file, of a call, of a codec."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from audiogen_jax.core.errors import InputError

# Full scale is 1, and sound may go beyond it; 16-bit integers reach 32,768 and
# 8-bit ones 128.
_LOUDEST = 100.0


def samples(audio: ArrayLike, what: str) -> Float[np.ndarray, "*axes"]:
  """Samples as float32, whatever floats they came as.

  Args:
    audio: An array, full scale at 1.
    what: What to call it in an error.

  Raises:
    InputError: If it is no array of floats, is empty, holds NaN or infinite
      samples, or some far beyond full scale, as integers that were cast do.
  """
  try:
    audio = np.asarray(audio)
  except (ValueError, TypeError):  # rows of different lengths
    raise InputError(f"{what} must be an array of floats in [-1, 1]") from None
  if not jnp.issubdtype(audio.dtype, jnp.floating):
    raise InputError(
      f"{what} must be floats in [-1, 1], got {audio.dtype}: divide integers by"
      " their range, 32768 for int16"
    )
  if not audio.size:
    raise InputError(
      f"{what} is empty, shape {audio.shape}: it needs at least one sample"
    )
  with np.errstate(over="ignore"):  # it is infinite then, and refused below
    audio = audio.astype(np.float32)
  bad = audio.size - np.count_nonzero(np.isfinite(audio))
  if bad:
    raise InputError(
      f"{what} holds {bad} NaN or infinite samples of {audio.size}: repair it"
      " or leave it out"
    )
  loudest = max(-audio.min(), audio.max())
  if loudest > _LOUDEST:
    raise InputError(
      f"{what} reaches ±{loudest:g} where full scale is 1: divide integers by"
      " their range, 32768 for int16"
    )
  return audio
