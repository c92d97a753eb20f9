"""`audiogen evaluate sounds`, `statistics`, `weights`, with tiny weights."""

import importlib.metadata
import json

import judging
import numpy as np
import pytest
import sfx_weights
import soundfile

from audiogen_jax.convert import judges, sfx
from audiogen_jax.core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:sets of")


@pytest.fixture
def weights(tmp_path, monkeypatch):
  return sfx_weights.passing(tmp_path, monkeypatch)


@pytest.fixture
def sets(tmp_path):
  options = {"seconds": 1.5}
  return (
    judging.folder(tmp_path / "made", 5, start=50, colour=1.0, **options),
    judging.folder(tmp_path / "real", 6, **options),
  )


def test_figures_from_the_command_line(audiogen, weights, sets, tmp_path):
  figures, plot = tmp_path / "a.json", tmp_path / "a.png"
  status, told, errors = audiogen(
    *("evaluate", "sounds", *sets, "--weights", weights),
    *("--json", figures, "--plot", plot),
  )
  assert status == 0, errors
  document = json.loads(figures.read_text())
  assert document["protocol"] == "sfx"
  fad, kid = document["figures"]
  assert (fad["measure"], kid["measure"]) == ("fad", "kid")
  for words in (
    "protocol sfx",
    f"{fad['value']:.4g}",
    f"{fad['floor']:.4g}",
    "5 + 6",
    fad["sha256"][:12],
    document["clips_sha256"][:12],
    "sets of 5 and 6 embeddings of 6 values",
  ):
    assert words in told
  assert plot.read_bytes().startswith(b"\x89PNG")

  stored = tmp_path / "real.npz"
  status, told, _ = audiogen(
    *("evaluate", "statistics", sets[1], "-o", stored, "--weights", weights)
  )
  assert status == 0 and "6 clips, protocol sfx" in told
  audiogen(
    *("evaluate", "sounds", sets[0], stored, "--weights", weights),
    *("--measure", "fad", "--json", figures),
  )
  (again,) = json.loads(figures.read_text())["figures"]
  np.testing.assert_allclose(again["value"], fad["value"], rtol=1e-9)
  np.testing.assert_allclose(again["floor"], fad["floor"], rtol=1e-9)


def test_clips_and_captions_come_from_files(refused, weights, sets, tmp_path):
  only = tmp_path / "only.txt"
  only.write_text("clip00.wav\nclip01\n\n")
  words = "evaluate", "sounds", *sets, "--weights", weights
  captions = tmp_path / "captions.csv"
  captions.write_text("name,caption\nclip00.wav,a dog\n")
  line = refused(
    *(*words, "--only", only, "--protocol", "audiogen"),
    *("--measure", "clap", "--captions", captions),
  )
  assert "1 of 2 clips have none: clip01" in line
  captions.write_text("name,caption\nclip00.wav\n")
  assert "line 2, lacks its caption" in refused(*words, "--captions", captions)
  only.write_text("\n")
  assert "names no clips" in refused(*words, "--only", only)
  assert "cannot read" in refused(*words, "--only", tmp_path / "b.txt")


def test_weights_that_are_missing_or_others_are_named(
  refused, weights, sets, tmp_path, monkeypatch
):
  words = "evaluate", "sounds", *sets, "--weights"
  line = refused(*words, weights, "--protocol", "audiogen", "--measure", "fad")
  for part in ("vggish", "https://github.com/harritaylor", str(weights)):
    assert part in line

  def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "distribution", absent)
  assert sfx.SOURCE in refused(*words, tmp_path / "none")
  file = weights / judges.WEIGHTS["sfx"].file
  sfx_weights.write(file, sfx_weights.state(seed=1))
  assert "another version, or damaged" in refused(*words, weights)


def test_bad_input_is_one_line(refused, weights, sets):
  made, real = sets
  words = "--weights", weights
  assert "generated set itself" in refused(
    "evaluate", "sounds", made, made, *words
  )
  soundfile.write(made / "clip02.wav", np.zeros(12_000), judging.RATE)
  line = refused("evaluate", "sounds", made, real, *words)
  assert "clip02" in line and "silent" in line
  soundfile.write(made / "clip02.wav", judging.sound(1, 0.5), judging.RATE)
  line = refused("evaluate", "sounds", made, real, *words)
  assert "clip clip02: 22,050 samples at 44100 Hz are too short" in line
  line = refused("evaluate", "statistics", real, "-o", made / "a.txt", *words)
  assert "must end in .npz" in line
  line = refused("evaluate", "sounds", made, real, "--plot", made / "a.jpg")
  assert ".png" in line


def test_weights_are_listed(audiogen, weights, tmp_path):
  status, told, _ = audiogen("evaluate", "weights", "--weights", weights)
  assert status == 0
  for name, published in judges.WEIGHTS.items():
    assert f"{name} ({published.licence})" in told
    assert published.source in told
  assert judges.find("sfx", weights).sha256 in told
  assert "missing" in told
  command = "hf download roberta-base tokenizer.json --local-dir"
  assert f"{command} {weights / 'roberta-base'}" in told


def test_audiogen_s_protocol_is_usual_where_its_weights_are(
  monkeypatch, weights
):
  from audiogen_jax.evaluate import sounds

  assert sounds.usual_protocol(weights) == "sfx"
  for published in judges.WEIGHTS.values():
    file = weights / published.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
  assert sounds.usual_protocol(weights) == "audiogen"


def test_every_judge_of_a_protocol_is_known():
  from audiogen_jax.embedding import protocols

  used = {
    hearing.judge
    for way in protocols.PROTOCOLS.values()
    for hearing in way.hearings.values()
  }
  assert used == set(judges.JUDGES)
  assert {j.weights for j in judges.JUDGES.values()} == set(judges.WEIGHTS)
  for way in protocols.PROTOCOLS.values():
    assert {m.hearing for m in way.measures} == set(way.hearings)
    assert way.chosen(())


def test_a_wrong_file_says_whose_it_is(weights, tmp_path):
  with pytest.raises(InputError, match=r"weights of cnn14 are missing.*zenodo"):
    judges.load("cnn14", weights)
