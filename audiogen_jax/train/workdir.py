"""The folder of a run: one run at a time, and always with one configuration.

workdir/
  config.json     what is trained; a resumed run must agree with it
  checkpoints/    states by step
  metrics.jsonl, events.out.*     logs
  export/         the trained model, when training is done
"""

import contextlib
import fcntl
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from audiogen_jax.core import checkpoint, processes
from audiogen_jax.core.config import without
from audiogen_jax.core.errors import InputError
from audiogen_jax.train.optimiser import ENDING

_LOCK = ".lock"
# Keys that are gone, and the only value of which models are as they were.
_RETIRED = {"lm.transformer.packed": True}
# Keys that older versions did not know, and the value of which their runs are.
_ADDED = {
  "adversary.summed": False,
  "data.reprogram.bank": "",
  "optim.decay_rate": 1.0,
}
# Those that mean nothing beside such values.
_IDLE = ("data.reprogram.", "adversary.resolutions")
# May differ in a resumed run: they change nothing of what is computed, or only
# for how long.
_FREE = ("loop.", "mesh.", "rules.", "data.workers", "data.prefetch")
_BOUND = ("loop.seed",)


@contextlib.contextmanager
def claimed(workdir: epath.Path, config: Mapping[str, Any]) -> Iterator[None]:
  """Makes the folder, or takes one with a run of this very configuration.

  The claim is process 0's, told to all, and ends with the process, however it
  ends.  In a bucket there are no such locks, and nothing is held.

  Raises:
    InputError: If another run holds it or began with another configuration, it
      cannot be made, or the processes see different folders.
  """
  remote = "://" in str(workdir)
  with contextlib.ExitStack() as stack:

    def claim() -> str:
      try:
        workdir.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise InputError(
          f"cannot write {workdir}: {error.strerror or error}; choose another"
          " --workdir"
        ) from None
      mark = "" if remote else stack.enter_context(_locked(Path(workdir)))
      agree(workdir, config)
      return mark

    mark = processes.agreed(claim)
    if not remote and not _marked(Path(workdir), mark):
      raise InputError(
        f"process {jax.process_index()} sees another folder {workdir} than"
        " process 0; give a shared one, or gs://BUCKET/RUN"
      )
    yield


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[str]:
  """Holds the folder; a mark by which it can be known."""
  with (workdir / _LOCK).open("a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(
        f"another run is training in {workdir}; stop it, or choose another"
        " --workdir"
      ) from None
    mark = secrets.token_hex(8)
    file.truncate(0)
    file.write(mark)
    file.flush()
    yield mark


def _marked(workdir: Path, mark: str) -> bool:
  """Whether process 0's mark is there, if need be in a moment."""
  for _ in range(50):  # network file systems show news late
    with contextlib.suppress(OSError):
      if (workdir / _LOCK).read_text() == mark:
        return True
    time.sleep(0.2)
  return False


def agree(workdir: epath.Path, config: Mapping[str, Any]) -> None:
  """Holds a configuration against the one that the folder's run began with.

  Raises:
    InputError: If they differ, and the message lists in what; or if that one
      cannot be read.
  """
  if not (workdir / checkpoint.CONFIG).exists():
    return
  old, new = flat(told(workdir)), flat(config)
  # Without a length of its own, a schedule changes nothing by it.
  free = set() if new.get("optim.schedule") in ENDING else {"optim.steps"}
  lines = [
    f"{name} is {_shown(old, name)} there and {_shown(new, name)} here"
    for name in sorted((old.keys() | new.keys()) - free)
    if not _free(name)
    and old.get(name, ...) != new.get(name, ...)
    and not (name not in old and _as_ever(name, new))
  ]
  if lines:
    raise InputError(
      f"{workdir} holds a run with another configuration: {'; '.join(lines)}."
      "  Choose another --workdir, or the same configuration"
    )


def told(workdir: epath.Path) -> dict[str, Any]:
  """The configuration of the folder's run.

  Keys that are gone, and that older versions wrote for all, are left out.

  Raises:
    InputError: If there is none, or it cannot be read.
  """
  return without(checkpoint.read_config(workdir), _RETIRED)


def note(workdir: epath.Path, config: Mapping[str, Any]) -> None:
  """Writes down the configuration with which the run now begins."""
  part = workdir / f".{checkpoint.CONFIG}.tmp"
  part.write_text(json.dumps(_plain(config), indent=2) + "\n")
  part.replace(workdir / checkpoint.CONFIG)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Through JSON, so that tuples compare equal to lists."""
  return json.loads(json.dumps(config))


def _free(name: str) -> bool:
  return name.startswith(_FREE) and name not in _BOUND


def _as_ever(name: str, new: Mapping[str, Any]) -> bool:
  """Whether a key that older versions did not know changes nothing."""
  if name in _ADDED:
    return new[name] == _ADDED[name]
  return name.startswith(_IDLE)


def _shown(values: Mapping[str, Any], name: str) -> str:
  return json.dumps(values[name]) if name in values else "not set"


def bound(config: Mapping[str, Any]) -> dict[str, Any]:
  """What a resumed run must agree with, as one mapping of dotted names."""
  return {k: value for k, value in flat(config).items() if not _free(k)}


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
  """A configuration as one mapping of dotted names, as JSON gives it back."""
  found = {}

  def walk(values: Mapping[str, Any], prefix: str) -> None:
    for name, value in values.items():
      if isinstance(value, Mapping):
        walk(value, f"{prefix}{name}.")
      else:
        found[f"{prefix}{name}"] = value

  walk(_plain(config), "")
  return found
