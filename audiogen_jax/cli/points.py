"""The points of a study: a model loaded or trained, sounds made, judged, kept.

Whatever was done before a kill is not done again: a training goes on from its
last checkpoint, sounds from the manifest, hearing from what was heard, and
points with figures are left alone.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from audiogen_jax import families
from audiogen_jax.cli import making, sounds, terminal
from audiogen_jax.cli.recipe import Recipe
from audiogen_jax.cli.trained import Training
from audiogen_jax.core import processes
from audiogen_jax.core.errors import Stopped
from audiogen_jax.core.options import changed
from audiogen_jax.evaluate import sounds as evaluation
from audiogen_jax.evaluate import study as studies
from audiogen_jax.evaluate.sound_sets import SoundSet
from audiogen_jax.evaluate.study import Point, Study


class Plan(NamedTuple):
  """A point, and how to come by its model.

  Attributes:
    point: What it is.
    model: Source of the model.
    options: Of sampling, by name; others are what suits the model.
    trainings: Runs that must be done before it can be loaded.
  """

  point: Point
  model: str
  options: Mapping[str, Any]
  trainings: Sequence[Training] = ()


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is alike for all points of a study.

  Attributes:
    out: The folder.
    real: Recordings with captions.
    duration_s: Of each sound.
    protocol: Name of the one by which is judged.
    measures: Names of those to take; its usual ones if none are given.
    weights: The folder with the networks' weights.
    seed: Clip i uses seed + i.
    dtype: Type of the weights; None for what suits the machine.
    batch: Sounds made together.
    mesh: Devices that make each batch together.
  """

  out: Path
  real: SoundSet
  duration_s: float
  protocol: str
  measures: Sequence[str]
  weights: Path | None
  seed: int = 0
  dtype: str | None = None
  batch: int | None = None
  mesh: str | None = None

  @property
  def asked(self) -> dict[str, Any]:
    """What the figures depend on, by name."""
    return {
      "data": self.real.title,
      "clips": len(self.real.items),
      "clips_sha256": self.real.sha256,
      "duration_s": self.duration_s,
      "protocol": self.protocol,
      "measures": list(self.measures),
      "seed": self.seed,
      "dtype": self.dtype,
    }


def run(
  name: str, across: str, plans: Sequence[Plan], setting: Setting
) -> None:
  """Makes and judges what is not done yet; prints a table, draws a curve.

  Args:
    name: What is studied.
    across: What the points differ in, for people.
    plans: The points that are wanted.
    setting: What they have in common.

  Raises:
    InputError: As `Study`, and whatever makes or judges sounds.
    typer.Exit: After a clean stop of a training by a signal.
  """
  plans = list({plan.point.name: plan for plan in plans}.values())
  points = [plan.point for plan in plans]
  trains = any(plan.trainings for plan in plans)
  # One model for points that differ in sampling; two need not fit.
  opened = making.opened if trains else functools.lru_cache(1)(making.opened)
  study: Study | None = None  # of the first process

  def begin() -> list[str]:
    nonlocal study
    study = Study(setting.out, name, setting.asked, points)
    return study.left(points)

  try:
    with processes.distributed(saves=trains):
      wanted = processes.agreed(begin)
      todo = [plan for plan in plans if plan.point.name in wanted]
      if study and len(todo) < len(plans):
        there = len(plans) - len(todo)
        terminal.say(f"{there} of {len(plans)} points are there already")
      made = {}
      for i, plan in enumerate(todo, 1):
        if study:
          title = f"{across} {plan.point.label}"
          terminal.say(f"{title}: point {i} of {len(todo)}")
        made[plan.point.name] = _made(plan, setting, opened)
        # Others would wait for what the first one hears, but not for hours.
        if study and jax.process_count() == 1:
          _judge(study, setting, made)
      if study:
        _judge(study, setting, made)
        _tell(study, across, setting)
        terminal.say(str(study.draw(across)))
        terminal.say(str(setting.out / studies.FILE))
  except Stopped as stop:
    terminal.err.print(str(stop), markup=False, soft_wrap=True)
    raise typer.Exit(128 + stop.number) from None


def _made(plan: Plan, setting: Setting, opened: Any) -> SoundSet:
  """The sounds of a point."""
  for training in plan.trainings:
    training.run()
  usual = families.describe(plan.model).sampling
  recipe = Recipe(
    plan.model,
    changed(usual, plan.options, plan.model),
    setting.duration_s,
    seed=setting.seed,
    dtype=setting.dtype,
    batch=setting.batch,
    mesh=setting.mesh,
    opened=opened,
  )
  folder = setting.out / plan.point.name / studies.SOUNDS
  return recipe.make(setting.real, folder)


def _judge(study: Study, setting: Setting, made: dict[str, SoundSet]) -> None:
  """Judges sounds by the names of their points, and takes them away."""
  while made:
    name = next(iter(made))
    with sounds.bar() as progress:
      report = evaluation.evaluate(
        made.pop(name),
        setting.real,
        setting.protocol,
        measures=setting.measures,
        weights=setting.weights,
        progress=progress,
      )
    study.add(name, report)


def _tell(study: Study, across: str, setting: Setting) -> None:
  """Prints the figures of all points, and what is to be known of them."""
  first = study.points[0].report
  table = Table(
    title=Text(f"{setting.real.title}, protocol {setting.protocol}"),
    title_justify="left",
    box=box.SIMPLE_HEAD,
  )
  table.add_column(across)
  for figure in first["figures"]:
    table.add_column(Text(figure["title"]), justify="right")
    table.add_column("95 %", justify="right")
  for point in study.points:
    cells = []
    for figure in point.report["figures"]:
      low, high = figure["interval"]
      cells += [f"{figure['value']:.4g}", f"{low:.3g} … {high:.3g}"]
    table.add_row(*map(Text, (point.label, *cells)))
  table.add_section()
  floors = []
  for figure in first["figures"]:
    floor = figure["floor"]
    floors += ["" if floor is None else f"{floor:.4g}", ""]
  table.add_row("halves of the reference", *floors)
  terminal.out.print(table)
  terminal.say(f"{len(setting.real.items):,} clips of {setting.duration_s:g} s")
  for note in first["notes"]:
    terminal.say(note)
