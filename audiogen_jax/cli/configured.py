"""The option that names a configuration, and changes of its keys."""

from typing import Annotated

import typer

from audiogen_jax.train.configuration import PREFIX

# Options of a command that are none of its own reach it as `context.args`.
SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True}

_OPTION = typer.Option(
  help="configs/NAME.py, or configs/NAME.py:VARIANT.  Each key of it can be"
  f" changed: {PREFIX}KEY=VALUE."
)
Config = Annotated[str, _OPTION]
OtherwiseConfig = Annotated[str | None, _OPTION]
