"""Orbax: arrays on disk or in a bucket, restored straight to where they belong.

An exported model is a folder:

    config.json     what it is; written last, so a folder that has it is whole
    sizes.json      bytes of each file of the rooms
    ROOM/           Orbax checkpoints, one a room, so that each can be had alone
    others          such as a tokenizer's files

A room is a plain Orbax checkpoint without placement, which any machine reads
whatever wrote it, without this library:

    from orbax.checkpoint import StandardCheckpointer
    with StandardCheckpointer() as checkpointer:
      tree = checkpointer.restore("/absolute/path/ROOM")

Its tree is nested dictionaries; the file that opens a family lists its names.
"""

import contextlib
import dataclasses
import json
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from audiogen_jax.core import config as plain
from audiogen_jax.core import processes, writing
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

CONFIG = "config.json"
_PATIENCE_S = 20


@dataclasses.dataclass(frozen=True)
class Folder:
  """A pytree of arrays on disk or in a bucket, in our own format (Orbax)."""

  path: epath.Path

  def abstract(self) -> Tree:
    """Shapes and types as stored.

    Raises:
      InputError: If it is missing or damaged.
    """
    with self._explained(), ocp.StandardCheckpointer() as checkpointer:
      metadata = checkpointer.metadata(self.path)
      tree = getattr(metadata, "item_metadata", metadata)
      return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        getattr(tree, "tree", tree),
      )

  def restore(self, abstract: Tree) -> Tree:
    """Reads the tree, each array in the type and on the devices of `abstract`.

    Raises:
      InputError: If what is stored does not fit, or is damaged.
    """
    writing.check_sizes(self.path)
    with self._explained(), ocp.StandardCheckpointer() as checkpointer:
      return checkpointer.restore(self.path, abstract)

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    if not self.path.exists():
      raise InputError(f"{self.path} does not exist; the export is incomplete")
    try:
      with writing.hushed():
        yield
    # Of cut or missing files Orbax raises bare Exceptions; memory is no fault
    # of the file, and XLA's errors are not its either.
    except (MemoryError, jax.errors.JaxRuntimeError):
      raise
    except Exception as error:
      reason = writing.reason(error)
      raise InputError(
        f"{self.path} cannot be restored: {reason}; it is damaged or another"
        " model's: get it again"
      ) from None


def path_of(text: str | os.PathLike) -> epath.Path:
  """The absolute path that a user's text names, or the URI of a bucket.

  `~` is the home folder.  A bucket is asked whether it can be reached.

  Raises:
    InputError: For an unknown kind of URI, one whose library is not installed,
      or a bucket that cannot be reached within 20 s.
  """
  text = str(text)
  if "://" not in text:
    # Orbax takes absolute paths only.
    return epath.Path(Path(text).expanduser().absolute())
  if not text.startswith("gs://"):
    raise InputError(f"{text}: only gs:// URIs are known")
  path = epath.Path(text)
  try:
    _ask(path)
  except ImportError as error:
    raise InputError(
      f"{text}: {error}; pip install 'audiogen_jax[gcs]'"
    ) from None
  except Exception as error:  # each file system has errors of its own
    reason = " ".join(str(error).split())[:120]
    raise InputError(
      f"{text} cannot be reached ({type(error).__name__}: {reason}); look at"
      " the name, the network and `gcloud auth application-default login`"
    ) from None
  return path


def _ask(path: epath.Path) -> None:
  """Raises what a bucket's library raises, and TimeoutError after 20 s.

  Without a network gcsfs would try for a minute, and write tracebacks to its
  log besides.
  """
  answers: queue.Queue[Exception | None] = queue.Queue()

  def ask() -> None:
    try:
      path.exists()
    except Exception as error:
      answers.put(error)
    else:
      answers.put(None)

  log = logging.getLogger("gcsfs")
  log.addFilter(_nothing)
  threading.Thread(target=ask, daemon=True).start()
  try:
    error = answers.get(timeout=_PATIENCE_S)
  except queue.Empty:  # it still tries, and stays silent
    raise TimeoutError(f"no answer within {_PATIENCE_S} s") from None
  log.removeFilter(_nothing)
  if error is not None:
    raise error


def _nothing(_: logging.LogRecord) -> bool:
  return False


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
  """`config.json` of a folder: a model's, of whatever format, or a run's.

  Raises:
    InputError: If it is missing, damaged or not JSON.
  """
  path = epath.Path(folder) / CONFIG
  if not path.exists():
    raise InputError(f"{folder} lacks {CONFIG}; the folder is incomplete")
  return plain.read_json(path)


def export(
  folder: str | os.PathLike,
  config: dict[str, Any],
  trees: Iterable[tuple[str, Tree]],
  extras: Callable[[Path], None] | None = None,
) -> None:
  """Writes an exported model.

  On a local disk everything goes to a sibling first, which takes the name at
  the end; in a bucket, and where several processes write (all of them call
  this), `config.json` is written last.

  Args:
    folder: Where; must not exist yet.
    config: For `config.json`.
    trees: Room and JAX arrays, one after another, so that a generator need
      hold one room at a time.
    extras: Writes further files into a local folder that it is given.

  Raises:
    InputError: If the folder exists already or cannot be written.
  """
  target = path_of(folder)

  def look() -> None:
    if target.exists():
      raise InputError(f"{target} exists already; choose another folder")

  # Nobody writes before process 0 has looked.
  processes.agreed(look)
  if jax.process_count() > 1 or "://" in str(folder):
    with writing.explained(target):
      _write(target, config, trees, extras)
    processes.agreed(lambda: None)  # nobody reads before all is written
    return
  with writing.local_folder(Path(target)) as work:
    _write(epath.Path(work), config, trees, extras)
    # Orbax notes the place that it wrote to, which is gone in a moment.
    for mark in work.glob(f"*/{writing.MARK}"):
      mark.unlink()


def remove(folder: epath.Path) -> None:
  """Deletes a folder, if there is one.

  Raises:
    InputError: If it cannot be deleted.
  """
  try:
    if folder.exists():
      folder.rmtree()
  except OSError as error:
    reason = error.strerror or error
    raise InputError(f"cannot replace {folder}: {reason}") from None


def _write(
  folder: epath.Path,
  config: dict[str, Any],
  trees: Iterable[tuple[str, Tree]],
  extras: Callable[[Path], None] | None,
) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  # Weights hardly shrink: compression took five times as long and held each
  # array twice.
  handler = ocp.PyTreeCheckpointHandler(use_compression=False)
  with ocp.Checkpointer(handler) as checkpointer:
    for room, tree in trees:
      args = ocp.args.PyTreeSave(tree)
      checkpointer.save(folder.absolute() / room, args=args)
      del tree, args
      # Where each array lay in the mesh that wrote it: plain Orbax would ask
      # for that very mesh again.
      sharding = folder / room / "_sharding"
      if not jax.process_index() and sharding.exists():
        sharding.unlink()
  if jax.process_index():
    return
  if extras is not None:
    with tempfile.TemporaryDirectory() as work:
      extras(Path(work))
      for path in sorted(Path(work).rglob("*")):
        if path.is_file():
          to = folder / path.relative_to(work)
          to.parent.mkdir(parents=True, exist_ok=True)
          to.write_bytes(path.read_bytes())
  writing.note_sizes(folder)
  (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
