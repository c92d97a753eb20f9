"""What the readers of sources share: records, tables, and where files lie."""

import csv
import dataclasses
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiogen_jax.core.errors import InputError
from audiogen_jax.data.shards import LeftOut

SOUNDS = frozenset(
  ".aif .aiff .flac .m4a .mp3 .mp4 .oga .ogg .opus .wav .webm".split()
)


@dataclasses.dataclass(frozen=True)
class Record:
  """A stretch of a sound file and what is said of it.

  Attributes:
    path: Of the file; "" if it is annotated and not there.
    start_s: Where the stretch begins.
    end_s: Where it ends; None for the end of the file.
    caption: One line; made of the tags if the source has no captions.
    tags: As the source writes them.
    source: Its name.
    split: "train", "validation" or "test".
    licence: Of this sound, where each has its own.
    id: Unlike all others of the source.
  """

  path: str
  start_s: float = 0.0
  end_s: float | None = None
  caption: str = ""
  tags: tuple[str, ...] = ()
  source: str = ""
  split: str = "train"
  licence: str = ""
  id: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
  """A dataset as it is published.

  Attributes:
    title: Its full name.
    homepage: Where it is published.
    licence: Of the whole.
    citation: As BibTeX or in words.
    read: Lists its records; what is annotated but not there is left out.
    drop_speech: Whether speech outweighs all else in it.
  """

  title: str
  homepage: str
  licence: str
  citation: str
  read: Callable[["Tree"], Iterable[Record | LeftOut]]
  drop_speech: bool = False


class Tree:
  """The files below a root, walked once."""

  def __init__(self, root: str | os.PathLike, source: str, homepage: str):
    self.root, self.source = Path(root), source
    self._homepage = homepage
    if not self.root.is_dir():
      raise InputError(f"{root} is not a folder; name the one with {source}")
    self._by_stem: dict[str, str] = {}
    self._by_name: dict[str, str] = {}
    for folder, folders, names in os.walk(self.root, followlinks=True):
      folders.sort()
      for name in sorted(names):
        path = os.path.join(folder, name)
        stem, suffix = os.path.splitext(name)
        self._by_name.setdefault(name, path)
        if suffix.lower() in SOUNDS:
          self._by_stem.setdefault(stem, path)

  def sounds(self) -> Iterator[Path]:
    """All sound files, in order."""
    for folder, folders, names in os.walk(self.root, followlinks=True):
      folders.sort()
      for name in sorted(names):
        if os.path.splitext(name)[1].lower() in SOUNDS:
          yield Path(folder, name)

  def find(self, *stems: str) -> str:
    """The sound file with one of these stems, the first found; else ""."""
    found = (self._by_stem[stem] for stem in stems if stem in self._by_stem)
    return next(found, "")

  def file(self, name: str) -> Path:
    """A file of annotations, wherever below the root.

    Raises:
      InputError: If there is none; the message says where it is published.
    """
    if name not in self._by_name:
      raise InputError(
        f"{self.root} lacks {name}, which {self.source} ships; get it from"
        f" {self._homepage}"
      )
    return Path(self._by_name[name])

  def some(self, *names: str) -> list[Path]:
    """Those of several files that are there: at least one.

    Raises:
      InputError: If there is none of them.
    """
    found = [Path(self._by_name[n]) for n in names if n in self._by_name]
    return found or [self.file(" or ".join(names))]


def table(
  path: Path,
  columns: Sequence[str],
  *,
  header: bool = True,
  comments: int = 0,
  encoding: str = "utf-8-sig",
) -> Iterator[dict[str, str]]:
  """Rows of a CSV file.

  Args:
    columns: That are needed; without a header, all of them in order.
    header: Whether the first row names the columns.
    comments: Lines before it.

  Raises:
    InputError: If a column is missing, or a row too short: with its line.
  """
  try:
    with path.open(encoding=encoding, newline="") as file:
      for _ in range(comments):
        next(file)
      names = None if header else list(columns)
      rows = csv.DictReader(file, names, skipinitialspace=True)
      have = rows.fieldnames or []
      lacking = [name for name in columns if name not in have]
      if lacking:
        raise InputError(
          f"{path} lacks the column {', '.join(lacking)}; it has"
          f" {', '.join(have) or 'none'}"
        )
      for row in rows:
        if any(row[name] is None for name in columns):
          raise InputError(
            f"{path}, line {rows.line_num + comments}: {len(columns)} columns"
            " are needed; repair the line or download the file again"
          )
        yield row
  except (UnicodeDecodeError, csv.Error) as error:
    raise InputError(f"{path} is no CSV file: {error}") from None


def json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
  """Objects of a JSONL file, perhaps compressed with gzip.

  Raises:
    InputError: For a line that is not an object: with its number.
  """
  opened = gzip.open if path.suffix == ".gz" else open
  try:
    with opened(path, "rt", encoding="utf-8") as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          yield json_object(line, f"{path}, line {number}")
  except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
    raise InputError(f"{path} is not JSON lines: {error}") from None


def json_object(text: str, where: str) -> Mapping[str, Any]:
  """An object from JSON.

  Raises:
    InputError: If it is something else.
  """
  try:
    made = json.loads(text)
  except json.JSONDecodeError as error:
    raise InputError(f"{where} is not JSON: {error}") from None
  if not isinstance(made, dict):
    raise InputError(f"{where} holds no object")
  return made


def seconds(value: Any, where: str) -> float:
  """A number of seconds.

  Raises:
    InputError: If it is none.
  """
  try:
    return float(value)
  except (TypeError, ValueError):
    raise InputError(f"{where}: {value!r} is no number of seconds") from None
