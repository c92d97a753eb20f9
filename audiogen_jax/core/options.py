"""Options as data: default, range and help of each stand once, in a dataclass.

A family's options are a frozen dataclass (`lm.sampling.Sampling`) whose fields
are made by `option`, `choice` or `counts`.  The command line makes flags of
them, the page sliders of the numbers, the manifest keys; a field made otherwise
is for the API alone.
"""

import dataclasses
import numbers
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError


class Option(NamedTuple):
  """One field of a dataclass of options.

  Attributes:
    name: Name of the field.
    type: int or float; str for one of `among`; tuple for whole numbers.
    default: Where nothing else is asked for.
    help: One line.
    least: The smallest number.
    most: The largest; None for no end.
    ends: Least and largest value on a slider.
    step: Step of a slider.
    first: Whether people see it before the others.
    among: The words that are allowed.
  """

  name: str
  type: type
  default: Any
  help: str
  least: float | int = 0
  most: float | int | None = None
  ends: tuple[float | int, float | int] = (0, 0)
  step: float | int = 1
  first: bool = False
  among: tuple[str, ...] = ()

  @property
  def title(self) -> str:
    """The name as people read it, such as "top-k"."""
    return self.name.replace("_", "-")


def option(
  default: Any,
  help: str,
  *,
  least: float | int = 0,
  most: float | int | None = None,
  ends: tuple[float | int, float | int],
  step: float | int = 1,
  first: bool = False,
) -> Any:
  """A field of a dataclass of options; the arguments are those of `Option`."""
  described = {"help": help, "least": least, "most": most}
  described |= {"ends": ends, "step": step, "first": first}
  return dataclasses.field(default=default, metadata={"option": described})


def choice(default: str, help: str, *, among: Sequence[str]) -> Any:
  """A field that holds one of some words."""
  described = {"help": help, "type": str, "among": tuple(among)}
  return dataclasses.field(default=default, metadata={"option": described})


def counts(default: tuple[int, ...], help: str, *, most: int) -> Any:
  """A field that holds whole numbers from 1 to `most`, as many as it takes."""
  described = {"help": help, "type": tuple, "least": 1, "most": most}
  return dataclasses.field(default=default, metadata={"option": described})


def of(options: type) -> dict[str, Option]:
  """The options of a dataclass by name, in the order for people."""
  hints = typing.get_type_hints(options)
  listed = []
  for field in dataclasses.fields(options):
    if "option" in field.metadata:
      described = {"type": hints[field.name], **field.metadata["option"]}
      listed.append(Option(field.name, default=field.default, **described))
  listed.sort(key=lambda each: not each.first)
  return {each.name: each for each in listed}


def numeric(options: type) -> dict[str, Option]:
  """Those of `of` that a slider can hold."""
  return {k: v for k, v in of(options).items() if v.type in (int, float)}


def check(options: Any) -> None:
  """Raises InputError for a value of another kind, or out of its range."""
  for name, each in of(type(options)).items():
    value = getattr(options, name)
    if each.type is tuple:
      _check_counts(each, value)
      continue
    if each.type is str:
      _check_word(each, value)
      continue
    whole = each.type is int
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind):
      wanted = "a whole number" if whole else "a number"
      raise InputError(f"{each.title} {str(value)[:50]!r} must be {wanted}")
    if each.most is None and not value >= each.least:
      raise InputError(
        f"{each.title} {shown(value)} must be {each.least:g} or more"
      )
    if each.most is not None and not each.least <= value <= each.most:
      ends = f"[{each.least:g}, {each.most:g}]"
      raise InputError(f"{each.title} {shown(value)} must lie in {ends}")


def _check_counts(option: Option, values: Any) -> None:
  """Raises InputError for what are no whole numbers of the option's range."""
  listed = isinstance(values, tuple) and len(values) > 0
  if listed and all(
    isinstance(value, numbers.Integral) and option.least <= value <= option.most
    for value in values
  ):
    return
  raise InputError(
    f"{option.title} {text(values) if listed else shown(values)} must be whole"
    f" numbers from {option.least} to {option.most}, such as"
    f" {text(option.default)}"
  )


def _check_word(option: Option, value: Any) -> None:
  """Raises InputError for what is none of the option's words."""
  if value not in option.among:
    raise InputError(
      f"{option.title} {shown(value)} is not one of {', '.join(option.among)}"
    )


def text(value: Any) -> str:
  """A value as people write it: 3.5, stride1, or 20,10,10,10."""
  if isinstance(value, tuple | list):
    return ",".join(str(each)[:20] for each in value)[:100]
  return value if isinstance(value, str) else f"{value:g}"


def changed(options: Any, given: Mapping[str, Any], whose: str) -> Any:
  """Options with some of them changed.

  Args:
    options: An instance of a dataclass of options.
    given: New values, by name; whole numbers perhaps as `text` writes them.
    whose: For the message, such as "nano (audiogen)".

  Raises:
    InputError: For an option that the dataclass lacks, or a value that it
      refuses.
  """
  known = of(type(options))
  for name in given:
    if name not in known:
      has = ", ".join(f"--{each.title}" for each in known.values())
      raise InputError(
        f"{whose} has no --{name.replace('_', '-')}; its options are"
        f" {has or 'none'}"
      )
  read = {name: _read(known[name], value) for name, value in given.items()}
  return dataclasses.replace(options, **read)


def _read(option: Option, value: Any) -> Any:
  """A value, of which whole numbers may be as `text` writes them.

  Raises:
    InputError: For words that are none of the option's, or no numbers.
  """
  if option.type is tuple and isinstance(value, str):
    parts = value.split(",")
    if all(part.strip().isdecimal() and len(part) < 20 for part in parts):
      value = tuple(map(int, parts))
    _check_counts(option, value)
  elif option.type is str:
    _check_word(option, value)
  return value


def plain(options: Any) -> dict[str, Any]:
  """The values by name, for JSON."""
  values = {name: getattr(options, name) for name in of(type(options))}
  return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
