"""What the U-Net is built from: residual blocks and attention on images.

Arrays are `b w z c`: columns in time, rows in frequency, channels last.  Matrix
products have the type that a layer is given, norms and softmax are in float32.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from audiogen_jax.core import winograd
from audiogen_jax.core.attention import attend

_GROUPS = 32
_SLOWEST = 10_000  # of the sines of a time, in steps over 2π
Change = Literal["none", "down", "up"]


def norm(name: str, epsilon: float = 1e-5) -> nn.GroupNorm:
  """Group norm over columns, rows and the channels of each of 32 groups."""
  return nn.GroupNorm(
    _GROUPS,
    epsilon=epsilon,
    dtype=jnp.float32,
    use_fast_variance=False,
    name=name,
  )


def embedded(time: Num[Array, " b"], width: int) -> Float[Array, "b d"]:
  """Cosines and then sines of a time, at `width / 2` rates."""
  half = width // 2
  rates = jnp.exp(-math.log(_SLOWEST) * jnp.arange(half) / half)
  angles = time[:, None] * rates[None]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def changed(
  x: Float[Array, "b w z c"], change: Change
) -> Float[Array, "b u y c"]:
  """Means of each 2x2, or each value four times."""
  if change == "down":
    return nn.avg_pool(x, (2, 2), strides=(2, 2))
  if change == "up":
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  return x


class Residual(nn.Module):
  """Two convolutions that know the time, added to their input.

  Attributes:
    features: Output channels; where the input has others, a 1x1 convolution
      widens it.
    dtype: Type of matrix products.
    change: Whether the image becomes smaller or larger on the way.
  """

  features: int
  dtype: jnp.dtype
  change: Change = "none"

  @nn.compact
  def __call__(
    self, x: Float[Array, "b w z c"], time: Float[Array, "b d"]
  ) -> Float[Array, "b u y f"]:
    y = changed(jax.nn.silu(norm("norm_0")(x)), self.change)
    x = changed(x, self.change)
    y = winograd.Conv(self.features, dtype=self.dtype, name="conv_0")(y)
    shift = nn.Dense(self.features, dtype=self.dtype, name="time")(
      jax.nn.silu(time)
    )
    y = jax.nn.silu(norm("norm_1")(y + shift[:, None, None]))
    y = winograd.Conv(
      self.features,
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      name="conv_1",
    )(y)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
    return x + y


class PlainAttention(nn.Module):
  """Places look at each other; added to the input.

  Attributes:
    heads: Attention heads.
    dtype: Type of matrix products.
  """

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b w z c"]) -> Float[Array, "b w z c"]:
    b, w, z, c = x.shape
    y = norm("norm")(x).reshape(b, w * z, c)
    shape = (self.heads, 3, c // self.heads)
    qkv = nn.DenseGeneral(shape, dtype=self.dtype, name="qkv")(y)
    y = attend(*(qkv[..., i, :] for i in range(3)))
    y = nn.DenseGeneral(
      c,
      axis=(-2, -1),
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      name="heads_out",
    )(y)
    return x + y.reshape(x.shape)


class _Heads(nn.Module):
  """Attention of states to a context, or to themselves.

  Attributes:
    heads: Attention heads.
    dtype: Type of matrix products.
  """

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "b q c"], context: Float[Array, "b k d"]
  ) -> Float[Array, "b q c"]:
    c, dtype = x.shape[-1], self.dtype
    shape = (self.heads, c // self.heads)

    def project(name: str, x: jax.Array) -> jax.Array:
      layer = nn.DenseGeneral(shape, use_bias=False, dtype=dtype, name=name)
      return layer(x)

    y = attend(project("q", x), project("k", context), project("v", context))
    return nn.DenseGeneral(c, axis=(-2, -1), dtype=dtype, name="out")(y)


class _Block(nn.Module):
  """Self-attention, a look at the context, and a gated feed-forward layer.

  Attributes:
    heads: Attention heads.
    dtype: Type of matrix products.
  """

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "b q c"], context: Float[Array, "b k d"]
  ) -> Float[Array, "b q c"]:
    c, dtype = x.shape[-1], self.dtype
    y = _layer_norm("self_norm")(x)
    x = x + _Heads(self.heads, dtype, name="self_attn")(y, y)
    y = _layer_norm("cross_norm")(x)
    x = x + _Heads(self.heads, dtype, name="cross_attn")(y, context)
    y = _layer_norm("ff_norm")(x)
    y = nn.DenseGeneral((2, 4 * c), dtype=dtype, name="up")(y)
    y = y[..., 0, :] * jax.nn.gelu(y[..., 1, :], approximate=False)
    return x + nn.Dense(c, dtype=dtype, name="down")(y)


class ContextAttention(nn.Module):
  """Transformer blocks over all places, which see the context; added.

  Attributes:
    heads: Attention heads.
    layers: Blocks.
    dtype: Type of matrix products.
  """

  heads: int
  layers: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "b w z c"], context: Float[Array, "b l d"]
  ) -> Float[Array, "b w z c"]:
    b, w, z, c = x.shape
    y = norm("norm", 1e-6)(x).reshape(b, w * z, c)
    y = nn.Dense(c, dtype=self.dtype, name="into")(y)
    for i in range(self.layers):
      y = _Block(self.heads, self.dtype, name=f"block_{i}")(y, context)
    y = nn.Dense(
      c, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out"
    )(y)
    return x + y.reshape(x.shape)


def _layer_norm(name: str) -> nn.LayerNorm:
  return nn.LayerNorm(
    1e-5, dtype=jnp.float32, use_fast_variance=False, name=name
  )
