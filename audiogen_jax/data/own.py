"""One's own sounds: a table, JSON lines, audiocraft's manifests, or a folder.

Whatever is wrong with a row costs that row, and is reported.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions
from audiogen_jax.data.listings import (
  Record,
  Source,
  SourceFiles,
  json_lines,
  json_object,
  own_table,
  seconds,
)
from audiogen_jax.data.shards import LeftOut

_SPLITS = {
  "training": "train",
  "valid": "validation",
  "val": "validation",
  "dev": "validation",
  "evaluate": "test",
  "evaluation": "test",
  "eval": "test",
  "testing": "test",
}


def _csv(files: SourceFiles) -> Iterator[Record | LeftOut]:
  for path in _manifests(files, ".csv"):
    for where, row in _rows(path, own_table(path, ("path", "caption"))):
      if isinstance(row, str):
        yield LeftOut(where, row)
        continue
      tags = map(str.strip, re.split("[;|]", row.get("tags") or ""))
      row = {k: v for k, v in row.items() if v != ""}
      yield _own(files, path.parent, row | {"tags": list(tags)}, where)


def _jsonl(files: SourceFiles) -> Iterator[Record | LeftOut]:
  for path in _manifests(files, ".jsonl", ".jsonl.gz"):
    for where, row in json_lines(path):
      if isinstance(row, str):
        yield LeftOut(where, row)
      else:
        yield _own(files, path.parent, row, where)


def _rows(
  path: Path, rows: Iterable[tuple[str, dict[str, Any] | str]]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
  """Rows; a table of something else beside one's own is left out as a whole."""
  try:
    yield from rows
  except InputError as error:
    yield str(path), str(error)


def _manifests(files: SourceFiles, *suffixes: str) -> list[Path]:
  paths = [
    path
    for path in sorted(files.root.iterdir())
    # Archives made on a Mac hold a "._x.csv" for each "x.csv".
    if path.name.endswith(suffixes)
    and not path.name.startswith(".")
    and path.is_file()
  ]
  if not paths:
    raise InputError(f"{files.root} lacks a file named *{suffixes[0]}")
  return paths


def _own(
  files: SourceFiles, folder: Path, row: Mapping[str, Any], where: str
) -> Record | LeftOut:
  """A row of one's own table: path and caption, and more if it likes."""
  name = row.get("path")
  if not isinstance(name, str) or not name:
    return LeftOut(where, "lacks a path")
  path = os.path.join(folder, name)
  if not files.holds(path):
    return LeftOut(path[:300], f"is not there; {where} names it")
  try:
    start_s, end_s = _stretch(row)
    return Record(
      path,
      start_s=start_s,
      end_s=end_s,
      caption=_text(row, "caption"),
      tags=_tags(row.get("tags")),
      split=_split(_text(row, "split") or "train"),
      licence=_text(row, "licence") or _text(row, "license"),
      id=str(row.get("id") or name),
    )
  except InputError as error:
    return LeftOut(where, str(error))


def _stretch(row: Mapping[str, Any]) -> tuple[float, float | None]:
  """Seconds where it begins and, if it says so, where it ends."""
  start_s, end_s = row.get("start"), row.get("end")
  start_s = 0.0 if start_s is None else seconds(start_s, "start")
  end_s = None if end_s is None else seconds(end_s, "end")
  for name, value in (("start", start_s), ("end", end_s)):
    if value is not None and not 0 <= value < math.inf:
      raise InputError(
        f"{name} {value} must be 0 or more; leave it out where the file {name}s"
      )
  if end_s is not None and end_s <= start_s:
    raise InputError(f"end {end_s} must lie behind start {start_s}")
  return start_s, end_s


def _text(row: Mapping[str, Any], name: str) -> str:
  value = row.get(name)
  if value is not None and not isinstance(value, str):
    raise InputError(f"{name} {str(value)[:50]!r} must be a text")
  return value or ""


def _tags(tags: Any) -> tuple[str, ...]:
  if tags is None:
    return ()
  tags = [tags] if isinstance(tags, str) else tags
  if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
    raise InputError(
      f"tags {str(tags)[:50]!r} must be a text or a list of texts"
    )
  return tuple(filter(None, tags))


