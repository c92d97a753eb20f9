"""SEANet: the convolutional encoder and decoder of EnCodec.

EnCodec (Défossez et al., 2022, §3.1), itself after SEANet (Tagliasacchi et al.,
2020).  Arrays are padded to buckets; `length` says how much of each row is real
(see `layers`).
"""

import dataclasses
import itertools
import math
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from audiogen_jax.codec.layers import (
  LSTM,
  Carry,
  Conv,
  ConvTranspose,
  Norm,
  PadMode,
)
from audiogen_jax.core import fields
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.fields import ReceptiveField


@dataclasses.dataclass(frozen=True)
class SEANetConfig:
  """Shape of encoder and decoder; the defaults are AudioGen's 16 kHz codec.

  Attributes:
    channels: Audio channels.
    width: Size of a latent frame.
    filters: Channels after the first convolution; doubled at every stage.
    ratios: Up-sampling factors in decoder order; the encoder reverses them.
    residual_layers: Residual blocks in a stage, dilated by
      `dilation_base ** j`.
    kernel: Width of the first convolution.
    last_kernel: Width of the last one.
    residual_kernel: Width of the dilated convolution of a residual block.
    dilation_base: Base of the dilations.
    compress: A residual block narrows its channels by this factor.
    lstm_layers: LSTM layers between convolutions and latents; 0 for none.
    true_skip: Residual blocks add their input itself; else a 1x1 convolution.
    causal: Look only back.  The last frame still sees the padding that
      completes it.
    pad_mode: What lies beyond the ends: zeros, or the mirrored sound.
    norm: Norm of the convolutions.  `layer_norm` is over channels and time and
      cannot be causal.
    unnormed_outer_blocks: Blocks without `norm`, counted from the waveform.
  """

  channels: int = 1
  width: int = 128
  filters: int = 64
  ratios: tuple[int, ...] = (8, 5, 4, 2)
  residual_layers: int = 1
  kernel: int = 7
  last_kernel: int = 7
  residual_kernel: int = 3
  dilation_base: int = 2
  compress: int = 2
  lstm_layers: int = 2
  true_skip: bool = True
  causal: bool = False
  pad_mode: PadMode = "constant"
  norm: Norm = "weight_norm"
  unnormed_outer_blocks: int = 0

  def __post_init__(self) -> None:
    if not self.ratios or min(self.ratios) < 1:
      raise InputError(
        f"ratios {self.ratios} must be one whole number or more, each 1 or more"
      )
    if self.causal and self.norm == "layer_norm":
      raise InputError(
        "a causal codec cannot use layer_norm: its mean over time looks ahead"
      )

  @property
  def hop(self) -> int:
    """Samples a latent frame."""
    return math.prod(self.ratios)

  def norm_of(self, block: int) -> Norm:
    """Norm of block 0 … stages + 1, counted from the waveform."""
    return "none" if block < self.unnormed_outer_blocks else self.norm


class _Block(nn.Module):
  """What encoder and decoder share: convolutions of one configuration."""

  config: SEANetConfig

  def conv(self, name: str, features: int, width: int, **options: Any) -> Conv:
    """A convolution of block 0 … n + 1 counted from the waveform."""
    block = options.pop("block")
    return Conv(
      features,
      width,
      causal=self.config.causal,
      pad_mode=self.config.pad_mode,
      norm=self.config.norm_of(block),
      name=name,
      **options,
    )


class Residual(_Block):
  """x + widen(elu(narrow(elu(x)))), with fewer channels in the middle.

  Attributes:
    features: Channels of input and output.
    dilation: Dilation of the first convolution.
    block: Which block this belongs to, for its norm.
  """

  features: int
  dilation: int
  block: int

  def setup(self) -> None:
    c, features, block = self.config, self.features, self.block
    self.narrow = self.conv(
      "narrow",
      features // c.compress,
      c.residual_kernel,
      dilation=self.dilation,
      block=block,
    )
    self.widen = self.conv("widen", features, 1, block=block)
    if not c.true_skip:
      self.shortcut = self.conv("shortcut", features, 1, block=block)

  @property
  def field(self) -> ReceptiveField:
    """What an output sees: through the convolutions, and its own input."""
    skip = fields.POINTWISE if self.config.true_skip else self.shortcut.field
    through = fields.series(self.narrow.field, self.widen.field)
    return fields.parallel(through, skip)

  def __call__(
    self, x: Float[Array, "b t c"], length: Int[Array, " b"]
  ) -> Float[Array, "b t c"]:
    y, _ = self.narrow(jax.nn.elu(x), length)
    y, _ = self.widen(jax.nn.elu(y), length)
    if not self.config.true_skip:
      x, _ = self.shortcut(x, length)
    return x + y


