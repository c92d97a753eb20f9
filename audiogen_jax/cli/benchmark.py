"""`audiogen benchmark`: how fast this machine is at what we do."""

from typing import Annotated

import jax
import typer
from rich.table import Table
from rich.text import Text

from audiogen_jax.benchmark import (
  coding,
  diffusion,
  diffusion_rivals,
  extractors,
  machine,
  rivals,
)
from audiogen_jax.benchmark import startup as startup_benchmark
from audiogen_jax.benchmark import train as train_benchmark
from audiogen_jax.cli import (
  configured,
  models,
  results,
  rooflines,
  sampling,
  terminal,
)
from audiogen_jax.cli.sampling import (
  GIB,
  Batches,
  Durations,
  Json,
  Runs,
  check_durations,
)
from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.train import configuration

app = typer.Typer(
  no_args_is_help=True, help="How fast this machine samples, codes and trains."
)
app.command()(sampling.sample)
app.command()(rooflines.roofline)
app.command()(sampling.long)


@app.command()
def codec(
  model: Annotated[
    str | None,
    typer.Option(
      help="A model with a codec.  \\[default: random, of AudioGen-medium's"
      " shape]"
    ),
  ] = None,
  batch: Batches = None,
  duration: Durations = None,
  against: Annotated[
    bool, typer.Option("--against-transformers", help="PyTorch's in turn.")
  ] = False,
  runs: Runs = 3,
  json_file: Json = None,
) -> None:
  """Sound to codes and back."""
  results.check(None, json_file)
  check_durations(duration)
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
    found = coding.compare(
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
      "" if against else f"{each.peak_bytes / GIB:.2f} GiB",
    )
  terminal.out.print(table)
  if json_file is not None:
    told = {"title": title, "figures": [each.plain() for each in found]}
    results.write_json(json_file, told)
  results.name(json_file)


@app.command("extractors")
def networks_that_judge(
  names: Annotated[
    list[str] | None,
    typer.Argument(
      metavar="[NAME]...",
      help=f"{', '.join(extractors.RANDOM)}; all if none is named.",
    ),
  ] = None,
  clips: Annotated[int, typer.Option(help="In each run.", min=1)] = 4,
  seconds: Annotated[
    float,
    # What the originals take whole.
    typer.Option(help="Of each clip.", min=3.0, max=10.0),
  ] = 10.0,
  runs: Runs = 3,
  json_file: Json = None,
) -> None:
  """The networks that judge, beside the PyTorch originals: one core each.

  Random weights of the published sizes; from the waveform to the embedding.
  """
  results.check(None, json_file)
  chosen = extractors.check_names(names or ())
  found = []
  with terminal.bar() as bar:
    task = bar.add_task("", total=len(chosen))
    for name in chosen:
      bar.update(task, description=name, completed=len(found))
      found.append(
        extractors.measure(name, clips=clips, duration_s=seconds, runs=runs)
      )
  title = (
    f"{clips} x {seconds:g} s, random weights, float32, one core of"
    f" {machine.name()}"
  )
  table = Table(
    title=title,
    title_justify="left",
    caption="Milliseconds of the processor a clip: medians of runs in turn.",
    caption_justify="left",
  )
  for column in ("", "ours", "theirs", "clips\nat once", "", "compiling", ""):
    table.add_column(column, justify="right" if column else "left")
  for each in found:
    theirs = ("", "", "", f"{each.compile_s:.0f} s", each.missing)
    if each.ratio is not None:
      theirs = (
        f"{1000 * each.rival_clip_s:,.0f}",
        str(each.rival_at_once),
        f"{each.ratio:.2f} x",
        f"{each.compile_s:.0f} s",
        each.rival,
      )
    cells = (each.name, f"{1000 * each.clip_s:,.0f}", *theirs)
    table.add_row(*map(Text, cells))
  terminal.out.print(table)
  if json_file is not None:
    told = {"title": title, "figures": [each.plain() for each in found]}
    results.write_json(json_file, told)
  results.name(json_file)


