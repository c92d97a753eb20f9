"""Options as data: default, range and help of each stand once, in a dataclass.

A family's options are a frozen dataclass (`lm.sampling.Sampling`) whose fields
are made by `option`.  The command line makes flags of them, the page sliders,
the manifest keys; a field made otherwise is for the API alone.
"""

import dataclasses
import numbers
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError


class Option(NamedTuple):
  """One field of a dataclass of options.

  Attributes:
    name: Name of the field.
    type: int or float.
    default: Where nothing else is asked for.
    help: One line.
    least: The smallest value.
    most: The largest; None for no end.
    ends: Least and largest value on a slider.
    step: Step of a slider.
    first: Whether people see it before the others.
  """

  name: str
  type: type
  default: Any
  help: str
  least: float | int
  most: float | int | None
  ends: tuple[float | int, float | int]
  step: float | int
  first: bool

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


def of(options: type) -> dict[str, Option]:
  """The options of a dataclass by name, in the order for people."""
  hints = typing.get_type_hints(options)
  listed = [
    Option(
      field.name, hints[field.name], field.default, **field.metadata["option"]
    )
    for field in dataclasses.fields(options)
    if "option" in field.metadata
  ]
  listed.sort(key=lambda each: not each.first)
  return {each.name: each for each in listed}


def check(options: Any) -> None:
  """Raises InputError for a value that is no number, or out of its range."""
  for name, each in of(type(options)).items():
    value, whole = getattr(options, name), each.type is int
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


def changed(options: Any, given: Mapping[str, Any], whose: str) -> Any:
  """Options with some of them changed.

  Args:
    options: An instance of a dataclass of options.
    given: New values, by name.
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
  return dataclasses.replace(options, **given)


def plain(options: Any) -> dict[str, Any]:
  """The values by name, for JSON."""
  return {name: getattr(options, name) for name in of(type(options))}
