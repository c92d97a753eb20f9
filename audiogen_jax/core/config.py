"""Plain dictionaries <-> frozen dataclasses, in one place.

A configuration is written once, as the defaults of a dataclass.  What comes
from outside (a ConfigDict of a training run, the `config.json` of a checkpoint)
passes through `build` exactly once; past it there are only typed, immutable
values.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from audiogen_jax.core.errors import InputError

T = TypeVar("T")


def build(
  cls: type[T], values: Mapping[str, Any] | ConfigDict, *, where: str = ""
) -> T:
  """Makes a frozen dataclass from a mapping, nested dataclasses included.

  Lists become tuples, mappings of free keys dictionaries.  Keys left out take
  the dataclass's defaults.

  Args:
    cls: The dataclass to make.
    values: ConfigDict, or what JSON gave.
    where: Dotted name of `values` within the whole, for messages.

  Raises:
    InputError: For a key that `cls` lacks (the valid ones are named), a missing
      key without a default, or a value of the wrong kind.
  """
  fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
  unknown = sorted(set(values) - set(fields))
  if unknown:
    name = f"{where}.{unknown[0]}" if where else unknown[0]
    valid = ", ".join(sorted(fields))
    raise InputError(f"unknown configuration key {name!r}; valid: {valid}")
  hints = typing.get_type_hints(cls)
  made = {}
  for name, value in values.items():
    dotted = f"{where}.{name}" if where else name
    made[name] = _convert(hints[name], value, dotted)
  for name, field in fields.items():
    no_default = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if name not in made and no_default:
      dotted = f"{where}.{name}" if where else name
      raise InputError(f"configuration key {dotted!r} is missing")
  return cls(**made)


def as_dict(config: Any) -> dict[str, Any]:
  """The inverse of `build`: nested plain values, ready for JSON."""
  return dataclasses.asdict(config)


def _convert(hint: Any, value: Any, where: str) -> Any:
  """`value` as the type `hint`; raises InputError if it is not one."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    (hint,) = [a for a in args if a is not type(None)]
    return _convert(hint, value, where)
  if origin is typing.Literal:
    if value not in args:
      names = ", ".join(map(repr, args))
      raise InputError(f"{where} = {value!r} is not one of {names}")
    return value
  if origin is tuple:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
      raise InputError(f"{where} = {value!r} must be a list")
    return tuple(_convert(args[0], v, where) for v in value)
  if origin is Mapping:
    if not isinstance(value, Mapping | ConfigDict):
      raise InputError(f"{where} = {value!r} must hold keys and values")
    return {k: _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
  if dataclasses.is_dataclass(hint):
    if not isinstance(value, Mapping | ConfigDict):
      raise InputError(f"{where} = {value!r} must hold keys and values")
    return build(hint, dict(value.items()), where=where)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise InputError(f"{where} = {value!r} must be of type {hint.__name__}")
  return value
