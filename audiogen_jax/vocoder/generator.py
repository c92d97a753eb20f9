"""HiFi-GAN (Kong et al., 2020) and BigVGAN (Lee et al., 2023): mel -> sound.

    mel b t m -> conv_in ─> up ─> mean of blocks ─┐ ─> act ─> conv_out ─> b n 1
                            ^─────────────────────┘
                            until a frame is `hop` samples

Both are one network but for the activation: a leaky ReLU, which HiFi-GAN also
has before each `up`, or a snake between two rates.
"""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core import fields, weight_norm
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.fields import ReceptiveField
from audiogen_jax.core.types import Tree
from audiogen_jax.vocoder.activations import Activation, Bend
from audiogen_jax.vocoder.layers import Conv, ConvTranspose, Norm

_ENDS = 7  # width of the first and the last convolution
_LAST_SLOPE = 0.01  # HiFi-GAN's, of the last leaky ReLU alone

# Meanings of the parameters' axes: a vocoder runs once a sound, and most of its
# time goes into the last stages, whose few channels would be sent around more
# than they are computed with.  It is replicated.
AXES = {
  ".*/kernel(_v)?": (None, None, None),
  ".*/(bias|kernel_g|alpha|beta)": (None,),
}


@dataclasses.dataclass(frozen=True)
class VocoderConfig:
  """Shape of a vocoder; the defaults are those of Make-An-Audio's BigVGAN.

  Attributes:
    mel: The recipe of the mel spectrograms that it was trained on.
    filters: Channels after the first convolution; halved at every stage.
    ratios: Up-sampling factors, whose product is the recipe's hop.
    ratio_kernels: Widths of the transposed convolutions.
    kernels: Widths in each of the blocks of a stage.
    dilations: Dilations of each block's convolutions.
    paired: Whether a dilated convolution is followed by one that is not.
    activation: What bends.
    log_scale: See `Bend`.
    last_bias: Whether the last convolution has a bias.
    limit: What keeps samples within ±1.
    norm: `none` once directions and lengths of kernels are folded.
  """

  mel: MelConfig = mel.MAKE_AN_AUDIO
  filters: int = 1536
  ratios: tuple[int, ...] = (4, 4, 2, 2, 2, 2)
  ratio_kernels: tuple[int, ...] = (8, 8, 4, 4, 4, 4)
  kernels: tuple[int, ...] = (3, 7, 11)
  dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
  paired: bool = True
  activation: Activation = "snakebeta"
  log_scale: bool = True
  last_bias: bool = True
  limit: Literal["tanh", "clip"] = "tanh"
  norm: Norm = "weight_norm"

  def __post_init__(self) -> None:
    hop, ratio = self.mel.hop, math.prod(self.ratios)
    if hop != ratio:
      raise InputError(
        f"ratios {self.ratios} make {ratio} samples of a frame; its mel recipe"
        f" has a hop of {hop}"
      )
    stages = len(self.ratios)
    if len(self.ratio_kernels) != stages:
      raise InputError(
        f"{stages} ratios need as many kernels, got {self.ratio_kernels}"
      )
    for ratio, width in zip(self.ratios, self.ratio_kernels, strict=True):
      if width < ratio or (width - ratio) % 2:
        raise InputError(
          f"a kernel of {width} cannot make {ratio} samples of one; it should"
          f" be {ratio}, or an even number more"
        )
    if len(self.kernels) != len(self.dilations) or not self.kernels:
      raise InputError(
        f"kernels {self.kernels} are not one for each of the"
        f" {len(self.dilations)} lists of dilations"
      )
    if any(width % 2 == 0 for width in self.kernels):
      raise InputError(f"kernels {self.kernels} must be odd")
    if self.filters % 2**stages:
      raise InputError(
        f"{self.filters} filters cannot be halved {stages} times; take a"
        f" multiple of {2**stages}"
      )

  @property
  def has_snakes(self) -> bool:
    """Whether activations have parameters, and leave `up` without any."""
    return self.activation != "leaky_relu"


_fold = jax.jit(weight_norm.fold)  # one program, not one for each kernel


class Block(nn.Module):
  """Convolutions, each added to what it reads, of one width.

  Attributes:
    config: Of the vocoder.
    which: Number of the block in its stage.
    features: Channels.
  """

  config: VocoderConfig
  which: int
  features: int

  def setup(self) -> None:
    c = self.config
    width = c.kernels[self.which]

    def conv(name: str, dilation: int) -> list[Bend | Conv]:
      return [
        Bend(c.activation, c.log_scale, name=f"{name}_act"),
        Conv(self.features, width, dilation, norm=c.norm, name=name),
      ]

    self.pairs = [
      [
        *conv(f"conv_{i}", dilation),
        *(conv(f"conv_{i}_after", 1) if c.paired else []),
      ]
      for i, dilation in enumerate(c.dilations[self.which])
    ]

  @property
  def field(self) -> ReceptiveField:
    """What an output sees."""
    return fields.series(
      *(layer.field for layers in self.pairs for layer in layers)
    )

  def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
    for layers in self.pairs:
      y = x
      for layer in layers:
        y = layer(y)
      x = x + y
    return x


class Generator(nn.Module):
  """Mel spectrogram `b t m` -> sound `b (t hop) 1` in full scale."""

  config: VocoderConfig

  def setup(self) -> None:
    c = self.config
    self.conv_in = Conv(c.filters, _ENDS, norm=c.norm)
    self.stages = [
      (
        ConvTranspose(
          c.filters >> i + 1, width, ratio, c.norm, name=f"up_{i}_transposed"
        ),
        [
          Block(c, j, c.filters >> i + 1, name=f"up_{i}_block_{j}")
          for j in range(len(c.kernels))
        ],
      )
      for i, (ratio, width) in enumerate(
        zip(c.ratios, c.ratio_kernels, strict=True)
      )
    ]
    self.act_up = Bend("leaky_relu")  # of HiFi-GAN alone
    self.act_out = Bend(c.activation, c.log_scale, _LAST_SLOPE)
    self.conv_out = Conv(1, _ENDS, bias=c.last_bias, norm=c.norm)

  @property
  def field(self) -> ReceptiveField:
    """What a sample sees of the frames."""
    stages = (
      fields.series(up.field, fields.parallel(*(b.field for b in blocks)))
      for up, blocks in self.stages
    )
    ends = self.act_out.field, self.conv_out.field
    return fields.series(self.conv_in.field, *stages, *ends)

  def __call__(self, mel: Float[Array, "b t m"]) -> Float[Array, "b n 1"]:
    c = self.config
    x = self.conv_in(mel)
    for up, blocks in self.stages:
      x = up(x if c.has_snakes else self.act_up(x))
      x = sum(block(x) for block in blocks) / len(blocks)
    x = self.conv_out(self.act_out(x))
    return jnp.tanh(x) if c.limit == "tanh" else jnp.clip(x, -1, 1)


def init(config: VocoderConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  frames = jnp.zeros((1, 1, config.mel.n_mels))
  return Generator(config).init(key, frames)["params"]


def folded(config: VocoderConfig, params: Tree) -> tuple[VocoderConfig, Tree]:
  """What sampling runs: kernels instead of directions and lengths."""
  return dataclasses.replace(config, norm="none"), _fold(params)


def synthesize(
  config: VocoderConfig, params: Tree, mel: Float[Array, "b t m"]
) -> Float[Array, "b n 1"]:
  """Sound of mel spectrograms, in float32."""
  with jax.default_matmul_precision("highest"):
    return Generator(config).apply({"params": params}, mel)
