"""`audiogen evaluate listen` and `listen-report`: what people hear."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from audiogen_jax.cli import results, terminal
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import rating_page, ratings, sound_sets
from audiogen_jax.evaluate.sound_sets import SoundSet


def listen(
  more: Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME=DIR]...", help="More systems."),
  ] = None,
  systems: Annotated[
    list[str] | None,
    typer.Option(
      metavar="NAME=DIR",
      help="A system and its sounds: a folder, a dataset, or a manifest of"
      " `generate --prompts`; again for more.",
    ),
  ] = None,
  out: Annotated[Path, typer.Option(help="A new folder for the page.")] = Path(
    "page"
  ),
  reference: Annotated[
    str | None,
    typer.Option(help="Recordings of the same names: a hidden reference."),
  ] = None,
  captions: Annotated[
    Path | None,
    typer.Option(help="A .csv with name and caption; else of a manifest."),
  ] = None,
  questions: Annotated[
    str,
    typer.Option(help=f"As in {' or '.join(rating_page.QUESTIONS)}."),
  ] = "audiogen",
  trials: Annotated[
    int | None, typer.Option(help="So many clips, drawn; else all.")
  ] = None,
  seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
) -> None:
  """A listening test as a page that needs no server: OVL and REL, or MOS.

  Sounds have random names and come in another order for each listener, among
  them a low anchor and, with --reference, the recordings.  Listeners send back
  the file that the page gives them; the key stays with you.
  """
  sets = _opened([*(systems or []), *(more or [])])
  real = SoundSet.open(reference) if reference is not None else None
  told: dict[str, str] = {}
  for each in [*sets.values(), *[real] * (real is not None)]:
    told = {**each.captions, **told}
  if captions is not None:
    told = sound_sets.read_captions(captions)
  with terminal.bar() as bar:
    task = bar.add_task("trials", total=None)
    key = rating_page.make(
      sets,
      Path(out),
      captions=told,
      reference=real,
      questions=questions,
      trials=trials,
      seed=seed,
      progress=lambda done, total: bar.update(
        task, completed=done, total=total
      ),
    )
  terminal.say(
    f"{out / 'index.html'} is for listeners; {key} is not: `listen-report`"
    " needs it"
  )


def listen_report(
  answers: Annotated[
    list[Path], typer.Argument(help="Files that listeners sent back.")
  ],
  key: Annotated[
    Path, typer.Option(help="PAGE.key.json, which `listen` wrote.")
  ],
  json_file: Annotated[
    Path | None, typer.Option("--json", help="A file for all figures.")
  ] = None,
) -> None:
  """Means with 95 % intervals; listeners who failed the anchors are dropped."""
  results.check(None, json_file)
  found = ratings.report(answers, ratings.Key.read(key))
  table = Table(box=box.SIMPLE_HEAD)
  for head in ("question", "system", "mean", "95 %", "ratings"):
    table.add_column(head, justify="left" if head == "system" else "right")
  for each in found.means:
    low, high = each.interval
    table.add_row(
      each.question,
      each.system,
      f"{each.mean:.1f}",
      f"{low:.1f} to {high:.1f}",
      str(each.ratings),
    )
  terminal.out.print(table)
  terminal.say(
    f"{len(found.listeners)} listeners, {found.clips} clips; dropped for their"
    f" anchors: {len(found.dropped)}"
  )
  for name, share in found.dropped.items():
    terminal.say(f"  {name[:60]}: wrong in {share:.0%} of the trials")
  if json_file is not None:
    results.write_json(json_file, found.plain())
  results.name(json_file)


def _opened(systems: list[str]) -> dict[str, SoundSet]:
  sets: dict[str, SoundSet] = {}
  for each in systems:
    name, equals, folder = each.partition("=")
    if not equals or not name or not folder:
      raise InputError(f"system {each[:60]!r}: write NAME=FOLDER")
    if name in sets:
      raise InputError(f"two systems are called {name}; give each its own name")
    sets[name] = SoundSet.open(folder)
  return sets
