"""`audiogen evaluate sounds`, `statistics` and `weights`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.table import Table
from rich.text import Text

from audiogen_jax.audio import drawing, io
from audiogen_jax.cli import results, terminal
from audiogen_jax.convert import judges
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import protocols
from audiogen_jax.evaluate import sound_sets
from audiogen_jax.evaluate import sounds as evaluation
from audiogen_jax.evaluate.figures import Figure
from audiogen_jax.evaluate.listening import Progress
from audiogen_jax.evaluate.sounds import Report

_HASH = 12  # digits in tables; all of them are in the JSON

Protocol: TypeAlias = Annotated[
  str | None,
  typer.Option(
    help=f"{', '.join(protocols.PROTOCOLS)}; if not given, audiogen where its"
    " weights are at hand, else sfx."
  ),
]
Weights: TypeAlias = Annotated[
  Path | None,
  typer.Option(
    help="The folder with the networks' weights, as `audiogen evaluate weights`"
    " names them."
  ),
]
Measures: TypeAlias = Annotated[
  list[str] | None,
  typer.Option(
    help="fad, fd, kl, clap, is, kid, fad_inf, …, as the protocol has them;"
    " again for another.  Else its usual ones."
  ),
]
_Only: TypeAlias = Annotated[
  Path | None,
  typer.Option(help="A file that names the clips to take, one a line."),
]
_Split: TypeAlias = Annotated[
  str | None,
  typer.Option(help="Of datasets; if not given, test or validation."),
]


def sounds(
  generated: Annotated[
    Path,
    typer.Argument(
      help="A folder of sounds, a dataset of `audiogen data build`, or a"
      " manifest.jsonl of `audiogen generate`."
    ),
  ],
  reference: Annotated[
    Path,
    typer.Argument(
      help="Recordings, likewise; or a .npz of `audiogen evaluate statistics`."
    ),
  ],
  protocol: Protocol = None,
  measure: Measures = None,
  captions: Annotated[
    Path | None,
    typer.Option(
      help="A .csv with the columns name and caption, or .jsonl of file and"
      " prompt; if not given, those of the manifest or dataset."
    ),
  ] = None,
  weights: Weights = None,
  only: _Only = None,
  split: _Split = None,
  json_file: Annotated[
    Path | None,
    typer.Option("--json", help="A file for all figures, of each clip, too."),
  ] = None,
  plot: Annotated[
    Path | None, typer.Option(help="A PNG to draw: figures and intervals.")
  ] = None,
) -> None:
  """Judge generated sounds beside recordings, as the papers do.

  Clips of one name are pairs.  What was heard is kept: the same command goes on
  where it was stopped.
  """
  results.check(plot, json_file)
  words = sound_sets.read_captions(captions) if captions else None
  protocol = protocol or evaluation.usual_protocol(weights)
  with bar() as progress:
    report = evaluation.evaluate(
      generated,
      reference,
      protocol,
      measures=measure or (),
      captions=words,
      only=sound_sets.read_names(only) if only else None,
      split=split,
      weights=weights,
      progress=progress,
    )
  if plot is not None:
    rows = [
      (figure.measure.title, figure.value, figure.interval, figure.floor)
      for figure in report.figures
    ]
    drawing.intervals(plot, rows, mark="halves of the reference")
  if json_file is not None:
    results.write_json(json_file, report.plain())
  tell(report)
  results.name(plot, json_file)


def statistics(
  reference: Annotated[
    Path, typer.Argument(help="Recordings: a folder or a dataset.")
  ],
  output: Annotated[
    Path, typer.Option("--output", "-o", help="A .npz to write.")
  ],
  protocol: Protocol = None,
  weights: Weights = None,
  only: _Only = None,
  split: _Split = None,
) -> None:
  """Write what may stand for recordings in Fréchet distances."""
  io.check_target(output)
  protocol = protocol or evaluation.usual_protocol(weights)
  with bar() as progress:
    clips = evaluation.write_statistics(
      reference,
      output,
      protocol,
      only=sound_sets.read_names(only) if only else None,
      split=split,
      weights=weights,
      progress=progress,
    )
  terminal.say(f"{output}: {clips:,} clips, protocol {protocol}")


def weights(
  weights: Weights = None,
) -> None:
  """List the networks that judge: what is here, and where to get the rest."""
  if weights is not None and not weights.is_dir():
    raise InputError(f"{weights} is not a folder")
  for name, published in judges.WEIGHTS.items():
    found = judges.find(name, weights)
    place = (weights or judges.folder()) / published.file
    words = place.parent / published.tokenizer
    terminal.say(f"{name} ({published.licence})")
    if published.tokenizer and not (words / "tokenizer.json").is_file():
      terminal.say(
        f"  its tokenizer is missing: hf download {published.tokenizer}"
        f" tokenizer.json --local-dir {words}"
      )
    if found is None:
      terminal.say(f"  missing: get {published.source}")
      terminal.say(f"  and put it at {place}")
      continue
    verdict = ""
    if not found.sha256.startswith(published.sha256):
      verdict = f", not the published {published.sha256[:_HASH]}…"
    terminal.say(f"  {found.path}")
    terminal.say(f"  sha256 {found.sha256}{verdict}")
    terminal.say(f"  from {published.source}")


@contextmanager
def bar() -> Iterator[Progress]:
  """A bar for `evaluation.evaluate`: what says how far it is."""
  with terminal.bar() as bar:
    task = bar.add_task("loading", total=None)

    def progress(what: str, done: int, total: int) -> None:
      bar.update(task, completed=done, total=total)
      pace = bar.tasks[0].speed  # None until it is known
      told = f"{what}, {pace:,.1f} a second" if pace else what
      bar.update(task, description=told)

    yield progress


def tell(report: Report) -> None:
  """Prints a table of figures, and what is to be known of them."""
  title = (
    f"{report.generated} beside {report.reference}, protocol"
    f" {report.protocol.name}"
  )
  table = Table(title=Text(title), title_justify="left")
  table.add_column("")
  for name in ("value", "95 %", "halves of\nreference", "clips"):
    table.add_column(name, justify="right", no_wrap=True)
  table.add_column("weights", no_wrap=True)
  for figure in report.figures:
    table.add_row(*map(Text, _cells(figure)))
  terminal.out.print(table)
  terminal.say(f"after {report.protocol.source}")
  terminal.say(f"list of clips: {report.clips_sha256[:_HASH]}")
  for note in report.notes:
    terminal.say(note)


def _cells(figure: Figure) -> tuple[str, ...]:
  better = "↑" if figure.measure.more_is_better else "↓"
  low, high = figure.interval
  ours, theirs = figure.clips
  clips = f"{ours:,} pairs" if figure.paired else f"{ours:,} + {theirs:,}"
  return (
    f"{figure.measure.title} {better}",
    f"{figure.value:.4g}",
    f"{low:.3g} … {high:.3g}",
    "" if figure.floor is None else f"{figure.floor:.4g}",
    clips,
    f"{figure.weights}\n{figure.sha256[:_HASH]}",
  )
