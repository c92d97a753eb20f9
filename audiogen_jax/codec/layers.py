"""Convolutions, norms and the LSTM that SEANet is built from.

Every layer declares what it sees as its `field`, and takes `(x, length)`: `x`
is padded to some bucket, `length` counts the steps of each row that are real.
A convolution pads at `length`, not at the end of the array, so padding changes
nothing and many lengths share one compilation.
"""

import math
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiogen_jax.core import weight_norm
from audiogen_jax.core.fields import EVERYTHING, ReceptiveField
from audiogen_jax.core.types import Tree

Norm = Literal["weight_norm", "layer_norm", "none"]
# Hidden and cell states, a pair for each layer of an LSTM.
Carry: TypeAlias = list[tuple[Float[Array, "b c"], Float[Array, "b c"]]]
PadMode = Literal["constant", "reflect"]

# Meanings of the parameters' axes: the codec is small and is replicated.
AXES = {
  r".*/(kernel|kernel_v)": (None, None, None),
  r".*/(bias|kernel_g|scale)": (None,),
  r".*/lstm/layer_\d+_(input|hidden)_kernel": (None, None),
  r".*/lstm/layer_\d+_(input|hidden)_bias": (None,),
}


def pad(
  x: Float[Array, "b t c"],
  length: Int[Array, " b"],
  left: int,
  right: Int[Array, " b"],
  tail: int,
  mode: PadMode,
) -> Float[Array, "b p c"]:
  """Pads each row around its own length.

  In `reflect` mode a row no longer than its padding is first lengthened by
  zeros, mirrored, and cut again, as EnCodec does.

  Args:
    x: Rows; what lies at and beyond `length` is ignored.
    length: Real steps of each row.
    left: Steps to add in front.
    right: Steps to add behind each row's end.
    tail: Steps to lengthen the array by at its end, at least `max(right)`.
    mode: Zeros or mirror.

  Returns:
    An array of `left + t + tail` steps; zeros behind the padding.
  """
  t = x.shape[1]
  real = jnp.arange(t)[None, :] < length[:, None]
  x = jnp.where(real[..., None], x, 0)
  x = jnp.pad(x, ((0, 0), (left, tail), (0, 0)))
  if mode == "constant":
    return x
  most = jnp.maximum(left, right)
  end = jnp.maximum(length, most + 1)[:, None]  # where the mirror stands
  step = jnp.arange(-left, t + tail)[None, :]
  shown = step < (length + right)[:, None]
  source = jnp.abs(step)
  source = jnp.where(source < end, source, jnp.abs(2 * (end - 1) - source))
  x = jnp.take_along_axis(
    x, (source + left)[..., None], axis=1, mode="fill", fill_value=0
  )
  return jnp.where(shown[..., None], x, 0)


class _LayerNorm(nn.Module):
  """Layer norm over channels and real steps; scale and bias a channel."""

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t c"], length: Int[Array, " b"]
  ) -> Float[Array, "b t c"]:
    c = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    real = jnp.arange(x.shape[1])[None, :, None] < length[:, None, None]
    count = (length * c)[:, None, None]
    mean = jnp.sum(x, (1, 2), keepdims=True, where=real) / count
    centred = x - mean
    square = jnp.square(centred)
    variance = jnp.sum(square, (1, 2), keepdims=True, where=real) / count
    centred = centred * jax.lax.rsqrt(variance + 1e-5)
    return centred * scale[None, None] + bias[None, None]


def _kernel(
  module: nn.Module, shape: tuple[int, ...], fan_in: int, norm: Norm, axis: int
) -> jax.Array:
  """The kernel `[w i o]`, or direction and length where it is weight-normed."""
  if norm == "weight_norm":
    return weight_norm.kernel(module, shape, fan_in, axis)
  return module.param("kernel", weight_norm.uniform(fan_in), shape)


def amplify(params: Tree, gain: float) -> Tree:
  """Multiplies every convolution by `gain` and takes its bias away.

  As published training starts (PyTorch's default), each convolution shrinks
  what passes by about √3, and a sound hardly reaches the latents.
  """

  def one(path, leaf):
    name = path[-1].key
    if name in ("kernel", "kernel_g"):
      return leaf * gain
    return jnp.zeros_like(leaf) if name == "bias" else leaf

  return jax.tree_util.tree_map_with_path(one, params)


