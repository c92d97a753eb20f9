"""`audiogen benchmark sample` and `long`."""

import math
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import typer
from rich import box
from rich.table import Table

from audiogen_jax.audio import drawing
from audiogen_jax.audiogen import AudioGen
from audiogen_jax.benchmark import long as long_benchmark
from audiogen_jax.benchmark import machine, ours, rivals
from audiogen_jax.benchmark import sample as sample_benchmark
from audiogen_jax.benchmark.sample import Own, SampleFigures, Work
from audiogen_jax.cli import models, plan, results, terminal
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import windows

GIB = 2**30

Batches = Annotated[
  list[int] | None,
  typer.Option("--batch", help="Sounds at once; again for more.", min=1),
]
Durations = Annotated[
  list[float] | None,
  typer.Option("--duration", help="Seconds of sound; again for more."),
]
_Scale = Annotated[
  str,
  typer.Option(help=f"Random weights: {', '.join(ours.SCALES)}."),
]
_Families = Annotated[
  list[str] | None,
  typer.Option(
    "--family",
    help=f"Whose random weights: {', '.join(ours.NAMES)}; again for more."
    f"  \\[default: {ours.NAMES[0]}]",
  ),
]
_Model = Annotated[
  str | None,
  typer.Option(help="A model instead of random weights, such as nano."),
]
_Guidance = Annotated[
  float, typer.Option(help="Classifier-free guidance; 1 for none.")
]
_Mesh = Annotated[str | None, typer.Option(help="Such as data=4,tensor=2.")]
Runs = Annotated[
  int, typer.Option(help="Runs that count, after one that may compile.", min=1)
]
Json = Annotated[
  Path | None, typer.Option("--json", help="A file for all figures.")
]


def sample(
  scale: _Scale = "300m",
  family: _Families = None,
  model: _Model = None,
  batch: Batches = None,
  duration: Durations = None,
  guidance: _Guidance = 3.0,
  adapters: models.Adapters = None,
  dtype: models.Dtype = None,
  mesh: _Mesh = None,
  against: Annotated[
    list[str] | None,
    typer.Option(
      help=f"Others on the same work: {', '.join(rivals.RIVALS)}; again for"
      " more."
    ),
  ] = None,
  runs: Runs = 3,
  plot: Annotated[
    Path | None,
    typer.Option(help="A PNG: speed against batch, or against duration."),
  ] = None,
  json_file: Json = None,
) -> None:
  """Sounds from sentences: latency, time a step, and how near to the limit.

  A step reads the weights once: an autoregressive model makes a frame with it,
  a masked one goes over all frames of a codebook.  The limit is the roofline:
  what memory and arithmetic of this machine, measured in the same run, allow a
  step.  All run in turn, on the same work.
  """
  results.check(plot, json_file)
  check_durations(duration)
  works = [
    Work(rows, seconds, guidance)
    for seconds in duration or [5.0]
    for rows in batch or [1]
  ]
  names = dict.fromkeys(against or ())
  for name in names:
    rivals.check_known(name)
  with terminal.bar() as bar:
    task = bar.add_task("making weights", total=None)

    def progress(what: str, done: int, total: int) -> None:
      bar.update(task, description=what, completed=done, total=total)

    contestants = _opened(scale, family, model, adapters, dtype, mesh)
    found = sample_benchmark.compare(
      contestants,
      [rivals.open_rival(name, _audiogen(contestants)) for name in names],
      works,
      runs=runs,
      progress=progress,
    )
  title = _title(scale, model, adapters, contestants[0], guidance)
  _tell_samples(title, found)
  if plot is not None:
    _draw(plot, found)
  if json_file is not None:
    document = {"title": title, "jax": jax.__version__}
    document["figures"] = [each.plain() for each in found]
    results.write_json(json_file, document)
  results.name(plot, json_file)


def long(
  scale: _Scale = "300m",
  model: _Model = None,
  duration: Durations = None,
  stride: Annotated[
    list[float] | None,
    typer.Option(
      help="Seconds by which windows move on; again for more."
      f"  \\[default: {windows.STRIDE_S:g}, and half of the model's window]"
    ),
  ] = None,
  guidance: _Guidance = 3.0,
  adapters: models.Adapters = None,
  dtype: models.Dtype = None,
  mesh: _Mesh = None,
  runs: Runs = 3,
  json_file: Json = None,
) -> None:
  """What a second of a long sound costs, beside one of the shortest.

  Durations are 10 s and 60 s by default.
  """
  results.check(None, json_file)
  check_durations(duration)
  with terminal.bar() as bar:
    task = bar.add_task("making weights", total=None)
    contestants = _opened(scale, None, model, adapters, dtype, mesh)
    audiogen = _audiogen(contestants)
    half = audiogen.window_s / 2
    found = long_benchmark.compare(
      audiogen,
      stride or sorted({min(windows.STRIDE_S, half), half}),
      duration or [10.0, 60.0],
      guidance=guidance,
      runs=runs,
      progress=lambda what, done, total: bar.update(
        task, description=what, completed=done, total=total
      ),
    )
  title = _title(scale, model, adapters, contestants[0], guidance)
  table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
  for head in (
    "windows move by",
    "sound",
    "s a second",
    "ratio",
    "peak memory",
  ):
    table.add_column(head, justify="right")
  shortest = {each.stride_s: each for each in reversed(found)}
  for each in found:
    table.add_row(
      f"{each.stride_s:g} s",
      f"{each.duration_s:g} s",
      f"{each.cost:.3f}",
      f"{each.cost / shortest[each.stride_s].cost:.2f}",
      f"{each.peak_bytes / GIB:.2f} GiB",
    )
  terminal.out.print(table)
  if json_file is not None:
    document = {"title": title, "figures": [each.plain() for each in found]}
    results.write_json(json_file, document)
  results.name(json_file)


