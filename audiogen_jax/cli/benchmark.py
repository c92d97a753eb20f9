"""`audiogen benchmark sample`, `startup`, `codec` and `train`."""

import math
from pathlib import Path
from typing import Annotated

import jax
import typer
from rich import box
from rich.table import Table

from audiogen_jax.audio import drawing
from audiogen_jax.audiogen import AudioGen, load_codec
from audiogen_jax.benchmark import codec as codec_benchmark
from audiogen_jax.benchmark import machine, rivals
from audiogen_jax.benchmark import sample as sample_benchmark
from audiogen_jax.benchmark import startup as startup_benchmark
from audiogen_jax.benchmark import train as train_benchmark
from audiogen_jax.benchmark.sample import Figures, Work
from audiogen_jax.cli import models, plan, results, terminal
from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.train import __main__ as training

app = typer.Typer(
  no_args_is_help=True, help="How fast this machine samples, codes and trains."
)
_GIB = 2**30

_Batches = Annotated[
  list[int] | None,
  typer.Option("--batch", help="Sounds at once; again for more.", min=1),
]
_Durations = Annotated[
  list[float] | None,
  typer.Option("--duration", help="Seconds of sound; again for more."),
]
_Runs = Annotated[
  int, typer.Option(help="Runs that count, after one that may compile.", min=1)
]
_Json = Annotated[
  Path | None, typer.Option("--json", help="A file for all figures.")
]


@app.command()
def sample(
  scale: Annotated[
    str,
    typer.Option(help=f"Random weights: {', '.join(sample_benchmark.SCALES)}."),
  ] = "300m",
  model: Annotated[
    str | None,
    typer.Option(help="A model instead of random weights, such as nano."),
  ] = None,
  batch: _Batches = None,
  duration: _Durations = None,
  guidance: Annotated[
    float, typer.Option(help="Classifier-free guidance; 1 for none.")
  ] = 3.0,
  dtype: Annotated[
    str | None,
    typer.Option(
      help="float32, bfloat16 or int8.  [default: bfloat16 on TPU and GPU,"
      " float32 on CPU]"
    ),
  ] = None,
  mesh: Annotated[
    str | None, typer.Option(help="Such as data=4,tensor=2.")
  ] = None,
  against: Annotated[
    list[str] | None,
    typer.Option(
      help=f"Others on the same work: {', '.join(rivals.RIVALS)}; again for"
      " more."
    ),
  ] = None,
  runs: _Runs = 3,
  plot: Annotated[
    Path | None,
    typer.Option(help="A PNG: time a step against batch and duration."),
  ] = None,
  json_file: _Json = None,
) -> None:
  """Sounds from sentences: latency, time a step, and how near to the limit.

  The limit is what memory can deliver: weights and live cache, read once a
  step.  Others run in turn with ours, on the same work.
  """
  results.check(plot, json_file)
  _check_durations(duration)
  works = [
    Work(rows, seconds, guidance)
    for seconds in duration or [5.0]
    for rows in batch or [1]
  ]
  names = dict.fromkeys(against or ())
  for name in names:
    rivals.check_known(name)
  placed = None
  if mesh is not None:
    axes = ["data", "tensor"]
    placed = sharding.make_mesh(**plan.sizes(mesh, axes))
  with terminal.bar() as bar:
    task = bar.add_task("making weights", total=None)

    def progress(what: str, done: int, total: int) -> None:
      bar.update(task, description=what, completed=done, total=total)

    if model is None:
      audiogen = sample_benchmark.random(scale, dtype=dtype, mesh=placed)
    else:
      audiogen = AudioGen.from_pretrained(model, dtype=dtype, mesh=placed)
    found = sample_benchmark.compare(
      sample_benchmark.Ours(audiogen),
      [rivals.open_rival(name, audiogen) for name in names],
      works,
      runs=runs,
      progress=progress,
    )
  kind = audiogen.lm.dtype.name
  title = f"{model or scale}, {kind}, guidance {guidance:g}, {machine.name()}"
  _tell_samples(title, found)
  if plot is not None:
    _draw(plot, found)
  if json_file is not None:
    told = {"title": title, "jax": jax.__version__}
    told["figures"] = [each.plain() for each in found]
    results.write_json(json_file, told)
  results.name(plot, json_file)


