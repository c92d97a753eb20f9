"""Layouts as the published code lays them out, and the way back."""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import patterns
from audiogen_jax.lm.patterns import Pattern

# Pattern, frames, steps that training feeds, and rows of codebooks over steps:
# numbers are frames, S is the special token.
DRAWN = {
  "delay": (
    Pattern("delay", delays=(0, 1, 2, 3)),
    6,
    7,
    """
    S 0 1 2 3 4 5 S S S
    S S 0 1 2 3 4 5 S S
    S S S 0 1 2 3 4 5 S
    S S S S 0 1 2 3 4 5
    """,
  ),
  "delay, by default": (
    Pattern(),
    3,
    4,
    """
    S 0 1 2 S S
    S S 0 1 2 S
    S S S 0 1 2
    """,
  ),
  "delay, two lines": (
    Pattern("delay", delays=(0, 1, 1, 1)),
    4,
    5,
    """
    S 0 1 2 3 S
    S S 0 1 2 3
    S S 0 1 2 3
    S S 0 1 2 3
    """,
  ),
  "delay, no codebook at once": (
    Pattern("delay", delays=(1, 3)),
    3,
    5,
    """
    S S 0 1 2 S S
    S S S S 0 1 2
    """,
  ),
  "delay, more of it than frames": (
    Pattern("delay", delays=(0, 1, 2, 3)),
    2,
    3,
    """
    S 0 1 S S S
    S S 0 1 S S
    S S S 0 1 S
    S S S S 0 1
    """,
  ),
  "delay, first frames flat": (
    Pattern("delay", delays=(0, 1, 2), flatten_first=2),
    4,
    9,
    """
    S 0 S S 1 S S 2 3 S S
    S S 0 S S 1 S S 2 3 S
    S S S 0 S S 1 S S 2 3
    """,
  ),
  "delay, all frames flat": (
    Pattern("delay", delays=(0, 1), flatten_first=9),
    2,
    5,
    """
    S 0 S 1 S
    S S 0 S 1
    """,
  ),
  "delay, empty steps first": (
    Pattern("delay", delays=(0, 1), empty_initial=2),
    3,
    6,
    """
    S S S 0 1 2 S
    S S S S 0 1 2
    """,
  ),
  "parallel": (
    Pattern("parallel"),
    4,
    5,
    """
    S 0 1 2 3
    S 0 1 2 3
    S 0 1 2 3
    """,
  ),
  "unroll": (
    Pattern("unroll", flattening=(0, 1, 2)),
    4,
    13,
    """
    S 0 S S 1 S S 2 S S 3 S S
    S S 0 S S 1 S S 2 S S 3 S
    S S S 0 S S 1 S S 2 S S 3
    """,
  ),
  "unroll, by default": (
    Pattern("unroll"),
    2,
    5,
    """
    S 0 S 1 S
    S S 0 S 1
    """,
  ),
  "unroll, two together": (
    Pattern("unroll", flattening=(0, 1, 1)),
    4,
    9,
    """
    S 0 S 1 S 2 S 3 S
    S S 0 S 1 S 2 S 3
    S S 0 S 1 S 2 S 3
    """,
  ),
  "unroll, delayed": (
    Pattern("unroll", flattening=(0, 1, 1), delays=(0, 3, 3)),
    4,
    9,
    """
    S 0 1 2 S 3 S S S S S S
    S S S S 0 S 1 S 2 S 3 S
    S S S S 0 S 1 S 2 S 3 S
    """,
  ),
  "unroll, ties go to the lower codebook": (
    Pattern("unroll", flattening=(1, 0)),
    2,
    5,
    """
    S 0 S 1 S
    S S 0 S 1
    """,
  ),
  "unroll, the last codebook first": (
    Pattern("unroll", delays=(1, 0)),
    2,
    5,
    """
    S S 0 S 1 S
    S 0 S 1 S S
    """,
  ),
  "unroll, an inner step empty": (
    Pattern("unroll", flattening=(0, 2), delays=(0, 1)),
    2,
    8,
    """
    S S 0 S S 1 S S S
    S S S S 0 S S 1 S
    """,
  ),
  "coarse first": (
    Pattern("coarse_first"),
    4,
    9,
    """
    S 0 1 2 3 S S S S
    S S S S S 0 1 2 3
    S S S S S 0 1 2 3
    S S S S S 0 1 2 3
    """,
  ),
  "coarse first, delayed": (
    Pattern("coarse_first", delays=(0, 1, 2)),
    4,
    9,
    """
    S 0 1 2 3 S S S S S S
    S S S S S 0 1 2 3 S S
    S S S S S S 0 1 2 3 S
    S S S S S S S 0 1 2 3
    """,
  ),
}


