"""A folder that is being written: by one process, and errors in one line."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from audiogen_jax.core.errors import InputError


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
  """Says in one line why a folder cannot be written."""
  try:
    yield
  # ArrayRecord reports a full disk as a RuntimeError, with these words in it.
  except (OSError, RuntimeError) as error:
    full = getattr(error, "errno", None) == errno.ENOSPC
    if full or "No space left" in str(error) or "ENOSPC" in str(error):
      raise InputError(
        f"the disk of {folder} is full; make room and run the same command"
        " again: it goes on where it stopped"
      ) from error
    if isinstance(error, OSError):
      reason = error.strerror or str(error)
      raise InputError(
        f"cannot write into {folder}: {reason}; choose another folder"
      ) from error
    raise


@contextlib.contextmanager
def only_one(path: Path, folder: Path) -> Iterator[None]:
  """Holds a lock that ends with the process, however it ends."""
  with path.open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(
        f"another process is building {folder}; wait for it or stop it"
      ) from None
    yield