_Layers: TypeAlias = list[Conv | ConvTranspose | Residual]


class _Coder(_Block):
  """What encoder and decoder share: three stages.

  Only the LSTM in the middle carries state; `before` and `after` look a few
  frames to either side.  So long sounds can be done in pieces (`pieces`).
  """

  @property
  def fields(self) -> tuple[ReceptiveField, ReceptiveField, ReceptiveField]:
    """What `before`, the LSTM and `after` see of what goes into each."""
    lstm = self.lstm.field if self.config.lstm_layers else fields.POINTWISE
    before, after = self._stacks()
    return _field_of(before), lstm, _field_of(after)

  def __call__(
    self, x: Float[Array, "b n c"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b m d"], Int[Array, " b"]]:
    x, length = self.before(x, length)
    x, _ = self.run_lstm(x, length)
    return self.after(x, length)

  def run_lstm(
    self,
    x: Float[Array, "b t f"],
    length: Int[Array, " b"],
    carry: Carry | None = None,
  ) -> tuple[Float[Array, "b t f"], Carry]:
    """Looks back through the LSTM."""
    return self.lstm(x, length, carry) if self.config.lstm_layers else (x, [])


def _field_of(layers: _Layers) -> ReceptiveField:
  return fields.series(*(layer.field for layer in layers))


class Encoder(_Coder):
  """Sound `b n c` -> latents `b ⌈n/hop⌉ width`."""

  def setup(self) -> None:
    c = self.config
    self.conv_in = self.conv("conv_in", c.filters, c.kernel, block=0)
    self.stages = [
      (
        [
          Residual(
            c,
            c.filters * 2**i,
            c.dilation_base**j,
            block=i + 1,
            name=f"down_{i}_residual_{j}",
          )
          for j in range(c.residual_layers)
        ],
        self.conv(
          f"down_{i}",
          c.filters * 2 ** (i + 1),
          2 * ratio,
          stride=ratio,
          block=i + 1,
        ),
      )
      for i, ratio in enumerate(reversed(c.ratios))
    ]
    self.lstm = LSTM(c.lstm_layers, name="lstm")
    last = len(c.ratios) + 1
    self.conv_out = self.conv("conv_out", c.width, c.last_kernel, block=last)

  def _stacks(self) -> tuple[_Layers, _Layers]:
    stages = [[*residuals, down] for residuals, down in self.stages]
    return [self.conv_in, *itertools.chain(*stages)], [self.conv_out]

  def before(
    self, x: Float[Array, "b n c"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b t f"], Int[Array, " b"]]:
    """Sound to frames."""
    x, length = self.conv_in(x, length)
    for residuals, down in self.stages:
      for residual in residuals:
        x = residual(x, length)
      x, length = down(jax.nn.elu(x), length)
    return x, length

  def after(
    self, x: Float[Array, "b t f"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b t d"], Int[Array, " b"]]:
    """Frames to latents."""
    return self.conv_out(jax.nn.elu(x), length)


class Decoder(_Coder):
  """Latents `b t width` -> sound `b (t hop) c`; the encoder's mirror image."""

  def setup(self) -> None:
    c, stages = self.config, len(self.config.ratios)
    features = c.filters * 2**stages
    block = stages + 1
    self.conv_in = self.conv("conv_in", features, c.kernel, block=block)
    self.lstm = LSTM(c.lstm_layers, name="lstm")
    self.stages = [
      (
        ConvTranspose(
          c.filters * 2 ** (stages - i - 1),
          ratio,
          causal=c.causal,
          norm=c.norm_of(stages - i),
          name=f"up_{i}_transposed",
        ),
        [
          Residual(
            c,
            c.filters * 2 ** (stages - i - 1),
            c.dilation_base**j,
            block=stages - i,
            name=f"up_{i}_residual_{j}",
          )
          for j in range(c.residual_layers)
        ],
      )
      for i, ratio in enumerate(c.ratios)
    ]
    self.conv_out = self.conv("conv_out", c.channels, c.last_kernel, block=0)

  def _stacks(self) -> tuple[_Layers, _Layers]:
    stages = [[up, *residuals] for up, residuals in self.stages]
    return [self.conv_in], [*itertools.chain(*stages), self.conv_out]

  def before(
    self, x: Float[Array, "b t d"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b t f"], Int[Array, " b"]]:
    """Latents to frames."""
    return self.conv_in(x, length)

  def after(
    self, x: Float[Array, "b t f"], length: Int[Array, " b"]
  ) -> tuple[Float[Array, "b n c"], Int[Array, " b"]]:
    """Frames to sound."""
    for up, residuals in self.stages:
      x, length = up(jax.nn.elu(x), length)
      for residual in residuals:
        x = residual(x, length)
    return self.conv_out(jax.nn.elu(x), length)
