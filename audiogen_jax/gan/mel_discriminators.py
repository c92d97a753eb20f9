"""Discriminators that tell mel spectrograms of recordings from made ones.

    patch    PatchGAN: one logit for each patch       Isola et al., 2017
    window   one logit for each of some random spans  Huang et al., 2023, §3.2

Make-An-Audio's released recipe trains against the first alone, its paper
against the second; a configuration that names both has both.
"""

import dataclasses
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

Kind = Literal["patch", "window"]
Logits: TypeAlias = dict[str, Float[Array, "b ..."]]  # by kind
Starts: TypeAlias = Int[Array, " w"]

# Meanings of the parameters' axes: discriminators are small and replicated.
AXES = {
  r".*conv_\d/kernel": (None,) * 4,
  r".*logit/kernel": (None, None),
  r".*/(bias|scale)": (None,),
}

_EPSILON = 1e-5
_SLOPE = 0.2
_HALVINGS = 3  # of a window, whose frames and bands they divide


@dataclasses.dataclass(frozen=True)
class MelDiscriminatorConfig:
  """Discriminators of mel spectrograms; the defaults are the released recipe's.

  Attributes:
    kinds: Which; none for training without an adversary.
    filters: Channels of the first layer of `patch`.
    layers: Its convolutions that halve; one more, and the logits, follow.
    windows: Frames of the spans of `window`.
    window_filters: Its channels.
    dropout: Share of its channels that training leaves out.
  """

  kinds: tuple[Kind, ...] = ("patch",)
  filters: int = 64
  layers: int = 3
  windows: tuple[int, ...] = (32, 64, 128)
  window_filters: int = 128
  dropout: float = 0.25

  def __post_init__(self) -> None:
    if len(set(self.kinds)) < len(self.kinds):
      raise InputError(f"adversary.kinds {self.kinds} names one twice")
    if any(w < 1 or w % 2**_HALVINGS for w in self.windows) or (
      "window" in self.kinds and not self.windows
    ):
      raise InputError(
        f"adversary.windows {self.windows} must be multiples of"
        f" {2**_HALVINGS} frames, and at least one"
      )
    if not 0 <= self.dropout < 1:
      raise InputError(f"adversary.dropout {self.dropout} must lie in [0, 1)")

  def check(self, frames: int) -> None:
    """Raises InputError unless spectrograms of `frames` frames hold windows."""
    if "window" in self.kinds and max(self.windows) > frames:
      raise InputError(
        f"rows have {frames} frames, adversary.windows {self.windows} need"
        f" {max(self.windows)}; make data.duration_s longer or leave the"
        " largest out"
      )


def _conv(
  name: str, features: int, size: int, stride: int, bias: bool = True
) -> nn.Conv:
  """A convolution with a zero around, of the published start."""
  return nn.Conv(
    features,
    (size, size),
    (stride, stride),
    padding=1,
    use_bias=bias,
    kernel_init=nn.initializers.normal(0.02),
    name=name,
  )


