"""What a U-Net is trained on: the noise in latents, at random times.

DDPM (Ho et al., 2020, §3.4): a time is drawn for each latent, noise is added as
the schedule says, and the mean square of what the U-Net finds too much or too
little of it is made small.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion.schedule import Schedule


class Example(NamedTuple):
  """What the U-Net sees, and what it is to find.

  Attributes:
    noised: Latents with noise.
    time: Of each.
    target: The noise of each, or its velocity, as the schedule says.
    weight: Of each one's loss.
  """

  noised: Float[Array, "b w z c"]
  time: Int[Array, " b"]
  target: Float[Array, "b w z c"]
  weight: Float[Array, " b"]


def drawn(
  latents: Float[Array, "b w z c"],
  schedule: Schedule,
  key: Key[Array, ""],
  *,
  min_snr: float = 0.0,
) -> Example:
  """Latents at times that are drawn evenly."""
  of_time, of_noise = jax.random.split(key)
  rows = latents.shape[0]
  time = jax.random.randint(of_time, (rows,), 0, schedule.times)
  noise = jax.random.normal(of_noise, latents.shape)
  return example(latents, schedule, time, noise, min_snr=min_snr)


def example(
  latents: Float[Array, "b w z c"],
  schedule: Schedule,
  time: Int[Array, " b"],
  noise: Float[Array, "b w z c"],
  *,
  min_snr: float = 0.0,
) -> Example:
  """Latents at these times, with this noise.

  Args:
    latents: Scaled.
    schedule: Of the noise.
    time: Of each.
    noise: Standard normal.
    min_snr: γ of min-SNR weighting (Hang et al., 2023, §3.4): times with more
      signal than γ times the noise weigh less; 0 weighs all alike.
  """
  level = jnp.asarray(schedules.kept(schedule), jnp.float32)[time]
  per_row = level[:, None, None, None]
  noised = schedules.noised(latents, noise, per_row)
  target, ratio = noise, level / (1 - level)
  full = ratio  # what a min-SNR weight is divided by
  if schedule.predicts == "velocity":
    target, full = schedules.velocity(latents, noise, per_row), ratio + 1
  weight = jnp.ones_like(level)
  if min_snr:
    weight = jnp.minimum(ratio, min_snr) / full
  return Example(noised, time, target, weight)


def squares(
  found: Float[Array, "b w z c"], example: Example
) -> Float[Array, " b"]:
  """The weighted mean square of each row."""
  each = jnp.mean(jnp.square(found - example.target), axis=(1, 2, 3))
  return example.weight * each
