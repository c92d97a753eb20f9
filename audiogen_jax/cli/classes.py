"""`audiogen evaluate classes`."""

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from audiogen_jax import families
from audiogen_jax.audio import drawing
from audiogen_jax.cli import flags, models, results, terminal
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import changed, text
from audiogen_jax.core.options import plain as option_values
from audiogen_jax.evaluate import classes as class_evaluation
from audiogen_jax.evaluate.classes import ClassReport
from audiogen_jax.evaluate.classified import TOP, Classified
from audiogen_jax.evaluate.clips import Clips

Model = Annotated[
  str, typer.Argument(help="A hub id, a folder or a gs:// URI.")
]
Data = Annotated[
  Path,
  typer.Argument(
    help="A dataset of sounds; the first tag of each is its class."
  ),
]
Split = Annotated[
  str, typer.Option(help="Held out; what is learned from is train.")
]


def classes(
  model: Model,
  data: Data,
  split: Split = "validation",
  clips: Annotated[int, typer.Option(help="To make of each class.")] = 20,
  pairs: Annotated[
    int,
    typer.Option(
      help="Clips to make of two classes; 45 have each pair of ten once."
    ),
  ] = 45,
  prompts: Annotated[
    Path | None,
    typer.Option(
      help="What to ask for instead of a class's name: a .json of class to"
      " prompt or prompts, or a .csv of class,prompt."
    ),
  ] = None,
  duration: Annotated[float, typer.Option(help="Seconds.")] = 5.0,
  adapters: models.Adapters = None,
  options: flags.Lists = None,
  seed: Annotated[int, typer.Option(help="Clip i uses seed + i.")] = 0,
  batch: Annotated[int, typer.Option(help="Clips made together.")] = 8,
  plot: Annotated[
    Path | None,
    typer.Option(help="A PNG to draw: what was heard as what."),
  ] = None,
  json_file: Annotated[
    Path | None, typer.Option("--json", help="A file for all figures.")
  ] = None,
) -> None:
  """Make sounds of each class, and let a classifier say what they are."""
  results.check(plot, json_file)
  asked = _read_prompts(prompts) if prompts is not None else {}
  with terminal.bar() as bar:
    task = bar.add_task(f"loading {model}", total=None)
    loaded, chosen, samplings, parts = opened(
      model, adapters, options, data, split
    )

    def progress(what: str, done: int, total: int) -> None:
      bar.update(task, description=what, completed=done, total=total)

    report = class_evaluation.evaluate(
      loaded,
      *parts,
      samplings,
      clips=clips,
      pairs=pairs,
      duration_s=duration,
      prompts=asked,
      seed=seed,
      batch=batch,
      progress=progress,
    )
    columns = _columns(report, chosen)
    if plot is not None:
      panels = [(name, result.confusion) for name, result in columns.items()]
      drawing.confusions(plot, panels, [*report.classes, "silence"])
    if json_file is not None:
      document = {
        "model": model,
        "data": parts[1].title,
        "duration_s": duration,
      }
      document |= {"seed": seed, "adapters": adapters or []} | report.plain()
      results.write_json(json_file, document)
  _tell(f"{model} on {parts[1].title}", report, columns, clips)
  results.name(plot, json_file)


def opened(
  model: str,
  adapters: list[str] | None,
  options: dict[str, list],
  data: Path,
  split: str,
) -> tuple[
  families.TextToAudio, list[dict[str, Any]], list[Any], tuple[Clips, Clips]
]:
  """A model, ways to sample as they were asked for and in full, recordings.

  Those to train on come first, then those held out.

  Raises:
    InputError: If the model, an option of it or the dataset does not do.
  """
  loaded = families.load(model, adapters=adapters)
  chosen = _ways(options)
  usual = families.describe(model).sampling
  samplings = [changed(usual, way, model) for way in chosen]
  for each in samplings:
    families.check(loaded, each)
  train, held_out = (
    Clips.open(
      data,
      rate_hz=loaded.sample_rate_hz,
      channels=loaded.channels,
      split=name,
    )
    for name in ("train", split)
  )
  return loaded, chosen, samplings, (train, held_out)


