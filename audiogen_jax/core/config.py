"""Plain dictionaries <-> frozen dataclasses, in one place.

A configuration is written once, as the defaults of a dataclass.  What comes
from outside (a ConfigDict of a training run, the `config.json` of a checkpoint)
passes through `build` exactly once; past it there are only typed, immutable
values.
"""

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

from etils import epath
from ml_collections import ConfigDict

from audiogen_jax.core.errors import InputError

T = TypeVar("T")

# The least and the most of numbers, by the name of the field that holds them.
Ranges: TypeAlias = Mapping[str, tuple[float | int, float | int]]

_MOST_BYTES = 1 << 22  # of a JSON file: the largest published one has 0.2 MB
_MOST_ENTRIES = 256  # of a list, and characters of a text times 16


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """A JSON file that holds keys and values, with or without a BOM.

  Raises:
    InputError: If it is missing, overlong, not JSON, or holds something else.
  """
  path = epath.Path(path)
  try:
    # To etils a pipe is a file, and would be waited for.
    local = "://" not in str(path)
    if not (os.path.isfile(path) if local else path.is_file()):
      raise InputError(f"{path} is missing, or no file")
    with path.open("rb") as file:
      data = file.read(_MOST_BYTES + 1)
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from None
  if len(data) > _MOST_BYTES:
    raise InputError(
      f"{path} has more than {_MOST_BYTES:,} bytes; no configuration does"
    )
  try:
    values = json.loads(data.decode("utf-8-sig"), parse_constant=_constant)
  except RecursionError:
    raise InputError(f"{path} is nested too deeply") from None
  except ValueError as error:
    raise InputError(f"{path} is not JSON: {str(error)[:100]}") from None
  if not isinstance(values, dict):
    raise InputError(f"{path} holds {shown(values)} where keys belong")
  return values


def shown(value: Any) -> str:
  """A foreign value for a message: at most about a hundred characters."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # numbers of more than 4,300 digits
    text = f"a {type(value).__name__} too long to show"
  return text if len(text) <= 100 else f"{text[:96]} …"


def check_range(
  name: str,
  value: float | int,
  least: float | int,
  most: float | int,
  *,
  where: str,
) -> None:
  """Raises InputError, which calls the value by `name`, if it lies outside."""
  if not least <= value <= most:  # NaN does, too
    raise InputError(
      f"{where}{name} = {shown(value)} must lie in {least:g} to {most:g}"
    )


def _constant(name: str) -> NoReturn:
  raise ValueError(f"{name} is no number of JSON")


def build(
  cls: type[T],
  values: Mapping[str, Any] | ConfigDict,
  *,
  where: str = "",
  ranges: Ranges | None = None,
) -> T:
  """Makes a frozen dataclass from a mapping, nested dataclasses included.

  Lists become tuples, mappings of free keys dictionaries.  Keys left out take
  the dataclass's defaults.

  Args:
    cls: The dataclass to make.
    values: ConfigDict, or what JSON gave.
    where: Dotted name of `values` within the whole, for messages.
    ranges: Of numbers, where `values` come from a stranger.  Checked before
      anything is built, whose constructor may count on them.

  Raises:
    InputError: For a key that `cls` lacks (the valid ones are named), a missing
      key without a default, or a value of the wrong kind or out of its range.
  """
  fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
  unknown = sorted(map(str, set(values) - set(fields)))
  if unknown:
    name = f"{where}.{unknown[0]}" if where else unknown[0]
    valid = ", ".join(sorted(fields))
    raise InputError(f"unknown configuration key {shown(name)}; valid: {valid}")
  hints = typing.get_type_hints(cls)
  arguments = {}
  for name, value in values.items():
    dotted = f"{where}.{name}" if where else name
    arguments[name] = _convert(hints[name], value, dotted, ranges)
    if ranges is not None:
      _bounded(name, arguments[name], dotted, ranges)
  for name, field in fields.items():
    no_default = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if name not in arguments and no_default:
      dotted = f"{where}.{name}" if where else name
      raise InputError(f"configuration key {dotted!r} is missing")
  return cls(**arguments)


def without(
  values: Mapping[str, Any], retired: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
  """What an older version wrote, without keys that are gone since.

  Args:
    values: Nested plain values.
    retired: Dotted names of such keys, and the only value of each with which a
      model is as all are now; a key with another value stays, and is refused
      where its mapping is read.
    prefix: Where in a larger mapping `values` stand, with a final dot.
  """
  return {
    name: without(value, retired, f"{prefix}{name}.")
    if isinstance(value, Mapping)
    else value
    for name, value in values.items()
    if retired.get(f"{prefix}{name}", ...) != value
  }


def as_dict(config: Any) -> dict[str, Any]:
  """A configuration as nested dictionaries of plain values, ready for JSON.

  `build` makes the dataclass again.
  """
  return dataclasses.asdict(config)


def _convert(hint: Any, value: Any, where: str, ranges: Ranges | None) -> Any:
  """`value` as the type `hint`; raises InputError if it is not one."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    (hint,) = [a for a in args if a is not type(None)]
    return _convert(hint, value, where, ranges)
  if origin is typing.Literal:
    if value not in args:
      names = ", ".join(map(repr, args))
      raise InputError(f"{where} = {shown(value)} is not one of {names}")
    return value
  if origin is tuple:
    text = isinstance(value, str | bytes | Mapping)
    if text or not hasattr(value, "__iter__"):
      raise InputError(f"{where} = {shown(value)} must be a list")
    if args[-1] is not ... and len(value) != len(args):
      raise InputError(
        f"{where} = {shown(value)} must be a list of {len(args)} values"
      )
    return tuple(_convert(args[0], v, where, ranges) for v in value)
  if origin is Mapping:
    if not isinstance(value, Mapping | ConfigDict):
      raise InputError(f"{where} = {shown(value)} must hold keys and values")
    return {
      k: _convert(args[1], v, f"{where}.{k}", ranges) for k, v in value.items()
    }
  if dataclasses.is_dataclass(hint):
    if not isinstance(value, Mapping | ConfigDict):
      raise InputError(f"{where} = {shown(value)} must hold keys and values")
    return build(hint, dict(value.items()), where=where, ranges=ranges)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    # Integers have no end; floats do.
    return float(value) if abs(value) < 1 << 1000 else math.inf
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise InputError(
      f"{where} = {shown(value)} must be of type {hint.__name__}"
    )
  return value


def _bounded(name: str, value: Any, where: str, ranges: Ranges) -> None:
  """Raises InputError for what is too long, or out of its range."""
  if isinstance(value, str | tuple):
    most = _MOST_ENTRIES * (16 if isinstance(value, str) else 1)
    check_range(f"the length of {where}", len(value), 0, most, where="")
  if name not in ranges:
    return
  for each in value if isinstance(value, tuple) else [value]:
    if isinstance(each, int | float) and not isinstance(each, bool):
      check_range(where, each, *ranges[name], where="")
