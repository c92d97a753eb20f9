"""Orbax: arrays on disk or in a bucket, restored straight to where they belong.

An exported model is a folder:

    config.json     what it is; written last, so a folder that has it is whole
    codec/          Orbax checkpoints, one a room, so that a codec can be had
    lm/             without the language model
    text/
    tokenizer/
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class Folder:
  """A tree that lies on disk or in a bucket in our own format."""

  path: epath.Path

  def abstract(self) -> Tree:
    """Shapes and types as stored."""
    with ocp.StandardCheckpointer() as checkpointer:
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
    if not self.path.exists():
      raise InputError(f"{self.path} does not exist; the export is incomplete")
    try:
      with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(self.path, abstract)
    except (ValueError, KeyError, FileNotFoundError) as error:
      reason = " ".join(str(error).split())[:200]
      raise InputError(f"{self.path} cannot be restored: {reason}") from None


def place(text: str | os.PathLike) -> epath.Path:
  """The absolute path, or the URI of a bucket that answers.

  Raises:
    InputError: For an unknown kind of URI, one whose library is not installed,
      or a bucket that cannot be reached.
  """
  if "://" not in str(text):
    # Orbax takes absolute paths only.
    return epath.Path(Path(text).expanduser().absolute())
  try:
    path = epath.Path(str(text))
    path.exists()
  except KeyError:
    raise InputError(f"{text}: only gs:// URIs are known") from None
  except ImportError as error:
    raise InputError(
      f"{text}: {error}; pip install 'audiogen_jax[gcs]'"
    ) from None
  except Exception as error:  # each file system has errors of its own
    reason = " ".join(str(error).split())[:120]
    raise InputError(
      f"{text} cannot be reached ({type(error).__name__}: {reason})"
    ) from None
  return path


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
  """`config.json` of an exported model.

  Raises:
    InputError: If it is missing or not JSON.
  """
  path = epath.Path(folder) / CONFIG
  if not path.exists():
    raise InputError(f"{folder} lacks {CONFIG}; the export is incomplete")
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not JSON: {error}") from None


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
  target = place(folder)

  def look() -> None:
    if target.exists():
      raise InputError(f"{target} exists already; choose another folder")

  # Nobody writes before process 0 has looked.
  processes.agreed(look)
  if jax.process_count() > 1 or "://" in str(folder):
    _write(target, config, trees, extras)
    processes.agreed(lambda: None)  # nobody reads before all is written
    return
  with local_folder(Path(target)) as work:
    _write(epath.Path(work), config, trees, extras)
    # Orbax notes the place that it wrote to, which is gone in a moment.
    for mark in work.glob("*/commit_success.txt"):
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
    yield work
    work.rename(folder)
  finally:
    shutil.rmtree(work, ignore_errors=True)


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
  (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


class Checkpoints:
  """The checkpoints of a training run: states under their step numbers.

  Written in the background; a folder takes its number only once it is whole, so
  a kill or a full disk costs what was being written and nothing before.
  """

  def __init__(self, folder: str | os.PathLike, *, best: str, keep: int = 2):
    """Opens or makes the folder.

    Args:
      folder: Where.
      best: A metric: the checkpoint where it is lowest is kept, too.
      keep: How many of the latest are kept.
    """
    policies = ocp.checkpoint_managers.preservation_policy
    self._folder = place(folder)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(keep),
            policies.BestN(
              get_metric_fn=lambda metrics: metrics[best],
              reverse=True,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        cleanup_tmp_directories=True,
      ),
    )

  def latest(self) -> int | None:
    """Step of the last whole checkpoint."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """Steps of all whole checkpoints."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: Tree,
    notes: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ) -> None:
    """Begins to write a state; the call returns once its arrays are copied.

    Args:
      step: Its number.
      state: Arrays, wherever they live.
      notes: Plain values that belong to it, such as the state of a loader.
      metrics: Of an evaluation of this very state, if there was one.

    Raises:
      InputError: If this or the last checkpoint could not be written.
    """
    items = ocp.args.Composite(
      state=ocp.args.PyTreeSave(state), notes=ocp.args.JsonSave(notes)
    )
    with self._explained(step):
      self._manager.save(step, args=items, metrics=metrics, force=True)

  def wait(self) -> None:
    """Until everything is written.

    Raises:
      InputError: If it cannot be.
    """
    with self._explained(None):
      self._manager.wait_until_finished()

  def restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """A state and its notes.

    Args:
      step: Of a whole checkpoint.
      like: Abstract arrays with shardings: any mesh may restore what any other
        has saved.

    Raises:
      InputError: If what is stored does not fit, or is damaged.
    """
    items = ocp.args.Composite(
      state=ocp.args.PyTreeRestore(
        like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
      ),
      notes=ocp.args.JsonRestore(),
    )
    try:
      found = self._manager.restore(step, args=items)
    except (ValueError, KeyError, OSError) as error:
      reason = " ".join(str(error).split())[:200]
      raise InputError(
        f"checkpoint {self._folder / str(step)} cannot be restored: {reason};"
        f" remove that folder to go on from an earlier one"
      ) from None
    return found["state"], found["notes"]

  def reached_preemption(self, step: int) -> bool:
    """Whether the machines are about to be taken away, agreed by all."""
    return self._manager.reached_preemption(step)

  def close(self) -> None:
    """Waits and ends the threads."""
    with self._explained(None):
      self._manager.close()

  @contextlib.contextmanager
  def _explained(self, step: int | None) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      reason = " ".join(str(error).split())[:200]
      what = (
        "a checkpoint" if step is None else f"the checkpoint of step {step}"
      )
      raise InputError(
        f"{what} could not be written to {self._folder}: {reason}; the last"
        f" whole one is that of step {self.latest()}.  Make room and run the"
        " same command again"
      ) from None
