"""Real recordings come out in the order that an ear would put them in."""

import csv
import importlib.metadata
import os
import pathlib

import numpy as np
import pytest
import soundfile

from audiogen_jax.audio import io
from audiogen_jax.convert import judges
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.embedding import frechet, protocols
from audiogen_jax.evaluate import listening, sounds
from audiogen_jax.evaluate.figures import statistics
from audiogen_jax.evaluate.sound_sets import SoundSet

ESC10 = pathlib.Path(__file__).parents[2] / "shared" / "data" / "esc10"
INSTALLED = {d.name for d in importlib.metadata.distributions()}

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not ESC10.exists(), reason="no ../shared/data/esc10"),
  pytest.mark.skipif("aisfx" not in INSTALLED, reason="aisfx not installed"),
  pytest.mark.filterwarnings("ignore:sets of"),
]


@pytest.fixture(scope="module")
def table():
  with (ESC10 / "metadata.csv").open() as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
  kept = tmp_path_factory.mktemp("kept")
  clips = SoundSet.open(ESC10 / "audio")
  hearing = protocols.get("sfx").hearings["sfx"]
  return kept, listening.listen(clips, hearing, judges.load("sfx"), kept=kept)


def test_neighbours_are_of_one_class(table, heard):
  _, found = heard
  rows = {pathlib.Path(row["file"]).stem: row for row in table}
  labels = np.array([rows[name]["label"] for name in found.names])
  folds = np.array([rows[name]["fold"] for name in found.names])
  means, right = found.means(), []
  for fold in np.unique(folds):
    held = folds == fold
    apart = np.sum((means[held][:, None] - means[~held][None]) ** 2, axis=-1)
    right.append(labels[~held][apart.argmin(axis=1)] == labels[held])
  assert np.concatenate(right).mean() > 0.84  # measured 0.859

  order = np.random.default_rng(0).permutation(len(labels))
  half = np.zeros(len(labels), int)
  half[order[: len(order) // 2]] = 1
  five = np.isin(labels, np.unique(labels)[:5]).astype(int)
  halves, classes = (
    frechet.distance(statistics(found, part), statistics(found, 1 - part))
    for part in (half, five)
  )
  assert 48 < halves < 60 and 155 < classes < 175  # measured 53.6 and 164


def test_recordings_codec_and_noise_come_in_that_order(table, heard, tmp_path):
  kept, _ = heard
  for row in table:
    kind = "held" if row["fold"] == "4" else "known"
    (tmp_path / kind).mkdir(exist_ok=True)
    os.symlink(ESC10 / "audio" / row["file"], tmp_path / kind / row["file"])
  codec = load_codec("nano")
  numbers = np.random.default_rng(0)
  for kind in ("coded", "noise"):
    (tmp_path / kind).mkdir()
  for file in sorted((tmp_path / "held").iterdir()):
    rate_hz = codec.config.sample_rate_hz
    audio, _ = io.read(file, rate_hz=rate_hz, channels=codec.config.channels)
    decoded = np.asarray(codec.decode(codec.encode(audio[None])))[0]
    io.write(tmp_path / "coded" / f"{file.stem}.wav", decoded, rate_hz)
    noise = 0.1 * numbers.normal(size=len(audio))
    soundfile.write(tmp_path / "noise" / f"{file.stem}.wav", noise, rate_hz)
  found = [
    sounds.evaluate(
      tmp_path / kind,
      tmp_path / "known",
      measures=["fad"],
      kept=kept,
      replicates=2,
    )["fad"].value
    for kind in ("held", "coded", "noise")
  ]
  assert found[0] < 0.9 * found[1] < 0.8 * found[2], found
