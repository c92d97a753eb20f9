"""Sampling: solvers on a flow that is known, one program, rows alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.diffusion import sampler, sampling, unet
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion.sampler import Inputs, State
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig

SCHEDULE = Schedule()
SMALL = UNetConfig(
  filters=32, multipliers=(1,), residual_layers=1, heads=2, context_width=5
)


def follow(made, x, find):
  """The loop of `sampler`, in numpy: latents are numbers."""
  kept, before = x, [0.0] * 3
  for row in range(made.lines):
    line = type(made.plan)(*(column[row] for column in made.plan))
    foretold = line.foretold @ [x, find(x, line.level)]
    base = kept if line.kept else x
    kept = x if line.keeps else kept
    weighed = line.weights @ [foretold, *before]
    before = [foretold, *before[:2]] if line.remembers else before
    x = line.onward[:2] @ [base, weighed]
  return x


def error(**options):
  """How far a solver ends from where the flow of a normal variable leads."""
  spread = 0.3  # standard deviation of the clean latents

  def total(level):
    return np.sqrt(level * spread**2 + 1 - level)

  def find(x, level):
    return np.sqrt(1 - level) * x / total(level) ** 2

  made = sampling.plan(Diffusion(**options), SCHEDULE)
  want = total(schedules.kept(SCHEDULE)[0]) / total(made.level)
  return abs(follow(made, 1.0, find) - want)


def test_solvers_follow_the_flow():
  ddim = [error(steps=n) for n in (25, 50, 100)]
  assert ddim[2] < 0.6 * ddim[1] < 0.4 * ddim[0]  # first order
  for solver in ("plms", "dpm++"):
    assert error(steps=25, solver=solver) < ddim[2]
    assert error(steps=100, solver=solver) < error(steps=25, solver=solver) / 4


def test_times_are_as_many_as_asked_for():
  for steps in (1, 7, 30, 100, 600, 1000):
    for solver in ("ddim", "dpm++"):
      at = sampling.times(Diffusion(steps=steps, solver=solver), SCHEDULE)
      assert len(at) == len(set(at)) == steps
      assert 0 <= at.min() <= at.max() < SCHEDULE.times
      assert sampling.plan(Diffusion(steps=steps), SCHEDULE).lines == steps
  published = Diffusion(steps=30, grid="published")
  assert len(sampling.times(published, SCHEDULE)) == 31


@pytest.mark.parametrize(
  ("options", "strength", "said"),
  [
    ({"steps": 0}, 1, r"steps 0 must lie in \[1, 1000\]"),
    ({"steps": 5000}, 1, r"steps 5000 must lie in \[1, 1000\]"),
    ({"eta": 0.5, "solver": "plms"}, 1, "eta 0.5 is of the solver ddim"),
    ({"steps": 600, "grid": "published"}, 1, "goes to time 1000"),
    ({}, 0.001, "strength 0.001 of 100 steps leaves none; take more than 0.01"),
    ({}, 0, "strength 0 of 100 steps"),
    ({}, 1.5, "strength 1.5 of 100 steps"),
  ],
)
def test_what_cannot_be_sampled(options, strength, said):
  with pytest.raises(InputError, match=said):
    sampling.plan(Diffusion(**options), SCHEDULE, strength=strength)


@functools.cache
def params():
  """Random, also where training starts from zeros."""
  shapes = jax.eval_shape(lambda key: unet.init(SMALL, key), jax.random.key(0))
  draw = np.random.default_rng(0).normal
  return jax.tree.map(lambda x: jnp.float32(0.2 * draw(size=x.shape)), shapes)


def rows(*seeds):
  def of(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

  start = np.stack([of(seed, 4, 3, 4) for seed in seeds])
  cond = np.stack([of(seed + 100, 2, 5) for seed in seeds])
  none = of(200, 1, 2, 5)
  keys = jnp.stack([jax.random.key(seed) for seed in seeds])
  return start, sampler.paired(jnp.asarray(cond), jnp.asarray(none)), keys


def test_one_program_for_all_options_and_rows_by_themselves():
  traced = []

  @jax.jit
  def run(*arguments):
    traced.append(1)
    return sampler.run(*arguments, config=SMALL, guided=True)

  def sample(seeds, strength=1.0, **options):
    start, context, keys = rows(*seeds)
    asked = Diffusion(**options)
    made = sampling.plan(asked, SCHEDULE, strength=strength)
    inputs = Inputs(jnp.float32(asked.guidance), keys, context)
    state = State.start(jnp.asarray(start))
    state = run(params(), state, inputs, made.plan, jnp.int32(made.lines))
    return np.asarray(state.latent)

  first = sample((3, 4), steps=5, eta=1.0)
  for options in (
    {"steps": 8, "guidance": 7.0, "solver": "plms"},
    {"steps": 3, "solver": "dpm++"},
    {"steps": 10, "strength": 0.3, "eta": 0.5},
  ):
    assert np.isfinite(sample((3, 4), **options)).all()
  swapped = sample((4, 5), steps=5, eta=1.0)
  # Rounding, of latents of about 1.
  np.testing.assert_allclose(swapped[0], first[1], rtol=0, atol=1e-5)
  assert len(traced) == 1
