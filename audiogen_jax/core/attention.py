"""Attention of every place of an image to every other, or to a context.

Some hundreds of queries meet thousands of keys.  Their scores, all at once, are
the largest array of a U-Net, and more than a cache holds; here a few queries
are done after another, of all rows and heads together:

    queries:  |─────|─────|─────|░|     of one size, the last one filled up
                 v
    keys:     |───────────────────|     scores of one piece at a time
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PIECE = 128  # queries at a time; 100 to 400 were as fast


def attend(
  q: Float[Array, "b q h e"],
  k: Float[Array, "b k h e"],
  v: Float[Array, "b k h e"],
) -> Float[Array, "b q h e"]:
  """softmax(q kᵀ / √e) v; the softmax is in float32."""
  b, queries, h, e = q.shape
  pieces = -(-queries // _PIECE)
  size = -(-queries // pieces)
  q = q * jnp.asarray(e**-0.5, q.dtype)
  q = jnp.pad(q, ((0, 0), (0, pieces * size - queries), (0, 0), (0, 0)))
  q = q.reshape(b, pieces, size, h, e).transpose(1, 0, 3, 2, 4)
  k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)

  def one(q: Float[Array, "b h q e"]) -> Float[Array, "b h q e"]:
    scores = jnp.einsum(
      "bhqe,bhek->bhqk", q, k, preferred_element_type=jnp.float32
    )
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    y = jnp.einsum(
      "bhqk,bhke->bhqe",
      weights.astype(v.dtype),
      v,
      preferred_element_type=jnp.float32,
    )
    return (y / total).astype(v.dtype)  # fewer than the weights are

  # A backward pass makes the scores of a piece again, and keeps none.
  y = jax.lax.map(jax.checkpoint(one), q).transpose(1, 0, 3, 2, 4)
  return y.reshape(b, -1, h, e)[:, :queries]
