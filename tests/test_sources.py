"""Every source on a tiny tree in the layout it is published in."""

import json
import os
import pathlib

import pytest
from layouts import CAPTIONS, CLOTHO, SEGMENTS, TREES, wavcaps

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


def read(name, root, files, **options):
  return sources.read(name, plant(root, files), **options)


def test_parts_that_share_names(tmp_path):
  files, _ = TREES["wavcaps"]
  reading = read("wavcaps", tmp_path / "a", files)
  paths = {r.id: r.path for r in reading.records}
  assert "FreeSound_flac" in paths["fsd_final 2219"]
  assert "SoundBible_flac" in paths["sb_final 2219"]
  # The other's sound is no stand-in for one that is missing.
  files = {k: v for k, v in files.items() if k != "SoundBible_flac/2219.flac"}
  reading = read("wavcaps", tmp_path / "b", files)
  assert [row.what for row in reading.left_out] == ["sb_final 2219"]

  files = {}
  for name in ("development", "evaluation"):
    files[f"clotho_captions_{name}.csv"] = CAPTIONS + "Rain.wav,1,2,3,4,5\n"
    files[f"clotho_metadata_{name}.csv"] = f"{CLOTHO}\n"
    files[f"clotho_audio_files/{name}/Rain.wav"] = ""
  reading = read("clotho", tmp_path / "c", files)
  assert len(reading.records) == 10
  for record in reading.records:
    folder = {"train": "development", "test": "evaluation"}[record.split]
    assert pathlib.Path(record.path).parent.name == folder
  files = {k.replace("development/", ""): v for k, v in files.items()}
  files = {k.replace("evaluation/", ""): v for k, v in files.items()}
  assert len(read("clotho", tmp_path / "d", files).records) == 10


@pytest.mark.parametrize(
  "name",
  "{} Y{} {}_30 {}_30_40 {}_30.000 {}_30.000_40.000 {}_30000 {}_30000_40000"
  " {}_000030 {}_000030_000040".split(),
)
def test_names_that_downloaders_give(tmp_path, name):
  video = "--PJHxphWEs"
  row = f'{video}, 30.000, 40.000, "/m/0bt9lr,/m/unknown"\n'
  files = {"ontology.json": TREES["audioset"][0]["ontology.json"]}
  files["unbalanced_train_segments.csv"] = SEGMENTS + row
  files[f"unbalanced/{name.format(video)}.m4a"] = ""
  (record,) = read("audioset", tmp_path, files).records
  assert (record.caption, record.split) == ("dog", "train")


def test_the_names_that_bbcs_downloader_gives(tmp_path):
  files = {k: v for k, v in TREES["bbc"][0].items() if k.endswith(".csv")}
  files["sounds/Diesel & Petrol Engines/Two-stroke, starts..07076051.wav"] = ""
  (record,) = read("bbc", tmp_path, files).records
  assert record.path.endswith(".07076051.wav")


def test_hidden_files_and_links(tmp_path):
  files = {"Doors/Creaky Door.wav": "", "Doors/._Creaky Door.wav": ""}
  files[".git/Creaky Door.wav"] = ""
  plant(tmp_path, files)
  (tmp_path / "Doors" / "up").symlink_to(tmp_path)
  reading = sources.read("odeon", tmp_path)
  assert [record.id for record in reading.records] == ["Doors/Creaky Door.wav"]
  (tmp_path / "b").mkdir()
  (tmp_path / "b" / "Doors").symlink_to(tmp_path / "Doors")
  reading = sources.read("odeon", tmp_path / "b")
  assert [record.id for record in reading.records] == ["Doors/Creaky Door.wav"]


def test_names_of_files_in_other_letters(tmp_path):
  files = {"Türen 扉/Knarren 🚪 ä.wav": ""}
  (record,) = read("odeon", tmp_path / "a", files).records
  assert (record.caption, record.tags) == ("knarren ä", ("türen 扉",))
  # Macs write the accent as a letter of its own.
  clotho = {
    "clotho_captions_development.csv": CAPTIONS + "Rain é.wav,1,2,3,4,5\n",
    "clotho_metadata_development.csv": f"{CLOTHO}\n",
    "development/Rain e\u0301.wav": "",
  }
  assert len(read("clotho", tmp_path / "b", clotho).records) == 5
  plant(tmp_path / "c", {"a door.wav": ""})
  old = os.fsencode(tmp_path / "c") + b"/caf\xe9 door.wav"
  try:
    open(old, "wb").close()
  except OSError:
    pytest.skip("this disk takes only names in UTF-8")
  reading = sources.read("odeon", tmp_path / "c")
  assert [record.caption for record in reading.records] == ["door"]
  (row,) = reading.left_out
  assert row.what.endswith("caf? door.wav") and "not UTF-8" in row.reason


