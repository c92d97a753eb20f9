"""Resampling as published evaluations do it."""

import os
import pathlib

import numpy as np
import pytest
import signals

from audiogen_jax.audio import sinc
from audiogen_jax.core.errors import InputError

GOLDEN = pathlib.Path(__file__).parent / "golden"
METRICS = (
  pathlib.Path(os.environ.get("AUDIOGEN_PACKS", GOLDEN)) / "eval_metrics"
)
RECIPES = {
  "julius": sinc.JULIUS,
  "torchaudio": sinc.HANN,
  "fadtk": sinc.KAISER,
}


def cases():
  if not METRICS.is_dir():
    return []
  with np.load(METRICS / "resampled.npz") as file:
    return [name for name in file.files if name.split("/")[0] in RECIPES]


@pytest.mark.parametrize("case", cases())
def test_parity_eval_metrics_resampling(case):
  recipe, rates = case.split("/")
  from_hz, to_hz = map(int, rates.split("_"))
  with np.load(METRICS / "inputs.npz") as file:
    sound = file[f"sound/{from_hz}"][:, None] / np.float32(32768)
  with np.load(METRICS / "resampled.npz") as file:
    want = file[case]
  ours = sinc.resample(RECIPES[recipe], sound, from_hz, to_hz)
  assert ours.dtype == np.float32 and ours.shape == (len(want), 1)
  # Measured 3e-7.
  np.testing.assert_allclose(ours[:, 0], want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_tone_stays_and_what_the_new_rate_cannot_hold_goes(recipe):
  time = np.arange(8820) / 44100
  low, high = (np.sin(2 * np.pi * f * time)[:, None] for f in (1000, 12000))
  both = (low + high).astype(np.float32)
  ours = sinc.resample(RECIPES[recipe], both, 44100, 16000)
  want = np.sin(2 * np.pi * 1000 * np.arange(3200) / 16000)
  error = ours[200:-200, 0] - want[200:-200]
  assert np.abs(error).max() < 0.01  # measured 4e-3, the shortest filter's


@pytest.mark.parametrize("recipe", RECIPES)
def test_lengths_and_channels(recipe):
  sound = signals.noise(1001, 2)
  ours = sinc.resample(RECIPES[recipe], sound, 44100, 16000)
  assert len(ours) == (363 if recipe == "julius" else 364)
  alone = sinc.resample(RECIPES[recipe], sound[:, 1:], 44100, 16000)
  np.testing.assert_allclose(ours[:, 1:], alone, rtol=0, atol=1e-6)
  assert sinc.resample(RECIPES[recipe], sound, 16000, 16000) is sound


def test_rates_that_need_too_many_filters_are_refused():
  sound = np.zeros((10, 1), np.float32)
  with pytest.raises(InputError, match="44101 samples to 16000 takes 16,000"):
    sinc.resample(sinc.JULIUS, sound, 44101, 16000)
  with pytest.raises(InputError, match="1 Hz or more, got 0"):
    sinc.resample(sinc.JULIUS, sound, 0, 16000)
