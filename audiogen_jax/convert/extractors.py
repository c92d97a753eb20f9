"""Published files of networks that judge -> what judges.

    file -> tensors by name -> configuration, tree -> `Extractor`

`torchvggish`, `panns` and `hear21passt` say how a publisher's tensors and ours
correspond; here is what all have in common.
"""

import os
import re
from pathlib import Path
from typing import Any

from audiogen_jax.convert import (
  hear21passt,
  panns,
  torchvggish,
)
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import (
  Published,
  State,
  arrays,
  sha256,
  tensors,
)
from audiogen_jax.core import checkpoint, config
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding.extractor import Extractor

PUBLISHED = {
  "vggish": torchvggish.PUBLISHED,
  "cnn14": panns.PUBLISHED,
  "passt": hear21passt.PUBLISHED,
}
_CLAP = r"(module\.)?(audio_branch|audio_encoder|audio_model)\."


def load_extractor(
  name: str, file: str | os.PathLike[str], **options: Any
) -> Extractor:
  """A published network, ready to judge.

  Args:
    name: `vggish`, `cnn14` or `passt`.
    file: The published file, or a folder that holds it under its name.  What
      its tensors cannot tell is read of a `config.json` beside it, or is as
      published where there is none.
    **options: Of its class: `windows` of `vggish.Extractor`, `pieces` of
      `passt.Extractor`.

  Raises:
    InputError: If there is no network of that name, no such file (with its name
      and its address), or if it is damaged or that of another network.
  """
  if name not in PUBLISHED:
    raise InputError(
      f"{shown(name)} is no network that judges; take {', '.join(PUBLISHED)}"
    )
  published = PUBLISHED[name]
  path = _found(name, Path(file))
  state = tensors(path)
  _check_kind(published, state, path)
  beside = path.with_name(checkpoint.CONFIG)
  said = config.read_json(beside) if beside.is_file() else {}
  shape, tree = published.open(state, str(path), Keys(said, str(beside)))
  params = arrays(tree)
  return published.build(shape, params, sha256=sha256(path), **options)


def _found(name: str, path: Path) -> Path:
  """The file of weights at a path: that file, or the one in that folder.

  Raises:
    InputError: If there is none, with what to download from where.
  """
  files = PUBLISHED[name].files
  if path.is_dir():
    there = [path / file for file in files if (path / file).is_file()]
    if there:
      return there[0]
    path = path / next(iter(files))
  if not path.is_file():
    file = path.name if path.name in files else next(iter(files))
    raise InputError(
      f"{path} is missing: {name} needs {file}; download it from {files[file]}"
      f" and put it at {path.with_name(file)}"
    )
  return path


def _check_kind(published: Published, state: State, path: Path) -> None:
  """Raises InputError for the file of another network, by its name."""
  if published.mark in state:
    return
  kinds = [(p.mark, f"{n} ({p.title})") for n, p in PUBLISHED.items()]
  for mark, kind in kinds:
    if mark in state:
      raise InputError(f"{path} holds {kind}, not a {published.title}")
  kind = f"{len(state)} tensors of something else"
  if any(re.match(_CLAP, name) for name in state):
    kind = "a CLAP"
  file, address = next(iter(published.files.items()))
  raise InputError(
    f"{path} holds {kind}, not a {published.title}: it lacks {published.mark};"
    f" download {file} from {address}"
  )
