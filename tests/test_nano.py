"""The model that comes with the package."""

import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from audiogen_jax.audio import io
from audiogen_jax.audiogen import AudioGen
from audiogen_jax.codec import encodec
from audiogen_jax.convert import engine, opening
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import model
from audiogen_jax.text import t5
from launch import nano_loops

ROOT = Path(__file__).parents[1]
NANO = ROOT / "audiogen_jax" / "assets" / "nano"


@pytest.fixture(scope="module")
def nano():
  return AudioGen.from_pretrained("nano")


def test_it_is_as_small_as_it_says():
  parts = opening.open_parts("nano")

  def count(init, config):
    return sum(x.size for x in jax.tree.leaves(engine.abstract(init, config)))

  assert count(encodec.init, parts.codec) <= 3_200_000  # with running means
  abstract = engine.abstract(encodec.init, parts.codec)
  used = abstract["params"], abstract["codebooks"]["embed"]
  assert sum(x.size for x in jax.tree.leaves(used)) <= 3_000_000
  texts = count(t5.init, parts.text)
  assert count(model.init, parts.lm) + texts <= 9_000_000
  size = sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file())
  assert size <= 24_000_000
  tokens = parts.codec.tokens
  assert parts.codec.sample_rate_hz == 16_000
  assert (tokens.frame_rate_hz, tokens.codebooks) == (50, 4)


def test_it_makes_a_sound(nano):
  audio = nano.generate(["a dog barks", "rain falls"], duration_s=1.0, seed=0)
  assert audio.shape == (2, 16_000, 1) and np.isfinite(audio).all()
  assert np.sqrt(np.mean(np.square(audio), axis=1)).min() > 1e-3
  assert not np.array_equal(audio[0], audio[1])


def test_any_text_will_do(nano):
  """Bytes have no words that are unknown."""
  texts = ["Собака лает", "🐕", "x" * 500, None]
  assert np.isfinite(nano.generate(texts, duration_s=0.1)).all()


def test_it_is_the_default(audiogen, tmp_path):
  status, _, errors = audiogen(
    *("generate", "a dog barks", "--duration", "0.5"),
    *("-o", tmp_path / "dog.wav"),
  )
  assert status == 0, errors
  sound, rate_hz = io.read(tmp_path / "dog.wav")
  assert rate_hz == 16_000 and len(sound) == 8_000


def test_a_folder_of_its_name_is_another(tmp_path, monkeypatch):
  (tmp_path / "nano").mkdir()
  monkeypatch.chdir(tmp_path)
  assert opening.open_parts("nano").lm is not None
  with pytest.raises(InputError, match="holds no model"):
    opening.open_parts("./nano")


@pytest.mark.parametrize("sounding_s", [0.3, 1.7, 4.0, 4.95, 5.0])
def test_loops_never_fall_silent(sounding_s):
  """Any 5 s of a loop sound for as long as the recording did, or longer."""
  rate_hz = 8000
  rng = np.random.default_rng(0)
  sound = np.zeros(5 * rate_hz)
  start = int((5 - sounding_s) / 2 * rate_hz)
  size = int(sounding_s * rate_hz)
  sound[start : start + size] = rng.normal(0, 0.1, size)
  loop = nano_loops.loop(sound, rate_hz, np.random.default_rng(1))
  assert len(loop) == 10 * rate_hz and np.abs(loop).max() < 1
  window = rate_hz // 20
  loud = np.abs(loop.reshape(-1, window)).max(axis=1) > 1e-3
  for first in range(0, len(loud) - 100, 7):
    assert loud[first : first + 100].mean() > 0.3
  gaps = np.diff(np.flatnonzero(loud)) - 1
  assert gaps.max(initial=0) * window <= 0.9 * rate_hz
  if sounding_s >= 4.95:
    assert loud.all()


def test_silence_stays_what_it_is():
  silent = np.zeros(5 * 8000)
  loop = nano_loops.loop(silent, 8000, np.random.default_rng(1))
  assert len(loop) == 10 * 8000 and not loop.any()


def test_its_card_names_everyone():
  card = (NANO / "README.md").read_text(encoding="utf-8")
  credits = (NANO / "CREDITS.md").read_text(encoding="utf-8")
  assert "CREDITS.md" in card
  assert credits.count("\n| ") == 200 + 1  # authors, and the head


@pytest.mark.slow
def test_the_wheel_holds_it(tmp_path):
  made = subprocess.run(
    [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, ROOT],
    capture_output=True,
    text=True,
  )
  assert made.returncode == 0, made.stderr
  (wheel,) = tmp_path.glob("*.whl")
  assert wheel.name.endswith("-py3-none-any.whl")
  assert wheel.stat().st_size <= 40_000_000
  held = set(zipfile.ZipFile(wheel).namelist())
  for path in NANO.rglob("*"):
    if path.is_file():
      assert str(path.relative_to(ROOT)) in held
