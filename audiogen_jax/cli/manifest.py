"""What a folder of generated sounds holds: one line of JSON a sound."""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError

NAME = "manifest.jsonl"


class Manifest:
  """The manifest of a folder; what it names there need not be made again.

  A line is written after its sound, so a sound without one is made again.  The
  file is locked until it is closed, or the process ends, however it ends.
  """

  def __init__(self, folder: Path) -> None:
    """Reads what is there; a last line that was cut short is forgotten.

    Raises:
      InputError: If another line is none of ours, another process holds the
        file, or it cannot be opened.
    """
    self.path = folder / NAME
    self._lines: dict[str, dict[str, Any]] = {}
    if self.path.exists() and not self.path.is_file():
      raise InputError(f"{self.path} is no file; name another folder")
    self._file = self.path.open("a+b")
    try:
      self._lock()
      self._read()
    except InputError:
      self._file.close()
      raise

  def __enter__(self) -> "Manifest":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Lets other processes have the file; one without a line goes."""
    if not os.fstat(self._file.fileno()).st_size:
      self.path.unlink(missing_ok=True)
    self._file.close()

  def _lock(self) -> None:
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(
        f"another process is making sounds in {self.path.parent}; wait for it,"
        " or name another folder"
      ) from None

  def _read(self) -> None:
    self._file.seek(0)
    text = self._file.read()
    whole = text[: text.rfind(b"\n") + 1]
    self._file.truncate(len(whole))
    for i, line in enumerate(whole.splitlines()):
      try:
        entry = json.loads(line)
        self._lines[entry["file"]] = entry
      except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(
          f"{self.path}, line {i + 1}, is no line of a manifest; move the file"
          " away, or name another folder"
        ) from None

  def holds(self, entry: Mapping[str, Any]) -> bool:
    """Whether this very sound has been made, and is still there."""
    known = self._lines.get(entry["file"])
    return known == entry and (self.path.parent / entry["file"]).is_file()

  def add(self, entry: Mapping[str, Any]) -> None:
    """Writes a line, and sees that it reaches the disk."""
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    self._file.write(line.encode(errors="backslashreplace"))
    self._file.flush()
    os.fsync(self._file.fileno())


class Folder:
  """Where sounds go; of several processes the first keeps the manifest.

  The others send it their lines, so that each is written once, and whole.
  """

  def __init__(self, path: Path | None) -> None:
    self.primary = jax.process_index() == 0
    self._path, self._manifest = path, None
    self._working = jax.process_count() - 1  # others, not done yet

  def missing(self, entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which of them are still to be made; for process 0, which tells all."""
    if self._path is not None:
      self._manifest = Manifest(self._path)
    known = self._manifest
    return [
      i for i, entry in enumerate(entries) if not (known and known.holds(entry))
    ]

  def note(self, entry: dict[str, Any]) -> None:
    """A line for a sound that is there."""
    if self._path is None:
      return
    if self.primary:
      self._manifest.add(entry)
      self._collect()
    else:
      processes.pass_on(entry)

  def close(self) -> None:
    """Lets go of the manifest."""
    if self._manifest:
      self._manifest.close()

  def collect(self) -> None:
    """Process 0 waits for the lines of the others; they say that it was all."""
    if not self.primary:
      processes.pass_on(None)
      return
    while self._working:
      self._collect(wait_s=0.1)

  def _collect(self, wait_s: float = 0.0) -> None:
    """Writes the lines that the others have sent."""
    for entry in processes.passed_on(wait_s=wait_s):
      if entry is None:
        self._working -= 1
      else:
        self._manifest.add(entry)
