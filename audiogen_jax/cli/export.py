"""`audiogen export`."""

from pathlib import Path
from typing import Annotated

import typer

from audiogen_jax.cli import terminal
from audiogen_jax.core.errors import InputError
from audiogen_jax.train import exporting


def export(
  workdir: Annotated[
    str, typer.Argument(help="The work folder of a training, or its gs:// URI.")
  ],
  step: Annotated[
    str, typer.Option(help="Of a checkpoint, or last, or best.")
  ] = "last",
  output: Annotated[
    Path | None,
    typer.Option(
      "-o", "--output", help="A new folder.  \\[default: WORKDIR/export_STEP]"
    ),
  ] = None,
) -> None:
  """Export a checkpoint of a training, also of one that was stopped."""
  if step not in ("last", "best") and not step.isdecimal():
    raise InputError(f"--step {step[:50]!r} must be a number, last or best")
  wanted = step if step in ("last", "best") else int(step)
  with terminal.bar() as bar:
    bar.add_task(f"exporting {workdir}", total=None)
    folder, number = exporting.export(workdir, output, step=wanted)
  terminal.say(f"{folder} (step {number:,})")
