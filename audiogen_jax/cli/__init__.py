"""`audiogen …`, the command line.

Bad input ends in one line on the error stream and exit status 2; whatever is
written takes its name only once it is whole.
"""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import jax
import typer

from audiogen_jax import __version__
from audiogen_jax.cli import (
  benchmark,
  configured,
  data,
  demo,
  evaluate,
  export,
  flags,
  generate,
  models,
  plan,
  study,
  terminal,
)
from audiogen_jax.core import errors
from audiogen_jax.core.errors import InputError

_LONGEST_ARGUMENT = 2**14  # characters: four times what a prompt may have

app = typer.Typer(
  no_args_is_help=True,
  add_completion=False,
  pretty_exceptions_enable=False,
  help="AudioGen in JAX: sounds from sentences.",
)
for command in (
  generate.generate,
  models.encode,
  models.decode,
  models.convert,
  models.info,
  export.export,
  demo.demo,
):
  app.command()(command)
app.command(context_settings=configured.SETTINGS)(plan.plan)
app.add_typer(data.app, name="data")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(study.app, name="study")
app.add_typer(benchmark.app, name="benchmark")


def main() -> None:
  """Runs the command line; bad input is one line and exit status 2."""
  for stream in (sys.stdout, sys.stderr):
    # Names of files need not be text in the terminal's encoding.
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")
  try:
    _check_arguments(sys.argv[1:])
    _remember_programs()
    flags.expand(app)()
  except (InputError, OSError) as error:
    terminal.err.print(
      f"error: {errors.line(error)}", style="red", markup=False, soft_wrap=True
    )
    sys.exit(2)


def _check_arguments(arguments: list[str]) -> None:
  """Refuses what no name, number or prompt can be, before it is echoed."""
  for argument in arguments:
    if len(argument) > _LONGEST_ARGUMENT:
      raise InputError(
        f"the argument {argument[:40]!r}… has {len(argument):,} characters; at"
        f" most {_LONGEST_ARGUMENT:,} are taken"
      )


def _remember_programs() -> None:
  """Keeps compiled programs for the next call, unless told where or not to."""
  if jax.config.jax_compilation_cache_dir is None:
    try:
      home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home
      return
    folder = Path(home) / "audiogen_jax" / "programs"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default only what takes a second; here every second counts.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@app.callback(invoke_without_command=True)
def _root(
  version: Annotated[
    bool, typer.Option("--version", help="Print the version.")
  ] = False,
) -> None:
  if version:
    terminal.out.print(__version__)
    raise typer.Exit
