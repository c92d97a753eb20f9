"""Convolutions of vocoders, which keep the length or multiply it.

Every layer declares what it sees as its `field`; beyond its ends a signal is 0.
"""

from typing import Literal

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from audiogen_jax.core import weight_norm
from audiogen_jax.core.fields import ReceptiveField

Norm = Literal["weight_norm", "none"]


def _kernel(
  module: nn.Module, shape: tuple[int, ...], fan_in: int, norm: Norm, axis: int
) -> jax.Array:
  """The kernel `[w i o]`, or direction and length where it is weight-normed."""
  if norm == "weight_norm":
    return weight_norm.kernel(module, shape, fan_in, axis)
  return module.param("kernel", weight_norm.uniform(fan_in), shape)


def _convolved(
  x: Float[Array, "b t c"],
  kernel: Float[Array, "w c f"],
  padding: tuple[int, int],
  dilation: int = 1,
) -> Float[Array, "b u f"]:
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1,),
    padding=[padding],
    rhs_dilation=(dilation,),
    dimension_numbers=("NWC", "WIO", "NWC"),
  )


class Conv(nn.Module):
  """Convolution `b t c -> b t features` of odd width.

  Attributes:
    features: Output channels.
    width: Kernel width, odd.
    dilation: Distance between taps.
    bias: Whether a constant is added to each channel.
    norm: Whether the kernel is stored as direction and length.
  """

  features: int
  width: int
  dilation: int = 1
  bias: bool = True
  norm: Norm = "weight_norm"

  @property
  def field(self) -> ReceptiveField:
    """What an output sees."""
    reach = (self.width - 1) // 2 * self.dilation
    return ReceptiveField(reach, reach)

  @nn.compact
  def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t f"]:
    c, f = x.shape[-1], self.features
    fan_in = self.width * c
    kernel = _kernel(self, (self.width, c, f), fan_in, self.norm, axis=2)
    reach = self.field.before
    x = _convolved(x, kernel, (reach, reach), self.dilation)
    if not self.bias:
      return x
    bias = self.param("bias", weight_norm.uniform(fan_in), (f,))
    return x + bias[None, None]


class ConvTranspose(nn.Module):
  """Transposed convolution `b t c -> b (t ratio) features`.

  The `ratio` outputs of an input step are channels of one narrow convolution,
  so that nothing is multiplied by the zeros between input steps.

  Attributes:
    features: Output channels.
    width: Kernel width: the ratio, and an even number more.
    ratio: Outputs a step of the input.
    norm: Whether the kernel is stored as direction and length.
  """

  features: int
  width: int
  ratio: int
  norm: Norm = "weight_norm"

  @property
  def trim(self) -> int:
    """Outputs cut off at either end, so that they are `ratio` an input."""
    return (self.width - self.ratio) // 2

  @property
  def field(self) -> ReceptiveField:
    """What an output sees."""
    return ReceptiveField(self.trim, self.trim, up=self.ratio)

  @nn.compact
  def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b u f"]:
    b, t, c = x.shape
    r, f, w = self.ratio, self.features, self.width
    # PyTorch takes fan-in from the output channels of a transposed kernel.
    kernel = _kernel(self, (w, c, f), w * f, self.norm, axis=1)
    bias = self.param("bias", weight_norm.uniform(w * f), (f,))
    steps = -(-w // r)  # of the input that an output step sees, at most
    kernel = jax.numpy.pad(kernel, ((0, steps * r - w), (0, 0), (0, 0)))
    kernel = kernel.reshape(steps, r, c, f)[::-1].swapaxes(1, 2)
    kernel = kernel.reshape(steps, c, r * f)
    x = _convolved(x, kernel, (steps - 1, steps - 1))
    x = x.reshape(b, -1, f)[:, self.trim : self.trim + t * r]
    return x + bias[None, None]
