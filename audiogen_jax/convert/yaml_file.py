"""Configurations in YAML, as plain values: no tag of theirs is obeyed."""

import math
from pathlib import Path
from typing import Any

import yaml

from audiogen_jax.convert.keys import Keys
from audiogen_jax.core.errors import InputError

_MOST_BYTES = 1 << 20


def read(path: Path) -> Keys:
  """The keys and values of a file.

  Raises:
    InputError: If it is missing, overlong, not YAML, holds objects of Python,
      or no keys.
  """
  try:
    if path.exists() and not path.is_file():  # a pipe would be waited for
      raise InputError(f"{path} is no regular file; put the YAML file there")
    with path.open("rb") as file:
      data = file.read(_MOST_BYTES + 1)
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from None
  if len(data) > _MOST_BYTES:
    raise InputError(
      f"{path} has more than {_MOST_BYTES:,} bytes; no configuration does"
    )
  try:
    loader = yaml.SafeLoader(data.decode("utf-8-sig"))
    node = loader.get_single_node()
    _check_references(node, str(path))
    values = loader.construct_document(node) if node else None
  except InputError:
    raise
  except RecursionError:
    raise InputError(f"{path} is nested too deeply") from None
  except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
    # The last three of dates, numbers and keys that cannot be.
    reason = " ".join(str(error).split())[:100]
    raise InputError(f"{path} is no plain YAML: {reason}") from None
  if not isinstance(values, dict):
    raise InputError(f"{path} holds no keys and values")
  return Keys(values, str(path))


def _check_references(top: yaml.Node | None, where: str) -> None:
  """Raises InputError if a file becomes huge once it repeats what it refers to.

  A few references to lists of references ask for more than any memory holds.
  """
  sizes: dict[int, float] = {}

  def size(node: Any) -> float:
    if isinstance(node, tuple):  # a key and its value
      return sum(map(size, node))
    if id(node) not in sizes:
      sizes[id(node)] = math.inf  # until it is known: for one within itself
      inner = isinstance(node, yaml.CollectionNode)
      parts = map(size, node.value) if inner else [len(node.value)]
      sizes[id(node)] = 1 + sum(parts)
    return sizes[id(node)]

  if top is not None and size(top) > _MOST_BYTES:
    raise InputError(
      f"{where} has more than {_MOST_BYTES:,} bytes once its references are"
      " followed; write out what they name"
    )
