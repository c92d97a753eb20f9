"""Rooms of a Make-An-Audio by themselves, as trainings of its parts leave them.

A part is a folder in our own format, of the family `make-an-audio`, with one
room and no settings of a whole model:

    config.json    format, version, family; rooms: {"vocoder": {kind, config}}
    vocoder/       its tree, as in a whole model

Three parts become one model room by room: `exchanged` puts a part in the place
of a model's own.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from audiogen_jax.convert import formats, make_an_audio_parts, orbax
from audiogen_jax.convert.make_an_audio_parts import FAMILY, Parts
from audiogen_jax.convert.orbax import Export
from audiogen_jax.core import checkpoint
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree


class Part(NamedTuple):
  """A room, no weights read yet.

  Attributes:
    config: Its shape.
    tree: Its parameters, lazy arrays or a `checkpoint.Folder`.
  """

  config: Any
  tree: Tree


def write(
  folder: str | os.PathLike, name: str, config: Any, tree: Tree
) -> None:
  """Writes one room, such as `vocoder`, as a part.

  Args:
    folder: Where; must not exist yet.
    name: Of the room, one of `make_an_audio_parts`.
    config: Its shape.
    tree: Its parameters, arrays.

  Raises:
    InputError: If the folder exists or cannot be written.
  """
  room = make_an_audio_parts.room_of(name, config, tree)
  orbax.write(folder, Export(FAMILY, {name: room}, {}))


def read(source: str | Path, name: str) -> Part:
  """One room, of a part or of a whole model in any format.

  Args:
    source: As for `formats.locate`.
    name: Of the room.

  Raises:
    InputError: If there is none, or what is there is damaged.
  """
  folder = formats.locate(source)
  format = formats.recognise(folder)
  if format.name == "orbax" and format.family(folder) == FAMILY:
    try:
      held = make_an_audio_parts.rooms(orbax.read(folder))
    except InputError as error:
      raise InputError(f"{folder / checkpoint.CONFIG}: {error}") from None
  else:
    held = vars(make_an_audio_parts.open_parts(source))
  if held.get(name) is None:
    raise InputError(f"{folder} has no {name}; name a folder that has one")
  return Part(held[name], held[f"{name}_tree"])


def belongs(source: str | Path) -> bool:
  """Whether a source is a Make-An-Audio, whole or a part of one.

  Raises:
    InputError: If there is nothing that can be read.
  """
  folder = formats.locate(source)
  return formats.recognise(folder).family(folder) == FAMILY


def exchanged(parts: Parts, name: str, source: str | Path) -> Parts:
  """A model with a room of another source in the place of its own.

  Raises:
    InputError: As `read`, or if it does not fit the others, such as a vocoder
      of another mel recipe.
  """
  part = read(source, name)
  changes = {name: part.config, f"{name}_tree": part.tree}
  return make_an_audio_parts.checked(
    dataclasses.replace(parts, **changes), str(source)
  )
