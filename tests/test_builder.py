"""From recordings to a dataset, whatever the recordings are like."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from signals import noise, sine

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import builder, reading, shards
from audiogen_jax.data.spec import SoundSpec

SPEC = SoundSpec(rate_hz=8000)


def write_source(root, rows):
  """A folder of the `jsonl` source."""
  root.mkdir(exist_ok=True)
  lines = [json.dumps(row, ensure_ascii=False) for row in rows]
  (root / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
  return root


def build(root, folder, **options):
  options = dict(spec=SPEC, workers=1) | options
  return builder.build("jsonl", root, folder, **options)


def examples(folder, split="train"):
  source = tfds.builder_from_directory(folder).as_data_source(split=split)
  return {row["caption"].decode(): row for row in source}


@pytest.fixture
def root(tmp_path):
  """Sounds of every kind; the caption says what to expect."""
  root = tmp_path / "root"
  root.mkdir()
  one = noise(16_000, 1)
  soundfile.write(root / "8 bit.wav", one, 16_000, subtype="PCM_U8")
  soundfile.write(root / "stereo.wav", noise(44_100, 2), 44_100)
  soundfile.write(root / "96k.flac", sine(440, 96_000, 1.0, -6.0), 96_000)
  soundfile.write(root / "犬 бark 🐶.ogg", one, 16_000)
  soundfile.write(root / "clipped.wav", np.clip(50 * one, -1, 1), 16_000)
  soundfile.write(root / "long.wav", noise(80_000, 1), 8000)
  soundfile.write(root / "short.wav", one[:10], 16_000)
  soundfile.write(root / "silent.wav", 0 * one, 16_000)
  soundfile.write(root / "empty.wav", one[:0], 16_000)
  soundfile.write(root / "nan.wav", one + np.nan, 16_000, subtype="FLOAT")
  soundfile.write(root / "whole.flac", one, 16_000)
  half = (root / "whole.flac").read_bytes()[:9000]
  (root / "truncated.flac").write_bytes(half)
  (root / "text.wav").write_text("these are words " * 99)
  rows = [
    {"path": path.name, "caption": path.stem} for path in sorted(root.iterdir())
  ]
  rows += [
    {"path": "long.wav", "caption": "middle", "start": 4.0, "end": 4.5},
    {"path": "long.wav", "caption": "beyond", "start": 11.0},
  ]
  return write_source(root, rows)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_kind_of_sound(root, tmp_path, workers):
  report = build(root, tmp_path / "out", workers=workers)
  got = examples(tmp_path / "out")
  assert {name: len(row["audio"]) for name, row in got.items()} == {
    "8 bit": 8000,
    "96k": 8000,
    "clipped": 8000,
    "long": 80_000,
    "middle": 4000,
    "short": 5,
    "stereo": 8000,
    "whole": 8000,
    "犬 бark 🐶": 8000,
  }
  assert report.examples == {"train": 9}
  reasons = {pathlib.Path(row.what).name: row.reason for row in report.left_out}
  for name, words in (
    ("silent.wav", "is silent"),
    ("empty.wav", "is empty"),
    ("nan.wav", "holds 16000 NaN"),
    ("truncated.flac", "cannot read"),
    ("text.wav", "cannot read"),
    ("long.wav", "ends at 10.000 s, before 11 s"),
  ):
    assert words in reasons.pop(name)
  assert not reasons
  told = json.loads((tmp_path / "out" / shards.REPORT).read_text("utf-8"))
  assert len(told["left_out"]) == 6 and told["examples"] == {"train": 9}
  # Samples: exact where nothing was resampled, near where it was.
  want, _ = io.read(root / "long.wav")
  np.testing.assert_array_equal(got["long"]["audio"], io.to_int16(want))
  middle = io.to_int16(want[32_000:36_000])
  np.testing.assert_array_equal(got["middle"]["audio"], middle)
  tone = sine(440, 8000, 1.0, -6.0)
  error = got["96k"]["audio"] / 2**15 - tone
  np.testing.assert_allclose(error[400:-400], 0, atol=1e-4)  # 1.8e-5 measured
  assert np.abs(got["clipped"]["audio"]).max() == 2**15 - 1


def test_captions_of_every_kind(tmp_path):
  root = tmp_path / "root"
  root.mkdir()
  soundfile.write(root / "a.wav", noise(800, 1), 8000)
  captions = ["two\nlines\tand  more", "🐶 犬", "long " * 2000, "  spaces "]
  write_source(root, [{"path": "a.wav", "caption": c} for c in captions])
  build(root, tmp_path / "out")
  want = {"two lines and more", "🐶 犬", ("long " * 2000).strip(), "spaces"}
  assert examples(tmp_path / "out").keys() == want
  write_source(root, [{"path": "a.wav", "caption": c} for c in ("", "\n", "x")])
  report = build(root, tmp_path / "none")
  assert report.examples == {"train": 1} and len(report.left_out) == 2


def test_splits_and_metadata(tmp_path):
  root = tmp_path / "root"
  root.mkdir()
  soundfile.write(root / "a.wav", noise(800, 1), 8000)
  rows = [
    {"path": "a.wav", "caption": f"{s} {i}", "split": s, "tags": ["x", "y"]}
    for s in ("train", "test")
    for i in range(3)
  ]
  write_source(root, rows)
  build(root, tmp_path / "out", spec=SoundSpec(rate_hz=8000, channels=2))
  opened = reading.read(tmp_path / "out")
  assert dict(opened.info.metadata) == {"rate_hz": 8000, "channels": 2}
  assert set(opened.info.splits) == {"train", "test"}
  (row, *_) = opened.as_data_source(split="test")
  assert row["audio"].shape == (800, 2) and list(row["tags"]) == [b"x", b"y"]
  assert row["source"] == b"jsonl"


@pytest.mark.slow
def test_kill_9_and_go_on(tmp_path):
  """Parent and workers die; nothing is lost that was written."""
  root = tmp_path / "root"
  root.mkdir()
  for i in range(300):
    soundfile.write(root / f"{i}.ogg", noise(50_000, 2, seed=i), 48_000)
  rows = [{"path": f"{i}.ogg", "caption": f"{i}"} for i in range(300)]
  write_source(root, rows)
  folder = tmp_path / "out"
  script = (
    "import sys\n"
    "from audiogen_jax.data import builder\n"
    "if __name__ == '__main__':\n"
    "  builder.build('jsonl', sys.argv[1], sys.argv[2], workers=2)\n"
  )
  path = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
  (tmp_path / "run.py").write_text(script)
  command = [sys.executable, tmp_path / "run.py", root, folder]
  with subprocess.Popen(command, env=path) as run:
    while len(list(folder.glob("*array_record*"))) < 4:
      assert run.poll() is None
      time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
  with pytest.raises(InputError, match="unfinished dataset"):
    reading.read(folder)
  time.sleep(1.5)  # the workers notice, and end
  kept = {p: p.stat().st_mtime_ns for p in folder.glob("*array_record*")}
  assert 4 <= len(kept) < 19
  seen = []
  builder.build(
    "jsonl", root, folder, workers=1, progress=lambda *n: seen.append(n)
  )
  assert seen[0] == (16 * len(kept), 300) and seen[-1] == (300, 300)
  for shard, stamp in kept.items():
    assert shard.stat().st_mtime_ns == stamp
  assert sorted(examples(folder), key=int) == [str(i) for i in range(300)]


def test_roots_that_lack_what_they_should_hold(tmp_path):
  with pytest.raises(InputError, match="no source 'esc51'|'esc51' is not"):
    builder.build("esc51", tmp_path, tmp_path / "out")
  with pytest.raises(InputError, match="esc50.csv.*github.com/karol"):
    builder.build("esc50", tmp_path, tmp_path / "out")
  assert not (tmp_path / "out").exists()
  for values in (dict(rate_hz=0), dict(channels=0)):
    with pytest.raises(InputError, match=" 0 must lie in"):
      SoundSpec(**values)


def test_the_same_under_beam(root, tmp_path):
  beam = pytest.importorskip("apache_beam", reason="apache-beam not installed")
  del beam
  from audiogen_jax.data import beam

  folder, report = beam.build(
    "jsonl", root, tmp_path / "beam", options="--runner=DirectRunner", spec=SPEC
  )
  assert report.examples == {"train": 9}
  assert (folder / shards.REPORT).exists()
  build(root, tmp_path / "own")
  ours, theirs = examples(tmp_path / "own"), examples(folder)
  assert ours.keys() == theirs.keys()
  for name, row in ours.items():
    np.testing.assert_array_equal(row["audio"], theirs[name]["audio"])
    assert row["id"] == theirs[name]["id"]
  own, other = reading.read(tmp_path / "own"), reading.read(folder)
  assert dict(own.info.metadata) == dict(other.info.metadata)
