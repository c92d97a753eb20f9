"""What encoder and decoder are built from: images of time and mel bands.

Arrays are `b t m c`: time before bands, channels last.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_GROUPS = 32
_EPSILON = 1e-6  # the U-Net's residual blocks have another


def norm(name: str) -> nn.GroupNorm:
  """Group norm over time, bands and the channels of each of 32 groups."""
  return nn.GroupNorm(
    _GROUPS, epsilon=_EPSILON, use_fast_variance=False, name=name
  )


class Residual(nn.Module):
  """Two convolutions, each behind norm and SiLU, added to their input.

  Attributes:
    features: Output channels; where the input has others, a 1x1 convolution
      widens it.
  """

  features: int

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b t m f"]:
    y = x
    for i in range(2):
      y = jax.nn.silu(norm(f"norm_{i}")(y))
      y = nn.Conv(self.features, (3, 3), name=f"conv_{i}")(y)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, name="shortcut")(x)
    return x + y


class Attention(nn.Module):
  """Every place looks at every other, with one head; added to the input."""

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b t m c"]:
    b, t, m, c = x.shape
    y = norm("norm")(x).reshape(b, t * m, c)
    q, k, v = (nn.Dense(c, name=name)(y) for name in "qkv")
    scores = jnp.einsum("bqc,bkc->bqk", q, k) * c**-0.5
    y = jnp.einsum("bqk,bkc->bqc", jax.nn.softmax(scores, axis=-1), v)
    return x + nn.Dense(c, name="out")(y).reshape(x.shape)


class Down(nn.Module):
  """Half as long, half as many bands; zeros behind alone complete the last."""

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b u n c"]:
    behind = ((0, 1), (0, 1))
    return nn.Conv(
      x.shape[-1], (3, 3), strides=(2, 2), padding=behind, name="conv"
    )(x)


class Up(nn.Module):
  """Twice as long, twice as many bands: each value four times, convolved."""

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b u n c"]:
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return nn.Conv(x.shape[-1], (3, 3), name="conv")(x)
