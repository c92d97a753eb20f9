"""Datasets written shard by shard: whole, resumed, refused."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
from recordings import SPEC, Item, dataset, sound

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import reading, shards
from audiogen_jax.data.shards import About, Build, LeftOut

ABOUT = About(
  name="tiny",
  features=SPEC.features,
  description="Ramps.",
  settings=dataclasses.asdict(SPEC),
  homepage="https://example.org",
  citation="@misc{ramps}",
  licence="CC0",
)
ITEMS = {"train": [Item(i) for i in range(40)], "test": [Item(7)]}


def example(number):
  return {
    "id": str(number),
    "audio": sound(number, 10 + number),
    "caption": "a dög 🐶",
    "tags": ["a", "b"],
    "source": "tiny",
    "licence": "",
  }


def write(folder, shard, spare=False):
  made = (
    LeftOut(f"item {i}", "is even") if spare and i % 2 == 0 else example(i)
    for i in range(shard.first, shard.last)
  )
  shards.write(folder, shard, ABOUT.features, made)


def content(folder):
  """Examples and metadata; the bytes of ArrayRecord files may differ."""
  split = reading.read(folder).as_data_source(split="train")
  examples = [
    {k: np.asarray(v).tolist() for k, v in row.items()} for row in split
  ]
  names = ("dataset_info.json", "features.json", shards.REPORT)
  return examples, [(folder / name).read_text() for name in names]


def test_plain_tfds_reads_it(tmp_path):
  with Build.open(tmp_path / "a", ABOUT, ITEMS) as build:
    for shard in build.todo:
      write(tmp_path / "a", shard)
    report = build.finish([LeftOut("b.wav", "not there")])
  assert report.examples == {"train": 40, "test": 1}
  builder = tfds.builder_from_directory(tmp_path / "a")
  info = builder.info
  assert (info.name, info.homepage) == ("tiny", "https://example.org")
  assert (info.citation, reading.licence(builder)) == ("@misc{ramps}", "CC0")
  assert dict(info.metadata) == {"rate_hz": 100, "channels": 1}
  source = builder.as_data_source(split="train")
  assert len(source) == 40
  for i in (0, 17, 39):
    got = source[i]
    np.testing.assert_array_equal(got["audio"], sound(i, 10 + i))
    assert got["audio"].dtype == np.int16
    assert got["caption"].decode() == "a dög 🐶"
    assert list(got["tags"]) == [b"a", b"b"] and got["id"] == str(i).encode()
  report = json.loads((tmp_path / "a" / shards.REPORT).read_text())
  assert report["left_out"] == [{"what": "b.wav", "reason": "not there"}]
  assert not (tmp_path / "a" / ".building").exists()
  assert not list((tmp_path / "a").glob(".*"))


def test_shards_depend_on_the_numbers_alone():
  for count, number, largest in (
    (1, 1, 1),
    (16, 1, 16),
    (17, 2, 16),
    (320, 20, 16),
    (10_000, 65, 156),
    (2_000_000, 1954, 1024),
  ):
    cut = shards.plan("a", {"train": count})
    assert len(cut) == number
    assert max(shard.last - shard.first for shard in cut) == largest
    ends = [0, *(shard.last for shard in cut)]
    assert [shard.first for shard in cut] == ends[:-1] and ends[-1] == count
  assert cut[3].file == "a-train.array_record-00003-of-01954"


def test_what_is_left_out_is_told(tmp_path):
  with Build.open(tmp_path, ABOUT, ITEMS) as build:
    for shard in build.todo:
      write(tmp_path, shard, spare=True)
    report = build.finish()
  # Nothing is left of the test split.
  assert report.examples == {"train": 20, "test": 0}
  assert report.left_out[:2] == [
    LeftOut("item 0", "is even"),
    LeftOut("item 2", "is even"),
  ]
  source = reading.read(tmp_path).as_data_source(split="train")
  assert [int(row["id"]) for row in source] == list(range(1, 40, 2))


def test_nothing_at_all(tmp_path):
  with Build.open(tmp_path, ABOUT, {"test": ITEMS["test"]}) as build:
    (shard,) = build.todo
    write(tmp_path, shard, spare=True)
    words = (
      "none of 1 items could be used, such as item 0: is even; .*report.js"
    )
    with pytest.raises(InputError, match=words):
      build.finish()
  assert json.loads((tmp_path / shards.REPORT).read_text())["left_out"]
  with pytest.raises(InputError, match="nothing to write"):
    with Build.open(tmp_path / "b", ABOUT, {"train": []}):
      pass


def test_a_killed_build_goes_on(tmp_path):
  whole, resumed = tmp_path / "whole", tmp_path / "resumed"
  with Build.open(whole, ABOUT, ITEMS) as build:
    for shard in build.todo:
      write(whole, shard)
    build.finish()
  with pytest.raises(ZeroDivisionError):
    with Build.open(resumed, ABOUT, ITEMS) as build:
      first = build.todo[0]
      write(resumed, first)
      shards.write(
        resumed, build.todo[0], ABOUT.features, (1 / 0 for _ in range(3))
      )
  kept = resumed / first.file
  stamp = kept.stat().st_mtime_ns
  (resumed / ".0123.part").write_bytes(b"half")  # as kill -9 leaves it
  with pytest.raises(InputError, match="unfinished dataset; run the command"):
    reading.read(resumed)
  with Build.open(resumed, ABOUT, ITEMS) as build:
    assert first not in build.todo and len(build.todo) == len(build.shards) - 1
    for shard in build.todo:
      write(resumed, shard)
    build.finish()
  assert kept.stat().st_mtime_ns == stamp
  assert content(resumed) == content(whole)


def test_kill_9_at_any_time(tmp_path):
  """Killed in the middle of a shard, again and again, until it is done."""
  whole = dataset(tmp_path / "whole", [3] * 300)
  script = textwrap.dedent("""
    import sys, time
    import recordings
    slow = recordings.sound
    def sound(*args):
      time.sleep(0.002)
      return slow(*args)
    recordings.sound = sound
    print("ready", flush=True)
    recordings.dataset(sys.argv[1], [3] * 300)
  """)
  here = pathlib.Path(__file__).parent
  folder, kills = tmp_path / "killed", 0
  path = os.pathsep.join([str(here), str(here.parent)])
  while not (folder / "dataset_info.json").exists():
    command = [sys.executable, "-c", script, str(folder)]
    env = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as run:
      run.stdout.readline()
      try:
        assert run.wait(0.25 * (kills + 1)) == 0
      except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        kills += 1
    if kills == 1:
      with pytest.raises(InputError, match="unfinished dataset"):
        reading.read(folder)
  assert kills >= 1
  assert content(folder) == content(whole)


def test_one_process_at_a_time(tmp_path):
  with Build.open(tmp_path, ABOUT, ITEMS):
    with pytest.raises(InputError, match="another process is building"):
      with Build.open(tmp_path, ABOUT, ITEMS):
        pass
  with Build.open(tmp_path, ABOUT, ITEMS):
    pass


def test_another_build_in_its_place(tmp_path):
  with Build.open(tmp_path, ABOUT, ITEMS):
    pass
  fewer = {"train": ITEMS["train"][1:]}
  other = dataclasses.replace(ABOUT, settings={"rate_hz": 8000, "channels": 1})
  for about, items in ((ABOUT, fewer), (other, ITEMS)):
    with pytest.raises(InputError, match="beginnings of another dataset"):
      with Build.open(tmp_path, about, items):
        pass
  dataset(tmp_path / "done", [3])
  with pytest.raises(InputError, match="already holds a dataset; delete it"):
    with Build.open(tmp_path / "done", ABOUT, ITEMS):
      pass
  (tmp_path / "done" / "dataset_info.json").unlink()
  with pytest.raises(InputError, match="ArrayRecord files of something else"):
    with Build.open(tmp_path / "done", ABOUT, ITEMS):
      pass


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  with pytest.raises(InputError, match="cannot write into .*choose another"):
    with Build.open(tmp_path / "file", ABOUT, ITEMS):
      pass
  with Build.open(tmp_path / "a", ABOUT, ITEMS) as build:
    shard = build.todo[0]

    def full(*_):
      raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="disk of .* is full; make room and"):
      write(tmp_path / "a", shard)
    monkeypatch.undo()
    assert shard in build.todo and not list((tmp_path / "a").glob("*record*"))


@pytest.mark.skipif(
  not pathlib.Path("/dev/full").exists(), reason="/dev/full is Linux's"
)
def test_array_record_says_that_the_disk_is_full(tmp_path, monkeypatch):
  writer = shards.array_record_module.ArrayRecordWriter
  monkeypatch.setattr(
    shards.array_record_module,
    "ArrayRecordWriter",
    lambda _, options: writer("/dev/full", options),
  )
  with Build.open(tmp_path, ABOUT, ITEMS) as build:
    with pytest.raises(InputError, match="is full; make room and run the same"):
      write(tmp_path, build.todo[0])
  assert not list(tmp_path.glob("*record*"))


def test_waiting_for_one_that_has_died(tmp_path, monkeypatch):
  """As long as somebody writes, and no longer."""
  monkeypatch.setattr(shards, "_PATIENCE_S", 0.3)
  monkeypatch.setattr(shards, "_LOOK_S", 0.01)
  with Build.open(tmp_path / "a", ABOUT, ITEMS) as build:
    first, *others = build.todo
    write(tmp_path / "a", first)
    with pytest.raises(InputError, match=f"{len(others)} of 4 shards") as said:
      build.wait()
    assert others[0].file in str(said.value)
    for shard in others:
      write(tmp_path / "a", shard)
    build.wait()
