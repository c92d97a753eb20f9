"""Mixing: number by number, level by level, pair by pair."""

import numpy as np
import pytest
from signals import noise

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import mixing
from audiogen_jax.data.mixing import MixConfig

ALWAYS = MixConfig(chance=1.0)


def data(seed, number=0):
  return mixing.generator(seed, number)


def level_db(x):
  return 10 * np.log10(np.mean(np.square(x)))


def test_each_number_has_draws_of_its_own():
  """Whichever is asked for first, in whichever process."""
  first = [data(seed, n).integers(2**60) for seed in (0, 1) for n in (0, 1, 2)]
  assert len(set(first)) == 6
  assert data(1, 2).integers(2**60) == first[-1]
  assert data(2**32 - 1, 2**63).random() < 1


@pytest.mark.parametrize("channels", (1, 2))
def test_a_batch_is_its_pairs(channels):
  audio = noise(16, 1000, channels)
  audio[3] = 0
  for config in (MixConfig(), ALWAYS, MixConfig(chance=0.0)):
    mixes, drawn = mixing.mix(audio, data(1), config)
    assert mixes.shape == (8, 1000, channels) and mixes.dtype == np.float32
    for i, one in enumerate(mixes):
      pair = audio[drawn.first[i]], audio[drawn.second[i]]
      numbers = (field[i] for field in drawn[2:])
      np.testing.assert_array_equal(
        one, mixing.mix_pair(*pair, *numbers, config)
      )
      if not drawn.mixed[i]:
        np.testing.assert_array_equal(one, pair[0])


def test_numbers_stay_what_they_were():
  """A run that goes on from an old checkpoint hears the mixes it began with."""
  drawn = mixing.draw(data(0), 4, 1000, MixConfig())
  assert drawn.first.tolist() == [5, 0, 6, 1]
  assert drawn.second.tolist() == [7, 2, 4, 3]
  assert drawn.mixed.tolist() == [False, True, False, False]
  assert drawn.start.tolist() == [282, 357, 286, 261]
  snr_db = [-2.4617727, -3.0494943, 2.1170990, -3.6873534]
  level_db = [-18.564262, -20.553719, -29.690844, -31.766653]
  np.testing.assert_allclose(drawn.snr_db, snr_db, rtol=1e-6)
  np.testing.assert_allclose(drawn.level_db, level_db, rtol=1e-6)


def test_the_key_decides():
  draws = [mixing.draw(data(seed), 8, 1000, MixConfig()) for seed in (1, 1, 2)]
  for one, same, other in zip(*draws, strict=True):
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_draws_are_what_was_asked_for():
  config = MixConfig(chance=0.3, min_overlap=0.25)
  drawn = mixing.draw(data(0), 4000, 100, config)
  both = np.concatenate([drawn.first, drawn.second])
  assert sorted(both) == list(range(8000))  # each sound once
  assert np.mean(drawn.mixed) == pytest.approx(0.3, abs=0.03)
  for values, low, high in (
    (drawn.snr_db, -5, 5),
    (drawn.level_db, -35, -16),
    (drawn.start, 0, 75),
  ):
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high
    middle, size = (low + high) / 2, high - low
    assert values.mean() == pytest.approx(middle, abs=0.02 * size)
  assert {0, 75} <= set(drawn.start)  # both ends are possible
  numbers = np.stack(drawn[2:]).astype(float)
  related = np.corrcoef(numbers) - np.eye(len(numbers))
  np.testing.assert_allclose(related, 0, atol=0.07)  # 0.03 measured


def test_a_mix_is_its_parts():
  audio = noise(2, 8000, 1) * np.float32([[[0.5]], [[3.0]]])
  config = MixConfig(chance=1.0, min_overlap=0.5, max_level_db=-30.0)
  (got,), drawn = mixing.mix(audio, data(3), config)
  first, second = audio[drawn.first[0]], audio[drawn.second[0]]
  assert level_db(got) == pytest.approx(drawn.level_db[0], abs=1e-4)
  start = drawn.start[0]
  assert 0 < start <= 4000
  # Least squares finds both parts again, and nothing else.
  late = np.concatenate([np.zeros((start, 1)), second[: 8000 - start]])
  parts = np.concatenate([first, late], axis=1).astype(np.float64)
  (a, b), rest, *_ = np.linalg.lstsq(parts, got[:, 0], rcond=None)
  np.testing.assert_allclose(rest[0], 0, atol=1e-8)
  ratio = level_db(a * first) - level_db(b * second)
  # Measured: 2e-5.
  assert ratio == pytest.approx(drawn.snr_db[0], abs=1e-4)


def test_loud_mixes_are_held_below_full_scale():
  audio = np.zeros((2, 1000, 1), np.float32)
  audio[:, 0] = -1.0  # clicks: a peak far above their RMS
  config = MixConfig(chance=1.0, min_level_db=-16.0, min_overlap=1.0)
  (got,), _ = mixing.mix(audio, data(0), config)
  np.testing.assert_allclose(np.abs(got).max(), 0.99, rtol=1e-6)


def test_silence_stays_silent():
  audio = np.zeros((2, 100, 1), np.float32)
  (got,), _ = mixing.mix(audio, data(0), ALWAYS)
  np.testing.assert_array_equal(got, 0)
  audio[1] = noise(100, 1)
  (got,), drawn = mixing.mix(audio, data(0), ALWAYS)
  assert np.isfinite(got).all() and np.abs(got).max() > 0.01


def test_captions_join():
  for first, second, want in (
    ("a dog barks", "rain falls", "a dog barks rain falls"),
    ("a dog barks", "a dog barks", "a dog barks"),
    ("", "rain", "rain"),
    ("rain", "", "rain"),
    ("", "", ""),
  ):
    assert mixing.join(first, second) == want


@pytest.mark.parametrize(
  "values,words",
  [
    (dict(chance=1.5), r"chance 1.5 must lie in \[0, 1\]"),
    (dict(min_overlap=-0.1), "min_overlap -0.1 must lie"),
    (dict(min_snr_db=6.0), r"snr \[6.0, 5.0\] dB is no range"),
    (dict(max_level_db=float("nan")), r"level \[-35.0, nan\] dB"),
    (dict(peak=0.0), "peak 0.0 must lie"),
  ],
)
def test_mixing_refuses(values, words):
  with pytest.raises(InputError, match=words):
    MixConfig(**values)


def test_an_odd_number_of_sounds():
  with pytest.raises(InputError, match="even number of sounds, not 3"):
    mixing.mix(noise(3, 10, 1), data(0), MixConfig())
