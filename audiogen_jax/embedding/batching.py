"""Rows of many lengths -> batches of few shapes, and back.

    12 s, 3 s, 11 s  ->  [12 s, 11 s.], [3 s.]     `.` is padding

A row is padded with zeros behind, to a bucket of its length.  A network is told
the lengths and lets nothing of the padding through, so what comes out for a row
depends neither on its neighbours nor on the bucket.
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.types import bucket

_PARTS = 4  # buckets of length from one power of two to the next

Compute = Callable[
  [Float[np.ndarray, "b n"], Int[np.ndarray, " b"]],
  tuple[Float[Array, "b ..."], ...],
]


def in_batches(
  rows: Sequence[Float[np.ndarray, " _"]],
  compute: Compute,
  *,
  padded: Callable[[int], int],
  most: int,
) -> list[tuple[np.ndarray, ...]]:
  """What `compute` makes of each row, computed in batches of equal lengths.

  Of each padded length there are programs for 1, 2, 4 … rows.

  Args:
    compute: From rows and their lengths to arrays with a row for each.
    padded: The length that a row of this length is padded to.
    most: Samples of a batch at most; of one row there may be more.
  """
  groups = collections.defaultdict(list)
  for index, row in enumerate(rows):
    groups[padded(len(row))].append(index)
  results: dict[int, tuple[np.ndarray, ...]] = {}
  for size, members in sorted(groups.items()):
    several = 1 << max(most // size, 1).bit_length() - 1
    for start in range(0, len(members), several):
      part = members[start : start + several]
      batch = np.zeros((bucket(len(part)), size), np.float32)
      lengths = np.full(len(batch), len(rows[part[0]]), np.int32)
      for place, index in enumerate(part):
        batch[place, : len(rows[index])] = rows[index]
        lengths[place] = len(rows[index])
      made = [np.asarray(array) for array in compute(batch, lengths)]
      for place, index in enumerate(part):
        results[index] = tuple(array[place] for array in made)
  return [results[index] for index in range(len(rows))]


def whole_frames(mel: MelConfig, samples: int, *, least: int) -> int:
  """The bucket of so many samples: so long that it has a bucket of frames.

  Args:
    least: Frames of the smallest bucket.
  """
  frames = (samples - mel.n_fft) // mel.hop + 1
  return mel.n_fft + bucket(frames, least=least, parts=_PARTS) * mel.hop
