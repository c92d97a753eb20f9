"""Our own format: `config.json`, and an Orbax checkpoint for each room.

    format, version   "audiogen_jax", 2
    family            whose page opens it, such as "audiogen"
    rooms             name -> kind and config; the tree lies in a folder `name`
    others            settings of the model as a whole: window_s in seconds …

Version 1, which knew AudioGen alone, is read as well.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from audiogen_jax import __version__
from audiogen_jax.core import checkpoint, config
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

FORMAT, VERSION = "audiogen_jax", 2
_OWN_KEYS = ("format", "version", "written_by", "family", "rooms")
# What version 1 had in place of kinds: AudioGen's rooms.
_FIRST_KINDS = {"codec": "encodec", "lm": "lm", "text": "t5"}


class Room(NamedTuple):
  """A part of a model.

  Attributes:
    kind: What it is, such as "encodec": tells which class `config` is of.
    config: Plain values of that class.
    tree: A `checkpoint.Folder` when it was read; whatever the caller's `ready`
      makes JAX arrays of when it is written.
  """

  kind: str
  config: Mapping[str, Any]
  tree: Tree


class Export(NamedTuple):
  """A model in our own format.

  Attributes:
    family: Whose page opens it.
    rooms: By name.
    settings: Settings of the model as a whole.
  """

  family: str
  rooms: Mapping[str, Room]
  settings: Mapping[str, Any]


def read(folder: epath.Path) -> Export:
  """What `config.json` says; no weights are read.

  Raises:
    InputError: If it is missing or damaged, or of another version.
  """
  values = checkpoint.read_config(folder)
  version = values.get("version")
  if version == 1:
    values = _from_first(values)
  elif version != VERSION:
    raise InputError(
      f"{folder} has format version {config.shown(version)}; this is"
      f" audiogen_jax {__version__}, which reads versions 1 and {VERSION}: use"
      f" the release that wrote it ({config.shown(values.get('written_by'))})"
    )
  where = folder / checkpoint.CONFIG
  rooms = values.get("rooms")
  if not isinstance(rooms, dict):
    raise InputError(f"{where}: rooms must hold keys and values")
  family = values.get("family")
  if not isinstance(family, str):
    raise InputError(f"{where}: family = {config.shown(family)} must be a name")
  opened = {}
  for name, room in rooms.items():
    inner = isinstance(room, dict) and room.get("config")
    if not isinstance(inner, dict):
      raise InputError(f"{where}: rooms.{config.shown(name)} has no config")
    tree = checkpoint.Folder(folder / name)
    opened[name] = Room(str(room.get("kind")), inner, tree)
  settings = {k: v for k, v in values.items() if k not in _OWN_KEYS}
  return Export(family, opened, settings)


def write(
  folder: str | os.PathLike,
  export: Export,
  *,
  ready: Callable[[Tree], Tree] = lambda tree: tree,
  extras: Callable[[Path], None] | None = None,
) -> None:
  """Writes a model, one room at a time, in the order of `export.rooms`.

  Args:
    folder: Where; must not exist yet.
    export: The model.
    ready: Makes JAX arrays of a room's tree when its turn comes.
    extras: Writes further files into a local folder that it is given.

  Raises:
    InputError: If the folder exists or cannot be written.
  """
  values = {
    "format": FORMAT,
    "version": VERSION,
    "written_by": f"audiogen_jax {__version__}",
    "family": export.family,
    "rooms": {
      name: {"kind": room.kind, "config": room.config}
      for name, room in export.rooms.items()
    },
  } | dict(export.settings)
  trees: Iterable[tuple[str, Tree]] = (
    (name, ready(room.tree)) for name, room in export.rooms.items()
  )
  checkpoint.export(folder, values, trees, extras)


def _from_first(values: Mapping[str, Any]) -> dict[str, Any]:
  """`config.json` of format version 1, in the layout of version 2."""
  rest = {k: v for k, v in values.items() if k not in _FIRST_KINDS}
  rooms = {
    name: {"kind": kind, "config": values[name]}
    for name, kind in _FIRST_KINDS.items()
    if values.get(name) is not None
  }
  return rest | {"family": "audiogen", "rooms": rooms}