@app.command()
def codec(
  model: Annotated[
    str | None,
    typer.Option(
      help="A model with a codec.  [default: AudioGen-medium's shape, random]"
    ),
  ] = None,
  batch: _Batches = None,
  duration: _Durations = None,
  against: Annotated[
    bool, typer.Option("--against-transformers", help="PyTorch's in turn.")
  ] = False,
  runs: _Runs = 3,
  json_file: _Json = None,
) -> None:
  """Sound to codes and back."""
  results.check(None, json_file)
  _check_durations(duration)
  if against:
    rivals.check_installed("transformers", ("torch", "transformers"))
  with terminal.bar() as bar:
    task = bar.add_task("loading", total=None)
    if model is None:
      config = EncodecConfig()
      variables = jax.jit(encodec.init, static_argnums=0)(
        config, jax.random.key(0)
      )
      coder = Encodec(config, variables)
    else:
      coder = load_codec(model)
    found = codec_benchmark.compare(
      coder,
      [rivals.TransformersCodec(coder.config)] if against else [],
      batch or [1],
      duration or [10.0],
      runs=runs,
      progress=lambda what, done, total: bar.update(
        task, description=what, completed=done, total=total
      ),
    )
  title = f"{model or 'random weights'}, float32, {machine.name()}"
  table = Table(title=title, title_justify="left")
  for column in ("", "sounds", "encoded", "decoded", "peak memory"):
    table.add_column(column, justify="right" if column else "left")
  for each in found:
    encoded, decoded = each.speeds
    table.add_row(
      each.name,
      f"{each.batch} x {each.duration_s:g} s",
      f"{encoded:,.1f} x real time",
      f"{decoded:,.1f} x real time",
      "" if against else f"{each.peak_bytes / _GIB:.2f} GiB",
    )
  terminal.out.print(table)
  if json_file is not None:
    told = {"title": title, "figures": [each.plain() for each in found]}
    results.write_json(json_file, told)
  results.name(json_file)


@app.command()
def train(
  config: Annotated[
    str, typer.Option(help="A file such as configs/lm_300m.py, or with :tiny.")
  ],
  set_: Annotated[
    list[str] | None,
    typer.Option(
      "--set", help="A change, such as data.batch=4; again for more."
    ),
  ] = None,
  steps: Annotated[int, typer.Option(help="Steps that count.", min=1)] = 10,
  json_file: _Json = None,
) -> None:
  """Training steps on noise, on the mesh of a configuration."""
  results.check(None, json_file)
  run, task = training.parse(plan.load(config, set_ or []))
  with terminal.bar() as bar:
    bar_task = bar.add_task("compiling", total=None)
    found = train_benchmark.measure(
      run,
      task,
      steps=steps,
      progress=lambda what, done, total: bar.update(
        bar_task, description=what, completed=done, total=total
      ),
    )
  title = f"{config}, {machine.name()}"
  table = Table(title=title, title_justify="left", show_header=False)
  sound_s = found.batch * run.data.duration_s
  for label, value in (
    ("rows a step", f"{found.batch} x {run.data.duration_s:g} s"),
    ("the first step", f"{found.first_s:.1f} s"),
    ("a step", f"{1000 * found.median_s:,.0f} ms"),
    ("sound", f"{sound_s / found.median_s:,.1f} s a second"),
    ("operations", f"{found.flops / found.median_s / 1e9:,.0f} GFLOP/s"),
    ("peak memory", f"{found.peak_bytes / _GIB:.2f} GiB"),
  ):
    table.add_row(label, value)
  terminal.out.print(table)
  if json_file is not None:
    results.write_json(json_file, {"title": title} | found.plain())
  results.name(json_file)