def check_durations(durations: list[float] | None) -> None:
  """Says which one is no duration, before anything is loaded."""
  for seconds in durations or []:
    if not 0 < seconds < math.inf:
      raise InputError(f"duration {seconds} s must be more than 0")


def _opened(
  scale: str,
  named: list[str] | None,
  model: str | None,
  adapters: list[str] | None,
  dtype: str | None,
  mesh: str | None,
) -> list[Own]:
  placed = None
  if mesh is not None:
    placed = sharding.make_mesh(**plan.sizes(mesh, ["data", "tensor"]))
  if model is None:
    if adapters:
      raise InputError("--adapters need the --model that they belong to")
    wanted = list(dict.fromkeys(named or ours.NAMES[:1]))
    for each in wanted:
      ours.check(each, scale)  # whatever is unknown is said before the first
    return [
      ours.random(each, scale, dtype=dtype, mesh=placed) for each in wanted
    ]
  if named:
    raise InputError(
      f"--family {named[0]} is of random weights, and --model brings its own"
    )
  return [
    ours.opened(model, dtype=dtype, mesh=placed, adapters=adapters or None)
  ]


def _audiogen(contestants: list[Own]) -> AudioGen:
  """That among them, for what a masked model cannot do.

  Raises:
    InputError: If there is none.
  """
  found = [each.model for each in contestants if type(each.model) is AudioGen]
  if not found:
    raise InputError(
      f"{type(contestants[0].model).__name__} makes all of a sound at once: no"
      " rival here does, and nothing goes on window by window; take an AudioGen"
    )
  return found[0]


def _title(
  scale: str,
  model: str | None,
  adapters: list[str] | None,
  contestant: Own,
  guidance: float,
) -> str:
  kind = jnp.dtype(contestant.dtype).name
  named = models.named(model or scale, adapters)
  return f"{named}, {kind}, guidance {guidance:g}, {machine.name()}"


def _tell_samples(title: str, found: list[SampleFigures]) -> None:
  # Narrow enough for a terminal of 80 columns; units stand above.
  table = Table(
    title=title,
    title_justify="left",
    box=box.SIMPLE_HEAD,
    collapse_padding=True,
    pad_edge=False,
  )
  table.add_column("", min_width=12)
  heads = ["sounds", "first\ns", "latency\nms", "steps", "a step\nms"]
  heads += ["of the\nlimit", "a sound\nms", "sound\ns/s"]
  heads += ["ratio"] * (len({each.name for each in found}) > 1)
  for head in heads:
    table.add_column(head, justify="right", no_wrap=True)
  for each in found:
    first = next(other for other in found if other.work == each.work)
    row = (
      f"{each.work.batch} x {each.work.duration_s:g} s",
      f"{each.first_s:.1f}",
      "" if each.latency_s is None else f"{1000 * each.latency_s:,.0f}",
      str(each.steps),
      f"{1000 * each.step_s:,.1f}",
      "" if each.limit_share is None else f"{each.limit_share:.0%}",
      f"{1000 * each.lm_s / each.work.batch:,.0f}",
      f"{each.sound_per_s:.2f}",
      f"{each.lm_s / first.lm_s:.2f}",
    )
    table.add_row(each.name, *row[: len(heads)])
  terminal.out.print(table)
  own = [each for each in found if each.compile_s is not None]
  compiled, speed = sum(each.compile_s for each in own), own[0].speed
  terminal.say(
    f"compiled in {compiled:.1f} s; memory gives {speed.bandwidth / 1e9:.1f}"
    f" GB/s, arithmetic {speed.flops / 1e9:,.0f} GFLOP/s"
  )
  for each in found:
    if each.vocoder_s:
      rest_s = each.total_s - each.lm_s - each.vocoder_s
      batch = each.work.batch
      terminal.say(
        f"{each.name}, {batch} x {each.work.duration_s:g} s: a sound takes the"
        f" autoencoder {1000 * rest_s / batch:,.0f} ms, the vocoder"
        f" {1000 * each.vocoder_s / batch:,.0f} ms"
      )
  if own[-1].peak_bytes is not None:
    terminal.say(f"peak memory {own[-1].peak_bytes / GIB:.2f} GiB")


def _draw(path: Path, found: list[SampleFigures]) -> None:
  """Speed against batch; against duration, if there was one batch only."""
  durations = {each.work.duration_s for each in found}
  by_batch = len({each.work.batch for each in found}) > 1
  costs: dict[str, tuple[list, list]] = {}
  sounds: dict[str, tuple[list, list]] = {}

  def add(lines: dict, name: str, work: Work, y: float) -> None:
    if by_batch and len(durations) > 1:
      name = f"{name}, {work.duration_s:g} s"
    xs, ys = lines.setdefault(name, ([], []))
    xs.append(work.batch if by_batch else work.duration_s)
    ys.append(y)

  for each in found:
    sound_s = each.lm_s / each.work.batch
    add(costs, each.name, each.work, 1000 * sound_s)
    add(sounds, each.name, each.work, each.sound_per_s)
    if each.limit_share is not None:
      limit_ms = 1000 * sound_s * each.limit_share
      add(costs, f"roofline, {each.name}", each.work, limit_ms)
  panels = [("ms a sound", costs), ("seconds of sound a second", sounds)]
  across = "sounds at once" if by_batch else "seconds of sound"
  drawing.curves(path, panels, across=across, least=0.0)
