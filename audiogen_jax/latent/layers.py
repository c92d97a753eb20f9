"""What encoder and decoder are built from: images of time and mel bands.

Arrays are `b t m c`: time before bands, channels last.  Matrix products have
the type that a layer is given, norms and softmax are in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.core import winograd
from audiogen_jax.core.attention import attend
from audiogen_jax.core.upsampling import UpConv

_GROUPS = 32
_EPSILON = 1e-6  # the U-Net's residual blocks have another


def norm(name: str) -> nn.GroupNorm:
  """Group norm over time, bands and the channels of each of 32 groups."""
  return nn.GroupNorm(
    _GROUPS,
    epsilon=_EPSILON,
    dtype=jnp.float32,
    use_fast_variance=False,
    name=name,
  )


class Residual(nn.Module):
  """Two convolutions, each behind norm and SiLU, added to their input.

  Attributes:
    features: Output channels; where the input has others, a 1x1 convolution
      widens it.
    dtype: Type of matrix products.
  """

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b t m f"]:
    y = x
    for i in range(2):
      y = jax.nn.silu(norm(f"norm_{i}")(y))
      y = winograd.Conv(self.features, dtype=self.dtype, name=f"conv_{i}")(y)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
    return x + y


class Attention(nn.Module):
  """Every place looks at every other, with one head; added to the input.

  Attributes:
    dtype: Type of matrix products.
  """

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b t m c"]:
    b, t, m, c = x.shape
    y = norm("norm")(x).reshape(b, t * m, c)
    q, k, v = (nn.Dense(c, dtype=self.dtype, name=name)(y) for name in "qkv")
    y = attend(q[:, :, None], k[:, :, None], v[:, :, None])[:, :, 0]
    y = nn.Dense(c, dtype=self.dtype, name="out")(y)
    return x + y.reshape(x.shape)


class Down(nn.Module):
  """Half as long, half as many bands; zeros behind alone complete the last.

  Attributes:
    dtype: Type of matrix products.
  """

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b u n c"]:
    behind = ((0, 1), (0, 1))
    return nn.Conv(
      x.shape[-1],
      (3, 3),
      strides=(2, 2),
      padding=behind,
      dtype=self.dtype,
      name="conv",
    )(x)


class Up(nn.Module):
  """Twice as long, twice as many bands: each value four times, convolved.

  Attributes:
    dtype: Type of matrix products.
  """

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b u n c"]:
    return UpConv(self.dtype, name="conv")(x)