class _Norm(nn.Module):
  """What varies over some axes, brought to mean 0 and variance 1, affine.

  Over batch, time and bands it is a batch norm in training, over the last two
  an instance norm.  Running statistics, which nothing in training reads, are
  not kept.

  Attributes:
    axes: Which.
    spread: Standard deviation of the scale at the start, about 1.
  """

  axes: tuple[int, ...]
  spread: float = 0.0

  @nn.compact
  def __call__(self, x: Float[Array, "b t m c"]) -> Float[Array, "b t m c"]:
    def around_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
      return 1 + self.spread * jax.random.normal(key, shape)

    scale = self.param("scale", around_one, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    mean = jnp.mean(x, axis=self.axes, keepdims=True)
    variance = jnp.var(x, axis=self.axes, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(variance + _EPSILON)
    return x * scale[None, None, None] + bias[None, None, None]


class PatchDiscriminator(nn.Module):
  """PatchGAN: mel spectrograms as images -> a logit for each patch."""

  config: MelDiscriminatorConfig

  @nn.compact
  def __call__(self, x: Float[Array, "b t m 1"]) -> Float[Array, "b u n"]:
    c = self.config
    x = _conv("conv_0", c.filters, 4, 2)(x)
    x = jax.nn.leaky_relu(x, _SLOPE)
    for i in range(1, c.layers + 1):
      features = c.filters * min(2**i, 8)
      stride = 2 if i < c.layers else 1
      x = _conv(f"conv_{i}", features, 4, stride, bias=False)(x)
      x = _Norm((0, 1, 2), 0.02, name=f"norm_{i}")(x)
      x = jax.nn.leaky_relu(x, _SLOPE)
    return _conv(f"conv_{c.layers + 1}", 1, 4, 1)(x)[..., 0]


class _Window(nn.Module):
  """Spans of one length -> a logit each."""

  config: MelDiscriminatorConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t m 1"], train: bool
  ) -> Float[Array, " b"]:
    c = self.config
    for i in range(_HALVINGS):
      x = _conv(f"conv_{i}", c.window_filters, 3, 2)(x)
      x = jax.nn.leaky_relu(x, _SLOPE)
      # Whole channels are left out (Tompson et al., 2015).
      x = nn.Dropout(c.dropout, (1, 2), deterministic=not train)(x)
      if i:
        x = _Norm((1, 2), name=f"norm_{i}")(x)
    return nn.Dense(1, name="logit")(x.reshape(x.shape[0], -1))[:, 0]


class WindowDiscriminator(nn.Module):
  """The multi-window discriminator: spans of several lengths -> logits."""

  config: MelDiscriminatorConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t m 1"], starts: Starts, train: bool
  ) -> Float[Array, "b w"]:
    logits = []
    for i, window in enumerate(self.config.windows):
      span = jax.lax.dynamic_slice_in_dim(x, starts[i], window, axis=1)
      logits.append(_Window(self.config, name=f"window_{i}")(span, train))
    return jnp.stack(logits, axis=1)


def init(config: MelDiscriminatorConfig, key: jax.Array, *, bands: int) -> Tree:
  """Fresh parameters, by kind, for spectrograms of so many mel bands."""
  keys = jax.random.split(key)
  image = jnp.zeros((1, max(config.windows, default=32), bands, 1))
  starts = jnp.zeros(len(config.windows), jnp.int32)
  made: Tree = {}
  if "patch" in config.kinds:
    made["patch"] = PatchDiscriminator(config).init(keys[0], image)["params"]
  if "window" in config.kinds:
    window = WindowDiscriminator(config)
    made["window"] = window.init(keys[1], image, starts, False)["params"]
  return made


def discriminate(
  config: MelDiscriminatorConfig,
  params: Tree,
  images: Float[Array, "b t m"],
  key: jax.Array,
) -> Logits:
  """Logits of every discriminator, by kind, as in training.

  Args:
    config: The discriminators.
    params: Theirs.
    images: Mel spectrograms.
    key: By which channels are left out, and spans begin, the same in all rows.
      Recordings and what is made of them are looked at in other spans.
  """
  keys = jax.random.split(key)
  found: Logits = {}
  if "patch" in config.kinds:
    patch = PatchDiscriminator(config)
    found["patch"] = patch.apply({"params": params["patch"]}, images[..., None])
  if "window" in config.kinds:
    last = images.shape[1] - np.asarray(config.windows)
    starts = jax.random.randint(keys[0], last.shape, 0, last + 1)
    found["window"] = WindowDiscriminator(config).apply(
      {"params": params["window"]},
      images[..., None],
      starts,
      True,
      rngs={"dropout": keys[1]},
    )
  return found


def hinge(
  real: Float[Array, "..."], fake: Float[Array, "..."]
) -> Float[Array, ""]:
  """The hinge loss of a discriminator, from its logits of both."""
  lacking = jnp.mean(jax.nn.relu(1 - real))
  return (lacking + jnp.mean(jax.nn.relu(1 + fake))) / 2
