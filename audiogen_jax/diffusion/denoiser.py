"""The U-Net with its weights, schedule and devices: from noise to a latent."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import AnyArray, Tree, bucket
from audiogen_jax.diffusion import sampler, sampling
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion.sampler import Inputs, Known, State
from audiogen_jax.diffusion.sampling import Diffusion, Planned
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNet, UNetConfig

# What a row's noise is drawn for, far above the numbers of steps.
START, POSTERIOR = 1 << 20, 1 << 21
_REPORT_EVERY = 5  # runs of the U-Net between two reports of progress

_run = jax.jit(sampler.run, static_argnames=("config", "guided", "dtype"))
_noised = jax.jit(schedules.noised)


class Denoiser:
  """A U-Net that can be run.

  Attributes:
    config: Its shape.
    schedule: Of the noise that it was trained to find.
    params: Its parameters, as `unet.init` makes them.
    placement: The devices.
    dtype: Type of matrix products.
  """

  def __init__(
    self,
    config: UNetConfig,
    schedule: Schedule,
    params: Tree,
    placement: Placement,
    dtype: jnp.dtype = UNet.dtype,
  ) -> None:
    self.config = config
    self.schedule = schedule
    self.params = params
    self.placement = placement
    self.dtype = dtype

  def rows(self, count: int) -> int:
    """Rows of a batch of `count`: their bucket, which the mesh divides."""
    ways = self.placement.ways("batch")
    return -(-bucket(count) // ways) * ways

  def plan(self, options: Diffusion, strength: float | int = 1.0) -> Planned:
    """What the solver does; see `sampling.plan`.

    Raises:
      InputError: For options that the schedule cannot follow.
    """
    return sampling.plan(options, self.schedule, strength=strength)

  def steps(self, options: Diffusion) -> int:
    """How many steps a solver takes: on the published grid perhaps more."""
    return len(sampling.times(options, self.schedule))

  def noised(
    self,
    latent: Float[AnyArray, "b w z c"],
    noise: Float[AnyArray, "b w z c"],
    plan: Planned,
  ) -> Float[np.ndarray, "b w z c"]:
    """Latents as noisy as a plan begins with."""
    return np.asarray(_noised(latent, noise, plan.level))

  def sample(
    self,
    start: Float[np.ndarray, "b w z c"],
    options: Diffusion,
    plan: Planned,
    *,
    seeds: Sequence[int],
    context: Float[AnyArray, "r l d"] | None = None,
    without: Float[AnyArray, "#r l d"] | None = None,
    beside: Float[np.ndarray, "b w z e"] | None = None,
    step_noise: Float[np.ndarray, "s b w z c"] | None = None,
    known: Known | None = None,
    progress: Callable[[int, int], None] | None = None,
  ) -> Float[np.ndarray, "b w z c"]:
    """Follows a plan from `start` to latents, in every process the same.

    Args:
      start: Noise, or latents that are as noisy as the plan begins with.
      options: Whose plan it is.
      plan: See `plan`.
      seeds: One a row, for noise on the way.
      context: What is wanted, of `rows(b)` rows; None for a model without.
      without: What guidance leads away from, of as many rows or of one.
      beside: Channels beside the latent, of a model that has them.
      step_noise: Of each step, for DDIM's η; None to draw it.
      known: What stays of a sound.
      progress: Called with (runs of the U-Net done, runs in all).
    """
    b, rows = len(start), self.rows(len(start))

    def put(x: AnyArray | None, at: int = 0) -> jax.Array | None:
      """A batch, its rows along axis `at`, filled up with zeros."""
      if x is None:
        return None
      x = np.moveaxis(np.asarray(x, np.float32), at, 0)
      x = np.moveaxis(sharding.padded(x, rows), 0, at)
      axes = [None] * x.ndim
      axes[at] = "batch"
      return self.placement.put(x, *axes)

    if known is not None:
      known = Known(put(known.latent), put(known.mask), put(known.noise, at=1))
    inputs = Inputs(
      jnp.float32(options.guidance),
      _keys(
        self.placement.put(np.uint32([*seeds, *[0] * (rows - b)]), "batch")
      ),
      self._contexts(context, without, options.guided),
      put(beside),
      put(step_noise, at=1),
      known,
    )
    state = State.start(put(start))
    every = plan.lines
    if progress is not None:
      every = _REPORT_EVERY
      progress(0, plan.lines)
    for line in range(0, plan.lines, every):
      stop = min(line + every, plan.lines)
      state = _run(
        self.params,
        state,
        inputs,
        plan.plan,
        jnp.int32(stop),
        config=self.config,
        guided=options.guided,
        dtype=self.dtype,
      )
      if progress is not None:
        jax.block_until_ready(state)
        progress(stop, plan.lines)
    return sharding.fetch(state.latent)[:b]

  def _contexts(
    self,
    context: Float[AnyArray, "r l d"] | None,
    without: Float[AnyArray, "#r l d"] | None,
    guided: bool,
  ) -> jax.Array | None:
    """What the U-Net reads: pairs, with guidance."""
    if not self.config.context_width:
      return None
    return _paired(context, without) if guided else context


def drawn(
  seeds: Sequence[int], shape: tuple[int, int, int], purpose: int
) -> Float[np.ndarray, "b w z c"]:
  """Standard normal noise: a row of its own for each seed.

  Args:
    seeds: One a row, in [0, 2^32).
    shape: Of a row.
    purpose: `START` or `POSTERIOR`: one seed has other noise for each.
  """
  keys = _keys(np.asarray(seeds, np.uint32))
  return np.asarray(_normal(keys, jnp.uint32(purpose), shape))


def checked(
  noise: AnyArray, shape: tuple[int, ...], name: str
) -> Float[np.ndarray, "..."]:
  """Noise that was given in place of seeds.

  Raises:
    InputError: If it is of another shape, or not finite.
  """
  noise = np.asarray(sharding.fetch(noise), np.float32)
  if noise.shape != shape:
    raise InputError(
      f"{name} has shape {list(noise.shape)}; these sounds need {list(shape)}"
    )
  if not np.isfinite(noise).all():
    raise InputError(f"{name} holds values that are not finite")
  return noise


_keys = jax.jit(jax.vmap(jax.random.key))
_paired = jax.jit(sampler.paired)


@functools.partial(jax.jit, static_argnums=2)
def _normal(
  keys: jax.Array, purpose: jax.Array, shape: tuple[int, int, int]
) -> jax.Array:
  return jax.vmap(
    lambda key: jax.random.normal(jax.random.fold_in(key, purpose), shape)
  )(keys)
