"""`audiogen evaluate audiocaps`: from captions to figures beside others'."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from audiogen_jax import families
from audiogen_jax.cli import (
  flags,
  making,
  models,
  results,
  sounds,
  terminal,
)
from audiogen_jax.cli.recipe import Recipe
from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import changed
from audiogen_jax.evaluate import audiocaps as lists
from audiogen_jax.evaluate import published, sound_sets
from audiogen_jax.evaluate import sounds as evaluation
from audiogen_jax.evaluate.published import Published
from audiogen_jax.evaluate.sound_sets import SoundSet
from audiogen_jax.evaluate.sounds import Report


def audiocaps(
  model: models.Model = models.DEFAULT_MODEL,
  root: Annotated[
    Path | None,
    typer.Option(
      help="The folder of AudioCaps' sounds, called after their videos: an id,"
      " with or without a Y before and the start behind it."
    ),
  ] = None,
  data: Annotated[
    Path | None,
    typer.Option(
      help="Instead of --root: a dataset of `audiogen data build`, for its"
      " clips and captions."
    ),
  ] = None,
  clip_list: Annotated[
    str | None,
    typer.Option(
      "--list",
      help=f"Whose clips and captions: {', '.join(lists.LISTS)}."
      "  \\[default: that of the protocol, or all]",
    ),
  ] = None,
  only_found: Annotated[
    bool, typer.Option(help="Go on without clips that --root lacks.")
  ] = False,
  split: Annotated[
    str | None,
    typer.Option(help="Of --data; if not given, test or validation."),
  ] = None,
  clips: Annotated[
    int | None,
    typer.Option(help="So many clips, evenly spread; else all.", min=2),
  ] = None,
  out: Annotated[
    Path,
    typer.Option(
      help="The folder for generated sounds and their manifest.jsonl; sounds"
      " that it names are not made again."
    ),
  ] = Path("generated"),
  protocol: sounds.Protocol = None,
  measure: sounds.Measures = None,
  weights: sounds.Weights = None,
  text_encoder: models.TextEncoder = None,
  adapters: models.Adapters = None,
  duration: Annotated[
    float | None,
    typer.Option(
      help=f"Seconds of each sound.  \\[default: {lists.DURATION_S:g}; with"
      " --data those of its longest clip]"
    ),
  ] = None,
  seed: Annotated[int, typer.Option(help="Clip i uses seed + i.")] = 0,
  options: flags.Options = None,
  dtype: models.Dtype = None,
  batch: making.Batch = None,
  mesh: making.Mesh = None,
  json_file: Annotated[
    Path | None,
    typer.Option("--json", help="A file for all figures, of each clip, too."),
  ] = None,
) -> None:
  """Make a sound of each caption of AudioCaps' test set, and judge them all.

  Sounds are written as the model makes them.  The same command goes on where it
  was stopped; several processes share the work as `audiogen generate` does, and
  the first one judges.
  """
  results.check(None, json_file)
  protocol = protocol or evaluation.usual_protocol(weights)
  evaluation.check(protocol, measure or (), weights)
  sampling = changed(families.describe(model).sampling, options, model)
  if (root is None) == (data is None):
    raise InputError(
      "give --root, the folder of AudioCaps' sounds, or --data, a dataset"
    )
  missing: tuple[str, ...] = ()
  if root is not None:
    if split is not None:
      raise InputError(f"--split {split} is for --data; leave it out")
    clip_list = clip_list or lists.usual_list(protocol)
    real, missing = lists.recordings(root, clip_list, only_found=only_found)
    duration = lists.DURATION_S if duration is None else duration
  else:
    if clip_list is not None or only_found:
      raise InputError("--list and --only-found are for --root; leave them out")
    real = lists.of_dataset(data, split)
  if clips is not None:
    real = lists.some(real, clips)
  if duration is None:
    duration = max(item.length_s() for item in real.items.values())
  if not 0 < duration < math.inf:
    raise InputError(f"duration {duration} s must be more than 0")
  recorded = (root or data).resolve()
  if out.resolve().is_relative_to(recorded):
    raise InputError(
      f"{out} lies in {recorded}, among the recordings; name another folder"
    )
  recipe = Recipe(
    model,
    sampling,
    duration,
    seed=seed,
    dtype=dtype,
    text_encoder=text_encoder,
    adapters=adapters,
    batch=batch,
    mesh=mesh,
  )
  with processes.distributed():
    made = recipe.make(real, out)
    if jax.process_index() != 0:
      return
    with sounds.bar() as progress:
      report = evaluation.evaluate(
        made,
        real,
        protocol,
        measures=measure or (),
        weights=weights,
        progress=progress,
      )
    others: tuple[Published, ...] = ()
    if clip_list is not None:
      names = [figure.measure.name for figure in report.figures]
      others = published.of(protocol, names)
    if json_file is not None:
      about = {"list": clip_list, "missing": missing, "seed": seed}
      about |= recipe.settings
      about["published"] = [_plain(row) for row in others]
      results.write_json(json_file, about | report.plain())
    sounds.tell(report)
    _tell(model, real, clip_list, missing, report, others)
    results.name(json_file)


def _tell(
  model: str,
  real: SoundSet,
  clip_list: str | None,
  missing: Sequence[str],
  report: Report,
  others: Sequence[Published],
) -> None:
  """Prints published figures beside ours, and of what list ours are."""
  if clip_list is None:
    terminal.say(
      "published figures are of AudioCaps' test set; those of another dataset"
      " stand for themselves"
    )
    return
  taken, listed = len(real.items), len(lists.read(clip_list))
  counted = f"{taken:,}" if taken == listed else f"{taken:,} of {listed:,}"
  if others:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(f"protocol {report.protocol.name}")
    for figure in report.figures:
      table.add_column(figure.measure.name, justify="right")
    table.add_column("clips", justify="right")
    table.add_column("after")
    ours = [f"{figure.value:.4g}" for figure in report.figures]
    table.add_row(*map(Text, (model, *ours, counted, "this evaluation")))
    for row in others:
      values = [
        f"{row.figures[name]:.4g}" if name in row.figures else ""
        for name in (figure.measure.name for figure in report.figures)
      ]
      table.add_row(*map(Text, (row.model, *values, row.clips, row.source)))
    terminal.out.print(table)
  else:
    terminal.say(
      f"no published figures of protocol {report.protocol.name} are known here"
    )
  terminal.say(f"list {clip_list}, {counted} clips: {lists.LISTS[clip_list]}")
  if missing:
    terminal.say(
      f"{len(missing):,} of {listed:,} are missing: {sound_sets.some(missing)}"
    )


def _plain(row: Published) -> dict[str, Any]:
  """As JSON takes it."""
  return {
    "model": row.model,
    "figures": dict(row.figures),
    "clips": row.clips,
    "source": row.source,
  }
