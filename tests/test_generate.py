"""`audiogen generate --prompts`: many sounds, and what is left after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from audiogen_jax.audio import io
from audiogen_jax.cli import prompts
from audiogen_jax.cli.manifest import Manifest
from audiogen_jax.core.errors import InputError

TEXTS = ["rain", "a dog barks at the door again and again", "wind", "a bell"]


@pytest.fixture
def make(audiogen, tiny, tmp_path):
  """Runs `audiogen generate --prompts` on `TEXTS`; gives output and folder."""
  file = tmp_path / "prompts.txt"
  file.write_text("\n\n".join(TEXTS) + "\n")
  folder = tmp_path / "sounds"

  def run(*options):
    status, output, errors = audiogen(
      *("generate", "--prompts", file, "--model", tiny, "-o", folder),
      *("--duration", "0.4", "--batch", "3", *options),
    )
    assert status == 0, errors
    return output, folder

  return run


def _manifest(folder):
  lines = (folder / "manifest.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_each_sound_has_its_line(make, tiny):
  _, folder = make("--seed", "7", "--guidance", "2")
  entries = _manifest(folder)
  # Short texts are made first, each with the seed of its own line.
  assert [entry["prompt"] for entry in entries][-1] == TEXTS[1]
  by_prompt = {entry["prompt"]: entry for entry in entries}
  assert [by_prompt[text]["seed"] for text in TEXTS] == [7, 8, 9, 10]
  for entry in entries:
    assert entry["guidance"] == 2 and entry["model"] == str(tiny)
    sound, _ = io.read(folder / entry["file"])
    assert sound.shape == (6400, 1)


def test_what_is_there_is_not_made_again(make):
  _, folder = make()
  old = {path: path.stat().st_mtime_ns for path in folder.glob("*.wav")}
  lost = min(old)
  want, _ = io.read(lost)
  lost.unlink()
  output, _ = make()
  assert "3 of 4 are there already" in output
  # Alone instead of among others: the last of 16 bits may differ.
  np.testing.assert_allclose(io.read(lost)[0], want, atol=2**-14)
  assert all(
    path.stat().st_mtime_ns == old[path] for path in old if path != lost
  )
  output, _ = make()
  assert "4 of 4 are there already" in output
  assert not list(folder.glob(".*"))


def test_other_settings_are_other_sounds(make):
  _, folder = make()
  old = {path: io.read(path)[0] for path in folder.glob("*.wav")}
  output, _ = make("--guidance", "1")
  assert "already" not in output
  assert all(np.any(io.read(path)[0] != sound) for path, sound in old.items())


def test_a_kill_loses_nothing(tiny, tmp_path):
  """Killed half-way: what has its line is whole, and the rest is made."""
  file, folder = tmp_path / "prompts.txt", tmp_path / "sounds"
  file.write_text("\n".join(f"sound {i:03d}" for i in range(200)))
  main = "from audiogen_jax.cli import main; main()"
  command = [sys.executable, "-c", main, "generate"]
  command += ["--prompts", file, "--model", tiny, "-o", folder]
  command += ["--duration", "0.4", "--batch", "2"]
  run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
  path, deadline = folder / "manifest.jsonl", time.monotonic() + 120
  while not (path.exists() and path.stat().st_size):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  os.kill(run.pid, signal.SIGKILL)
  run.wait()
  entries = _manifest(folder)
  assert 1 <= len(entries) < 200
  for entry in entries:
    assert len(io.read(folder / entry["file"])[0]) == 6400
  with Manifest(folder) as lines:
    assert all(lines.holds(entry) for entry in entries)


def test_a_line_that_was_cut_short(tmp_path):
  entries = [{"file": f"{i}.wav", "seed": i} for i in range(3)]
  for entry in entries:
    (tmp_path / entry["file"]).touch()
  with Manifest(tmp_path) as lines:
    for entry in entries[:2]:
      lines.add(entry)
  with lines.path.open("a") as file:
    file.write('{"file": "2.w')
  with Manifest(tmp_path) as lines:
    assert [lines.holds(entry) for entry in entries] == [True, True, False]
    lines.add(entries[2])
  with Manifest(tmp_path) as lines:
    assert all(map(lines.holds, entries))


def test_a_folder_belongs_to_one_process(make, refused, tiny, tmp_path):
  _, folder = make()
  with Manifest(folder):
    told = refused(
      *("generate", "--prompts", tmp_path / "prompts.txt", "--model", tiny),
      *("-o", folder, "--duration", "0.4", "--seed", 9),
    )
  assert "another process is making sounds in" in told
  assert len(_manifest(folder)) == 4


def test_files_do_not_clip(audiogen, tiny, tmp_path):
  path = tmp_path / "dog.wav"
  common = "--model", tiny, "--duration", "0.6", "-o", path
  levels = {}
  for lufs in (-20, -14, 0):
    status, _, errors = audiogen(
      "generate", "a dog", "--loudness", lufs, *common
    )
    assert status == 0, errors
    audio, _ = soundfile.read(path, dtype="int16")
    assert np.abs(audio.astype(int)).max() < 2**15 - 1
    levels[lufs] = np.sqrt(np.mean(np.square(audio, dtype=float)))
  assert levels[-20] < levels[-14] < levels[0]


@pytest.mark.parametrize("line", ["hello", "[]", "{}", "3", "[" * 10**5])
def test_another_file_of_that_name(tmp_path, line):
  (tmp_path / "manifest.jsonl").write_text(f"{line}\n")
  with pytest.raises(InputError, match="line 1, is no line of a manifest"):
    Manifest(tmp_path)


def test_files_of_prompts(tmp_path):
  path = tmp_path / "prompts.txt"
  path.write_bytes("\ufeffréveil\r\n\r\n  wind \r\n".encode())
  assert prompts.read(["a"], path, None) == ["a", "réveil", "wind"]
  for content, words in (
    (b"", "holds no prompts"),
    (b" \n\n", "holds no prompts"),
    ("rain\nréveil".encode("latin-1"), "line 2, is not UTF-8 text .byte 2."),
    ("rain".encode("utf-16"), "line 1, is not UTF-8 text .byte 1."),
  ):
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
      prompts.read(None, path, None)


def test_too_long_is_said_before_the_work(audiogen, tiny, tmp_path):
  path = tmp_path / "prompts.txt"
  path.write_text("rain\n" * 20 + "wind " * 2000)
  status, _, errors = audiogen(
    *("generate", "--prompts", path, "--model", tiny, "-o", tmp_path / "out"),
    *("--batch", "2"),
  )
  assert status == 2 and "at most 512" in errors
  assert not list((tmp_path / "out").iterdir())


def test_a_full_disk(make, monkeypatch, audiogen, tiny, tmp_path):
  """What was made stays, and one line says why the rest is missing."""
  write, written = io.write, []

  def full(path, *arguments):
    if len(written) == 3:
      raise OSError(28, "No space left on device", str(path))
    written.append(path)
    write(path, *arguments)

  monkeypatch.setattr(io, "write", full)
  with pytest.raises(AssertionError, match="No space left on device"):
    make()
  monkeypatch.undo()
  output, folder = make()
  assert "3 of 4 are there already" in output
  assert len(_manifest(folder)) == 4
