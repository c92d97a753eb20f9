"""Every source on a tiny tree in the layout it is published in."""

import pathlib

import pytest
from layouts import TREES

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import sources
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.shards import LeftOut


def plant(root, files):
  for name, text in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return root


def told(record):
  return (
    *(record.caption, record.tags, record.split),
    *(record.id, record.licence),
  )


def test_there_is_a_tree_for_each():
  assert sources.names() == sorted(TREES)


@pytest.mark.parametrize("name", TREES)
def test_published_layouts(name, tmp_path):
  files, want = TREES[name]
  reading = sources.read(name, plant(tmp_path, files))
  got = [told(record) for record in reading.records]
  assert sorted(got) == sorted(want)
  for record in reading.records:
    assert pathlib.Path(record.path).is_file() and record.source == name
  # What is annotated but not there is told.
  gone = any(row.what.startswith("-0gone") for row in reading.left_out)
  assert gone == (name in ("audioset", "vggsound"))


@pytest.mark.parametrize("name", TREES)
def test_roots_that_lack_something(name, tmp_path):
  files, _ = TREES[name]
  homepage = sources.get(name).homepage
  words = f"(lacks|holds no sound).*{homepage}"
  with pytest.raises(InputError, match=words):
    sources.read(name, tmp_path)
  with pytest.raises(InputError, match="nowhere is not a folder"):
    sources.read(name, tmp_path / "nowhere")
  # Annotations without sounds, as when the download has not run yet.
  told = {k: v for k, v in files.items() if not k.endswith(SOUND)}
  if told.keys() - {"README.md", "a b.txt", "test/c.txt"}:
    with pytest.raises(InputError, match="holds no sound of .*; "):
      sources.read(name, plant(tmp_path / "b", told))


SOUND = (".wav", ".flac", ".ogg", ".mp4")


def test_speech_can_be_kept_and_dropped(tmp_path):
  plant(tmp_path / "a", TREES["audioset"][0])
  reading = sources.read("audioset", tmp_path / "a")
  dropped = [row for row in reading.left_out if "about speech" in row.reason]
  assert len(dropped) == 1 and "--ZhevVpy1s" in dropped[0].what
  whole = sources.read("audioset", tmp_path / "a", drop_speech=False)
  assert "speech dog" in [record.caption for record in whole.records]
  rows = ["path,caption", "a.wav,Speeches in a hall", "a.wav,a dog"]
  plant(tmp_path / "b", {"b.csv": "\n".join(rows), "a.wav": ""})
  assert len(sources.read("csv", tmp_path / "b").records) == 2
  kept = sources.read("csv", tmp_path / "b", drop_speech=True)
  assert [record.caption for record in kept.records] == ["a dog"]


def test_rules_hold_for_all_captions(tmp_path):
  plant(tmp_path, TREES["audiocaps"][0])
  rules = CaptionRules(lower=True, stop_words=True)
  reading = sources.read("audiocaps", tmp_path, rules=rules)
  captions = {record.caption for record in reading.records}
  assert captions == {"woman talks nearby water pours", "rustling occurs"}


@pytest.mark.parametrize(
  ("name", "files", "words"),
  [
    (
      "csv",
      {"a.csv": "file,text\nx,y\n"},
      "lacks the column path, caption; it",
    ),
    ("csv", {"a.csv": ""}, "lacks the column path, caption; it has none"),
    ("csv", {"a.csv": "path,caption\na.wav\n"}, "line 2: 2 columns are needed"),
    ("csv", {"a.csv": b"path,caption\n\xff\xfe,x\n"}, "is no CSV file"),
    ("jsonl", {"a.jsonl": '{"path": 1}'}, "entry 1 lacks a path"),
    ("jsonl", {"a.jsonl": '{"path": "a"}\n[1]'}, "line 2 holds no object"),
    ("jsonl", {"a.jsonl": "{"}, "line 1 is not JSON"),
    ("jsonl", {"a.jsonl.gz": b"plain"}, "is not JSON lines"),
    (
      "jsonl",
      {"a.jsonl": '{"path": "a.wav", "start": "soon"}', "a.wav": ""},
      "entry 1: 'soon' is no number of seconds",
    ),
    (
      "audioset",
      TREES["audioset"][0] | {"ontology.json": "[1]"},
      "ontology.json is no ontology",
    ),
    (
      "wavcaps",
      {"bbc_final.json": "{}"},
      "bbc_final.json is no list of WavCaps",
    ),
    (
      "vggsound",
      {"vggsound.csv": "a,b,c,d\n"},
      "vggsound.csv: a: 'b' is no number of seconds",
    ),
  ],
)
def test_broken_annotations(name, files, words, tmp_path):
  with pytest.raises(InputError, match=words):
    sources.read(name, plant(tmp_path, files))


def test_a_source_that_there_is_not():
  with pytest.raises(InputError, match="'esc51' is not one of .*esc50"):
    sources.get("esc51")


def test_what_has_neither_caption_nor_tags(tmp_path):
  files = {"a.csv": "path,caption\na.wav, \na.wav,x\n", "a.wav": ""}
  reading = sources.read("csv", plant(tmp_path, files))
  assert [record.caption for record in reading.records] == ["x"]
  path = str(tmp_path / "a.wav")
  assert reading.left_out == [LeftOut(path, "has no caption and no tags")]


_ESC10 = pathlib.Path(__file__).parents[2] / "shared" / "data" / "esc10"


@pytest.mark.skipif(not _ESC10.exists(), reason="no ../shared/data/esc10")
def test_real_recordings():
  reading = sources.read("esc10", _ESC10)
  assert len(reading.records) == 320 and not reading.left_out
  captions = {record.id: record.caption for record in reading.records}
  assert captions["dog_bark-1-100032-A.ogg"] == "dog bark rose"
  animals = captions["dog_bark-1-110389-A.ogg"]
  assert animals == "dog bark animals springer spaniel"
  assert {record.split for record in reading.records} == {"train", "validation"}
  assert {record.licence for record in reading.records} == {
    "CC0",
    "CC-BY",
    "CC-Sampling+",
  }
