"""`audiogen data …`: from recordings to codes, and what is refused."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import soundfile
from signals import noise

from audiogen_jax.data import reading


@pytest.fixture
def root(tmp_path):
  """Twenty noises of a second, and a file that is none."""
  root = tmp_path / "root"
  root.mkdir()
  rows = []
  for i in range(20):
    soundfile.write(root / f"{i}.flac", noise(16_000, 1, seed=i), 16_000)
    rows.append(
      {"path": f"{i}.flac", "caption": f"noise {i}", "tags": ["hiss"]}
    )
  (root / "x.wav").write_text("no sound")
  rows.append({"path": "x.wav", "caption": "nothing"})
  (root / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return root


def build(run, root, out, *more):
  command = ["data", "build", "--source", "jsonl", "--root", root]
  return run(*command, "--out", out, "--workers", 1, *more)


def test_from_recordings_to_codes(audiogen, root, tiny, tmp_path):
  out, codes = tmp_path / "sounds", tmp_path / "codes"
  status, told, errors = build(audiogen, root, out)
  assert status == 0 and "20 in train" in told
  assert "left out: 1" in errors and "x.wav: cannot read" in errors
  plot = tmp_path / "plot.png"
  status, told, _ = audiogen("data", "info", out, "--plot", plot)
  assert status == 0
  for words in ("20", "0.01", "1.00 / 1.00 / 1.00", "hiss 20", "jsonl 20"):
    assert words in told
  assert "rate_hz: 16000" in told
  assert plot.read_bytes().startswith(b"\x89PNG")
  status, told, _ = audiogen(
    *("data", "tokenize", out, "--model", tiny, "--out", codes),
    *("--min-duration", 1.5, "--copies", 1),
  )
  assert status == 0 and "40 in train" in told
  status, told, _ = audiogen("data", "info", codes)
  assert status == 0 and "1.50 / 1.50 / 1.50" in told and "codebooks: 4" in told


def test_an_epoch_from_the_command_line(audiogen, root, tmp_path):
  out, heard = tmp_path / "sounds", tmp_path / "heard"
  build(audiogen, root, out)
  read = ["data", "read", out, "--duration", 0.5, "--batch", 8]
  status, told, _ = audiogen(*read, "--save", heard)
  assert status == 0 and told.startswith("3 batches, 20 clips, 0.00 hours in")
  assert len(list(heard.glob("*-noise-*.wav"))) == 8
  status, told, _ = audiogen(*read, "--mix", "--seed", 1)
  assert status == 0 and told.startswith("1 batches, 8 clips")


def test_beam_from_the_command_line(audiogen, root, tmp_path):
  pytest.importorskip("apache_beam", reason="apache-beam not installed")
  out = tmp_path / "out"
  status, told, _ = build(
    audiogen, root, out, "--beam", "--runner=DirectRunner"
  )
  assert status == 0 and "20 in train" in told
  status, told, _ = audiogen("data", "info", out / "jsonl" / "1.0.0")
  assert status == 0 and "hiss 20" in told


def test_a_runner_that_is_none(root, tmp_path, refused):
  pytest.importorskip("apache_beam", reason="apache-beam not installed")
  words = "--source", "jsonl", "--root", root, "--out", tmp_path / "out"
  told = refused("data", "build", *words, "--beam", "--runner=Nope")
  assert "Unexpected pipeline runner: Nope" in told
  assert not (tmp_path / "out").exists()


def test_without_beam_there_is_a_remedy(root, tmp_path, refused, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
  command = ["data", "build", "--source", "jsonl", "--root", root]
  said = refused(*command, "--out", tmp_path / "out", "--beam", "")
  assert "pip install 'audiogen_jax[beam]'" in said


def test_help(audiogen):
  for words in (("data",), ("data", "build"), ("data", "tokenize")):
    status, told, _ = audiogen(*words, "--help")
    assert status == 0 and "Usage" in told
  assert "esc50" in audiogen("data", "build", "--help")[1]


def test_bad_input_is_one_line(audiogen, refused, root, tiny, tmp_path):
  out, new = tmp_path / "out", tmp_path / "new"
  build(audiogen, root, out)
  (tmp_path / "file").touch()
  jsonl = ["build", "--source", "jsonl", "--root"]
  codes = ["tokenize", out, "--model", tiny, "--out"]
  for command, words in (
    (["build", "--source", "x", "--root", root, "--out", new], "x"),
    ([*jsonl, tmp_path / "no", "--out", new], "no"),
    ([*jsonl, root, "--out", new, "--rate", 0], "rate_hz 0 must lie in"),
    ([*jsonl, root, "--out", out], "already holds a dataset; delete it"),
    (["info", tmp_path], "holds no dataset"),
    (["info", tmp_path / "no"], "holds no dataset"),
    (["info", out, "--plot", "a.jpg"], "must end in .png"),
    (["tokenize", out, "--model", tmp_path, "--out", new], "holds no model"),
    (["tokenize", tmp_path, "--model", tiny, "--out", new], "holds no dataset"),
    ([*codes, tmp_path / "file"], "cannot write into"),
    ([*codes, new, "--copies", -1], "copies -1 must be 0 or more"),
    (["read", tmp_path], "holds no dataset"),
    (["read", out, "--split", "x"], "has no split x, but train"),
    (["read", out, "--batch", 64, "--mix"], "too few for a batch of 64"),
  ):
    assert words in refused("data", *command)
  assert not new.exists()


@pytest.mark.slow
def test_tokenize_in_two_processes(audiogen, root, tiny, tmp_path):
  out, codes = tmp_path / "sounds", tmp_path / "codes"
  build(audiogen, root, out)
  with socket.socket() as free:  # JAX derives its port from the job's number
    free.bind(("localhost", 0))
    job = free.getsockname()[1]
  command = [sys.executable, "-c", "from audiogen_jax import cli; cli.main()"]
  command += ["data", "tokenize", out, "--model", tiny, "--out", codes]
  command += ["--copies", "3", "--min-duration", "1", "--distributed"]
  env = os.environ | {
    "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "SLURM_JOB_ID": str(job),
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
  }
  processes = [
    subprocess.Popen(
      command,
      env=env | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  told = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], told
  assert "80 in train" in told[0][0] and not told[1][0]
  assert reading.read(codes).info.splits["train"].num_examples == 80
