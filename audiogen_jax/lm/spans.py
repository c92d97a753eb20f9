"""Which frames a masked model makes again: spans of those it is least sure of.

Decoding of one codebook (MAGNeT, Ziv et al., 2024, §3) goes through it several
times, and each pass hides fewer of the frames than the one before.  Frames are
hidden as spans, since neighbouring frames of a codec tell of each other (§3.2):

    "nonoverlap"   chunks that lie side by side     [0 1 2][3 4 5][6 7 8]
    "stride1"      spans that begin at any frame    [0 1 2] [1 2 3] [2 3 4] …

A frame that the last pass did not make, one that is certain or given, is hidden
only where no other is left.  Everything here takes the rows of a batch apart:
none depends on its neighbours.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

_CERTAIN = -1e4  # score of what is not to be hidden again


def hidden_chunks(
  log_p: Float[Array, "b t"],
  fresh: Bool[Array, "b t"],
  *,
  count: Int[Array, " b"],
  frames: Int[Array, ""],
  span: int,
  summed: Bool[Array, ""],
) -> Bool[Array, "b t"]:
  """The frames of the `count` chunks of a row that it is least sure of.

  Args:
    log_p: Log-probability of each frame's token when it was drawn.
    fresh: The frames that the last pass made; all or none of a chunk.
    count: Chunks to hide.
    frames: Frames that there are; `t` may be larger.
    span: Frames of a chunk; the last may have less.
    summed: How chunks are scored ("prod"): by the sum of -log p; otherwise
      ("max") by 1 minus the largest p.  Ties go to the earlier chunk.
  """
  t = log_p.shape[1]
  within = jnp.arange(t)[None] < frames
  # Of a chunk that is cut short, what lies beyond adds nothing.
  log_p = _chunks(log_p, span)
  counts = _chunks(within, span)
  likeliest = jnp.max(log_p, axis=2, where=counts, initial=-jnp.inf)
  total = jnp.sum(log_p, axis=2, where=counts)
  score = jnp.where(summed, -total, 1 - jnp.exp(likeliest))
  score = jnp.where(_chunks(fresh, span)[:, :, 0], score, _CERTAIN)
  there = jnp.arange(score.shape[1])[None] * span < frames
  rank = _ranks(jnp.where(there, score, -jnp.inf))
  hidden = jnp.repeat((rank < count[:, None]) & there, span, axis=1)
  return hidden[:, :t] & within


def whole_chunks(frames: Bool[Array, "b t"], span: int) -> Bool[Array, "b t"]:
  """All frames of those chunks of which at least one frame is marked."""
  marked = jnp.any(_chunks(frames, span), axis=2)
  return jnp.repeat(marked, span, axis=1)[:, : frames.shape[1]]


def _chunks(x: Shaped[Array, "b t"], span: int) -> Shaped[Array, "b m _"]:
  """Frames in chunks, the last filled with zeros."""
  b, t = x.shape
  return jnp.pad(x, ((0, 0), (0, -t % span))).reshape(b, -1, span)


def hidden_spans(
  log_p: Float[Array, "b t"],
  fresh: Bool[Array, "b t"],
  *,
  count: Int[Array, " b"],
  frames: Int[Array, ""],
  span: int,
) -> Bool[Array, "b t"]:
  """About `count` frames of a row, in spans that may overlap.

  Spans are scored by the sum of -log p, and the best are hidden: as many as it
  takes, by the published search, which bisects their number and may end with a
  few frames more or less than `count`.  How many frames the first u spans cover
  needs no loop: a frame is covered if the best rank of the spans that hold it
  is below u.

  Args:
    log_p: Log-probability of each frame's token when it was drawn.
    fresh: The frames that the last pass made.
    count: Frames to hide.
    frames: Frames that there are, `span` at least; `t` may be larger.
    span: Frames of a span.
  """
  t = log_p.shape[1]
  score = jnp.where(fresh, -log_p, _CERTAIN)
  ahead = jnp.pad(score, ((0, 0), (0, span - 1)))
  value = functools.reduce(jnp.add, [ahead[:, i : i + t] for i in range(span)])
  starts = jnp.arange(t)[None] <= frames - span
  rank = _ranks(jnp.where(starts, value, -jnp.inf))
  rank = jnp.where(starts, rank, t)
  behind = jnp.pad(rank, ((0, 0), (span - 1, 0)), constant_values=t)
  best = functools.reduce(
    jnp.minimum, [behind[:, i : i + t] for i in range(span)]
  )
  target = jnp.maximum(count, span)
  used = jax.vmap(functools.partial(_spans_for, span=span))(best, target)
  return best < used[:, None]


def _spans_for(
  best: Int[Array, " t"], target: Int[Array, ""], span: int
) -> Int[Array, ""]:
  """How many of the best spans are hidden, so that about `target` frames are.

  Args:
    best: Of each frame, the rank of the best span that holds it.
    target: Frames to hide.
    span: Frames of a span.
  """
  low, high = target // span, target - span + 1
  middle = _half_even(low + high)

  def goes_on(state: tuple[Int[Array, ""], ...]) -> Bool[Array, ""]:
    low, high, middle, _ = state
    return (low < middle) & (middle < high)

  def halve(state: tuple[Int[Array, ""], ...]) -> tuple[Int[Array, ""], ...]:
    low, high, middle, _ = state
    over = jnp.sum(best < middle, dtype=jnp.int32) > target
    low, high = jnp.where(over, low, middle), jnp.where(over, middle, high)
    return low, high, _half_even(low + high), middle

  # The answer is the number that was tried last, not the one to try next.
  start = (low, high, middle, middle)
  return jax.lax.while_loop(goes_on, halve, start)[3]


def _half_even(total: Int[Array, ""]) -> Int[Array, ""]:
  """Half of `total`, a half rounded to the even neighbour."""
  down = total // 2
  return down + (total & 1) * (down & 1)


def _ranks(score: Float[Array, "b t"]) -> Int[Array, "b t"]:
  """0 for the highest of a row, 1 for the next; ties by the lower index."""
  order = jnp.argsort(-score, axis=1, stable=True)
  return jnp.argsort(order, axis=1).astype(jnp.int32)