def draw(frame):
  return [" ".join("S" if t < 0 else str(t) for t in row) for row in frame]


@pytest.mark.parametrize("name", DRAWN)
def test_layouts_are_as_drawn(name):
  pattern, frames, trained, drawing = DRAWN[name]
  rows = [line.strip() for line in drawing.strip().splitlines()]
  layout = patterns.layout(pattern, len(rows), frames)
  assert draw(layout.frame) == rows
  assert layout.trained == trained


@pytest.mark.parametrize("name", DRAWN)
def test_training_predicts_what_lies_before_the_last_step(name):
  pattern, frames, trained, drawing = DRAWN[name]
  rows = [line.split() for line in drawing.strip().splitlines()]
  layout = patterns.layout(pattern, len(rows), frames)
  want = np.zeros((len(rows), frames), bool)
  for k, row in enumerate(rows):
    for t in (cell for cell in row[:trained] if cell != "S"):
      want[k, int(t)] = True
  np.testing.assert_array_equal(patterns.valid(layout), want)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 500])
def test_delay_trains_one_step_a_frame_and_one_more(frames):
  layout = patterns.layout(Pattern("delay", delays=(0, 1, 2, 3)), 4, frames)
  assert layout.trained == frames + 1
  assert layout.frame.shape == (4, frames + 4)
  # Codebook k loses its last k frames.
  lost = np.sum(~patterns.valid(layout), axis=1)
  assert lost.tolist() == [min(k, frames) for k in range(4)]


@pytest.mark.parametrize("name", DRAWN)
def test_first_step_is_the_first_that_writes_the_frame(name):
  pattern, frames, _, drawing = DRAWN[name]
  rows = [line.split() for line in drawing.strip().splitlines()]
  layout = patterns.layout(pattern, len(rows), frames)
  for t in range(frames):
    want = min(row.index(str(t)) for row in rows)
    assert patterns.first_step(layout, t) == want
    # Nothing that lies before it is still to be written.
    assert np.all(layout.step[:, t:] >= want)


def test_first_step_of_delay_is_one_past_the_prompt():
  layout = patterns.layout(Pattern("delay", delays=(0, 1, 2, 3)), 4, 500)
  for known in (0, 1, 99, 499):
    assert patterns.first_step(layout, known) == known + 1


# The way there and back


def some_patterns(codebooks, seed):
  """One of each kind, with drawn lists."""
  draw = np.random.default_rng(seed)
  waits = np.sort(draw.integers(0, 5, codebooks))
  flat = draw.integers(0, codebooks, codebooks)
  flat[draw.integers(codebooks)] = 0  # some codebook comes first
  by_step = draw.integers(0, 4, codebooks)  # a delay for each inner step
  first = int(draw.integers(0, 4))
  empty = int(draw.integers(0, 3))
  yield Pattern("delay", tuple(waits.tolist()), (), first, empty)
  yield Pattern("parallel", (), (), first, empty)
  yield Pattern("unroll", tuple(by_step[flat].tolist()), tuple(flat.tolist()))
  later = draw.integers(0, 4, codebooks - 1)
  yield Pattern("coarse_first", tuple(later.tolist()))


CASES = [
  (codebooks, frames, pattern)
  for seed, (codebooks, frames) in enumerate(
    itertools.product((1, 2, 3, 4, 8), (1, 2, 5, 12))
  )
  for pattern in some_patterns(codebooks, seed)
]


