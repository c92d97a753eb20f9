"""What the readers of sources share: records, tables, and where files lie."""

import codecs
import copy
import csv
import dataclasses
import functools
import gzip
import io
import json
import os
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiogen_jax.core.errors import InputError
from audiogen_jax.data.shards import LeftOut

SOUNDS = frozenset(
  ".aif .aiff .flac .m4a .mp3 .mp4 .oga .ogg .opus .wav .webm".split()
)


_LINES_A_ROW = 20  # of a CSV file, with line breaks in quotes


@dataclasses.dataclass(frozen=True)
class Record:
  """A stretch of a sound file and what is said of it.

  Attributes:
    path: Path of the file; "" if it is annotated and not there.
    start_s: Where the stretch begins.
    end_s: Where it ends; None for the end of the file.
    caption: One line; made of the tags if the source has no captions.
    tags: As the source writes them.
    source: Its name.
    split: "train", "validation" or "test".
    licence: Licence of this sound, where each has its own.
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
    licence: Licence of the whole.
    citation: As BibTeX or in words.
    read: Lists its records; what is annotated but not there is left out.
    drop_speech: Whether speech outweighs all else in it.
  """

  title: str
  homepage: str
  licence: str
  citation: str
  read: Callable[["SourceFiles"], Iterable[Record | LeftOut]]
  drop_speech: bool = False


class SourceFiles:
  """The files below a root, listed once.

  Attributes:
    root: The folder.
    source: Title of the dataset, for messages.
  """

  def __init__(
    self, root: str | os.PathLike, source: str, homepage: str
  ) -> None:
    self.root, self.source = Path(root), source
    self._homepage = homepage
    if not self.root.is_dir():
      raise InputError(f"{root} is not a folder; name the one with {source}")
    self._sounds: list[str] = []
    self._by_name: dict[str, str] = {}
    for path in _walk(self.root):
      name = os.path.basename(path)
      self._by_name.setdefault(_composed(name), path)
      if os.path.splitext(name)[1].lower() in SOUNDS:
        self._sounds.append(path)

  @functools.cached_property
  def _by_stem(self) -> dict[str, str]:
    paths: dict[str, str] = {}
    for path in self._sounds:
      stem = os.path.splitext(os.path.basename(path))[0]
      paths.setdefault(_composed(stem), path)
    return paths

  @functools.cached_property
  def _all(self) -> frozenset[str]:
    return frozenset(self._sounds)

  def sounds(self) -> Iterator[Path]:
    """All sound files, in order."""
    return map(Path, self._sounds)

  def parts(self, *prefixes: str) -> list["SourceFiles"]:
    """For each prefix the sounds in folders whose names start with it.

    The parts of some datasets use the same names for different sounds.  Sounds
    in folders with none of the prefixes are in every part.
    """
    skip = len(str(self.root))
    folders = [os.path.dirname(path)[skip:] for path in self._sounds]
    marks = [os.sep + prefix for prefix in prefixes]
    free = [not any(mark in folder for mark in marks) for folder in folders]
    result = []
    for mark in marks:
      part = copy.copy(self)
      part.__dict__.pop("_by_stem", None)
      rows = zip(self._sounds, folders, free, strict=True)
      part._sounds = [path for path, at, all_ in rows if all_ or mark in at]
      result.append(part)
    return result

  def find(self, *stems: str) -> str:
    """The sound file with one of these stems, the first found; else ""."""
    found = (self._by_stem.get(_composed(stem), "") for stem in stems)
    return next(filter(None, found), "")

  def holds(self, path: str) -> bool:
    """Whether there is such a file, here or elsewhere."""
    # Millions of rows: the disk is asked only for what the walk did not see.
    return path in self._all or os.path.exists(path)

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
    paths = [Path(self._by_name[n]) for n in names if n in self._by_name]
    return paths or [self.file(" or ".join(names))]


def _walk(root: Path) -> Iterator[str]:
  """Files in order, each folder once: links may lead back up.

  Nothing hidden: archives made on a Mac hold a "._x.wav" for each "x.wav".
  """
  seen = set()
  for folder, folders, names in os.walk(root, followlinks=True):
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
      folders.clear()
      continue
    seen.add((status.st_dev, status.st_ino))
    folders[:] = sorted(name for name in folders if name[0] != ".")
    for name in sorted(names):
      if name[0] != ".":
        yield os.path.join(folder, name)


