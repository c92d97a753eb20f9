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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from audiogen_jax.core.errors import InputError

_CONFIG = "config.json"
# May differ in a resumed run: they change nothing of what is computed, or only
# for how long.
_FREE = ("loop.", "mesh.", "rules.", "data.workers", "data.prefetch")
_BOUND = ("loop.seed",)


@contextlib.contextmanager
def claimed(workdir: epath.Path) -> Iterator[None]:
  """Holds the folder; the claim ends with the process, however it ends.

  In a bucket there are no such locks, and nothing is held.

  Raises:
    InputError: If another run holds it.
  """
  if "://" in str(workdir):
    yield
    return
  with Path(workdir / ".lock").open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(
        f"another run is training in {workdir}; stop it, or choose another"
        " --workdir"
      ) from None
    yield


def agree(workdir: epath.Path, config: Mapping[str, Any]) -> None:
  """Holds a configuration against the one that the folder's run began with.

  Raises:
    InputError: If they differ; the message lists in what.
  """
  path = workdir / _CONFIG
  if not path.exists():
    return
  old, new = _flat(json.loads(path.read_text())), _flat(_plain(config))
  lines = [
    f"{name} is {_shown(old, name)} there and {_shown(new, name)} here"
    for name in sorted(old.keys() | new.keys())
    if not _free(name) and old.get(name, ...) != new.get(name, ...)
  ]
  if lines:
    raise InputError(
      f"{workdir} holds a run with another configuration: {'; '.join(lines)}."
      "  Choose another --workdir, or the same configuration"
    )


def note(workdir: epath.Path, config: Mapping[str, Any]) -> None:
  """Writes down the configuration with which the run now begins."""
  part = workdir / f".{_CONFIG}.tmp"
  part.write_text(json.dumps(_plain(config), indent=2) + "\n")
  part.replace(workdir / _CONFIG)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Through JSON, so that tuples compare equal to lists."""
  return json.loads(json.dumps(config))


def _free(name: str) -> bool:
  return name.startswith(_FREE) and name not in _BOUND


def _shown(values: Mapping[str, Any], name: str) -> str:
  return json.dumps(values[name]) if name in values else "not set"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested mappings as one, with dotted names."""
  flat = {}
  for name, value in values.items():
    dotted = f"{prefix}{name}"
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{dotted}.")
    else:
      flat[dotted] = value
  return flat