@app.command()
def startup(
  model: models.Model = models.DEFAULT_MODEL,
  duration: Annotated[float, typer.Option(help="Seconds of sound.")] = 5.0,
  runs: _Runs = 3,
  json_file: _Json = None,
) -> None:
  """From command to sound, in fresh processes: what takes how long.

  The first has nothing to build on; those after it find its programs.
  """
  results.check(None, json_file)
  _check_durations([duration])
  with terminal.bar() as bar:
    bar.add_task("starting, again and again", total=None)
    first, later = startup_benchmark.measure(model, duration, runs=runs)
  table = Table(title=f"{model}, {machine.name()}", title_justify="left")
  for column in ("seconds", "first time", "later"):
    table.add_column(column, justify="left" if column == "seconds" else "right")
  medians = [machine.median(list(part)) for part in zip(*later, strict=True)]
  rows = [
    ("imports", first.imports, medians[0]),
    ("reading the model", first.load, medians[1]),
    ("to the first half second of sound", first.first, medians[2]),
    (f"to {duration:g} s of sound", first.rest, medians[3]),
    ("in all", sum(first), machine.median([sum(each) for each in later])),
  ]
  for what, once, again in rows:
    table.add_row(what, f"{once:.1f}", f"{again:.1f}")
  terminal.out.print(table)
  if json_file is not None:
    told = {"first": first._asdict(), "later": [x._asdict() for x in later]}
    results.write_json(
      json_file, {"model": model, "duration_s": duration} | told
    )
  results.name(json_file)


def _check_durations(durations: list[float] | None) -> None:
  for seconds in durations or []:
    if not 0 < seconds < math.inf:
      raise InputError(f"duration {seconds} s must be more than 0")


def _tell_samples(title: str, found: list[Figures]) -> None:
  table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
  heads = ["sounds", "first", "latency", "ms/step", "limit", "tokens/s"]
  heads += ["sound/s"] + ["ratio"] * any(
    each.compile_s is None for each in found
  )
  table.add_column("")
  for head in heads:
    table.add_column(head, justify="right", no_wrap=True)
  for each in found:
    ours = next(
      other
      for other in found
      if other.work == each.work and other.compile_s is not None
    )
    row = (
      f"{each.work.batch} x {each.work.duration_s:g} s",
      f"{each.first_s:.1f} s",
      "" if each.latency_s is None else f"{1000 * each.latency_s:,.0f} ms",
      f"{1000 * each.step_s:,.1f}",
      "" if each.floor_share is None else f"{each.floor_share:.0%}",
      f"{each.tokens_per_s:,.0f}",
      f"{each.sound_per_s:.2f}",
      f"{each.step_s / ours.step_s:.2f}",
    )
    table.add_row(each.name, *row[: len(heads)])
  terminal.out.print(table)
  ours = [each for each in found if each.compile_s is not None]
  compiled = sum(each.compile_s for each in ours)
  terminal.say(
    f"compiled in {compiled:.1f} s; memory gives"
    f" {ours[0].bandwidth / 1e9:.1f} GB/s"
  )
  if ours[-1].peak_bytes is not None:
    terminal.say(f"peak memory {ours[-1].peak_bytes / _GIB:.2f} GiB")


def _draw(path: Path, found: list[Figures]) -> None:
  """Milliseconds a step: a panel for each duration, a line for each name."""
  panels = []
  for seconds in dict.fromkeys(each.work.duration_s for each in found):
    lines: dict[str, tuple[list, list]] = {}
    for each in found:
      if each.work.duration_s == seconds:
        x, y = lines.setdefault(each.name, ([], []))
        x.append(each.work.batch)
        y.append(1000 * each.step_s)
    panels.append((f"{seconds:g} s: ms a step", lines))
  drawing.curves(path, panels, across="sounds at once")
