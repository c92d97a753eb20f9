"""Images twice as large, convolved: with 16 multiplications instead of 36.

Each value of an image becomes four, and a convolution by 3 x 3 follows.  It
sees no more than two values along an axis, so that it is a convolution by 2 of
the small image, one for values at even places and one for those at odd places:

    small:       a         b         c
    large:    a     a   b     b   c     c
    even b:        [k0] [k1 + k2]               k0 a + (k1 + k2) b
    odd b:              [k0 + k1] [k2]          (k0 + k1) b + k2 c
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class UpConv(nn.Module):
  """Each value four times, and `nn.Conv` by 3 x 3 with its parameters.

  Attributes:
    dtype: Type of products.
  """

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b w z c"]) -> Float[Array, "b u y c"]:
    c, start = x.shape[-1], nn.initializers
    kernel = self.param("kernel", start.lecun_normal(), (3, 3, c, c))
    bias = self.param("bias", start.zeros, (c,))
    made = _upconv(x.astype(self.dtype), kernel.astype(jnp.float32))
    return made + bias.astype(self.dtype)[None, None, None]


@jax.custom_vjp
def _upconv(
  x: Float[Array, "b w z c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b u y d"]:
  """Each value four times, convolved; products are of the type of `x`."""
  b, w, z, c = x.shape
  # Rounded once, when they have been added up.
  kernel = _places(_places(kernel, 0), 2)  # p u q v c d
  kernel = kernel.transpose(1, 3, 4, 0, 2, 5).reshape(2, 2, c, -1)
  made = _convolved(x, kernel.astype(x.dtype), ((1, 1), (1, 1)))
  made = made.reshape(b, w + 1, z + 1, 2, 2, -1)
  rows = [
    jnp.stack([made[:, p : p + w, q : q + z, p, q] for q in range(2)], 3)
    for p in range(2)
  ]
  made = jnp.stack(rows, 2)  # b, w, 2, z, 2, d
  return made.reshape(b, 2 * w, 2 * z, -1)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
  return _upconv(x, kernel), (x, kernel)


def _backward(given: tuple, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Gradients as of the large image.

  Those of the small one took 20 times as long on a processor.
  """

  def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return _convolved(x, kernel.astype(x.dtype), "SAME")

  return jax.vjp(plain, *given)[1](slope)


_upconv.defvjp(_forward, _backward)


def _convolved(x: jax.Array, kernel: jax.Array, padding: Any) -> jax.Array:
  letters = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=letters
  )


def _places(kernel: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
  """What meets two values, from 3 along an axis: of even places and of odd."""
  first, middle, last = jnp.unstack(kernel, axis=axis)
  even = jnp.stack([first, middle + last], axis)
  odd = jnp.stack([first + middle, last], axis)
  return jnp.stack([even, odd], axis)
