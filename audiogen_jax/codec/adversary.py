"""Discriminators: networks that tell recordings from what a codec makes.

    msstft   complex spectra at five resolutions     Défossez et al., 2022, §3.4
    mpd      the wave folded at five periods         Kong et al., 2020
    msd      the wave at three rates                 Kumar et al., 2019

The released recipe uses the first alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.audio import dsp
from audiogen_jax.codec.layers import uniform, weight_normed
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

Kind = Literal["msstft", "mpd", "msd"]

# Meanings of the parameters' axes: discriminators are small and kept whole.
AXES = {
  r"(msstft|mpd)/.*/(kernel|kernel_v)": (None,) * 4,
  r"msd/.*/(kernel|kernel_v)": (None,) * 3,
  r".*/(bias|kernel_g)": (None,),
}


@dataclasses.dataclass(frozen=True)
class AdversaryConfig:
  """Discriminators and their losses; the defaults are the released recipe's.

  Attributes:
    kinds: Which; none for training without an adversary.
    loss: `hinge`, where the generator's is not clipped; `hinge2`, where it is;
      `mse`, least squares.
    filters: Channels of the first layers.
    n_ffts: Windows of `msstft`, a quarter of a window apart.
    periods: Of `mpd`.
    rates: Of `msd`: how often the rate is halved, and once not at all.
    slope: Of the leaky ReLU below 0.
  """

  kinds: tuple[Kind, ...] = ("msstft",)
  loss: Literal["hinge", "hinge2", "mse"] = "hinge"
  filters: int = 32
  n_ffts: tuple[int, ...] = (1024, 2048, 512, 256, 128)
  periods: tuple[int, ...] = (2, 3, 5, 7, 11)
  rates: int = 3
  slope: float = 0.3

  def __post_init__(self):
    if len(set(self.kinds)) < len(self.kinds):
      raise InputError(f"adversary.kinds {self.kinds} names one twice")
    if "msd" in self.kinds and (self.filters < 8 or self.filters % 8):
      raise InputError(
        f"adversary.filters {self.filters} must be a multiple of 8 for msd,"
        " which splits half of them into four groups"
      )


class Judgement(NamedTuple):
  """What one discriminator says.

  Attributes:
    logits: High for what it takes for a recording.
    features: Its inner activations.
  """

  logits: Float[Array, "b ..."]
  features: list[Float[Array, "b ..."]]


Verdict: TypeAlias = dict[str, list[Judgement]]  # of each kind


class _Conv(nn.Module):
  """A convolution of one or two dimensions, channels last.

  Attributes:
    features: Output channels.
    shape: Of the kernel.
    stride: Of each dimension.
    dilation: Of each dimension.
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
      kernel = weight_normed(self, shape, fan_in, axis=len(shape) - 1)
    else:
      kernel = self.param("kernel", uniform(fan_in), shape)
    bias = self.param("bias", uniform(fan_in), (self.features,))
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


class SpectrumJudge(nn.Module):
  """One scale of `msstft`: real and imaginary parts as channels."""

  config: AdversaryConfig
  n_fft: int

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Judgement:
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
    return Judgement(logits[..., 0], features)