class Conv(nn.Module):
  """Convolution `b t c -> b ⌈t/stride⌉ features`, padded as EnCodec pads.

  Attributes:
    features: Output channels.
    width: Kernel width.
    stride: Step.
    dilation: Distance between taps.
    causal: All padding in front, but for what completes the last frame.
    pad_mode: See `SEANetConfig`.
    norm: See `SEANetConfig`.
  """

  features: int
  width: int
  stride: int = 1
  dilation: int = 1
  causal: bool = False
  pad_mode: PadMode = "constant"
  norm: Norm = "none"

  @property
  def padding(self) -> tuple[int, int]:
    """Steps in front and behind, without those that complete the last frame."""
    total = (self.width - 1) * self.dilation + 1 - self.stride
    right = 0 if self.causal else total // 2
    return total - right, right

  @property
  def field(self) -> ReceptiveField:
    """What an output sees; one that is normed over time sees everything."""
    if self.norm == "layer_norm":
      return EVERYTHING._replace(down=self.stride)
    left, _ = self.padding
    span = (self.width - 1) * self.dilation
    return ReceptiveField(left, span - left, down=self.stride)

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t c"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b u f"], Int[Array, " b"]]:
    t, c = x.shape[1:]
    shape = (self.width, c, self.features)
    kernel = _kernel(self, shape, self.width * c, self.norm, axis=2)
    bias = self.param(
      "bias", weight_norm.uniform(self.width * c), (self.features,)
    )
    left, right = self.padding
    frames = -(-length // self.stride)
    extra = frames * self.stride - length
    out = -(-t // self.stride)
    tail = right + out * self.stride - t
    x = pad(x, length, left, right + extra, tail, self.pad_mode)
    x = jax.lax.conv_general_dilated(
      x,
      kernel.astype(x.dtype),
      window_strides=(self.stride,),
      padding="VALID",
      rhs_dilation=(self.dilation,),
      dimension_numbers=("NWC", "WIO", "NWC"),
    )
    x = x + bias[None, None]
    if self.norm == "layer_norm":
      x = _LayerNorm(name="norm")(x, frames)
    return x, frames


class ConvTranspose(nn.Module):
  """Transposed convolution of width `2 ratio`: `b t c -> b (t ratio) features`.

  Each input step writes two blocks of `ratio` outputs, its own and the next:
  one matrix product and one shifted sum.
  """

  features: int
  ratio: int
  causal: bool = False
  norm: Norm = "none"

  @property
  def trim(self) -> int:
    """Outputs cut off in front; with those cut off behind they are `ratio`."""
    return 0 if self.causal else self.ratio - self.ratio // 2

  @property
  def field(self) -> ReceptiveField:
    """What an output sees: the input of its own block and the one before."""
    if self.norm == "layer_norm":
      return EVERYTHING._replace(up=self.ratio)
    return ReceptiveField(self.ratio - self.trim, self.trim, up=self.ratio)

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t c"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b u f"], Int[Array, " b"]]:
    b, t, c = x.shape
    r, f = self.ratio, self.features
    # PyTorch takes fan-in from the output channels of a transposed kernel.
    kernel = _kernel(self, (2 * r, c, f), 2 * r * f, self.norm, axis=1)
    bias = self.param("bias", weight_norm.uniform(2 * r * f), (f,))
    real = jnp.arange(t)[None, :, None] < length[:, None, None]
    x = jnp.where(real, x, 0)
    blocks = jnp.einsum("btc,wcf->btwf", x, kernel.astype(x.dtype))
    own = jnp.pad(blocks[:, :, :r], ((0, 0), (0, 1), (0, 0), (0, 0)))
    following = jnp.pad(blocks[:, :, r:], ((0, 0), (1, 0), (0, 0), (0, 0)))
    x = (own + following).reshape(b, (t + 1) * r, f) + bias[None, None]
    if self.norm == "layer_norm":
      x = _LayerNorm(name="norm")(x, (length + 1) * r)
    return x[:, self.trim : self.trim + t * r], length * r


class LSTM(nn.Module):
  """Stacked LSTM with a residual connection around it; looks only back.

  Gates in the order input, forget, cell, output, with two biases, so that
  published weights map one to one.
  """

  layers: int

  @property
  def field(self) -> ReceptiveField:
    """What an output sees: all before it."""
    return ReceptiveField(before=math.inf)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t c"],
    length: Int[Array, " b"],
    carry: Carry | None = None,
  ) -> tuple[Float[Array, "b t c"], Carry]:
    """Runs over rows, perhaps from where an earlier call left them.

    Args:
      x: Rows; what lies at and beyond `length` changes no state.
      length: Real steps of each row.
      carry: Hidden and cell states of each layer; None for zeros.
    """
    b, t, c = x.shape
    init = weight_norm.uniform(c)
    zeros = jnp.zeros((b, c), x.dtype)
    real = (jnp.arange(t)[:, None] < length[None])[..., None]
    # Not even the gradient of a weight sees what lies beyond.
    out, left = jnp.where(real.swapaxes(0, 1), x, 0), []
    for i in range(self.layers):
      w_in = self.param(f"layer_{i}_input_kernel", init, (c, 4 * c))
      w_hidden = self.param(f"layer_{i}_hidden_kernel", init, (c, 4 * c))
      b_in = self.param(f"layer_{i}_input_bias", init, (4 * c,))
      b_hidden = self.param(f"layer_{i}_hidden_bias", init, (4 * c,))
      # One large product for all steps; the scan keeps only what must wait.
      inputs = out @ w_in + (b_in + b_hidden)[None, None]

      def step(carry, now, w_hidden=w_hidden):
        gates, real = now
        gates = gates + carry[0] @ w_hidden
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        new = jnp.where(real, hidden, carry[0]), jnp.where(real, cell, carry[1])
        return new, hidden

      before = (zeros, zeros) if carry is None else carry[i]
      after, out = jax.lax.scan(step, before, (inputs.swapaxes(0, 1), real))
      left.append(after)
      out = out.swapaxes(0, 1)
    return x + out, left
