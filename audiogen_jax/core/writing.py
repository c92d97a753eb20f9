"""Folders that are written whole or not at all, and why they were not."""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from audiogen_jax.core import config
from audiogen_jax.core.errors import InputError

SIZES = "sizes.json"
MARK = "commit_success.txt"  # Orbax's, where a file system cannot rename

_DISK = re.compile(
  "No space left on device|File too large|Disk quota exceeded|"
  "Permission denied|Read-only file system|Input/output error"
)


@contextlib.contextmanager
def local_folder(folder: Path) -> Iterator[Path]:
  """A temporary sibling that takes the name `folder` if all goes well.

  Raises:
    InputError: If `folder` exists already or cannot be made.
  """
  if folder.exists():
    raise InputError(f"{folder} exists already; choose another folder")
  work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir()
  except OSError as error:
    raise InputError(f"cannot write {folder}: {error.strerror}") from None
  try:
    with explained(folder):
      yield work
    try:
      work.rename(folder)
    except OSError as error:
      words = error.strerror
      if folder.exists():
        words = "somebody else wrote it meanwhile; it is left as it is"
      raise InputError(f"cannot write {folder}: {words}") from None
  finally:
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def explained(folder: str | os.PathLike) -> Iterator[None]:
  """Says in one line why something could not be written into `folder`.

  Raises:
    InputError: Instead of the errors of disks.  Libraries wrap them in others,
      whose own reasons pass through.
  """
  try:
    with hushed():
      yield
  except InputError:
    raise
  except OSError as error:
    words = error.strerror or reason(error)
  except Exception as error:
    match = _DISK.search(str(error))
    if not match:
      raise
    words = match[0]
  else:
    return
  raise InputError(
    f"cannot write {folder}: {words}; make room or choose another folder"
  )


@contextlib.contextmanager
def hushed() -> Iterator[None]:
  """Keeps Orbax's threads silent: what they cannot do is raised as well.

  After a failure they find the loop closed that they worked for, and each
  prints a traceback, some of them after the error has been handled.
  """
  hook = sys.unraisablehook

  def quiet(args: "sys.UnraisableHookArgs") -> None:
    if "Event loop is closed" not in str(args.exc_value):
      hook(args)

  def fatal(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL

  logger = logging.getLogger("absl")
  logger.addFilter(fatal)
  sys.unraisablehook = quiet
  try:
    yield
  finally:
    logger.removeFilter(fatal)
  # Only if all went well: after a failure some of the threads are still to end.
  sys.unraisablehook = hook


def reason(error: Exception) -> str:
  """What an error of another library says, in one line."""
  words = " ".join(str(error).split())
  return f"{type(error).__name__}: {words[:160]}"


def note_sizes(folder: epath.Path) -> None:
  """Writes how many bytes each file in the folders of `folder` has."""
  trees = [path for path in folder.iterdir() if path.is_dir()]
  sizes = {
    str(path.relative_to(folder)): path.stat().length
    for tree in sorted(trees)
    for path in _files(tree)
    if path.name != MARK
  }
  (folder / SIZES).write_text(json.dumps(sizes, indent=1) + "\n")


def check_sizes(tree: epath.Path) -> None:
  """Raises if files of a stored tree were lost or cut short on their way.

  Orbax would say so in hundreds of lines, many of them from its threads.

  Raises:
    InputError: For the first of them.
  """
  noted = tree.parent / SIZES
  if not tree.exists() or not noted.exists():  # as in older exports
    return
  for name, want in config.read_json(noted).items():
    path = tree.parent / name
    if not name.startswith(f"{tree.name}/"):
      continue
    have = path.stat().length if path.exists() else None
    if have != want:
      fault = "is missing" if have is None else f"has {have:,} bytes"
      raise InputError(
        f"{path} {fault} of {config.shown(want)} bytes; copy the whole export"
        " again"
      )


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  for path in sorted(folder.iterdir()):
    if path.is_dir():
      yield from _files(path)
    else:
      yield path
