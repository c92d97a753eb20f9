"""Codebook patterns: which codebooks a language model writes at which step.

The K integers of a frame depend on each other.  A pattern (MusicGen, Copet et
al., 2023, §2.2) lays the K x T codes out over S steps; each step of the model
writes one column.  The layout is a table; everything else follows from it.
"""

import dataclasses
import functools
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray


@dataclasses.dataclass(frozen=True)
class Pattern:
  """How codes are laid out.  Drawn for K = 3, T = 3; `.` is the special token.

      delay (0, 1, 2)     parallel     unroll                  coarse_first
      . 0 1 2 . .         . 0 1 2      . 0 . . 1 . . 2 . .     . 0 1 2 . . .
      . . 0 1 2 .         . 0 1 2      . . 0 . . 1 . . 2 .     . . . . 0 1 2
      . . . 0 1 2         . 0 1 2      . . . 0 . . 1 . . 2     . . . . 0 1 2

  Attributes:
    kind: The family.
    delays: `delay`, `unroll`: steps that each codebook waits; never decreasing
      for `delay`.  `coarse_first`: those of all codebooks but the first.  Empty
      means 0, 1, 2, … for `delay` and no delay for the others.
    flattening: `unroll`: the inner step at which each codebook is written;
      equal numbers are written together.  Empty means 0, 1, 2, …
    flatten_first: `delay`, `parallel`: this many frames are unrolled first.
    empty_initial: `delay`, `parallel`: further empty steps after the first.
  """

  kind: Literal["delay", "parallel", "unroll", "coarse_first"] = "delay"
  delays: tuple[int, ...] = ()
  flattening: tuple[int, ...] = ()
  flatten_first: int = 0
  empty_initial: int = 0


@dataclasses.dataclass(frozen=True)
class Layout:
  """A pattern for so many codebooks and frames.

  Attributes:
    frame: The frame that each cell shows; -1 for the special token.
    step: The step at which each code is written.
    trained: Steps that training feeds: up to the last one that no codebook has
      left already, T + 1 for `delay`.
  """

  frame: Int[np.ndarray, "k s"]
  step: Int[np.ndarray, "k t"]
  trained: int


@functools.lru_cache(maxsize=64)
def layout(pattern: Pattern, codebooks: int, frames: int) -> Layout:
  """Lays out `frames` frames of `codebooks` codes.

  Raises:
    InputError: If the pattern's lists do not have one entry a codebook, or a
      number is negative.
  """
  alone = pattern.flatten_first, pattern.empty_initial
  if min(*pattern.delays, *pattern.flattening, *alone) < 0:
    raise InputError(f"{pattern} must not hold negative numbers")
  columns = _COLUMNS[pattern.kind](pattern, codebooks, frames)
  # The first step is empty: it is what the model starts from.
  columns = [[], *columns]
  frame = np.full((codebooks, len(columns)), -1, np.int32)
  step = np.full((codebooks, frames), -1, np.int32)
  beyond = 0
  for s, cells in enumerate(columns):
    for t, k in cells:
      beyond = max(beyond, t + 1 - frames)
      if t < frames:
        frame[k, s], step[k, t] = t, s
  return Layout(frame, step, len(columns) - beyond)


def first_step(layout: Layout, prompt_frames: int) -> int:
  """The first step that writes a code of frame `prompt_frames`."""
  return int(layout.step[:, prompt_frames].min())


def interleave(
  codes: Int[AnyArray, "b k t"], frame: Int[np.ndarray, "k s"], special: int
) -> Int[AnyArray, "b k s"]:
  """Codes -> steps, `special` in the cells without a frame.

  Works on numpy and on JAX arrays alike; `deinterleave` is the exact inverse.

  Args:
    codes: Codes in [0, special).
    frame: `Layout.frame`, or its first columns.
    special: The token of empty cells; equals the codebook size.
  """
  xp = codes.__array_namespace__()
  book = np.arange(codes.shape[1])[:, None]
  cells = codes[:, book, np.maximum(frame, 0)]
  empty = xp.full_like(cells, special)
  return xp.where(xp.asarray(frame < 0)[None], empty, cells)


def deinterleave(
  steps: Shaped[AnyArray, "b k s *v"], step: Int[np.ndarray, "k t"]
) -> Shaped[AnyArray, "b k t *v"]:
  """Steps -> codes, or logits and whatever else there is at each step."""
  return steps[:, np.arange(steps.shape[1])[:, None], step]


def valid(layout: Layout) -> Bool[np.ndarray, "k t"]:
  """Which codes training predicts: those whose step is before `trained`."""
  return layout.step < layout.trained


def _of_each(values: tuple[int, ...], default: range, name: str) -> list[int]:
  """`values`, or the default; raises unless there is one a codebook."""
  if values and len(values) != len(default):
    raise InputError(
      f"pattern.{name} = {list(values)} must have {len(default)} entries"
    )
  return list(values or default)


def _delay(pattern: Pattern, codebooks: int, frames: int) -> list:
  default = range(codebooks)
  if pattern.kind == "parallel":
    delays = [0] * codebooks
  else:
    delays = _of_each(pattern.delays, default, "delays")
  if sorted(delays) != delays:
    raise InputError(f"pattern.delays = {delays} must never decrease")
  first = min(frames, pattern.flatten_first)
  columns = [[] for _ in range(pattern.empty_initial)]
  columns += [[(t, k)] for t in range(first) for k in range(codebooks)]
  for s in range(pattern.flatten_first, frames + max(delays)):
    shown = [(s - delay, k) for k, delay in enumerate(delays)]
    columns.append([(t, k) for t, k in shown if t >= pattern.flatten_first])
  return columns


def _unroll(pattern: Pattern, codebooks: int, frames: int) -> list:
  inner = _of_each(pattern.flattening, range(codebooks), "flattening")
  delays = list(pattern.delays) or [0] * codebooks
  delays = _of_each(tuple(delays), range(codebooks), "delays")
  total = frames + max(delays)
  timed = []
  for t in range(total):
    for i in range(max(inner) + 1):
      books = [k for k in range(codebooks) if inner[k] == i]
      waits = {delays[k] for k in books} or {0}
      if len(waits) > 1:
        raise InputError(
          f"pattern.delays = {delays} must be equal for codebooks {books},"
          " which are written together"
        )
      at = t + waits.pop()
      if at < total:
        timed.append((at, [(t, k) for k in books]))
  # Ties go to empty steps, then to earlier frames, then to lower codebooks.
  return [cells for _, cells in sorted(timed)]


def _coarse_first(pattern: Pattern, codebooks: int, frames: int) -> list:
  delays = list(pattern.delays) or [0] * (codebooks - 1)
  delays = _of_each(tuple(delays), range(codebooks - 1), "delays")
  columns = [[(t, 0)] for t in range(frames)]
  for s in range(frames + max(delays, default=0)):
    shown = [(s - delay, k + 1) for k, delay in enumerate(delays)]
    columns.append([(t, k) for t, k in shown if t >= 0])
  return columns


_COLUMNS = {
  "delay": _delay,
  "parallel": _delay,
  "unroll": _unroll,
  "coarse_first": _coarse_first,
}
