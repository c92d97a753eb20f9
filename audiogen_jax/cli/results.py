"""Files that commands write their figures to."""

import json
from pathlib import Path
from typing import Any

from audiogen_jax.audio import drawing, io
from audiogen_jax.cli import terminal


def check(plot: Path | None, json_file: Path | None) -> None:
  """Refuses, before the hours of work, what could not be written after them.

  Raises:
    InputError: For a picture that is no PNG, or a place that cannot be used.
  """
  if plot is not None:
    drawing.check_png(plot)
  for path in (plot, json_file):
    if path is not None:
      io.check_target(path)


def write_json(path: Path, values: Any) -> None:
  """Figures as JSON, whole or not at all."""
  with io.whole(path) as part:
    part.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def name(*paths: Path | None) -> None:
  """A line for each file that was written."""
  for path in paths:
    if path is not None:
      terminal.say(str(path))
