"""What a masked model is trained on: codes of which spans are hidden.

MAGNeT (Ziv et al., 2024, §3; the released solver).  One codebook is a stage of
decoding; for a stage of 2 of 4 codebooks (`?` is hidden, to be told):

    codebook 0   a b c d e f      as they are
    codebook 1   a b c d e f
    codebook 2   a ? ? ? e f      spans are hidden, more or fewer of them
    codebook 3   ? ? ? ? ? ?      not there yet
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

_RATES = 101  # shares of hidden frames, in hundredths


class Example(NamedTuple):
  """Rows with hidden codes.

  Attributes:
    steps: Tokens that the model reads; V where they are hidden.
    codes: Those of the codebook that is told.
    hidden: Where they are hidden, and there is a code.
    book: The codebook, the same for all rows.
  """

  steps: Int[Array, "b k t"]
  codes: Int[Array, "b t"]
  hidden: Bool[Array, "b t"]
  book: Int[Array, " b"]


@functools.lru_cache(maxsize=8)
def spans_for_rates(frames: int, span: int) -> Int[np.ndarray, "101"]:
  """How many spans hide so many hundredths of all frames, on average.

  Spans begin anywhere and may overlap: u of them leave a frame as it is with
  probability C(T - L, u) / C(T, u).  The least u that hides enough.

  Args:
    frames: T.
    span: L, frames of a span.
  """
  left, shown = [1.0], 1.0
  for u in range(1, frames):
    shown *= (frames - span - u + 1) / (frames - u + 1)
    left.append(shown)
  rates = np.arange(_RATES) / (_RATES - 1)
  return np.searchsorted(1 - np.asarray(left), rates).astype(np.int32)


def hidden_frames(
  rate: Float[Array, " b"], order: Float[Array, "b t"], span: int
) -> Bool[Array, "b t"]:
  """Random spans, as many as hide about the share `rate` of each row.

  Args:
    rate: In [0, 1]; one span, or one frame, is hidden at least.
    order: Uniform in [0, 1): says where spans begin.
    span: Frames of a span; with 1 exactly a share of the frames is hidden.
  """
  frames = order.shape[1]
  begins = jnp.argsort(order, axis=1)
  if span <= 1:
    count = jnp.round(rate * frames).astype(jnp.int32)
    return begins < jnp.maximum(count, 1)[:, None]
  table = jnp.asarray(spans_for_rates(frames, span))
  count = table[jnp.round(100 * rate).astype(jnp.int32)]
  begins = begins < jnp.maximum(count, 1)[:, None]
  behind = jnp.pad(begins, ((0, 0), (span - 1, 0)))
  covers = [behind[:, i : i + frames] for i in range(span)]
  return functools.reduce(jnp.logical_or, covers)


def example(
  codes: Int[Array, "b k t"],
  book: Int[Array, ""],
  hidden: Bool[Array, "b t"],
  special: int,
) -> Example:
  """What a model reads and tells at the stage of `book`.

  Args:
    codes: Of rows; `special` where a row has no code.
    book: The codebook that is told.
    hidden: The frames of it that are hidden.
    special: V, the mask token.
  """
  own = jnp.take(codes, book, axis=1)
  k = jnp.arange(codes.shape[1])[None, :, None]
  masked = (k > book) | ((k == book) & hidden[:, None])
  return Example(
    steps=jnp.where(masked, special, codes),
    codes=own,
    hidden=hidden & (own < special),
    book=jnp.broadcast_to(book, codes.shape[:1]),
  )


def drawn(
  codes: Int[Array, "b k t"], key: Key[Array, ""], *, span: int, special: int
) -> Example:
  """An example with a random codebook, the same for all rows, and random spans.

  The share of each row that is hidden is the cosine of a uniform angle.

  Args:
    codes: Of rows.
    key: Of what is drawn.
    span: Frames of a span.
    special: V, the mask token.
  """
  b, books, t = codes.shape
  keys = jax.random.split(key, 3)
  book = jax.random.randint(keys[0], (), 0, books)
  angle = jax.random.uniform(keys[1], (b,), maxval=np.pi / 2)
  order = jax.random.uniform(keys[2], (b, t))
  return example(
    codes, book, hidden_frames(jnp.cos(angle), order, span), special
  )


def cross_entropy(
  logits: Float[Array, "b t v"], codes: Int[Array, "b t"]
) -> Float[Array, "b t"]:
  """Cross-entropy of each code, in nats; finite also where there is no code."""
  codes = jnp.minimum(codes, logits.shape[-1] - 1)
  return optax.softmax_cross_entropy_with_integer_labels(logits, codes)
