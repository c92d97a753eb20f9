"""Configurations in YAML, as plain values: no tag of theirs is obeyed."""

from pathlib import Path

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
    with path.open("rb") as file:
      data = file.read(_MOST_BYTES + 1)
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from None
  if len(data) > _MOST_BYTES:
    raise InputError(
      f"{path} has more than {_MOST_BYTES:,} bytes; no configuration does"
    )
  try:
    values = yaml.safe_load(data.decode("utf-8-sig"))
  except RecursionError:
    raise InputError(f"{path} is nested too deeply") from None
  except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
    # The last three of dates, numbers and keys that cannot be.
    reason = " ".join(str(error).split())[:100]
    raise InputError(f"{path} is no plain YAML: {reason}") from None
  if not isinstance(values, dict):
    raise InputError(f"{path} holds no keys and values")
  return Keys(values, str(path))
