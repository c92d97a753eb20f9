"""What is known of the published file of a network that judges."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from audiogen_jax.convert import engine, finite, torch_file
from audiogen_jax.convert.engine import Stored
from audiogen_jax.convert.keys import Keys
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding.extractor import Extractor

State: TypeAlias = Mapping[str, Stored]

_UNDER = ("model", "state_dict", "best_state")  # where files keep their tensors


@dataclasses.dataclass(frozen=True)
class Published:
  """A network, its files, and how one of them becomes ours.

  Attributes:
    title: As people call it.
    files: Addresses by the names of the files, the usual one first.
    mark: A tensor that the files of other networks lack.
    open: From the tensors, the file's name for messages and what a
      `config.json` beside it says, to a configuration and a tree of lazy
      arrays.
    build: From configuration, parameters and the options of its class to what
      judges.
  """

  title: str
  files: Mapping[str, str]
  mark: str
  open: Callable[[State, str, Keys], tuple[Any, Tree]]
  build: Callable[..., Extractor]


def tensors(path: Path) -> State:
  """The tensors of a file of PyTorch's, by name.

  Raises:
    InputError: If it is damaged, or holds anything else.
  """
  saved = torch_file.read(path)
  for key in _UNDER:
    if isinstance(saved, dict) and isinstance(saved.get(key), dict):
      saved = saved[key]
  if not isinstance(saved, dict):
    raise InputError(f"{path} holds {shown(saved)} where tensors belong")
  for key, value in saved.items():
    if not isinstance(key, str) or not isinstance(value, Stored):
      raise InputError(
        f"{path}: {shown(key)} is {shown(value)} where a tensor belongs"
      )
  return saved


def arrays(tree: Tree) -> Tree:
  """Lazy arrays, read into float32: what judges is exact.

  Raises:
    InputError: If there are values that are not finite.
  """
  # A copy: of a map of the file nothing may stay.
  made = engine.realise(
    tree, lambda _, lazy: jnp.asarray(np.array(lazy.read(), np.float32))
  )
  finite.check(made, tree)
  return made


def sha256(*paths: Path) -> str:
  """Of a file; of several, of all their bytes in turn."""
  digest = hashlib.sha256()
  for path in paths:
    with path.open("rb") as file:
      hashlib.file_digest(file, lambda: digest)
  return digest.hexdigest()


def size(state: State, name: str, default: int, axis: int = 0) -> int:
  """How long an axis of a tensor is.

  Args:
    default: What is published: for a tensor that is missing, or has not that
      axis, which is said when all the tensors are compared.
  """
  shape = state[name].shape if name in state else ()
  return shape[axis] if len(shape) > axis else default
