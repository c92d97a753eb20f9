"""Optimisers and schedules by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.train.optimiser import OptimiserConfig


@pytest.mark.parametrize(
  ("given", "rates"),
  [
    # spec: 1.667e-7 at first, 5e-4 at 3000, 2.5e-4 at 12000, 6.12e-5 at 200000
    (
      dict(lr=5e-4, schedule="inverse_sqrt", warmup=3000),
      {0: 1.667e-7, 2999: 5e-4, 11_999: 2.5e-4, 199_999: 6.12e-5},
    ),
    (
      dict(lr=1.0, schedule="cosine", warmup=10, steps=30),
      {0: 0.0, 5: 0.5, 10: 1.0, 20: 0.5, 30: 0.0},
    ),
    (
      dict(lr=1.0, schedule="wsd", warmup=10, steps=100, decay=20),
      {0: 0.0, 10: 1.0, 80: 1.0, 90: 0.5, 100: 0.0},
    ),
    # BigVGAN's second version: 0.9999996 a step
    (
      dict(lr=1.0, schedule="exponential", decay=2500, decay_rate=0.999),
      {0: 1.0, 1: 0.9999996, 2500: 0.999, 2_500_000: 0.3677},
    ),
    (dict(lr=0.5, warmup=2), {0: 0.0, 1: 0.25, 2: 0.5, 1000: 0.5}),
  ],
)
def test_schedules(given, rates):
  rate = OptimiserConfig(**given).rate()
  for step, want in rates.items():
    assert float(rate(step)) == pytest.approx(want, rel=2e-3, abs=1e-9), step


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_each_goes_down_and_forgets(name):
  """Towards a target; and, where there is no gradient, towards 0."""
  config = OptimiserConfig(
    name=name, lr=0.05, b1=0.9, b2=0.95, weight_decay=0.1
  )
  tx = config.make({"w": ((0,), (1,))})
  key = jax.random.key(0)
  target = jax.random.normal(key, (4, 6))
  params = {"w": jnp.zeros((4, 6)), "idle": jnp.ones(3)}

  @jax.jit
  def step(params, state):
    gradient = jax.grad(lambda p: jnp.sum((p["w"] - target) ** 2))(params)
    updates, state = tx.update(gradient, state, params)
    return jax.tree.map(jnp.add, params, updates), state

  state = tx.init(params)
  for _ in range(60):
    params, state = step(params, state)
  far = jnp.sum((params["w"] - target) ** 2) / jnp.sum(target**2)
  assert far < 0.5
  np.testing.assert_allclose(params["idle"], (1 - 0.05 * 0.1) ** 60, rtol=1e-4)


def test_muon_makes_updates_of_matrices_even():
  """All their singular values are alike; AdamW's are not."""
  given = jax.random.normal(jax.random.key(0), (8, 8)) + 1
  spread = {}
  for name in ("adamw", "muon"):
    tx = OptimiserConfig(name=name, lr=1.0).make({"w": ((0,), (1,))})
    params = {"w": jnp.zeros((8, 8))}
    updates, _ = tx.update({"w": given}, tx.init(params), params)
    values = np.linalg.svd(updates["w"], compute_uv=False)
    spread[name] = values[0] / values[-1]
  assert spread["muon"] < 3 < spread["adamw"]


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (dict(lr=0.0), "optim.lr 0.0"),
    (dict(b1=1.0), "optim.b1"),
    (dict(schedule="exponential"), "optim.decay 0 of exponential"),
    (dict(decay_rate=0.0), "optim.decay_rate 0.0"),
    (dict(schedule="cosine"), "the 0 steps of a cosine"),
    (dict(schedule="inverse_sqrt"), "optim.warmup of inverse_sqrt"),
    (dict(schedule="wsd", steps=10, decay=11), "optim.decay 11 of wsd"),
  ],
)
def test_what_cannot_be(given, said):
  with pytest.raises(InputError, match=said):
    OptimiserConfig(**given)