@pytest.mark.parametrize("codebooks,frames,pattern", CASES)
def test_deinterleave_is_the_exact_inverse(codebooks, frames, pattern):
  seed = zlib.crc32(repr((codebooks, frames, pattern)).encode())
  size = 7
  codes = np.random.default_rng(seed).integers(
    0, size, (2, codebooks, frames), dtype=np.int32
  )
  layout = patterns.layout(pattern, codebooks, frames)
  steps = patterns.interleave(codes, layout.frame, size)
  assert isinstance(steps, np.ndarray) and steps.dtype == np.int32
  back = patterns.deinterleave(steps, layout.step)
  np.testing.assert_array_equal(back, codes)

  # Each code is written once, everything else is special, the first step too.
  assert np.sum(steps != size) == codes.size
  assert np.all(steps[:, :, 0] == size)
  # A codebook's frames come in order, so a prompt is the head of each row.
  assert np.all(np.diff(layout.step, axis=1) > 0)

  # The head of the layout gives the head of the steps: what training feeds.
  assert 0 < layout.trained <= layout.frame.shape[1]
  shown = layout.frame[:, : layout.trained]
  head = patterns.interleave(codes, shown, size)
  np.testing.assert_array_equal(head, steps[:, :, : layout.trained])


@pytest.mark.parametrize("kind", ["delay", "parallel", "unroll"])
def test_jax_arrays_and_further_axes(kind):
  # What depends on a frame's place alone must come back in its place.
  layout = patterns.layout(Pattern(kind), 3, 5)
  codes = np.arange(30, dtype=np.int32).reshape(2, 3, 5)
  there = jax.jit(lambda x: patterns.interleave(x, layout.frame, 99))
  back = jax.jit(lambda x: patterns.deinterleave(x, layout.step))
  steps = there(codes)
  assert steps.dtype == jnp.int32
  want = patterns.interleave(codes, layout.frame, 99)
  np.testing.assert_array_equal(steps, want)
  np.testing.assert_array_equal(back(steps), codes)
  scores = steps[..., None] * jnp.asarray([1, 2])[None, None, None]
  np.testing.assert_array_equal(back(scores), codes[..., None] * [1, 2])


def test_layouts_are_made_once():
  pattern = Pattern("delay", delays=(0, 1, 2, 3))
  one = patterns.layout(pattern, 4, 50)
  same = patterns.layout(Pattern("delay", delays=(0, 1, 2, 3)), 4, 50)
  assert same is one


# What cannot be laid out


@pytest.mark.parametrize(
  "pattern,words",
  [
    (
      Pattern("delay", delays=(0, 1, 2)),
      r"pattern.delays = \[0, 1, 2\] must have 4 entries",
    ),
    (
      Pattern("delay", delays=(0, 1, 2, 3, 4)),
      r"delays = \[0, 1, 2, 3, 4\] must have 4 entries",
    ),
    (
      Pattern("delay", delays=(0, 2, 1, 3)),
      r"pattern.delays = \[0, 2, 1, 3\] must never decrease",
    ),
    (
      Pattern("unroll", flattening=(0, 1)),
      r"pattern.flattening = \[0, 1\] must have 4 entries",
    ),
    (
      Pattern("unroll", delays=(0, 1)),
      r"pattern.delays = \[0, 1\] must have 4 entries",
    ),
    (
      Pattern("unroll", flattening=(0, 1, 1, 2), delays=(0, 1, 2, 2)),
      r"delays = \[0, 1, 2, 2\] must be equal for codebooks \[1, 2\]",
    ),
    (
      Pattern("coarse_first", delays=(0, 1, 2, 3)),
      r"pattern.delays = \[0, 1, 2, 3\] must have 3 entries",
    ),
    (Pattern("delay", delays=(-1, 0, 1, 2)), r"\(-1, 0, 1, 2\).* negative"),
    (Pattern("unroll", flattening=(0, 1, 2, -1)), r"2, -1\).* negative"),
    (Pattern("delay", empty_initial=-1), "empty_initial=-1.* negative"),
    (Pattern("parallel", flatten_first=-1), "flatten_first=-1.* negative"),
  ],
)
def test_wrong_lists(pattern, words):
  with pytest.raises(InputError, match=words):
    patterns.layout(pattern, 4, 6)