def test_ids_are_unique(tmp_path):
  ids = ["i", "i (2)", "i", "i", "i (2)", "j"]
  lines = [json.dumps({"path": "a.wav", "caption": "x", "id": i}) for i in ids]
  reading = read("jsonl", tmp_path, {"a.jsonl": "\n".join(lines), "a.wav": ""})
  made = [record.id for record in reading.records]
  assert made == ["i", "i (2)", "i (3)", "i (4)", "i (2) (2)", "j"]


def test_splits_fit_names_of_files(tmp_path):
  splits = ["", "train", "val", "eval", "my set/1", "a-b"]
  lines = ["path,caption,split", *(f"a.wav,x,{split}" for split in splits)]
  reading = read("csv", tmp_path, {"a.csv": "\n".join(lines), "a.wav": ""})
  made = [record.split for record in reading.records]
  assert made == ["train", "train", "validation", "test", "my_set_1", "a-b"]


def test_the_disk_is_not_asked_for_each_row(tmp_path, monkeypatch):
  asked = []
  exists = os.path.exists
  monkeypatch.setattr(
    os.path, "exists", lambda path: asked.append(path) or exists(path)
  )
  lines = ["path,caption", *["b/a.wav,x"] * 9, "./b/a.wav,y", "gone.wav,z"]
  files = {"a.csv": "\n".join(lines), "b/a.wav": ""}
  reading = read("csv", tmp_path, files)
  assert len(reading.records) == 10 and len(reading.left_out) == 1
  assert len(asked) == 2


def test_broken_texts_beside_sounds(tmp_path):
  rows = [f'{{"path": "{name}.wav"}}' for name in "abcd"]
  files = {f"{name}.wav": "" for name in "abcd"}
  beside = {
    "train/data.jsonl": "\n".join(rows),
    "a.json": "{",
    "b.json": b"\xff",
    "d.json": b'\xef\xbb\xbf{"description": "d \\ud83d"}',
  }
  reading = read("audiocraft", tmp_path / "a", files | beside)
  assert [record.caption for record in reading.records] == ["d"]
  reasons = [row.reason for row in reading.left_out]
  words = ["a.json is not JSON", "not UTF-8 text", "c.json is not beside it"]
  assert all(w in r for w, r in zip(words, reasons, strict=True)), reasons

  beside = {"a.txt": b"\xef\xbb\xbfrain", "b.txt": b"\xff", "c.txt": " "}
  reading = read("folder", tmp_path / "b", files | beside)
  assert [record.caption for record in reading.records] == ["rain"]
  reasons = sorted(row.reason for row in reading.left_out)
  assert reasons == [
    "b.txt is not UTF-8 text",
    "d.txt is not beside it",
    "has no caption and no tags",
  ]


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
  files = {"a.csv": "path,caption\na.wav,the 3\na.wav,dogs", "a.wav": ""}
  reading = read("csv", tmp_path / "b", files, rules=rules)
  assert [record.caption for record in reading.records] == ["dogs"]
  assert "nothing is left of its caption 'the 3'" in reading.left_out[0].reason


@pytest.mark.parametrize(
  ("name", "files", "words"),
  [
    (
      "csv",
      {"a.csv": "file,text\nx,y\n"},
      "lacks the column path, caption; it",
    ),
    ("csv", {"a.csv": ""}, "lacks the column path, caption; it has none"),
    ("csv", {"a.csv": "path,caption\na.wav\n"}, "line 2: lacks its caption"),
    ("csv", {"a.csv": b"path,caption\n\xff\xfe,x\n"}, "is not UTF-8 text"),
    ("jsonl", {"a.jsonl": '{"path": 1}'}, "line 1: lacks a path"),
    ("jsonl", {"a.jsonl": "[1]"}, "line 1: it holds no object"),
    ("jsonl", {"a.jsonl": "{"}, "line 1: it is not JSON"),
    ("jsonl", {"a.jsonl.gz": b"plain"}, "is not JSON lines"),
    (
      "jsonl",
      {"a.jsonl": '{"path": "a.wav", "start": "soon"}', "a.wav": ""},
      "line 1: start: 'soon' is no number of seconds",
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
      "wavcaps",
      {"bbc_final.json": wavcaps("a", "b").replace("caption", "title")},
      "bbc_final.json is no list of WavCaps",
    ),
    (
      "fsd50k",
      TREES["fsd50k"][0] | {"dev_clips_info_FSD50K.json": "{"},
      "clips_info_FSD50K.json is not JSON",
    ),
    (
      "audioset",  # cut short in its three lines of comments
      {"eval_segments.csv": "# a\n", "ontology.json": "[]"},
      "holds no sound of AudioSet",
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
  assert "rain on car roof" in captions.values()
  assert "fire crackling no room" in captions.values()
  animals = captions["dog_bark-1-110389-A.ogg"]
  assert animals == "dog bark animals springer spaniel"
  assert {record.split for record in reading.records} == {"train", "validation"}
  assert {record.licence for record in reading.records} == {
    "CC0",
    "CC-BY",
    "CC-Sampling+",
  }
