"""Self-attention masks: which steps a language model attends to at each step.

A mask is an argument of `model.LM`, never a property of it: an autoregressive
model passes `causal`, a masked one (MAGNeT, Ziv et al., 2024, §3.1) lets its
first codebook attend to all steps and the others to a band: `of_codebook`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def causal(steps: int) -> Bool[Array, "1 s s"]:
  """The mask under which each step attends to itself and those before."""
  return jnp.tri(steps, dtype=bool)[None]


def of_codebook(
  book: Int[Array, ""] | int,
  steps: int,
  *,
  context: int,
  shown: Int[Array, ""] | int,
) -> Bool[Array, "1 s s"]:
  """The mask of a masked model that fills one codebook (MAGNeT, §3.1).

  For 5 steps and a context of 1 (`x`: step i, down, attends to j, across):

      first codebook      the others
      x x x x x           x x . . .
      x x x x x           x x x . .
      x x x x x           . x x x .
      x x x x x           . . x x x
      x x x x x           . . . x x

  Args:
    book: The codebook, from 0; a traced value: all share one compilation.
    steps: Steps in all, padding included.
    context: Steps to either side that the others than the first attend to; -1
      for all.
    shown: Steps that are no padding, the first ones; nothing attends to
      padding, but each step of it to itself.
  """
  i, j = jnp.arange(steps)[:, None], jnp.arange(steps)[None]
  near = jnp.abs(i - j) <= context
  everywhere = (book == 0) | jnp.asarray(context < 0)
  return ((near | everywhere) & (j < shown) | (i == j))[None]


def with_text(
  mask: Bool[Array, "#b s s"], text_mask: Bool[Array, "b l"]
) -> Bool[Array, "b q q"]:
  """A mask of steps, for prepended text and steps together (q = l + s).

  Text attends to itself causally, as in the published code, and never to steps,
  so that its states are the same whatever follows.  Steps attend to all of the
  text that `text_mask` shows, and to steps as `mask` says:

              l      s
        l [ causal | none ]
        s [  all   | mask ]
  """
  b, length = text_mask.shape
  steps = mask.shape[-1]
  of_text = jnp.concatenate(
    [jnp.tri(length, dtype=bool), jnp.ones((steps, length), bool)]
  )
  of_text = of_text[None] & text_mask[:, None]
  of_steps = jnp.concatenate(
    [
      jnp.zeros((b, length, steps), bool),
      jnp.broadcast_to(mask, (b, steps, steps)),
    ],
    axis=1,
  )
  return jnp.concatenate([of_text, of_steps], axis=2)
