"""`audiogen …`, the command line.

Bad input ends in one line on the error stream and exit status 2; whatever is
written takes its name only once it is whole.
"""

import sys
from typing import Annotated

import typer

from audiogen_jax import __version__
from audiogen_jax.cli import data, demo, evaluate, models, plan, terminal
from audiogen_jax.core.errors import InputError

app = typer.Typer(
  no_args_is_help=True,
  add_completion=False,
  pretty_exceptions_enable=False,
  help="AudioGen in JAX: sounds from sentences.",
)
for command in (
  models.generate,
  models.encode,
  models.decode,
  models.convert,
  models.info,
  demo.demo,
  plan.plan,
):
  app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(evaluate.app, name="evaluate")


def main() -> None:
  """Runs the command line; bad input is one line and exit status 2."""
  try:
    app()
  except (InputError, OSError) as error:
    message = " ".join(str(error).split())
    terminal.err.print(
      f"error: {message}", style="red", markup=False, soft_wrap=True
    )
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(
  version: Annotated[
    bool, typer.Option("--version", help="Print the version.")
  ] = False,
) -> None:
  if version:
    terminal.out.print(__version__)
    raise typer.Exit
