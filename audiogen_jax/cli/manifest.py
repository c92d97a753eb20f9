"""What a folder of generated sounds holds: one line of JSON a sound."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiogen_jax.core.errors import InputError

NAME = "manifest.jsonl"


class Manifest:
  """The manifest of a folder; what it names there need not be made again.

  A line is written after its sound, so a sound without one is made again.
  """

  def __init__(self, folder: Path):
    """Reads what is there; a last line that was cut short is forgotten.

    Raises:
      InputError: If another line is none of ours.
    """
    self.path = folder / NAME
    self._lines: dict[str, dict[str, Any]] = {}
    try:
      text = self.path.read_bytes()
    except FileNotFoundError:
      return
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
      with self.path.open("r+b") as file:
        file.truncate(len(whole))
    for i, line in enumerate(whole.splitlines()):
      try:
        entry = json.loads(line)
        self._lines[entry["file"]] = entry
      except (ValueError, TypeError, KeyError):
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
    with self.path.open("a", encoding="utf-8") as file:
      file.write(json.dumps(entry, ensure_ascii=False) + "\n")
      file.flush()
      os.fsync(file.fileno())
