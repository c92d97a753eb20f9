"""Flags of the command line, from the options of every known family."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, NewType

import typer

from audiogen_jax import families
from audiogen_jax.core import options
from audiogen_jax.core.errors import InputError

# A command's parameter of this type becomes a flag for each option, and is
# given the values of those that were set, by name.
Options = NewType("Options", dict)
# The same, where each flag may be given again: lists of values, by name.
Lists = NewType("Lists", dict)


def expand(app: typer.Typer) -> typer.Typer:
  """Gives the commands of `app`, and of those below, their families' flags."""
  for command in app.registered_commands:
    command.callback = _expanded(command.callback)
  for group in app.registered_groups:
    expand(group.typer_instance)
  return app


def _expanded(command: Callable[..., Any]) -> Callable[..., Any]:
  command = inspect.unwrap(command)
  signature = inspect.signature(command, eval_str=True)
  held = [
    parameter
    for parameter in signature.parameters.values()
    if parameter.annotation in (Options, Lists)
  ]
  if not held:
    return command
  (place,) = held
  flags = [
    _flag(option, several=place.annotation is Lists)
    for option in _every().values()
  ]

  @functools.wraps(command)
  def run(**given: Any) -> Any:
    values = {flag.name: given.pop(flag.name) for flag in flags}
    values = {k: v for k, v in values.items() if v is not None and v != []}
    return command(**given, **{place.name: values})

  parameters = []
  for each in signature.parameters.values():
    parameters += flags if each is place else [each]
  run.__signature__ = signature.replace(
    parameters=[
      each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters
    ]
  )
  run.__annotations__ = {each.name: each.annotation for each in parameters}
  return run


def _every() -> dict[str, options.Option]:
  """The options of all families; one of a name stands for all of its name."""
  first_of_name: dict[str, options.Option] = {}
  for name, family in families.known().items():
    for option in options.of(family.options).values():
      before = first_of_name.setdefault(option.name, option)
      if before.type is not option.type:
        raise InputError(
          f"the family {name} has another kind of {option.title} than others"
        )
  return first_of_name


def _flag(option: options.Option, *, several: bool) -> inspect.Parameter:
  kind = option.type if option.type in (int, float) else str
  text = option.help + "  Again for another column." * several
  usual = options.text(option.default)
  # A bare bracket would be markup, and shown to nobody.
  text += f"  \\[default: what suits the model, or {usual}]"
  return inspect.Parameter(
    option.name,
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
      list[kind] | None if several else kind | None, typer.Option(help=text)
    ],
  )
