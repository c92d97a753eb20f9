"""`audiogen evaluate order`."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from audiogen_jax.cli import classes, flags, models, results, terminal
from audiogen_jax.evaluate import order as order_evaluation


def order(
  model: classes.Model,
  data: classes.Data,
  split: classes.Split = "validation",
  pairs: Annotated[
    int, typer.Option(help="Of classes; each is asked for in both orders.")
  ] = 45,
  prompt: Annotated[
    str, typer.Option(help="With {first} and {second} for the classes.")
  ] = order_evaluation.PROMPT,
  duration: Annotated[float, typer.Option(help="Seconds.")] = 5.0,
  adapters: models.Adapters = None,
  options: flags.Lists = None,
  seed: Annotated[
    int, typer.Option(help="Pair i uses seed + i in both orders.")
  ] = 0,
  batch: Annotated[int, typer.Option(help="Clips made together.")] = 8,
  json_file: Annotated[
    Path | None, typer.Option("--json", help="A file for all figures.")
  ] = None,
) -> None:
  """Ask for one class and then another, and hear which came first."""
  results.check(None, json_file)
  with terminal.bar() as bar:
    task = bar.add_task(f"loading {model}", total=None)
    loaded, chosen, samplings, (train, held_out) = classes.opened(
      model, adapters, options, data, split
    )
    report = order_evaluation.evaluate(
      loaded,
      train,
      held_out,
      samplings,
      pairs=pairs,
      duration_s=duration,
      prompt=prompt,
      seed=seed,
      batch=batch,
      progress=lambda what, done, total: bar.update(
        task, description=what, completed=done, total=total
      ),
    )
  columns = {"recordings": report.real}
  for way, (sampling, found) in zip(chosen, report.generated, strict=True):
    columns[classes.named(way, sampling)] = found
  table = Table(
    title=Text(f"{model} on {held_out.title}"),
    title_justify="left",
    box=box.SIMPLE_HEAD,
  )
  for head in ("", "right", "as asked", "reversed", "both orders"):
    table.add_column(head, justify="right")
  for name, found in columns.items():
    plain = found.plain(report.classes)
    shares = (plain[key] for key in ("right", "forward", "reversed", "both"))
    table.add_row(Text(name), *(f"{share:.1%}" for share in shares))
  terminal.out.print(table)
  one, other = report.accuracy
  terminal.say(
    f"windows are told apart in {one:.1%}, through the codec in {other:.1%};"
    " by chance half of the orders are right, and a quarter of the pairs both"
    " ways"
  )
  if json_file is not None:
    results.write_json(
      json_file, {"model": model, "prompt": prompt} | report.plain()
    )
  results.name(json_file)
