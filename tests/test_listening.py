"""What is done to a clip before a network hears it."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import signals

from audiogen_jax.audio import dsp
from audiogen_jax.embedding.protocols import Hearing
from audiogen_jax.evaluate import listening

GOLDEN = pathlib.Path(__file__).parent / "golden"
METRICS = (
  pathlib.Path(os.environ.get("AUDIOGEN_PACKS", GOLDEN)) / "eval_metrics"
)
RESAMPLERS = {
  "julius": "julius",
  "torchaudio": "torchaudio",
  "librosa_soxr_hq": "soxr_hq",
}


def cases():
  if not METRICS.is_dir():
    return []
  with np.load(METRICS / "resampled.npz") as file:
    return [n for n in file.files if n.split("/")[0] in RESAMPLERS]


@pytest.mark.parametrize("case", cases())
def test_parity_eval_metrics_resampling_of_protocols(case):
  who, rates = case.split("/")
  from_hz, to_hz = map(int, rates.split("_"))
  with np.load(METRICS / "inputs.npz") as file:
    sound = file[f"sound/{from_hz}"][:, None] / np.float32(32768)
  with np.load(METRICS / "resampled.npz") as file:
    want = file[case]
  hearing = Hearing("any", RESAMPLERS[who])
  ours = listening.prepare(hearing, sound, from_hz, to_hz)
  # Measured 5e-6.
  np.testing.assert_allclose(ours, want, rtol=0, atol=1e-5)


def prepared(audio, **options):
  return listening.prepare(Hearing("any", "julius", **options), audio, 100, 100)


def test_channels_are_mixed_or_chosen_or_joined():
  audio = signals.noise(50, 2)
  np.testing.assert_allclose(prepared(audio), audio.mean(axis=1), atol=1e-7)
  np.testing.assert_array_equal(prepared(audio, channels="first"), audio[:, 0])
  np.testing.assert_array_equal(
    prepared(audio, channels="joined"), np.concatenate([*audio.T])
  )


def test_levels_are_changed_as_the_protocol_says():
  audio = signals.noise(50, 1) + np.float32(0.2)
  assert abs(prepared(audio, centred=True).mean()) < 1e-7
  peak = np.abs(prepared(audio, peak_db=-1.0)).max()
  np.testing.assert_allclose(peak, 0.8912509, rtol=1e-6)
  stored = prepared(audio, stored=True)
  np.testing.assert_array_equal(stored * 32768, np.rint(audio[:, 0] * 32768))
  np.testing.assert_array_equal(
    prepared(np.zeros((5, 1), np.float32), peak_db=-1.0), 0
  )


def test_short_clips_get_zeros_behind():
  audio = signals.noise(50, 1)
  ours = prepared(audio, least=70)
  np.testing.assert_array_equal(ours[:50], audio[:, 0])
  np.testing.assert_array_equal(ours[50:], np.zeros(20))
  assert len(prepared(audio, least=10)) == 50


def test_generated_clips_get_the_loudness_of_audiocraft():
  audio = signals.noise(16_000, 1, scale=0.01)
  ours = listening.levelled(audio, 16_000, -30.0)
  np.testing.assert_allclose(
    dsp.loudness(jnp.asarray(ours), 16_000), -30, atol=0.01
  )
  loud = listening.levelled(audio, 16_000, 3.0)
  assert np.abs(loud).max() == 1.0
  for quiet in (audio / 100, audio[:1000]):
    assert listening.levelled(quiet, 16_000, -14.0) is quiet