def _composed(name: str) -> str:
  """Macs write accents as letters of their own, annotations do not."""
  return name if name.isascii() else unicodedata.normalize("NFC", name)


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
        file.readline()
      names = None if header else list(columns)
      rows = csv.DictReader(file, names, skipinitialspace=True)
      _need(path, columns, rows.fieldnames or [])
      for row in rows:
        if any(row[name] is None for name in columns):
          raise InputError(
            f"{path}, line {rows.line_num + comments}: {len(columns)} columns"
            " are needed; repair the line or download the file again"
          )
        yield row
  except (UnicodeDecodeError, csv.Error) as error:
    raise InputError(f"{path} is no CSV file: {error}") from None


def own_table(
  path: Path, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, str] | str]]:
  """Rows of a CSV file that somebody has written.

  A row costs itself alone: fields in quotes may hold line breaks, but a quote
  that is not closed within a few lines ends with its own line, and swallows
  none of the others.

  Args:
    columns: That are needed.

  Yields:
    Where a row stands, and the row, or what is wrong with it.

  Raises:
    InputError: If a column is missing.
  """
  lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(True)
  names, at = None, 0
  while at < len(lines):
    fields, used = _fields(lines, at)
    where, at = f"{path}, line {at + 1}", at + used
    if names is None:
      names = [] if isinstance(fields, str) else [n.strip() for n in fields]
      _need(path, columns, names)
    elif isinstance(fields, str):
      yield where, fields
    elif len(fields) > len(names):
      yield (
        where,
        f"{len(fields)} fields for {len(names)} columns: put a text with commas"
        " in quotes",
      )
    elif fields:
      row = dict(zip(names, fields, strict=False))
      lacking = [name for name in columns if name not in row]
      yield where, f"lacks its {', '.join(lacking)}" if lacking else row
  if names is None:
    _need(path, columns, [])


def _need(path: Path, columns: Sequence[str], have: Sequence[str]) -> None:
  lacking = [name for name in columns if name not in have]
  if lacking:
    raise InputError(
      f"{path} lacks the column {', '.join(lacking)}; it has"
      f" {', '.join(have)[:200] or 'none'}"
    )


def _fields(lines: Sequence[bytes], at: int) -> tuple[list[str] | str, int]:
  """Fields of the row that begins there, or why it has none; lines it takes."""
  for count in range(1, _LINES_A_ROW + 1):
    try:
      text = b"".join(lines[at : at + count]).decode()
      rows = list(
        csv.reader(io.StringIO(text), strict=True, skipinitialspace=True)
      )
      return (rows[0] if rows else []), count
    except UnicodeDecodeError:
      return "is not UTF-8 text", 1
    except csv.Error as error:
      if "unexpected end of data" not in str(error):
        return f"is no row of a CSV file ({error})", 1
    if at + count >= len(lines):
      break
  return "a quote in it is not closed", 1


def json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
  """Objects of a JSONL file, perhaps compressed with gzip.

  Yields:
    Where an object stands, and the object, or what is wrong with it.

  Raises:
    InputError: If the file is compressed and damaged.
  """
  opened = gzip.open if path.suffix == ".gz" else open
  try:
    with opened(path, "rb") as file:
      for number, line in enumerate(file, 1):
        if number == 1:
          line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
          continue
        where = f"{path}, line {number}"
        try:
          yield where, json_object(line.decode(), "it")
        except UnicodeDecodeError:
          yield where, "is not UTF-8 text"
        except InputError as error:
          yield where, str(error)
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise InputError(f"{path} is not JSON lines: {error}") from None


def json_file(path: Path) -> Any:
  """The value in a JSON file, of whatever kind.

  Raises:
    InputError: If the file is not JSON.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise InputError(
      f"{path} is not JSON: {error}; download it again"
    ) from None


def json_object(text: str, where: str) -> Mapping[str, Any]:
  """The object in a JSON text.

  Raises:
    InputError: If the text is not JSON, or holds something else; the message
      calls it `where`.
  """
  try:
    value = json.loads(text)
  # Numbers of thousands of digits, and brackets in brackets in brackets.
  except (ValueError, RecursionError) as error:
    raise InputError(f"{where} is not JSON: {error}") from None
  if not isinstance(value, dict):
    raise InputError(f"{where} holds no object")
  return value


def seconds(value: Any, where: str) -> float:
  """A number of seconds, from a number or its text.

  Raises:
    InputError: If `value` is neither; the message calls it `where`.
  """
  try:
    return float(value)
  except (TypeError, ValueError, OverflowError):
    told = str(value)[:50]
    raise InputError(f"{where}: {told!r} is no number of seconds") from None
