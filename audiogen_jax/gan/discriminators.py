"""Discriminators: networks that tell recordings from what a generator makes.

    msstft   complex spectra at five resolutions     Défossez et al., 2022, §3.4
    mpd      the wave folded at five periods         Kong et al., 2020
    msd      the wave at three rates                 Kumar et al., 2019
    hifi_msd the same, deeper                        Kong et al., 2020
    mrd      magnitudes at three resolutions         Jang et al., 2021

The released recipe of codecs uses the first alone; HiFi-GAN has `mpd` and
`hifi_msd`, BigVGAN `mpd` and `mrd`.
"""

import dataclasses
from typing import Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.audio import dsp
from audiogen_jax.core import weight_norm
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

Kind = Literal["msstft", "mpd", "msd", "hifi_msd", "mrd"]

# Meanings of the parameters' axes: discriminators are small and replicated.
AXES = {
  r"(msstft|mpd|mrd)/.*/(kernel|kernel_v)": (None,) * 4,
  r"(hifi_)?msd/.*/(kernel|kernel_v)": (None,) * 3,
  r".*/(bias|kernel_g)": (None,),
}


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
  """Discriminators and their losses; the defaults are the released recipe's.

  Attributes:
    kinds: Which; none for training without an adversary.
    loss: `hinge`, where the generator's is not clipped; `hinge2`, where it is;
      `mse`, least squares.
    filters: Channels of the first layers.
    n_ffts: Windows of `msstft`, a quarter of a window apart.
    periods: Periods of `mpd`, in samples.
    rates: Of `msd` and `hifi_msd`: the rate as it is, and halved once, twice …
    resolutions: Of `mrd`: samples of a frame, from one frame to the next, and
      under the window.
    slope: Slope of the leaky ReLU below 0.
    summed: Whether losses are sums over the discriminators of a kind and their
      layers, as vocoders have them; otherwise means.
  """

  kinds: tuple[Kind, ...] = ("msstft",)
  loss: Literal["hinge", "hinge2", "mse"] = "hinge"
  filters: int = 32
  n_ffts: tuple[int, ...] = (1024, 2048, 512, 256, 128)
  periods: tuple[int, ...] = (2, 3, 5, 7, 11)
  rates: int = 3
  resolutions: tuple[tuple[int, ...], ...] = (
    (1024, 120, 600),
    (2048, 240, 1200),
    (512, 50, 240),
  )
  slope: float = 0.3
  summed: bool = False

  def __post_init__(self) -> None:
    if len(set(self.kinds)) < len(self.kinds):
      raise InputError(f"adversary.kinds {self.kinds} names one twice")
    if "msd" in self.kinds and (self.filters < 8 or self.filters % 8):
      raise InputError(
        f"adversary.filters {self.filters} must be a multiple of 8 for msd,"
        " which splits half of them into four groups"
      )
    if "hifi_msd" in self.kinds and (self.filters < 4 or self.filters % 4):
      raise InputError(
        f"adversary.filters {self.filters} must be a multiple of 4 for"
        " hifi_msd, which splits four times as many into 16 groups"
      )
    for each in self.resolutions:
      if len(each) != 3 or not 0 < each[1] <= each[2] <= each[0]:
        raise InputError(
          f"adversary.resolutions {each} must be samples of a frame, of a hop"
          " and of a window, the hop the least and the frame the most"
        )


class Output(NamedTuple):
  """Output of one discriminator.

  Attributes:
    logits: High for what it takes for a recording.
    features: Its inner activations, for feature matching.
  """

  logits: Float[Array, "b ..."]
  features: list[Float[Array, "b ..."]]


Outputs: TypeAlias = dict[str, list[Output]]  # by kind


