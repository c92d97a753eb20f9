"""The noise that diffusion adds: how much is left of a latent at each time.

DDPM (Ho et al., 2020) with the schedule of latent diffusion: the square roots
of β are evenly spaced.  At time `t` of 0 … T - 1 a latent is

    √ᾱ_t x + √(1 - ᾱ_t) noise,    ᾱ_t = (1 - β_0) … (1 - β_t)

A U-Net finds the noise in it, or its velocity (Salimans and Ho, 2022, appendix
D), which says of a latent that is almost noise alone what it hides:

    √ᾱ_t noise - √(1 - ᾱ_t) x
"""

import dataclasses
import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A schedule; the defaults are those of `maa1_full.ckpt`.

  Attributes:
    times: Steps of the diffusion, T.
    first: The first β.
    last: The last one.
    predicts: What the U-Net finds in a latent with noise.
  """

  times: int = 1000
  first: float = 0.00085
  last: float = 0.0120
  predicts: Literal["noise", "velocity"] = "noise"

  def __post_init__(self) -> None:
    if not 0 < self.first <= self.last < 1:
      raise InputError(
        f"β from {self.first:g} to {self.last:g} must rise within 0 and 1"
      )

  @property
  def betas(self) -> Float[np.ndarray, " t"]:
    """β of each time, in float64."""
    roots = np.linspace(self.first**0.5, self.last**0.5, self.times)
    return roots**2


@functools.cache
def kept(schedule: Schedule) -> Float[np.ndarray, " t"]:
  """ᾱ of each time, in float64; read-only, for callers share the array."""
  made = np.cumprod(1 - schedule.betas)
  made.flags.writeable = False
  return made


def noised(
  latent: Float[Array, "b w z c"],
  noise: Float[Array, "b w z c"],
  level: Float[AnyArray, ""] | Float[AnyArray, "b 1 1 1"],
) -> Float[Array, "b w z c"]:
  """Latents of which `level` is left, of all or of each: ᾱ of a time."""
  return jnp.sqrt(level) * latent + jnp.sqrt(1 - level) * noise


def velocity(
  latent: Float[Array, "b w z c"],
  noise: Float[Array, "b w z c"],
  level: Float[AnyArray, ""] | Float[AnyArray, "b 1 1 1"],
) -> Float[Array, "b w z c"]:
  """What a U-Net that predicts velocity is to find, see `noised`."""
  return jnp.sqrt(level) * noise - jnp.sqrt(1 - level) * latent
