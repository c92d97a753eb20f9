"""The masked model that comes with the package."""

from pathlib import Path

import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.audio import io

FOLDER = Path(__file__).parents[1] / "audiogen_jax/assets/nano-magnet"


@pytest.fixture(scope="module")
def nano_magnet():
  return ag.load("nano-magnet")


def test_it_is_as_small_as_it_says():
  size = sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file())
  assert size <= 12_000_000


def test_it_makes_sounds(nano_magnet):
  assert isinstance(nano_magnet, ag.MAGNeT)
  audio = nano_magnet.generate(
    ["a dog barks", "rain falls"], duration_s=1.0, seed=0
  )
  assert audio.shape == (2, 16_000, 1) and np.isfinite(audio).all()
  assert np.sqrt(np.mean(np.square(audio), axis=1)).min() > 1e-3
  assert not np.array_equal(audio[0], audio[1])


def test_its_codes_are_those_of_nano(nano_magnet):
  """One codec: what one model writes the other goes on with."""
  nano = ag.load("nano")
  draw = np.random.default_rng(0)
  codes = draw.integers(0, 1024, (1, 4, 25)).astype(np.int32)
  np.testing.assert_array_equal(
    nano_magnet.codec.decode(codes), nano.codec.decode(codes)
  )


def test_a_hole_is_filled(audiogen, tmp_path):
  sound = np.random.default_rng(0).normal(0, 0.1, (16_000, 1))
  io.write(tmp_path / "in.wav", sound.astype(np.float32), 16_000)
  status, _, errors = audiogen(
    *("generate", "a dog barks", "--model", "nano-magnet"),
    *("--inpaint", tmp_path / "in.wav", "--from", "0.4", "--to", "0.6"),
    *("-o", tmp_path / "out.wav"),
  )
  assert status == 0, errors
  made, rate_hz = io.read(tmp_path / "out.wav")
  assert rate_hz == 16_000 and len(made) == 16_000


def test_its_card_names_where_its_sounds_are_from():
  card = (FOLDER / "README.md").read_text(encoding="utf-8")
  assert "../nano/CREDITS.md" in card