class _Conv(nn.Module):
  """A convolution of one or two dimensions, channels last.

  Attributes:
    features: Output channels.
    shape: Shape of the kernel.
    stride: Stride of each dimension.
    dilation: Dilation of each dimension.
    pad: Zeros at both ends of each dimension.
    groups: That channels are split into.
    normed: With weight norm.
  """

  features: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]
  dilation: tuple[int, ...]
  pad: tuple[int, ...]
  groups: int = 1
  normed: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "b ... c"]) -> Float[Array, "b ... f"]:
    inner = x.shape[-1] // self.groups
    shape = (*self.shape, inner, self.features)
    fan_in = inner
    for size in self.shape:
      fan_in *= size
    if self.normed:
      kernel = weight_norm.kernel(self, shape, fan_in, axis=len(shape) - 1)
    else:
      kernel = self.param("kernel", weight_norm.uniform(fan_in), shape)
    bias = self.param("bias", weight_norm.uniform(fan_in), (self.features,))
    letters = "HW"[: len(self.shape)]
    x = jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=self.stride,
      padding=[(p, p) for p in self.pad],
      rhs_dilation=self.dilation,
      dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
      feature_group_count=self.groups,
    )
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class STFTDiscriminator(nn.Module):
  """One scale of `msstft`: real and imaginary parts as channels."""

  config: DiscriminatorConfig
  n_fft: int

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Output:
    c = self.config
    spectrum = dsp.stft(
      jnp.moveaxis(audio, -1, 1),
      n_fft=self.n_fft,
      hop=self.n_fft // 4,
      normalized=True,
    )
    x = jnp.concatenate([spectrum.real, spectrum.imag], axis=1)
    x = jnp.moveaxis(x, 1, -1)  # b t f c
    features = []
    for i, (width, stride, dilation) in enumerate(
      [(9, 1, 1), (9, 2, 1), (9, 2, 2), (9, 2, 4), (3, 1, 1)]
    ):
      x = _Conv(
        c.filters,
        (3, width),
        (1, stride),
        (dilation, 1),
        (dilation, width // 2),
        normed=i > 0,  # as published, where an argument was forgotten
        name=f"conv_{i}",
      )(x)
      x = jax.nn.leaky_relu(x, c.slope)
      features.append(x)
    logits = _Conv(1, (3, 3), (1, 1), (1, 1), (1, 1), name="conv_post")(x)
    return Output(logits[..., 0], features)


class PeriodDiscriminator(nn.Module):
  """One period of `mpd`: every `period`-th sample in a column."""

  config: DiscriminatorConfig
  period: int

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Output:
    c, p = self.config, self.period
    b, n, channels = audio.shape
    padding = -n % p
    audio = jnp.pad(audio, ((0, 0), (0, padding), (0, 0)), "reflect")
    x = audio.reshape(b, (n + padding) // p, p, channels)
    features = []
    for i in range(5):
      x = _Conv(
        min(c.filters * 4**i, 32 * c.filters),
        (5, 1),
        (3 if i < 4 else 1, 1),
        (1, 1),
        (2, 0),
        name=f"conv_{i}",
      )(x)
      x = jax.nn.leaky_relu(x, c.slope)
      features.append(x)
    logits = _Conv(1, (3, 1), (1, 1), (1, 1), (1, 0), name="conv_post")(x)
    return Output(logits[..., 0], [*features, logits])


class ScaleDiscriminator(nn.Module):
  """One rate of `msd`: grouped convolutions along the wave.

  Two departures from the published code: the sound really is halved in rate
  (there, what was pooled is thrown away), and the first scale has weight norm,
  not spectral norm, which would need a state.
  """

  config: DiscriminatorConfig

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Output:
    c = self.config
    x = jnp.pad(audio, ((0, 0), (7, 7), (0, 0)), "reflect")
    first = c.filters // 2
    layers = [(first, 15, 1, 0, 1)]
    layers += [
      (min(first * 4 ** (i + 1), 64 * first), 41, 4, 20, 4) for i in range(4)
    ]
    layers += [(64 * first, 5, 1, 2, 1)]
    features = []
    for i, (width, kernel, stride, pad, groups) in enumerate(layers):
      x = _Conv(
        width, (kernel,), (stride,), (1,), (pad,), groups, name=f"conv_{i}"
      )(x)
      x = jax.nn.leaky_relu(x, c.slope)
      features.append(x)
    logits = _Conv(1, (3,), (1,), (1,), (1,), name="conv_post")(x)
    return Output(logits[..., 0], [*features, logits])


class HifiScaleDiscriminator(nn.Module):
  """One rate of `hifi_msd` (Kong et al., 2020, §2.3).

  As published but for the first rate, which has weight norm here, and there
  spectral norm, which would need a state.
  """

  config: DiscriminatorConfig

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Output:
    x, f, features = audio, self.config.filters, []
    for i, (width, kernel, stride, groups) in enumerate(
      [
        (4 * f, 15, 1, 1),
        (4 * f, 41, 2, 4),
        (8 * f, 41, 2, 16),
        (16 * f, 41, 4, 16),
        (32 * f, 41, 4, 16),
        (32 * f, 41, 1, 16),
        (32 * f, 5, 1, 1),
      ]
    ):
      x = _Conv(
        width,
        (kernel,),
        (stride,),
        (1,),
        (kernel // 2,),
        groups,
        name=f"conv_{i}",
      )(x)
      x = jax.nn.leaky_relu(x, self.config.slope)
      features.append(x)
    logits = _Conv(1, (3,), (1,), (1,), (1,), name="conv_post")(x)
    return Output(logits[..., 0], [*features, logits])


class ResolutionDiscriminator(nn.Module):
  """One resolution of `mrd` (Jang et al., 2021, §2.2, as BigVGAN has it).

  Magnitudes under a window without a slope; convolutions go on in steps of two
  frames, not frequencies.
  """

  config: DiscriminatorConfig
  resolution: tuple[int, ...]

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Output:
    c, (n_fft, hop, window) = self.config, self.resolution
    spectrum = dsp.stft(
      dsp.reflect(jnp.moveaxis(audio, -1, 1), (n_fft - hop) // 2),
      n_fft=n_fft,
      hop=hop,
      window="boxcar",
      window_length=window,
    )
    x = jnp.moveaxis(jnp.abs(spectrum), 1, -1).swapaxes(1, 2)  # b f t c
    features = []
    for i, (width, stride) in enumerate([(9, 1), *[(9, 2)] * 3, (3, 1)]):
      x = _Conv(
        c.filters,
        (3, width),
        (1, stride),
        (1, 1),
        (1, width // 2),
        name=f"conv_{i}",
      )(x)
      x = jax.nn.leaky_relu(x, c.slope)
      features.append(x)
    logits = _Conv(1, (3, 3), (1, 1), (1, 1), (1, 1), name="conv_post")(x)
    return Output(logits[..., 0], [*features, logits])


class _Discriminators(nn.Module):
  """All discriminators of one kind."""

  config: DiscriminatorConfig
  kind: Kind

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> list[Output]:
    c = self.config
    if self.kind == "msstft":
      return [
        STFTDiscriminator(c, n_fft, name=f"scale_{i}")(audio)
        for i, n_fft in enumerate(c.n_ffts)
      ]
    if self.kind == "mpd":
      return [
        PeriodDiscriminator(c, period, name=f"period_{period}")(audio)
        for period in c.periods
      ]
    if self.kind == "mrd":
      return [
        ResolutionDiscriminator(c, each, name=f"resolution_{i}")(audio)
        for i, each in enumerate(c.resolutions)
      ]
    one = ScaleDiscriminator if self.kind == "msd" else HifiScaleDiscriminator
    outputs = []
    for i in range(c.rates):
      outputs.append(one(c, name=f"rate_{i}")(audio))
      audio = nn.avg_pool(audio, (4,), (2,), ((2, 2),))
    return outputs


def init(
  config: DiscriminatorConfig, key: jax.Array, channels: int = 1
) -> Tree:
  """Fresh parameters, by kind."""
  # A second of any rate: parameters do not depend on the length.
  audio = jnp.zeros((1, 16000, channels))
  keys = jax.random.split(key, max(1, len(config.kinds)))
  return {
    kind: _Discriminators(config, kind).init(key, audio)["params"]
    for kind, key in zip(config.kinds, keys, strict=False)
  }


def discriminate(
  config: DiscriminatorConfig, params: Tree, audio: Float[Array, "b n c"]
) -> Outputs:
  """Outputs of every discriminator for some sounds, by kind.

  Raises:
    InputError: For sounds shorter than the longest window.
  """
  return {
    kind: _Discriminators(config, kind).apply({"params": params[kind]}, audio)
    for kind in config.kinds
  }
