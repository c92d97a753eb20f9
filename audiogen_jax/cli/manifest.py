"""What a folder of generated sounds holds: one line of JSON a sound."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
