"""Losses and the balancer: known values, and what must never change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.audio import mel
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.gan import balancer, losses

RATE = 16_000
LOSSES = {
  "l1": losses.l1,
  "l2": losses.l2,
  "mel": jax.jit(lambda a, b: losses.mel_l1(a, b, RATE)),
  "msspec": jax.jit(lambda a, b: losses.multi_scale_mel(a, b, RATE)),
  "paper_mel": jax.jit(lambda a, b: losses.paper_mel(a, b, RATE)),
  "si_snr": jax.jit(lambda a, b: losses.negative_si_snr(a, b, RATE)),
}


def sounds(n=4000):
  """Two rows of noise, and something a little louder beside it."""
  real = jnp.asarray(np.stack([noise(n, 1, seed=i, scale=0.1) for i in (0, 1)]))
  return real, 1.25 * real


def test_differences_of_samples():
  real, fake = jnp.array([[[1.0], [3.0]]]), jnp.array([[[2.0], [0.0]]])
  assert float(losses.l1(real, fake)) == 2
  assert float(losses.l2(real, fake)) == 5


def test_a_gain_in_each_spectrum():
  """Of power g² p against p: |g² - 1| mean(p), and log10 g² squared."""
  real, fake = sounds()
  power = 1.25**2
  total = 0
  for scale in range(6, 11):
    bands = losses._bands(RATE, 2**scale)
    bands_of_real = mel.spectrogram(bands, real.transpose(0, 2, 1))
    logs = np.log10((1e-5 + power * bands_of_real) / (1e-5 + bands_of_real))
    total += (power - 1) * np.mean(bands_of_real) + np.mean(np.square(logs))
  np.testing.assert_allclose(LOSSES["msspec"](real, fake), total / 10, 1e-5)
  log = 2 * np.log10(1.25)  # less where the floor is felt
  assert 0.5 * log < float(LOSSES["mel"](real, fake)) < log


def test_si_snr_knows_no_gain():
  real, fake = sounds()
  noisy = 10 * (fake + sounds()[0][::-1])  # a floor hides errors of 1e-5
  one, other = (LOSSES["si_snr"](real, x) for x in (noisy, 3 * noisy))
  np.testing.assert_allclose(one, other, atol=1e-3)  # measured: 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_no_difference_and_silence(name):
  """Finite everywhere, and so are the gradients, for there is silence."""
  loss, (real, fake) = LOSSES[name], sounds()
  same, apart = loss(real, real), loss(real, fake)
  assert apart > same or name == "si_snr"
  silence = jnp.zeros_like(real)
  slope = jax.jit(jax.value_and_grad(loss, argnums=1))
  for a, b in ((silence, silence), (silence, real), (real, silence)):
    value, gradient = slope(a, b)
    assert np.isfinite(value) and np.isfinite(gradient).all(), name


def gradients(scale=1.0):
  keys = jax.random.split(jax.random.key(0), 2)
  return {
    "a": scale * jax.random.normal(keys[0], (8, 50, 1)),
    "b": 7 * jax.random.normal(keys[1], (8, 50, 1)),
  }


def norm(x):
  return float(jnp.mean(jnp.sqrt(jnp.sum(jnp.square(x), axis=(1, 2)))))


def test_weights_alone_decide_the_shares():
  weights = {"a": 3.0, "b": 1.0}
  start = balancer.init(weights)
  one = balancer.balance(gradients(), weights, start, total_norm=2.0)
  for name, gradient in gradients().items():
    share = norm(one.scales[name] * gradient)
    assert share == pytest.approx(2 * weights[name] / 4, rel=1e-5)
  louder = balancer.balance(gradients(1e4), weights, start, total_norm=2.0)
  np.testing.assert_allclose(louder.gradient, one.gradient, atol=1e-6)
  assert sum(map(float, one.ratios.values())) == pytest.approx(1)
  assert float(louder.ratios["a"]) > float(one.ratios["a"])


def test_norms_are_running_means():
  weights = {"a": 1.0, "b": 1.0}
  state = balancer.init(weights)
  for scale in (1.0, 3.0):
    made = balancer.balance(gradients(scale), weights, state, decay=0.5)
    state = made.state
  first = norm(gradients()["a"])
  mean = (0.5 * first + 3 * first) / 1.5
  assert float(made.scales["a"]) == pytest.approx(0.5 / mean, rel=1e-5)


def test_the_balancer_is_the_same_on_eight_devices():
  weights = {"a": 1.0, "b": 2.0}
  state = balancer.init(weights)

  @jax.jit
  def balanced(given):
    return balancer.balance(given, weights, state)

  placement = Placement.make(make_mesh(data=8))
  spread = jax.device_put(gradients(), placement.sharding("batch"))
  one, eight = balanced(gradients()), balanced(spread)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, eight
  )


def test_a_gradient_of_zero_is_no_division_by_it():
  weights = {"a": 1.0, "b": 1.0}
  given = gradients() | {"a": jnp.zeros((8, 50, 1))}
  made = balancer.balance(given, weights, balancer.init(weights))
  assert np.isfinite(made.gradient).all()
