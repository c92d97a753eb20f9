"""A family from outside works everywhere, and no file of ours knows it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_classes import dataset

import audiogen_jax as ag
from audiogen_jax import families
from audiogen_jax.core.errors import InputError

TESTS = Path(__file__).parent


@pytest.fixture
def sine(monkeypatch, tmp_path):
  """A folder with a model of a family that this test alone knows."""
  import sine_family

  families.known()
  monkeypatch.setitem(families._families, "sine", sine_family.Sine)
  folder = tmp_path / "sine"
  sine_family.Sine(440.0).save(folder)
  return folder


def pitch_hz(path):
  audio, rate = soundfile.read(path)
  return np.argmax(np.abs(np.fft.rfft(audio))) * rate / len(audio)


def test_load(sine, tiny):
  for source in (sine, tiny):
    model = ag.load(source)
    assert isinstance(model, ag.TextToAudio)
    audio = model.generate(["rain"], duration_s=0.5)
    assert audio.shape == (1, model.sample_rate_hz // 2, model.channels)
  with pytest.raises(InputError, match="of the family sine, which has no dtyp"):
    ag.load(sine, dtype="int8")
  with pytest.raises(InputError, match="holds a t5, which makes no sounds"):
    ag.load(tiny / "t5")


def test_an_unknown_family(sine):
  config = json.loads((sine / "config.json").read_text())
  (sine / "config.json").write_text(json.dumps(config | {"family": "song"}))
  with pytest.raises(
    InputError, match="family song; known are audiogen, magnet, make-an-"
  ):
    ag.load(sine)
  with pytest.raises(InputError, match="of the family song, not an AudioGen"):
    ag.AudioGen.from_pretrained(sine)


def test_generate(audiogen, sine, tmp_path):
  out = tmp_path / "out"
  words = ("generate", "a", "--model", sine, "-o", out, "--duration", 0.5)
  assert audiogen(*words)[0] == 0
  assert pitch_hz(out / "a_seed0.wav") == 440
  assert audiogen(*words, "--pitch-hz", 1000)[0] == 0
  assert pitch_hz(out / "a_seed0.wav") == 1000


def test_a_list_of_prompts(audiogen, sine, tmp_path):
  (tmp_path / "p.txt").write_text("a\nb\n")
  words = ("generate", "--prompts", tmp_path / "p.txt", "--model", sine)
  words += ("-o", tmp_path / "out", "--duration", 0.5, "--pitch-hz", 500)
  assert audiogen(*words)[0] == 0
  lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
  assert [json.loads(line)["pitch_hz"] for line in lines] == [500, 500]
  status, told, _ = audiogen(*words)
  assert status == 0 and "2 of 2 are there already" in told


@pytest.mark.parametrize(
  ("words", "told"),
  [
    (["--top-k", 5], "has no --top-k; its options are --pitch-hz"),
    (["--pitch-hz", 1e9], "pitch-hz 1000000000.0 must lie in [0, 4000]"),
    (["--stride", 1], "makes no windows"),
    (["--continue-from", "x.wav"], "cannot continue sounds"),
    (["--dtype", "int8"], "of the family sine, which has no dtype"),
  ],
)
def test_what_it_lacks(refused, sine, words, told):
  assert told in refused("generate", "a", "--model", sine, *words)


def test_what_audiogen_lacks(refused, sine, tiny):
  error = refused("generate", "a", "--model", tiny, "--pitch-hz", 5)
  options = "--guidance, --temperature, --top-k, --top-p"
  assert f"has no --pitch-hz; its options are {options}" in error


def test_info(audiogen, sine):
  status, told, _ = audiogen("info", sine)
  assert status == 0
  for words in ("family", "sine", "orbax", "440 Hz"):
    assert words in told


def test_the_page(sine, tmp_path):
  pytest.importorskip("gradio")
  from audiogen_jax.cli import page

  model, sampling = ag.load(sine), families.describe(sine).sampling
  blocks = page.build(model, sampling, "sine", tmp_path, lambda: False)
  (function,) = [f for f in blocks.fns.values() if f.api_name == "generate"]
  labels = [component.label for component in function.inputs]
  assert labels == ["Prompt", "Seconds", "Seed", "Pitch-hz"]
  sound, picture, _ = function.fn("a", 0.5, 0, 700, lambda *_, **__: None)
  assert pitch_hz(sound) == 700 and Path(picture).is_file()


def test_classes(audiogen, sine, tmp_path):
  data = dataset(tmp_path / "data", each=2)
  status, told, errors = audiogen(
    *("evaluate", "classes", sine, data, "--clips", 1, "--pairs", 1),
    *("--duration", 0.5, "--pitch-hz", 100, "--pitch-hz", 2500),
  )
  assert status == 0, errors
  for words in ("pitch-hz", "100", "2500", "held"):
    assert words in told
  assert "codec\n" not in told


def test_startup_finds_it_by_its_entry_point(sine, tmp_path):
  """In a process of its own, which nobody has told of the family."""
  folder = tmp_path / "site" / "sine-1.dist-info"
  folder.mkdir(parents=True)
  (folder / "METADATA").write_text("Name: sine\nVersion: 1\n")
  points = "[audiogen_jax.families]\nsine = sine_family\n"
  (folder / "entry_points.txt").write_text(points)
  path = os.pathsep.join(map(str, (folder.parent, TESTS, TESTS.parent)))
  done = subprocess.run(
    [
      *(sys.executable, "-c", "from audiogen_jax.cli import main; main()"),
      *("benchmark", "startup", "--model", str(sine), "--runs", "1"),
    ],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": path},
  )
  assert done.returncode == 0, done.stderr
  assert "to 5 s of sound" in done.stdout


def test_describing_starts_no_backend():
  """Or processes of a pod could not be joined any more."""
  code = (
    "from audiogen_jax import families; families.describe('nano')\n"
    "from jax._src import xla_bridge as b; print(b.backends_are_initialized())"
  )
  command = [sys.executable, "-c", code]
  told = subprocess.check_output(command, cwd=TESTS.parent, text=True)
  assert told.split()[-1] == "False"
