"""Activations of vocoders: leaky ReLU, and snakes between two rates.

A snake (Ziyin et al., 2020) adds a sine to its input, for sounds are periodic.
BigVGAN (Lee et al., 2023, §3.2) bends a signal at twice its rate and filters it
on the way there and back, so that what lies above half the rate does not fold
back into what is heard.
"""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.core.fields import POINTWISE, ReceptiveField

Activation = Literal["snakebeta", "snake", "leaky_relu"]

_TAPS = 12  # of the filter between the rates
_SIDE = _TAPS // 2 - 1  # how far a change of rate looks to either side
_HALF_WIDTH = 0.3  # of its transition, in units of the higher rate
_TINY = 1e-9  # added to what a sine is divided by


@functools.cache
def low_pass() -> Float[np.ndarray, " taps"]:
  """The filter between the rates: a sinc under a Kaiser window, of sum 1."""
  attenuation_db = 2.285 * _SIDE * np.pi * 4 * _HALF_WIDTH + 7.95
  # Kaiser's rule above 50 dB; scipy's takes a second to import.
  beta = 0.1102 * (attenuation_db - 8.7)
  at = np.arange(_TAPS) - (_TAPS - 1) / 2
  taps = np.sinc(at / 2) * np.kaiser(_TAPS, beta)
  taps = (taps / taps.sum()).astype(np.float32)
  taps.flags.writeable = False
  return taps


@jax.jit  # traced once a shape: a vocoder has a hundred of them
def snake(
  x: Float[Array, "b t c"],
  frequency: Float[Array, " c"],
  height: Float[Array, " c"],
) -> Float[Array, "b t c"]:
  """Doubles the rate, adds `height sin²(frequency x)`, and halves it again.

  The two phases of the doubled signal, at whole steps and halfway between them,
  are kept apart: each is a sum of six shifted inputs, and so is what returns of
  it.  Neither zeros between samples nor the doubled signal is ever written.

      x        o     o     o     o
      whole    o     o     o     o      taps 0, 2 … of x: t - 3 … t + 2
      halfway     o     o     o     o   taps 1, 3 … of x: t - 2 … t + 3

  Beyond its ends a signal goes on as its first and last sample, at either rate.
  """
  t, taps = x.shape[1], low_pass()
  reach = _TAPS // 2
  x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)), "edge")

  def phase(taps: np.ndarray, first: int) -> jax.Array:
    """One phase, from two or three steps before the first to as many behind."""
    y = 2 * _weighted(x, taps, first, t + reach - 1)
    sine = jnp.sin(y * frequency[None, None])
    return y + jnp.square(sine) * height[None, None]

  whole, halfway = phase(taps[::2], 1), phase(taps[1::2], 1)
  start, end = whole[:, 2:3], halfway[:, t + 2 : t + 3]
  steps = jnp.arange(-3, t + 3)[None, :, None]
  outside = jnp.where(steps < 0, start, end)
  inside = (steps >= 0) & (steps < t)
  whole = jnp.where(inside[:, 1:], whole, outside[:, 1:])  # -2 … t + 2
  halfway = jnp.where(inside[:, :-1], halfway, outside[:, :-1])  # -3 … t + 1
  return _weighted(whole, taps[1::2], 0, t) + _weighted(
    halfway, taps[::2], 0, t
  )


def _weighted(
  x: Float[Array, "b _ c"], taps: Float[np.ndarray, " k"], first: int, size: int
) -> Float[Array, "b {size} c"]:
  """Sum of `size` steps of `x`, from `first` on, shifted by one a tap."""
  parts = (
    x[:, first + i : first + i + size] * tap for i, tap in enumerate(taps)
  )
  return functools.reduce(jnp.add, parts)


class Bend(nn.Module):
  """An activation, `b t c -> b t c`.

  Attributes:
    kind: A snake adds `sin²(α x) / α`, a snakebeta `sin²(α x) / β`, with one
      `α` and `β` a channel, at twice the rate.
    log_scale: Whether `α` and `β` are exponentials of what is stored.
    slope: Of a leaky ReLU below 0.
  """

  kind: Activation
  log_scale: bool = True
  slope: float = 0.1

  @property
  def field(self) -> ReceptiveField:
    """What an output sees."""
    if self.kind == "leaky_relu":
      return POINTWISE
    return ReceptiveField(_SIDE, _SIDE)

  @nn.compact
  def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
    if self.kind == "leaky_relu":
      return jax.nn.leaky_relu(x, self.slope)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    init = zeros if self.log_scale else ones
    names = ("alpha", "beta") if self.kind == "snakebeta" else ("alpha",)
    scales = [self.param(name, init, (x.shape[-1],)) for name in names]
    if self.log_scale:
      scales = [jnp.exp(scale) for scale in scales]
    return snake(x, scales[0], 1 / (scales[-1] + _TINY))