class PeriodJudge(nn.Module):
  """One period of `mpd`: every `period`-th sample in a column."""

  config: AdversaryConfig
  period: int

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Judgement:
    c, p = self.config, self.period
    b, n, channels = audio.shape
    room = -n % p
    audio = jnp.pad(audio, ((0, 0), (0, room), (0, 0)), "reflect")
    x = audio.reshape(b, (n + room) // p, p, channels)
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
    return Judgement(logits[..., 0], [*features, logits])


class RateJudge(nn.Module):
  """One rate of `msd`: grouped convolutions along the wave.

  Two departures from the published code: the sound really is halved in rate
  (there, what was pooled is thrown away), and the first scale has weight norm,
  not spectral norm, which would need a state.
  """

  config: AdversaryConfig

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> Judgement:
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
    return Judgement(logits[..., 0], [*features, logits])


class _Judges(nn.Module):
  """All of one kind."""

  config: AdversaryConfig
  kind: Kind

  @nn.compact
  def __call__(self, audio: Float[Array, "b n c"]) -> list[Judgement]:
    c = self.config
    if self.kind == "msstft":
      return [
        SpectrumJudge(c, n_fft, name=f"scale_{i}")(audio)
        for i, n_fft in enumerate(c.n_ffts)
      ]
    if self.kind == "mpd":
      return [
        PeriodJudge(c, period, name=f"period_{period}")(audio)
        for period in c.periods
      ]
    judged = []
    for i in range(c.rates):
      judged.append(RateJudge(c, name=f"rate_{i}")(audio))
      audio = nn.avg_pool(audio, (4,), (2,), ((2, 2),))
    return judged


def init(config: AdversaryConfig, key: jax.Array, channels: int = 1) -> Tree:
  """Fresh parameters, by kind."""
  # A second of any rate: parameters do not depend on the length.
  audio = jnp.zeros((1, 16000, channels))
  keys = jax.random.split(key, max(1, len(config.kinds)))
  return {
    kind: _Judges(config, kind).init(key, audio)["params"]
    for kind, key in zip(config.kinds, keys, strict=False)
  }


def discriminate(
  config: AdversaryConfig, params: Tree, audio: Float[Array, "b n c"]
) -> Verdict:
  """What every discriminator says of some sounds.

  Raises:
    InputError: For sounds shorter than the longest window.
  """
  return {
    kind: _Judges(config, kind).apply({"params": params[kind]}, audio)
    for kind in config.kinds
  }


def discriminator_loss(
  config: AdversaryConfig, real: Verdict, fake: Verdict
) -> Float[Array, ""]:
  """What the discriminators are to make small: a sum over the kinds.

  `real` and `fake` should come from two calls of `discriminate`.  Then the
  gradients of the last biases, which differ in sign alone, cancel exactly; from
  one call with both in a batch a rounding error would be left, and Adam, which
  knows no size, would make a full step of it.
  """
  total = jnp.float32(0)
  for kind in config.kinds:
    parts = [
      _of_fake(config, f.logits) + _of_real(config, r.logits)
      for r, f in zip(real[kind], fake[kind], strict=True)
    ]
    total += sum(parts) / len(parts)
  return total


def generator_losses(
  config: AdversaryConfig, real: Verdict, fake: Verdict
) -> dict[str, Float[Array, ""]]:
  """What the codec is to make small, for each kind.

  `adv_<kind>` is low when the discriminators take its sounds for recordings;
  `feat_<kind>`, feature matching, is the mean absolute difference of their
  activations, not divided by the activations' size, unlike in EnCodec's paper.
  """
  losses = {}
  for kind in config.kinds:
    adv = [_deceived(config, f.logits) for f in fake[kind]]
    feat = [
      feature_matching(r.features, f.features)
      for r, f in zip(real[kind], fake[kind], strict=True)
    ]
    losses[f"adv_{kind}"] = sum(adv) / len(adv)
    losses[f"feat_{kind}"] = sum(feat) / len(feat)
  return losses


def feature_matching(
  real: Sequence[Float[Array, "..."]], fake: Sequence[Float[Array, "..."]]
) -> Float[Array, ""]:
  """Mean over the maps of their mean absolute difference."""
  apart = [jnp.mean(jnp.abs(r - f)) for r, f in zip(real, fake, strict=True)]
  return sum(apart) / len(apart)


def _of_real(config, logits):
  if config.loss == "mse":
    return jnp.mean(jnp.square(logits - 1))
  return jnp.mean(jax.nn.relu(1 - logits))


def _of_fake(config, logits):
  if config.loss == "mse":
    return jnp.mean(jnp.square(logits))
  return jnp.mean(jax.nn.relu(1 + logits))


def _deceived(config, logits):
  if config.loss == "mse":
    return jnp.mean(jnp.square(logits - 1))
  if config.loss == "hinge2":
    return jnp.mean(jax.nn.relu(1 - logits))
  return -jnp.mean(logits)
