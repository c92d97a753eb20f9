"""`audiogen benchmark roofline`: what a chip allows, before anything runs."""

import itertools
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import typer
from rich import box
from rich.table import Table

from audiogen_jax.audio import drawing
from audiogen_jax.benchmark import ours
from audiogen_jax.benchmark.roofline import Passes, Speed
from audiogen_jax.benchmark.sample import Work
from audiogen_jax.cli import results, terminal
from audiogen_jax.cli.sampling import check_durations
from audiogen_jax.core.errors import InputError
from audiogen_jax.plan import chips

_BATCHES = [1, 2, 4, 8, 16, 32, 64]
_MOST = 1024  # sounds at once, up to which a crossing is looked for


def roofline(
  scale: Annotated[
    str, typer.Option(help=f"Of {', '.join(ours.SCALES)}.")
  ] = "1p5b",
  chip: Annotated[
    str, typer.Option(help=f"Of {', '.join(chips.CHIPS)}.")
  ] = "v5e",
  batch: Annotated[
    list[int] | None,
    typer.Option(
      help="Sounds at once; again for more.  \\[default:"
      f" {', '.join(map(str, _BATCHES))}]",
      min=1,
      max=_MOST,
    ),
  ] = None,
  duration: Annotated[float, typer.Option(help="Seconds of a sound.")] = 10.0,
  guidance: Annotated[
    float, typer.Option(help="Classifier-free guidance; 1 for none.")
  ] = 3.0,
  plot: Annotated[
    Path | None, typer.Option(help="A PNG: ms a sound against batch.")
  ] = None,
  json_file: Annotated[
    Path | None, typer.Option("--json", help="A file for all figures.")
  ] = None,
) -> None:
  """What a chip allows each family, in bfloat16: nothing is run.

  A step takes as long as reading the weights and the live cache, or as long as
  its arithmetic, whichever is more, by the figures that the chip's maker gives.
  Real programs are slower; `audiogen plan --sample` compiles them.
  """
  results.check(plot, json_file)
  check_durations([duration])
  if chip not in chips.CHIPS:
    raise InputError(f"chip {chip!r} is not one of {', '.join(chips.CHIPS)}")
  found = chips.CHIPS[chip]
  speed = Speed(found.name, found.flops, found.bandwidth)
  sounds = sorted(set(batch or _BATCHES))

  def ask(family: str, count: int) -> Passes:
    work = Work(count, duration, guidance)
    return ours.passes(family, scale, work, jnp.dtype(jnp.bfloat16))

  by_family = {
    family: [ask(family, count) for count in sounds] for family in ours.FAMILIES
  }
  title = f"{scale}, bfloat16, guidance {guidance:g}, {duration:g} s, {chip}"
  _tell(title, sounds, by_family, speed)
  first, second = by_family
  one, other = ours.FAMILIES[first].name, ours.FAMILIES[second].name
  crossing = next(
    (
      count
      for count in range(1, _MOST + 1)
      if ask(first, count).total_s(speed) <= ask(second, count).total_s(speed)
    ),
    None,
  )
  if crossing is None:
    terminal.say(f"{other} stays ahead up to {_MOST:,} sounds at once")
  elif crossing == 1:
    terminal.say(f"{one} is ahead from one sound on")
  else:
    terminal.say(
      f"{other} is ahead of {one} up to {crossing - 1:,} sounds at once"
    )
  if plot is not None:
    lines = {
      ours.FAMILIES[family].name: (
        sounds,
        [
          1000 * each.total_s(speed) / count
          for each, count in zip(passes, sounds, strict=True)
        ],
      )
      for family, passes in by_family.items()
    }
    drawing.curves(
      plot, [("ms a sound", lines)], across="sounds at once", least=0.0
    )
  if json_file is not None:
    document = {"title": title, "speed": speed._asdict(), "ahead": crossing}
    document["figures"] = [
      {"family": family, "batch": count, **each._asdict()}
      | {"step_s": each.limit_s(speed)}
      for family, passes in by_family.items()
      for each, count in zip(passes, sounds, strict=True)
    ]
    results.write_json(json_file, document)
  results.name(plot, json_file)


def _tell(
  title: str,
  sounds: list[int],
  by_family: dict[str, list[Passes]],
  speed: Speed,
) -> None:
  table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
  for head in ("", "sounds", "steps", "a step\nms", "bound by", "a sound\nms"):
    table.add_column(head, justify="right", no_wrap=True)
  pairs = itertools.product(by_family, enumerate(sounds))
  for family, (index, count) in pairs:
    each = by_family[family][index]
    step_s = each.limit_s(speed)
    reading = each.floor_bytes / speed.bandwidth >= step_s
    table.add_row(
      ours.FAMILIES[family].name,
      str(count),
      str(each.count),
      f"{1000 * step_s:.2f}",
      "memory" if reading else "arithmetic",
      f"{1000 * each.total_s(speed) / count:,.1f}",
    )
  terminal.out.print(table)
