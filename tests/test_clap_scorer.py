"""CLAP as a scorer: it likes the sound of the text, and no silence."""

import re

import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding.extractor import Heard
from audiogen_jax.evaluate import clap_scorer
from audiogen_jax.evaluate.choosing import BestOf, Scorer
from audiogen_jax.evaluate.clap_scorer import ClapScorer

RATE_HZ = 16000
WORDS = "high", "low"


class Clap:
  """Hears how much of a sound lies above 2 kHz."""

  name, sha256, sample_rate_hz = "clap", "0" * 64, 48000

  def embed(self, sounds):
    found = []
    for sound in sounds:
      power = np.abs(np.fft.rfft(sound)) ** 2
      at = len(power) * 2000 * 2 // self.sample_rate_hz
      rows = [[power[at:].sum(), power[:at].sum()]]
      found.append(Heard(np.array(rows) / max(power.sum(), 1e-9)))
    return found

  def embed_texts(self, texts):
    return np.array([[text == "high", text == "low"] for text in texts], float)


def tones(*frequencies):
  seconds = np.arange(RATE_HZ) / RATE_HZ
  return np.stack(
    [np.sin(2 * np.pi * f * seconds)[:, None] for f in frequencies]
  ).astype(np.float32)


@pytest.fixture
def scorer():
  return ClapScorer("audiogen", extractor=Clap())


def test_each_text_has_its_sound(scorer):
  assert isinstance(scorer, Scorer)
  sounds = tones(300, 5000)
  high, low = (scorer.score(sounds, RATE_HZ, [word] * 2) for word in WORDS)
  assert high[1] > 0.99 > 0.01 > high[0] and low[0] > 0.99 > 0.01 > low[1]
  both = scorer.score(sounds, RATE_HZ, ["low", "high"])
  np.testing.assert_allclose(both, [low[0], high[1]], rtol=1e-6)
  silent = scorer.score(0 * sounds, RATE_HZ, ["low", "high"])
  assert (silent == -np.inf).all()


def test_the_best_is_kept(scorer):
  def call(texts, seed, progress):
    return tones(*(300 if one % 2 else 5000 for one in seed))

  best = BestOf(call, scorer, 3, RATE_HZ)
  found = best(["low", "high"], seed=[1, 2])
  np.testing.assert_allclose(found, tones(300, 5000), atol=1e-6)


def test_bad_input(scorer, refused, tmp_path, monkeypatch):
  for text in (None, " "):
    with pytest.raises(InputError, match="a prompt here says nothing"):
      scorer.check(["high", text])
  with pytest.raises(InputError, match="audioldm has no CLAP to choose by"):
    ClapScorer("audioldm")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  told = refused("generate", "a dog", "--best-of", 2, "-o", tmp_path / "a.wav")
  assert re.search(r"weights of .* are missing: download .* put it at", told)
  told = refused("generate", "a dog", "--scorer", "audiogen")
  assert "without --best-of" in told
  assert clap_scorer.NAMES[0] == "audiogen"
