"""Where sounds and captions come from: one reader for each kind of source.

    files of a source --read--> records (path, stretch, caption, tags, ...)

The published datasets are in `catalog.py`; here are one's own: a table, JSON
lines, audiocraft's manifests, and a folder with a text beside each sound.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.catalog import PUBLISHED
from audiogen_jax.data.listings import (
  Record,
  Source,
  Tree,
  json_lines,
  json_object,
  seconds,
  table,
)
from audiogen_jax.data.shards import LeftOut

_SPLITS = {
  "valid": "validation",
  "val": "validation",
  "evaluate": "test",
  "eval": "test",
}


@dataclasses.dataclass(frozen=True)
class Reading:
  """What a source gave."""

  records: Sequence[Record]
  left_out: Sequence[LeftOut]


def names() -> list[str]:
  """All sources."""
  return sorted(_SOURCES)


def get(name: str) -> Source:
  """The source of that name.

  Raises:
    InputError: If there is none; the message names them all.
  """
  if name not in _SOURCES:
    raise InputError(f"{name!r} is not one of {', '.join(names())}")
  return _SOURCES[name]


def read(
  name: str,
  root: str | os.PathLike,
  *,
  rules: CaptionRules | None = None,
  drop_speech: bool | None = None,
) -> Reading:
  """Lists the records of a source.

  Args:
    name: One of `names()`.
    root: Where its files lie.
    rules: What is done to captions.
    drop_speech: Whether clips with "speech" in a tag or the caption are left
      out; None for what the source says of itself: only AudioSet is dominated
      by it.

  Raises:
    InputError: If the root lacks what the source ships, or all of its sounds.
  """
  source, rules = get(name), rules or CaptionRules()
  drop_speech = source.drop_speech if drop_speech is None else drop_speech
  records, left_out, seen = [], [], {}
  for row in source.read(Tree(root, source.title, source.homepage)):
    if isinstance(row, LeftOut):
      left_out.append(LeftOut(_legible(row.what), _legible(row.reason)))
      continue
    if not row.path:
      reason = f"no sound file for it below {root}"
      left_out.append(LeftOut(_legible(row.id), reason))
      continue
    if _legible(row.path) != row.path:
      reason = "its name is not UTF-8: rename it"
      left_out.append(LeftOut(_legible(row.path), reason))
      continue
    tags = tuple(filter(None, map(captions.clean, row.tags)))
    caption = captions.clean(row.caption) or captions.of_tags(tags)
    if drop_speech and captions.is_about_speech(caption, tags):
      left_out.append(LeftOut(row.path, 'is about speech ("speech" is in it)'))
      continue
    if not caption:
      left_out.append(LeftOut(row.path, "has no caption and no tags"))
      continue
    said, caption = caption, rules.apply(caption)
    if not caption:
      reason = f"nothing is left of its caption {said!r} by the rules"
      left_out.append(LeftOut(row.path, reason))
      continue
    records.append(
      dataclasses.replace(
        row,
        caption=caption,
        tags=tags,
        source=name,
        id=_unique(captions.clean(row.id), seen),
      )
    )
  if not records:
    example = f"; {left_out[0].what}: {left_out[0].reason}" if left_out else ""
    raise InputError(
      f"{root} holds no sound of {source.title}{example}; is it the folder that"
      f" {source.homepage or 'you mean'} unpacks to?"
    )
  return Reading(records, left_out)


def _legible(text: str) -> str:
  """What cannot be written as UTF-8, as in names from before it, is "?"."""
  return text if text.isascii() else text.encode(errors="replace").decode()


def _unique(name: str, seen: dict[str, int]) -> str:
  """The same name again gets a number, in the order of the source."""
  number, made = seen.get(name, 0), name
  while made in seen:
    number += 1
    made = f"{name} ({number})"
  seen[name] = max(number, 1)
  seen.setdefault(made, 1)
  return made


def _csv(tree: Tree) -> Iterator[Record | LeftOut]:
  for path in _manifests(tree, ".csv"):
    for number, row in enumerate(table(path, ("path", "caption")), 2):
      tags = tuple(t.strip() for t in (row.get("tags") or "").split(";"))
      row = {k: v for k, v in row.items() if v not in ("", None)}
      tags = tuple(filter(None, tags))
      yield _own(tree, path.parent, row | {"tags": tags}, f"{path}, {number}")


def _jsonl(tree: Tree) -> Iterator[Record | LeftOut]:
  for path in _manifests(tree, ".jsonl", ".jsonl.gz"):
    for number, row in enumerate(json_lines(path), 1):
      yield _own(tree, path.parent, row, f"{path}, entry {number}")


def _manifests(tree: Tree, *suffixes: str) -> list[Path]:
  found = [
    path
    for path in sorted(tree.root.iterdir())
    if path.name.endswith(suffixes) and path.is_file()
  ]
  if not found:
    raise InputError(f"{tree.root} lacks a file named *{suffixes[0]}")
  return found


def _own(
  tree: Tree, folder: Path, row: Mapping[str, Any], where: str
) -> Record | LeftOut:
  """A row of one's own table: path and caption, and more if it likes."""
  if not isinstance(row.get("path"), str):
    raise InputError(f"{where} lacks a path")
  path = os.path.join(folder, row["path"])
  if not tree.holds(path):
    return LeftOut(path, f"is not there; {where} names it")
  tags = row.get("tags") or ()
  tags = (tags,) if isinstance(tags, str) else tuple(map(str, tags))
  end = row.get("end")
  return Record(
    path,
    start_s=seconds(row.get("start") or 0.0, where),
    end_s=None if end is None else seconds(end, where),
    caption=str(row.get("caption") or ""),
    tags=tags,
    split=_split(str(row.get("split") or "train")),
    licence=str(row.get("licence") or row.get("license") or ""),
    id=str(row.get("id") or row["path"]),
  )


