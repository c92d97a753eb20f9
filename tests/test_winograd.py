"""Convolutions with fewer multiplications are convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core import winograd


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_a_convolution(key, bias):
  """Of odd sides, too; values are about 5, and differ by 1.3e-5."""
  numbers = np.random.default_rng(0)
  x = jnp.asarray(numbers.normal(size=(2, 7, 4, 256)), jnp.float32)
  plain = nn.Conv(5, (3, 3), padding=1, use_bias=bias, precision="highest")
  params = plain.init(key, x)["params"]
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)
  ours = winograd.Conv(5, bias=bias)
  with jax.default_matmul_precision("highest"):
    made = ours.apply(winograd.variables(params), x)
    usual = ours.apply({"params": params}, x)
  want = plain.apply({"params": params}, x)
  np.testing.assert_allclose(usual, want, atol=1e-5)
  np.testing.assert_allclose(made, want, rtol=0, atol=5e-5)


def test_few_channels_and_other_kernels_are_left_alone(key):
  params = {
    "a": {"few": {"kernel": np.zeros((3, 3, 255, 2), np.float32)}},
    "b": {"kernel": np.zeros((3, 3, 256, 2), np.float32)},
    "c": {"kernel": np.zeros((512, 256), np.float32)},
    "d": {"kernel": np.zeros((5, 3, 256, 2), np.float32)},
  }
  made = winograd.tiles(params)
  assert jax.tree.map(np.shape, made) == {"b": {"kernel": (16, 256, 2)}}
