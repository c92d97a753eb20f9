"""Distances of sounds, held against values worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise, sine

from audiogen_jax.audio import distances
from audiogen_jax.codec import usage

RATE = 16_000
ALL = {
  "si_snr": functools.partial(distances.si_snr, rate_hz=RATE),
  "mel": jax.jit(functools.partial(distances.mel_distance, rate_hz=RATE)),
  "lsd": jax.jit(distances.log_spectral_distance),
}


def rows(*sounds):
  return jnp.stack([jnp.asarray(sound) for sound in sounds])


def test_nothing_is_nearer_than_the_same():
  same = rows(noise(RATE, 2), noise(100, 2).repeat(160, 0))
  np.testing.assert_array_equal(ALL["mel"](same, same), 0)
  np.testing.assert_array_equal(ALL["lsd"](same, same), 0)
  assert ALL["si_snr"](same, same).min() > 35


def test_a_gain_is_known():
  # Loud enough to lie above the floor: power times 100 is two decades, 20 dB.
  real = rows(noise(RATE, 1, scale=1.0))
  assert ALL["lsd"](real, 10 * real)[0] == pytest.approx(20, abs=1e-3)
  assert ALL["mel"](real, 10 * real)[0] == pytest.approx(2, abs=1e-3)
  assert ALL["mel"](real, real / 10)[0] == pytest.approx(2, abs=0.02)
  # SI-SNR does not hear it.
  fake = real + rows(noise(RATE, 1, seed=1))
  plain = ALL["si_snr"](real, fake)
  np.testing.assert_allclose(ALL["si_snr"](real, 3 * fake), plain, atol=1e-3)
  np.testing.assert_allclose(ALL["si_snr"](real, -fake), plain, atol=1e-3)


def test_si_snr_of_known_noise():
  # Orthogonal over each segment: full periods of two frequencies.
  real = sine(100, RATE, 10)
  fake = 0.5 * real + 0.05 * sine(200, RATE, 10)
  np.testing.assert_allclose(
    ALL["si_snr"](rows(real), rows(fake)), 20, atol=0.01
  )


def published(real, fake):
  """SI-SNR segment by segment, after the published formula; float64."""
  size, ratios = 5 * RATE, []
  epsilon = size * np.finfo(np.float32).eps
  for start in range(0, len(real), size // 2):
    for a, b in zip(real.T, fake.T, strict=True):
      x, y = np.zeros((2, size))
      x[: len(a[start : start + size])] = a[start : start + size]
      y[: len(b[start : start + size])] = b[start : start + size]
      x, y = x - x.mean(), y - y.mean()
      along = x * (x @ y) / (epsilon + x @ x)
      off = y - along
      ratio = np.log10(epsilon + along @ along) - np.log10(epsilon + off @ off)
      ratios.append(10 * ratio)
  return np.mean(ratios)


@pytest.mark.parametrize("n", [3 * RATE, 5 * RATE, 8 * RATE + 1])
def test_si_snr_is_the_published_one(n):
  real = noise(n, 2) + np.float32(0.2)  # it does not look at the mean
  fake = real + noise(n, 2, seed=1, scale=0.03) - np.float32(0.1)
  want = published(real.astype(float), fake.astype(float))
  # Measured: 2e-6.
  assert ALL["si_snr"](rows(real), rows(fake))[0] == pytest.approx(
    want, abs=1e-4
  )


def test_spectra_are_normalised():
  # The power of white noise of power 1 is 1 in every bin, exponentially
  # distributed: in dB its mean is -2.51 and its deviation 5.57. Silence is
  # -100 dB, the floor.
  silence, real = jnp.zeros((1, 4 * RATE, 1)), rows(noise(4 * RATE, 1, scale=1))
  want = np.hypot(100 - 2.51, 5.57)
  # Measured: 0.01 beside it.
  assert ALL["lsd"](silence, real)[0] == pytest.approx(want, abs=0.1)


def test_silence_is_finite():
  silence, sound = jnp.zeros((1, RATE, 1)), rows(noise(RATE, 1))
  for distance in ALL.values():
    np.testing.assert_array_equal(distance(silence, silence), 0)
    for pair in ((silence, sound), (sound, silence)):
      assert np.isfinite(distance(*pair)).all()
  quiet = ALL["si_snr"](silence, 0.1 * sound)
  assert ALL["si_snr"](silence, sound) < quiet < 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [1, 50, 3 * RATE + 7])
def test_what_lies_beyond_a_row_is_not_heard(name, n):
  real, fake = noise(1, n, 2), noise(1, n, 2, seed=1)
  alone = ALL[name](jnp.asarray(real), jnp.asarray(fake))
  padded = (
    jnp.concatenate([jnp.asarray(x), jnp.full((1, 9000, 2), fill)], axis=1)
    for x, fill in ((real, jnp.nan), (fake, 7.0))
  )
  beside = jax.jit(ALL[name])(*padded, length=jnp.array([n]))
  np.testing.assert_allclose(beside, alone, rtol=1e-4, atol=1e-4)
  assert alone.shape == (1,)


@pytest.mark.parametrize("name", ALL)
def test_each_row_has_its_own_length(name):
  real, fake = noise(2, 9000, 1), noise(2, 9000, 1, seed=1)
  length = np.array([9000, 3000])
  both = ALL[name](jnp.asarray(real), jnp.asarray(fake), length=length)
  for i, n in enumerate(length):
    one = [jnp.asarray(x[i : i + 1, :n]) for x in (real, fake)]
    np.testing.assert_allclose(both[i], ALL[name](*one)[0], rtol=1e-4)


@pytest.mark.parametrize("rate_hz", [100, 8000, 48_000])
def test_any_rate_is_measured(rate_hz):
  real, fake = rows(noise(500, 1)), rows(noise(500, 1, seed=1))
  distance = jax.jit(distances.mel_distance, static_argnums=2)
  assert np.isfinite(distance(real, fake, rate_hz)).all()


def test_code_statistics():
  counts = np.array([[5, 5, 5, 5], [0, 9, 0, 0], [4, 4, 0, 0], [0, 0, 0, 0]])
  for given in (counts, jnp.asarray(counts), counts / 7):
    used, bits = usage.code_statistics(given)
    np.testing.assert_array_equal(used, [1, 0.25, 0.5, 0])
    np.testing.assert_allclose(bits, [2, 0, 1, 0], atol=1e-6)
  used, bits = jax.jit(usage.code_statistics)(jnp.array([[1.0, 3.0]]))
  np.testing.assert_allclose(bits, 2 - 0.75 * np.log2(3), rtol=1e-6)


def test_codes_are_counted():
  codes = np.array([[0, 2, 2], [1, 1, 1]], np.int32)
  np.testing.assert_array_equal(usage.count(codes, 3), [[1, 0, 2], [0, 3, 0]])