def _audiocraft(tree: Tree) -> Iterator[Record | LeftOut]:
  """`data.jsonl` in a folder for each split, and `x.json` beside `x.wav`."""
  endings = "", ".gz"
  found = {p for end in endings for p in tree.root.rglob(f"data.jsonl{end}")}
  if not found:
    tree.file("data.jsonl")
  for path in sorted(found):
    split = path.parent.name if path.parent != tree.root else "train"
    for row in json_lines(path):
      sound = _resolved(tree.root, path.parent, str(row.get("path")))
      if sound is None:
        yield LeftOut(str(row.get("path")), f"is not there; {path} names it")
        continue
      beside = sound.with_suffix(".json")
      try:
        told = json_object(beside.read_text(encoding="utf-8-sig"), beside.name)
      except FileNotFoundError:
        yield LeftOut(str(sound), f"{beside.name} is not beside it")
        continue
      except (InputError, UnicodeDecodeError) as error:
        yield LeftOut(str(sound), str(error))
        continue
      said, tags = told.get("description") or "", told.get("keywords") or ()
      if isinstance(tags, str):
        tags = tuple(filter(None, (tag.strip() for tag in tags.split(","))))
      # A list is one caption each: audiocraft draws among them.
      for caption in said if isinstance(said, list) else [said]:
        yield Record(
          str(sound),
          caption="" if caption == "None" else str(caption),
          tags=tuple(map(str, tags)),
          split=_split(split),
          id=str(row["path"]),
        )


def _split(name: str) -> str:
  """Our name for a split, of letters that TFDS allows in the names of files."""
  return re.sub(r"[^\w-]+", "_", _SPLITS.get(name, name))


def _resolved(root: Path, folder: Path, path: str) -> Path | None:
  """Manifests name files from where they were made, or from themselves."""
  for base in (folder, root, *root.absolute().parents):
    if (base / path).is_file():
      return base / path
  return None


def _folder(tree: Tree) -> Iterator[Record | LeftOut]:
  for sound in tree.sounds():
    beside = sound.with_suffix(".txt")
    if not beside.exists():
      yield LeftOut(str(sound), f"{beside.name} is not beside it")
      continue
    try:
      caption = beside.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
      yield LeftOut(str(beside), "is not UTF-8 text")
      continue
    yield _of_file(tree, sound, caption)


def _sounds(tree: Tree) -> Iterator[Record]:
  """For codecs, which need no captions; names of files are better than none."""
  for sound in tree.sounds():
    said = captions.of_file_name(sound.stem) or captions.clean(sound.stem)
    yield _of_file(tree, sound, said)


def _of_file(tree: Tree, sound: Path, caption: str) -> Record:
  """A sound whose split is the first of its folders, if that is one."""
  own = sound.relative_to(tree.root)
  first = own.parts[0] if len(own.parts) > 1 else "train"
  split = _SPLITS.get(first, first)
  return Record(
    str(sound),
    caption=caption,
    split=split if split in ("train", "validation", "test") else "train",
    id=str(own),
  )


def _own_source(title: str, reader) -> Source:
  return Source(title, "", "", "", reader)


_SOURCES = PUBLISHED | {
  "csv": _own_source(
    "any CSV file with path, caption[, start, end, tags, split, licence, id]",
    _csv,
  ),
  "jsonl": _own_source("any JSON lines with the same fields", _jsonl),
  "audiocraft": _own_source("audiocraft's data.jsonl", _audiocraft),
  "folder": _own_source("a folder with x.txt beside x.wav", _folder),
  "sounds": _own_source(
    "a folder of sounds, captions from their names", _sounds
  ),
}