@app.command("diffusion")
def parts_of_diffusion(
  duration: Annotated[
    float, typer.Option(help="Seconds of sound.", min=1.0, max=60.0)
  ] = 10.0,
  runs: Runs = 3,
  json_file: Json = None,
) -> None:
  """Parts of Make-An-Audio beside PyTorch's, with random weights.

  A step of the U-Net with guidance, and the autoencoder's decoder and the
  vocoder, which run once a sound.
  """
  results.check(None, json_file)
  found = []
  with terminal.bar() as bar:
    task = bar.add_task("", total=len(diffusion.PARTS))
    for name in diffusion.PARTS:
      bar.update(task, description=name, completed=len(found))
      found.append(
        diffusion.compare(
          name, diffusion_rivals.open_rival, duration_s=duration, runs=runs
        )
      )
  title = f"{duration:g} s, random weights, float32, {machine.name()}"
  table = Table(
    title=title,
    title_justify="left",
    caption="Seconds of all cores together, and of the clock: medians of runs"
    " in turn.",
    caption_justify="left",
  )
  for column in ("", "ours", "clock", "PyTorch", "clock", ""):
    table.add_column(column, justify="right" if column else "left")
  for each in found:
    cells = [each.name]
    for some in (each.runs, each.rival_runs):
      for one in zip(*some, strict=True):
        cells.append(f"{machine.median(list(one)):.2f}")
    last = (f"{each.ratio:.2f} x",) if each.ratio else ("", "", each.missing)
    table.add_row(*map(Text, (*cells, *last)))
  terminal.out.print(table)
  if json_file is not None:
    told = {"title": title, "figures": [each.plain() for each in found]}
    results.write_json(json_file, told)
  results.name(json_file)


@app.command(context_settings=configured.SETTINGS)
def train(
  context: typer.Context,
  config: configured.Config,
  steps: Annotated[int, typer.Option(help="Steps that count.", min=1)] = 10,
  json_file: Json = None,
) -> None:
  """Training steps on noise, on the mesh of a configuration."""
  results.check(None, json_file)
  run, task = configuration.parse(configuration.changed(config, context.args))
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
  rows = [
    ("rows a step", f"{found.batch} x {run.data.duration_s:g} s"),
    ("the first step", f"{found.first_s:.1f} s"),
    ("a step", f"{1000 * found.median_s:,.0f} ms"),
    ("sound", f"{sound_s / found.median_s:,.1f} s a second"),
    ("peak memory", f"{found.peak_bytes / GIB:.2f} GiB"),
  ]
  if found.flops:
    rate = found.flops / found.median_s / 1e9
    rows.append(("model FLOPs", f"{rate:,.0f} GFLOP/s"))
  for label, value in rows:
    table.add_row(label, value)
  terminal.out.print(table)
  if json_file is not None:
    results.write_json(json_file, {"title": title} | found.plain())
  results.name(json_file)


@app.command()
def startup(
  model: models.Model = models.DEFAULT_MODEL,
  adapters: models.Adapters = None,
  duration: Annotated[float, typer.Option(help="Seconds of sound.")] = 5.0,
  runs: Runs = 3,
  json_file: Json = None,
) -> None:
  """From command to sound, in fresh processes: what takes how long.

  The first has nothing to build on; those after it find its programs.
  """
  results.check(None, json_file)
  check_durations([duration])
  with terminal.bar() as bar:
    bar.add_task("starting, again and again", total=None)
    first, later = startup_benchmark.measure(
      model, duration, adapters=adapters or (), runs=runs
    )
  title = f"{models.named(model, adapters)}, {machine.name()}"
  table = Table(title=title, title_justify="left")
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
    told = {"model": model, "adapters": adapters or [], "duration_s": duration}
    told |= {"first": first._asdict()}
    told |= {"later": [each._asdict() for each in later]}
    results.write_json(json_file, told)
  results.name(json_file)
