"""Any source -> a folder -> the format that it is in.

A source is an embedded name, a hub id, a folder or a gs:// URI.  Each format is
registered by the file that reads it, with what recognises such a folder and
what opens it; no family is named here.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from audiogen_jax.convert import hub
from audiogen_jax.core import checkpoint, config
from audiogen_jax.core.errors import InputError

_ASSETS = Path(__file__).parents[1] / "assets"
# Files that register formats when they are imported.
_PUBLISHERS = (
  "opening",
  "audiocraft",
  "huggingface",
  "make_an_audio_folder",
)


class Format(NamedTuple):
  """A way in which models lie in folders.

  Attributes:
    name: What `audiogen info` calls it.
    recognise: Whether a folder is in this format; reads no weights.
    family: The family of the model in such a folder, as `families` knows it;
      None for what makes no sounds by itself.
    open: Returns the model's parts, no weights read yet.
    wanted: Of a hub repository's file names, patterns of those that are read;
      None if it is not in this format.  Many hold the same weights several
      times over.
    in_buckets: Whether it can be read from a gs:// URI.
  """

  name: str
  recognise: Callable[[epath.Path], bool]
  family: Callable[[epath.Path], str | None]
  open: Callable[[epath.Path], Any]
  wanted: Callable[[Sequence[str]], Sequence[str] | None] = lambda _: None
  in_buckets: bool = False


_formats: dict[str, Format] = {}


def register(new: Format) -> None:
  """Makes a format known; one of the same name is replaced."""
  _formats[new.name] = new


def _known() -> list[Format]:
  for name in _PUBLISHERS:
    importlib.import_module(f"{__package__}.{name}")
  return list(_formats.values())


def _wanted(names: Sequence[str]) -> Sequence[str]:
  """What to download of a repository with these files."""
  found = (each.wanted(names) for each in _known())
  return next(filter(None, found), ["*"])


def recognise(folder: epath.Path) -> Format:
  """The format of a folder.

  Raises:
    InputError: If the folder is in none that is known, or in a bucket in one
      whose reader maps files into memory.
  """
  for each in _known():
    if each.recognise(folder):
      if "://" in str(folder) and not each.in_buckets:
        raise InputError(
          f"{folder} is in the {each.name} format, and only our own is read"
          " from a bucket; copy it to a disk (gcloud storage cp -r), or"
          " audiogen convert a whole model once"
        )
      return each
  path = folder / checkpoint.CONFIG
  if path.exists():
    values = checkpoint.read_config(folder)
    described = values.get("model_type") or values.get("format")
    described = config.shown(described or "something")
    raise InputError(
      f"{path} describes {described}, which is not a model of a known format:"
      f" {', '.join(sorted(_formats))}"
    )
  raise InputError(
    f"{folder} holds no model: it is in none of the formats"
    f" {', '.join(sorted(_formats))}"
  )


def is_kind(folder: epath.Path, key: str, value: str) -> bool:
  """Whether `config.json` of a folder has that value; False without one."""
  if not (folder / checkpoint.CONFIG).exists():
    return False
  return checkpoint.read_config(folder).get(key) == value


def locate(source: str | Path) -> epath.Path:
  """The folder that `source` stands for, downloaded if it is a hub id.

  What comes with the package goes before a folder that happens to have its
  name; such a folder is `./nano`.

  Raises:
    InputError: If there is no such folder, name or hub id, or no network.
  """
  text = str(source)
  if re.fullmatch(r"[\w-]{1,64}", text) and (_ASSETS / text).is_dir():
    return epath.Path(_ASSETS / text)
  folder = checkpoint.path_of(text)
  try:
    exists = "://" in text or folder.exists()
  except (OSError, ValueError) as error:  # too long, or no name
    raise InputError(
      f"{config.shown(text)} is no name of a folder: {str(error)[:60]}"
    ) from None
  if exists:
    if not folder.is_dir():
      raise InputError(f"{text} is not a folder with a model")
    return folder
  if text.startswith((".", "/", "~")) or text.count("/") > 1:
    raise InputError(f"{text} does not exist")
  return epath.Path(hub.download(text, _wanted))
