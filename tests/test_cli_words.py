"""What every command does with odd words, names and surroundings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAIN = "from audiogen_jax.cli import main; main()"


@pytest.mark.parametrize(
  ("words", "told"),
  [
    (("generate", "a" * 70_000), "has 70,000 characters"),
    (("info", "b" * 5_000), "bbb"),
    (("info", "c" * 4_000), "ccc"),
    (("generate", "rain", "--duration", "1e9"), "more than an hour"),
    (("generate", "rain", "--duration", "nan"), "must be more than 0"),
    (("generate", "rain", "--guidance", "1e39"), "guidance 1e+39 must lie in"),
    (("generate", "rain", "--guidance", "nan"), "guidance nan must lie in"),
    (("generate", "rain", "--temperature", "1e39"), "temperature 1e+39"),
    (("generate", "rain", "--stride", "1e9"), "stride 1e+09 s is more than"),
    (("generate", "rain", "--seed", str(10**30)), "must lie in"),
    (("generate", "rain", "--prompts", "/dev/zero"), "not a file with prompts"),
  ],
)
def test_one_line(refused, tmp_path, monkeypatch, words, told):
  monkeypatch.chdir(tmp_path)
  error = refused(*words)
  assert told in error and len(error) < 700
  assert not list(tmp_path.rglob("*.wav"))


@pytest.mark.slow
def test_words_that_are_no_text(tmp_path):
  """Bytes that are no UTF-8, in a prompt, a name and a file's name."""
  command = [os.fsencode(sys.executable), b"-c", MAIN.encode()]
  environment = os.environ | {
    "PYTHONPATH": str(ROOT),
    "HOME": "/dev/null/nowhere",
    "PYTHONUTF8": "0",
    "LC_ALL": "C.UTF-8",
  }
  for words, told in (
    ((b"generate", b"r\xffain"), "prompt 1 holds what is no Unicode text"),
    ((b"info", b"no\xffwhere"), "no\\udcffwhere"),
    ((b"encode", b"no\xffwhere.wav"), "no\\udcffwhere.wav"),
  ):
    run = subprocess.run(
      [*command, *words],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
      timeout=120,
    )
    assert run.returncode == 2 and told in run.stderr, run.stderr
    assert "Traceback" not in run.stderr


def test_help_tells_defaults(audiogen, monkeypatch):
  """Bare brackets are markup to Rich: what they held was shown to nobody."""
  monkeypatch.setenv("COLUMNS", "200")
  status, told, _ = audiogen("generate", "--help")
  told = " ".join(told.replace("│", " ").split())
  assert status == 0
  for default in (
    "default: bfloat16 on TPU and GPU, float32 on CPU]",
    "default: 8 a device]",
    "default: what suits the model, or 250]",
  ):
    assert default in told
