"""`audiogen evaluate precision`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.cli import models, results, terminal
from audiogen_jax.cli import prompts as prompts_of
from audiogen_jax.cli.sampling import check_durations
from audiogen_jax.core import types
from audiogen_jax.evaluate import precision as precision_evaluation

_TEXTS = (
  "a dog barks while rain falls",
  "waves break on the shore",
  "a clock ticks",
  "a fire crackles",
)


def precision(
  model: Annotated[
    str, typer.Argument(help="A hub id, a folder or a gs:// URI.")
  ],
  dtype: Annotated[
    list[str] | None,
    typer.Option(
      help="bfloat16 or int8; again for more.  \\[default: both]",
    ),
  ] = None,
  prompts: Annotated[
    Path | None, typer.Option(help="A file with one prompt a line.")
  ] = None,
  adapters: models.Adapters = None,
  duration: Annotated[float, typer.Option(help="Seconds of each.")] = 5.0,
  seed: Annotated[int, typer.Option(help="Prompt i uses seed + i.")] = 0,
  json_file: Annotated[
    Path | None, typer.Option("--json", help="A file for all figures.")
  ] = None,
) -> None:
  """Say what other types lose beside float32."""
  results.check(None, json_file)
  names = list(dict.fromkeys(dtype or ["bfloat16", "int8"]))
  for name in names:
    types.sampling_dtype(name)
  check_durations([duration])
  texts = _TEXTS
  if prompts is not None:
    texts = prompts_of.read(None, prompts, None)
  with terminal.bar() as bar:
    task = bar.add_task("loading", total=None)
    found = precision_evaluation.evaluate(
      lambda name: AudioGen.from_pretrained(
        model, dtype=name, adapters=adapters or ()
      ),
      names,
      texts,
      duration_s=duration,
      seed=seed,
      progress=lambda what: bar.update(task, description=what),
    )
  table = Table(
    title=f"{model}, {found[0].tokens:,} tokens, beside float32",
    title_justify="left",
  )
  for column in ("", "KL, nats a token", "same likeliest", "difference"):
    table.add_column(column, justify="right" if column else "left")
  for each in found:
    table.add_row(
      each.dtype,
      f"{each.divergence:.2e}",
      f"{each.agreement:.1%}",
      f"{each.difference:.3f} of {each.spread:.2f}",
    )
  terminal.out.print(table)
  if json_file is not None:
    document = {"model": model, "adapters": adapters or []}
    document |= {"duration_s": duration, "seed": seed}
    document["figures"] = [dataclasses.asdict(each) for each in found]
    results.write_json(json_file, document)
  results.name(json_file)