def _ways(given: dict[str, list]) -> list[dict[str, Any]]:
  """Every combination of what was given, each of them once."""
  values = [dict.fromkeys(each) for each in given.values()]
  return [
    dict(zip(given, each, strict=True)) for each in itertools.product(*values)
  ]


def _columns(
  report: ClassReport, chosen: Sequence[dict[str, Any]]
) -> dict[str, Classified]:
  """Results by column: recordings, coded recordings, each way to sample."""
  columns = {"held out": report.real}
  if report.coded is not None:
    columns["through the codec"] = report.coded
  for way, (sampling, result) in zip(chosen, report.generated, strict=True):
    columns[named(way, sampling)] = result
  return columns


def named(way: dict[str, Any], sampling: Any) -> str:
  """What tells a way to sample from others: what was asked for by a flag."""
  first = next(iter(option_values(sampling).items()), None)
  options = way or dict([first] if first else [])
  words = (f"{k.replace('_', '-')} {text(v)}" for k, v in options.items())
  return " ".join(words) or "generated"


def _tell(
  title: str, report: ClassReport, columns: dict[str, Classified], clips: int
) -> None:
  """Prints a table of accuracies, and lines about classifier and clips."""
  table = Table(title=Text(title), title_justify="left")
  table.add_column("heard as what it is")
  for name in columns:
    table.add_column(name.replace(" ", "\n", 1), justify="right")

  def row(label: str, value: Callable[[Classified], float | None]) -> None:
    shares = [value(result) for result in columns.values()]
    cells = ["" if share is None else f"{share:.1%}" for share in shares]
    table.add_row(Text(label), *cells)

  for i, name in enumerate(report.classes):
    row(name, lambda result, i=i: result.shares[i])
  table.add_section()
  row("all", lambda result: result.share)
  two = len(report.generated[0][1].pairs)
  if two:
    row(f"of two classes, both in the first {TOP}", lambda h: h.share_both)
  terminal.out.print(table)
  real, coded = report.validated
  one, both = report.chance
  lines = [
    f"{report.kind}, trained on {report.trained_on:,} recordings; in"
    f" cross-validation over them {real:.1%}, through the codec {coded:.1%}",
    f"by chance: {one:.1%}" + (f", of two {both:.1%}" if two else ""),
    f"{clips:,} clips of each class, {two:,} of two",
  ]
  if not two and len(report.classes) <= TOP:
    lines[-1] += f": {len(report.classes)} classes are all in the first {TOP}"
  for name, result in columns.items():
    silent = int(np.sum(result.confusion[:, -1]))
    if silent:
      lines.append(f"{name}: {silent:,} clips of one class are silent")
  for line in lines:
    terminal.out.print(line, markup=False, highlight=False, soft_wrap=True)


def _read_prompts(path: Path) -> dict[str, list[str]]:
  """Prompts of classes, from a file."""
  form = "an object of class to prompt or prompts"
  try:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
      form = "rows of class,prompt"
      rows = [row for row in csv.reader(text.splitlines()) if row]
      prompts: dict[str, list[str]] = {}
      for name, prompt in rows:
        prompts.setdefault(name.strip(), []).append(prompt)
    else:
      prompts = {
        name: [given] if isinstance(given, str) else list(given)
        for name, given in json.loads(text).items()
      }
  except (ValueError, TypeError, AttributeError, csv.Error):
    raise InputError(f"{path} must hold {form}, in UTF-8") from None
  for name, given in prompts.items():
    if not given or not all(isinstance(p, str) and p.strip() for p in given):
      raise InputError(f"{path}: {name} has a prompt that says nothing")
  return prompts
