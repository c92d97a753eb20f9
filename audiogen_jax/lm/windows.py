"""Sounds longer than a window: what is sampled when, and with which seeds."""

import operator
from collections.abc import Sequence
from typing import Any

from jaxtyping import Int

from audiogen_jax.core import config
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, Seconds, TokenSpec

STRIDE_S: Seconds = 2.0  # by which windows move on, unless said otherwise


def windows(
  known: int, frames: int, window: int, stride: int
) -> list[tuple[int, int, int]]:
  """Windows as (first frame, first unknown frame, end).

  Args:
    known: Frames of the prompt.
    frames: Frames in all, the prompt's included.
    window: Frames of a window.
    stride: Frames by which windows move on.

  Raises:
    InputError: If nothing is left to do.
  """
  if known >= frames:
    raise InputError(
      f"the prompt has {known} frames and {frames} were asked for in all; ask"
      f" for more than {known}"
    )
  at = 0
  if known >= window:  # a prompt longer than a window: its end is what counts
    at = known - (window - stride)
  spans = []
  while known < frames:
    end = min(at + window, frames)
    spans.append((at, known, end))
    at, known = at + stride, end
  return spans


def plan(
  tokens: TokenSpec,
  known: int,
  duration_s: Seconds,
  window_s: Seconds,
  stride_s: Seconds,
) -> list[tuple[int, int, int]]:
  """Windows as (first frame, first unknown frame, end), from durations in s.

  Args:
    tokens: Frame rate and codebooks of the codec.
    known: Frames of the prompt.
    duration_s: Seconds in all, the prompt's included.
    window_s: Seconds of a window.
    stride_s: Seconds by which windows move on.

  Raises:
    InputError: If they are no durations, or do not fit each other.
  """
  values = {"duration": duration_s, "window": window_s, "stride": stride_s}
  frames, window, stride = (
    tokens.some_frames(*item) for item in values.items()
  )
  if frames > window and stride >= window:
    raise InputError(
      f"stride {stride_s} s must be shorter than the window, {window_s} s"
    )
  if known >= frames:
    raise InputError(
      f"duration {duration_s} s is not longer than the sound to continue,"
      f" {known / tokens.frame_rate_hz:g} s; ask for more"
    )
  return windows(known, frames, window, stride)


def seeds(
  seed: int | Sequence[int] | Int[AnyArray, "..."], count: int
) -> list[int]:
  """One seed a prompt.

  Raises:
    InputError: If they are no whole numbers in [0, 2^32), or not as many as
      prompts.
  """
  try:
    first = operator.index(seed)  # arrays without axes, too
    values = [first + i for i in range(count)]
  except TypeError:
    values = [_whole(one) for one in _listed(seed)]
  if len(values) != count:
    raise InputError(
      f"{len(values)} seeds for {count} prompts; give one for each"
    )
  if min(values) < 0 or max(values) >= 2**32:
    raise InputError(
      f"seeds {config.shown(min(values))} … {config.shown(max(values))} must"
      " lie in [0, 4294967295]"
    )
  return values


def _listed(seed: Any) -> list[Any]:
  try:
    return list(seed)
  except TypeError:
    return [seed]


def _whole(seed: Any) -> int:
  try:
    return operator.index(seed)
  except TypeError:
    raise InputError(
      f"seed {config.shown(seed)} must be a whole number, one for all prompts"
      " or a list with one for each"
    ) from None
