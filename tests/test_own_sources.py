"""One's own tables and folders: what is wrong with a row costs that row."""

import json
import os
import re

import numpy as np
import pytest
import soundfile
from test_sources import plant

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import builder, shards, sources
from audiogen_jax.data.spec import SoundSpec

GOOD = "b.wav,ok"


def table(*lines, header="path,caption"):
  return "\n".join([header, *lines]) + "\n"


def lines(*rows):
  return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)


def row(**values):
  return {"path": "a.wav", "caption": "x"} | values


# A table whose other row is good, and words of the report.
BAD = {
  "comma": ("csv", table("a.wav,a dog barks, then rain", GOOD), "3 fields for"),
  "quote": ("csv", table('a.wav,"a dog barks', GOOD), "quote in it is not clo"),
  "quotes": ("csv", table('a.wav,"a dog', 'c.wav,"x" y', GOOD), "not clo|no r"),
  "short": ("csv", table("a.wav", GOOD), "lacks its caption"),
  "latin": ("csv", table("a.wav,\xe9", GOOD).encode("latin-1"), "is not UTF-8"),
  "wide": ("csv", table(f"a.wav,{'x' * 200_000}", GOOD), "no row of a CSV"),
  "long": ("csv", table(f"{'n' * 300}.wav,x", GOOD), "is not there"),
  "nothing": ("csv", table(",x", GOOD), "lacks a path"),
  "end": (
    "csv",
    table("a.wav,x,0,inf", "b.wav,ok,0,1", header="path,caption,start,end"),
    "end inf must be 0 or more",
  ),
  "nan": (
    "csv",
    table("a.wav,x,nan,1", "b.wav,ok,,", header="path,caption,start,end"),
    "start nan must be 0 or more",
  ),
  "reversed": (
    "csv",
    table("a.wav,x,1,0.5", "b.wav,ok,,", header="path,caption,start,end"),
    "end 0.5 must lie behind start 1.0",
  ),
  "slash": (
    "csv",
    table("a.wav,x,/", "b.wav,ok,train", header="path,caption,split"),
    "split '/' must be a word",
  ),
  "all": (
    "csv",
    table("a.wav,x,all", "b.wav,ok,train", header="path,caption,split"),
    "split 'all' must be a word",
  ),
  "surrogate": (
    "jsonl",
    lines('{"path": "a.wav", "caption": "x", "split": "\\ud83d"}',
          {"path": "b.wav", "caption": "ok"}),
    "must be a word",
  ),
  "list": ("jsonl", lines(row(caption=["a", "b"]), GOOD), "must be a text"),
  "object": ("jsonl", lines(row(caption={"a": 1}), GOOD), "must be a text"),
  "number": ("jsonl", lines(row(caption=5), GOOD), "must be a text"),
  "tags": ("jsonl", lines(row(tags=5), GOOD), "tags '5' must be a text"),
  "mixed": ("jsonl", lines(row(tags=["a", 1]), GOOD), "must be a text or a li"),
  "digits": ("jsonl", lines('{"start": ' + "1" * 5000 + "}", GOOD), "not JSON"),
  "nested": ("jsonl", lines("[" * 90_000, GOOD), "is not JSON"),
  "huge": ("jsonl", lines(row(start=10**400), GOOD), "no number of seconds"),
  "path": ("jsonl", lines(row(path=["a.wav"]), GOOD), "lacks a path"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_row_costs_that_row(tmp_path, case):
  name, text, words = BAD[case]
  if name == "jsonl":
    text = text.replace(GOOD, '{"path": "b.wav", "caption": "ok"}')
  files = {f"m.{name}": text, "a.wav": "", "b.wav": "", "c.wav": ""}
  reading = sources.read(name, plant(tmp_path, files))
  assert [record.caption for record in reading.records] == ["ok"]
  assert reading.left_out
  for one in reading.left_out:
    assert re.search(words, one.reason), one
    assert len(one.what) < 400 and len(one.reason) < 400


def test_what_is_well_written_is_read(tmp_path):
  text = table(
    '"a.wav","one, two"',
    'a.wav,"a ""loud"" dog"',
    'a.wav,"two',
    'lines"',
    "",
    "a.wav,plain",
  )
  files = {"m.csv": b"\xef\xbb\xbf" + text.encode(), "a.wav": ""}
  reading = sources.read("csv", plant(tmp_path, files))
  assert [record.caption for record in reading.records] == [
    "one, two",
    'a "loud" dog',
    "two lines",
    "plain",
  ]
  assert not reading.left_out


def test_splits_have_one_spelling(tmp_path):
  told = {
    "Train": "train",
    "TRAIN ": "train",
    "training": "train",
    "dev": "validation",
    "Valid": "validation",
    "EVAL": "test",
    "Holdout 2": "holdout_2",
    "überprüfung": "überprüfung",
  }
  rows = [f"a.wav,x,{split}" for split in told]
  text = table(*rows, header="path,caption,split")
  reading = sources.read("csv", plant(tmp_path, {"m.csv": text, "a.wav": ""}))
  assert [record.split for record in reading.records] == list(told.values())


def test_tags_of_a_table(tmp_path):
  text = table(
    "a.wav,,Bark; Dog",
    "a.wav,,Bark|Dog",
    'a.wav,,"Wind, light"',
    header="path,caption,tags",
  )
  reading = sources.read("csv", plant(tmp_path, {"m.csv": text, "a.wav": ""}))
  assert [record.tags for record in reading.records] == [
    ("Bark", "Dog"),
    ("Bark", "Dog"),
    ("Wind, light",),
  ]


def test_other_tables_beside_it(tmp_path):
  files = {
    "m.csv": table("a.wav,x"),
    "._m.csv": b"\0\5\x16\7",
    "other.csv": "x,y\n1,2\n",
    "a.wav": "",
  }
  reading = sources.read("csv", plant(tmp_path, files))
  assert len(reading.records) == 1
  (row,) = reading.left_out
  assert "other.csv lacks the column path, caption" in row.reason
  files = {"m.jsonl": b'\xef\xbb\xbf{"path": "a.wav", "caption": "x"}'}
  reading = sources.read("jsonl", plant(tmp_path / "b", files | {"a.wav": ""}))
  assert len(reading.records) == 1 and not reading.left_out


def test_audiocraft_of_odd_kinds(tmp_path):
  names = "abcdefg"
  files = {f"{name}.wav": "" for name in names}
  files["train/data.jsonl"] = lines(
    *({"path": f"{name}.wav"} for name in names),
    "{",
    {"path": 5},
    {"path": "n" * 300 + ".wav"},
  )
  for name, told in {
    "a": {"description": "x", "keywords": 5},
    "b": {"description": "ok"},
    "c": {"description": [None, "", "y"], "keywords": "a, b,,"},
    "d": {"description": {"a": 1}},
    "e": {"description": None, "keywords": ["k"]},
    "f": ["no object"],
  }.items():
    files[f"{name}.json"] = json.dumps(told)
  plant(tmp_path, files)
  (tmp_path / "g.json").mkdir()
  reading = sources.read("audiocraft", tmp_path)
  assert [r.caption for r in reading.records] == ["ok", "y", "k"]
  assert len(reading.left_out) == 7


def test_a_folder_with_odd_neighbours(tmp_path):
  plant(tmp_path, {"a.wav": "", "a.txt": "rain", "b.wav": "", "c.wav": ""})
  (tmp_path / "b.txt").mkdir()
  os.mkfifo(tmp_path / "c.txt")
  long = "n" * 250 + ".wav"
  plant(tmp_path, {long: ""})
  reading = sources.read("folder", tmp_path)
  assert [record.caption for record in reading.records] == ["rain"]
  assert len(reading.left_out) == 3


def test_one_bad_sound_costs_that_sound(tmp_path):
  root = tmp_path / "root"
  names = ["good.wav", "pipe.wav", "zero.wav", "page.mp3", "gone.wav"]
  plant(root, {"m.csv": table(*(f"{n},{n}" for n in names))})
  samples = np.random.default_rng(0).normal(0, 0.1, 8000)
  soundfile.write(root / "good.wav", samples, 16000)
  os.mkfifo(root / "pipe.wav")
  plant(root, {"zero.wav": b"", "page.mp3": b"<html>"})
  report = builder.build("csv", root, tmp_path / "out", workers=1)
  assert report.examples == {"train": 1}
  reasons = " ".join(row.reason for row in report.left_out)
  for words in ("pipe or device", "is empty", "web page", "is not there"):
    assert words in reasons
  told = json.loads((tmp_path / "out" / shards.REPORT).read_text())
  assert len(told["left_out"]) == 4


@pytest.mark.parametrize(
  "values",
  [{"channels": 100_000}, {"rate_hz": 99_999_999_999}, {"rate_hz": 0}],
)
def test_what_no_dataset_can_hold(values):
  with pytest.raises(InputError, match="must lie in"):
    SoundSpec(**values)
