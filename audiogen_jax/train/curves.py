"""Draws what runs have logged.

    python -m audiogen_jax.train.curves codec --out curves.png \
      --show eval/mel_distance --show train/msspec

A panel for each metric, a line for each run; metrics joined by `+` share one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from audiogen_jax.audio import drawing
from audiogen_jax.core.errors import InputError
from audiogen_jax.train.metrics import LINES


def main(
  runs: Annotated[list[Path], typer.Argument(help="Work folders.")],
  show: Annotated[list[str], typer.Option(help="A metric; may be repeated.")],
  out: Annotated[Path, typer.Option(help="The PNG.")] = Path("curves.png"),
) -> None:
  """Draws the metrics of some runs."""
  try:
    logs = {run: read(run) for run in runs}
    panels = [_panel(logs, metrics.split("+")) for metrics in show]
    drawing.curves(out, panels, across="step")
  except InputError as error:
    raise SystemExit(f"error: {error}") from None


def read(run: Path) -> list[dict[str, Any]]:
  """The lines of a run's log.

  Raises:
    InputError: If the folder has none.
  """
  try:
    lines = (run / LINES).read_text(encoding="utf-8").splitlines()
  except OSError as error:
    raise InputError(f"{run} has no log of a run: {error.strerror}") from None
  return [json.loads(line) for line in lines]


def _panel(
  logs: Mapping[Path, list[dict[str, Any]]], metrics: list[str]
) -> tuple[str, dict[str, tuple[Sequence, Sequence]]]:
  """A title, and for each run and metric its steps and values, by label."""
  title = os.path.commonprefix(metrics).strip("_")
  lines = {}
  for metric in metrics:
    for run, log in logs.items():
      points = [(x["step"], x[metric]) for x in log if metric in x]
      if not points:
        known = sorted(set().union(*log) - {"step", "time"})
        raise InputError(
          f"{run} has not logged {metric!r}; it has {', '.join(known)}"
        )
      own = metric.removeprefix(title).strip("_") if len(metrics) > 1 else ""
      words = [run.name] * (len(logs) > 1) + [own]
      lines[" ".join(filter(None, words))] = tuple(zip(*points, strict=True))
  return title, lines


if __name__ == "__main__":
  typer.run(main)
