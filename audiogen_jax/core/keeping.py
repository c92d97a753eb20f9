"""Which frames of a sound stay when parts of it are made again.

A masked model can keep any frames and make the others: those of a hole, or a
random share of all.  `keep` is True where a frame stays.

    outside:    T T T T T . . . . . T T T T      one hole, in seconds
    scattered:  T . . . T T T T . . . . T T      spans, drawn from a seed
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds

_SLACK = 1e-6  # of a frame: 2.3 s at 50 Hz are 115 frames, not 114.99…
_DRAW = 1  # beside a seed, so that other draws of it are others


def outside(
  from_s: Seconds, to_s: Seconds, *, frames: int, frame_rate_hz: float
) -> Bool[np.ndarray, " t"]:
  """Keeps all of a sound but a hole: the frames that it touches.

  Args:
    from_s: Where the hole begins, in seconds.
    to_s: Where it ends.
    frames: Frames of the sound.
    frame_rate_hz: Frames a second.

  Raises:
    InputError: If the hole is empty, all of the sound, or lies outside of it.
  """
  length_s = frames / frame_rate_hz
  for value in (from_s, to_s):
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
      raise InputError(
        f"the hole's end {shown(value)} must be a number of seconds, 0 to"
        f" {length_s:g}"
      )
  hole = f"the hole from {from_s:g} s to {to_s:g} s"
  if from_s >= to_s:
    raise InputError(f"{hole} is empty; let it end after it begins")
  last = to_s * frame_rate_hz - _SLACK
  if from_s < 0 or last > frames:
    raise InputError(
      f"{hole} lies outside of the sound; choose it from 0 s to {length_s:g} s"
    )
  first = math.floor(from_s * frame_rate_hz + _SLACK)
  at = np.arange(frames)
  keep = (at < first) | (at >= math.ceil(last))
  if not keep.any():
    raise InputError(
      f"{hole} is all of the sound's {frames} frames; leave some of it, or"
      " generate a new one"
    )
  return keep


def checked(keep: Any, rows: int, frames: int) -> Bool[np.ndarray, "b t"]:
  """What is to stay of each row, once it is found to be in order.

  Args:
    keep: Of shape `t`, for all rows, or `b t`.
    rows: How many sounds there are.
    frames: Frames of each.

  Raises:
    InputError: If it is of another shape or type, or keeps all frames of a row,
      or none.
  """
  keep = np.asarray(keep)
  if keep.dtype != bool or keep.shape not in ((frames,), (rows, frames)):
    raise InputError(
      f"keep must be bool of shape [{frames}], or [{rows}, {frames}]: one value"
      f" a frame; got {keep.dtype} of shape {list(keep.shape)}"
    )
  keep = np.broadcast_to(keep, (rows, frames))
  for row, count in enumerate(np.count_nonzero(keep, axis=1).tolist()):
    if count == frames:
      raise InputError(
        f"all {frames} frames of sound {row} are kept; leave some to be made"
      )
    if count == 0:
      raise InputError(
        f"none of the {frames} frames of sound {row} is kept; generate a new"
        " one instead"
      )
  return keep


def scattered(
  seeds: Sequence[int], amount: float | int, *, frames: int, span: int
) -> Bool[np.ndarray, "b t"]:
  """Keeps all but a random share of the frames, which lies in spans.

  A row depends on its seed alone, and what a smaller share leaves out a larger
  one leaves out, too.

  Args:
    seeds: One a row, in [0, 2^32).
    amount: The share that is left out, in (0, 1]; a span at least.
    frames: Frames of each row.
    span: Frames of a span; spans may overlap.

  Raises:
    InputError: For an amount that is out of range.
  """
  check_amount(amount)
  left_out = min(max(round(amount * frames), span), frames)
  keep = np.ones((len(seeds), frames), bool)
  for row, seed in enumerate(seeds):
    # On the host: a program would be compiled for each length of a sound.
    random = np.random.default_rng((seed, _DRAW))
    # Spans begin anywhere, also before the first frame: no frame is rarer.
    order = random.random(frames + span - 1)
    of_frame = np.lib.stride_tricks.sliding_window_view(order, span)
    first = np.argsort(of_frame.min(axis=1), kind="stable")
    keep[row, first[:left_out]] = False
  return keep


def check_amount(amount: Any) -> None:
  """Raises InputError for a share that is not in (0, 1]."""
  if not isinstance(amount, numbers.Real) or not 0 < amount <= 1:
    raise InputError(
      f"amount {shown(amount)} must lie in (0, 1]: the share of the sound that"
      " is made again"
    )
