"""A sound of which parts were made again, joined to what stays."""

import numpy as np
from jaxtyping import Bool, Float

from audiogen_jax.core.types import Seconds

_FADE_S: Seconds = 0.01  # of what stays, beside each hole


def joined(
  sound: Float[np.ndarray, "b n c"],
  made: Float[np.ndarray, "b n c"],
  keep: Bool[np.ndarray, "b n"],
  rate_hz: int,
) -> Float[np.ndarray, "b n c"]:
  """What stays of `sound`, sample for sample, and `made` where nothing does.

  They are joined by cross-fades of 10 ms or less, which lie in what stays: of
  a hole nothing remains, for it may hold what somebody wants to be rid of.

  Args:
    sound: As it was.
    made: As it became, also where it stays.
    keep: Where the sound stays.
    rate_hz: Sample rate.
  """
  fade = max(round(_FADE_S * rate_hz), 1)
  away = np.minimum(_since(~keep), _since(~keep[:, ::-1])[:, ::-1])
  # A raised cosine: steady, and 1 from the end of the fade on.
  share = (1 - np.cos(np.pi * np.minimum(away / fade, 1))) / 2
  share = share[..., None].astype(np.float32)
  return share * sound + (1 - share) * made


def _since(holes: Bool[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
  """Samples since the last hole; without one, infinitely many."""
  at = np.arange(holes.shape[1], dtype=float)
  last = np.maximum.accumulate(np.where(holes, at, -np.inf), axis=1)
  return at - last
