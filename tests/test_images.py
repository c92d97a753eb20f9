"""Attention in pieces and larger images: as they are written down plainly."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.core.attention import attend
from audiogen_jax.core.upsampling import UpConv


@pytest.mark.parametrize(
  ("queries", "keys"), [(7, 7), (128, 5), (129, 129), (300, 77)]
)
def test_attention_in_pieces_is_attention(queries, keys):
  q = jnp.asarray(noise(2, queries, 3, 4, scale=2))
  k, v = jnp.asarray(noise(2, 2, keys, 3, 4, scale=2, seed=1))
  got = jax.jit(attend)(q, k, v)
  scores = np.einsum("bqhe,bkhe->bhqk", q, k) / 2
  weights = jax.nn.softmax(scores, axis=-1)
  want = np.einsum("bhqk,bkhe->bqhe", weights, v)
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_scores_are_never_there_at_once():
  like = jax.ShapeDtypeStruct((2, 800, 8, 40), jnp.float32)
  program = jax.jit(attend).lower(like, like, like).compile()
  whole = 4 * 2 * 8 * 800 * 800
  assert program.memory_analysis().temp_size_in_bytes < whole / 2


def test_large_scores_are_no_trouble():
  q = jnp.full((1, 2, 1, 4), 1e3)
  v = jnp.ones_like(q)
  np.testing.assert_array_equal(attend(q, q, v), v)


def test_a_larger_image_is_convolved():
  x = jnp.asarray(noise(2, 3, 5, 4, scale=1))
  conv = nn.Conv(4, (3, 3), precision="highest")
  params = {
    "kernel": jnp.asarray(noise(3, 3, 4, 4, scale=1, seed=1)),
    "bias": jnp.asarray(noise(4, scale=1, seed=2)),
  }
  large = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  want = conv.apply({"params": params}, large)
  ours = UpConv(jnp.dtype(jnp.float32))
  assert jax.tree.map(np.shape, ours.init(jax.random.key(0), x)) == {
    "params": jax.tree.map(np.shape, params)
  }
  got = ours.apply({"params": params}, x)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  slope = jnp.asarray(noise(2, 6, 10, 4, scale=1, seed=3))

  def plain(params, x):
    large = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return jnp.sum(slope * conv.apply({"params": params}, large))

  def fast(params, x):
    return jnp.sum(slope * ours.apply({"params": params}, x))

  want, got = (jax.grad(each, (0, 1))(params, x) for each in (plain, fast))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, want
  )
