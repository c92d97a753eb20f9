"""Sounds longer than a window: what is sampled when."""

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds, TokenSpec

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