def _split(name: str) -> str:
  """Our name for a split, of letters that TFDS allows in the names of files."""
  word = name.strip().casefold()
  split = re.sub(r"[^\w-]+", "_", _SPLITS.get(word, word)).strip("_-")
  if not split or split == "all" or len(split) > 50:
    raise InputError(
      f"split {name[:50]!r} must be a word such as train, validation or test"
    )
  return split


def _audiocraft(files: SourceFiles) -> Iterator[Record | LeftOut]:
  """`data.jsonl` in a folder for each split, and `x.json` beside `x.wav`."""
  endings = "", ".gz"
  paths = {p for end in endings for p in files.root.rglob(f"data.jsonl{end}")}
  if not paths:
    files.file("data.jsonl")
  for path in sorted(paths):
    split = path.parent.name if path.parent != files.root else "train"
    for where, row in json_lines(path):
      if isinstance(row, str):
        yield LeftOut(where, row)
      else:
        yield from _beside(files, path, split, row)


def _beside(
  files: SourceFiles, path: Path, split: str, row: Mapping[str, Any]
) -> Iterator[Record | LeftOut]:
  """Records of a sound, one a caption, from the `.json` beside it."""
  name = str(row.get("path"))
  sound = _resolved(files.root, path.parent, name)
  if sound is None:
    yield LeftOut(name[:300], f"is not there; {path} names it")
    return
  try:
    values = json_object(_beside_text(sound, ".json"), f"{sound.stem}.json")
    texts, tags = values.get("description") or "", values.get("keywords")
    if isinstance(tags, str):
      tags = [tag.strip() for tag in tags.split(",")]
    tags, split = _tags(tags or None), _split(split)
    # A list is one caption each: audiocraft draws among them.
    texts = texts if isinstance(texts, list) else [texts]
    texts = [_text({"description": one}, "description") for one in texts]
  except InputError as error:
    yield LeftOut(str(sound), str(error))
    return
  for caption in list(filter(None, texts)) or [""]:
    caption = "" if caption == "None" else caption
    yield Record(str(sound), caption=caption, tags=tags, split=split, id=name)


def _beside_text(sound: Path, suffix: str) -> str:
  """The text in the file beside a sound.

  Raises:
    InputError: If there is none.
  """
  beside = sound.with_suffix(suffix)
  try:
    if not beside.is_file():  # a pipe would never end
      raise InputError(f"{beside.name} is not beside it")
    return beside.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError:
    raise InputError(f"{beside.name} is not UTF-8 text") from None
  except OSError as error:
    raise InputError(f"{beside.name[:100]}: {error.strerror}") from None


def _resolved(root: Path, folder: Path, path: str) -> Path | None:
  """Manifests name files from where they were made, or from themselves."""
  for base in (folder, root, *root.absolute().parents):
    if os.path.isfile(base / path):  # says no to whatever is no name
      return base / path
  return None


def _folder(files: SourceFiles) -> Iterator[Record | LeftOut]:
  for sound in files.sounds():
    try:
      yield _of_file(files, sound, _beside_text(sound, ".txt"))
    except InputError as error:
      yield LeftOut(str(sound), str(error))


def _sounds(files: SourceFiles) -> Iterator[Record]:
  """For codecs, which need no captions; names of files are better than none."""
  for sound in files.sounds():
    said = captions.of_file_name(sound.stem) or captions.clean(sound.stem)
    yield _of_file(files, sound, said)


def _of_file(files: SourceFiles, sound: Path, caption: str) -> Record:
  """A sound whose split is the first of its folders, if that is one."""
  own = sound.relative_to(files.root)
  first = own.parts[0].casefold() if len(own.parts) > 1 else "train"
  split = _SPLITS.get(first, first)
  return Record(
    str(sound),
    caption=caption,
    split=split if split in ("train", "validation", "test") else "train",
    id=str(own),
  )


def _own_source(
  title: str, reader: Callable[[SourceFiles], Iterator[Record | LeftOut]]
) -> Source:
  return Source(title, "", "", "", reader)


OWN = {
  "csv": _own_source(
    "any CSV file with path, caption[, start, end, tags (a;b), split, licence,"
    " id]",
    _csv,
  ),
  "jsonl": _own_source("any JSON lines with the same fields", _jsonl),
  "audiocraft": _own_source("audiocraft's data.jsonl", _audiocraft),
  "folder": _own_source("a folder with x.txt beside x.wav", _folder),
  "sounds": _own_source(
    "a folder of sounds, captions from their names", _sounds
  ),
}
