"""`audiogen plan`."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import jax
import typer
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.progress import Progress

from audiogen_jax.cli import configured, plan_tables, results, terminal
from audiogen_jax.convert import make_an_audio_parts
from audiogen_jax.core import sharding, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.plan import (
  chips,
  compiling,
  reading,
  report,
  search,
)
from audiogen_jax.plan.chips import Chip
from audiogen_jax.plan.compiling import Compiled
from audiogen_jax.plan.report import ProgramReport
from audiogen_jax.train import configuration, latents_planning
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.task import Task


def plan(
  context: typer.Context,
  config: configured.OtherwiseConfig = None,
  model: Annotated[
    str | None,
    typer.Option(
      help="In place of a configuration a Make-An-Audio, whose sampling is"
      f" planned: a folder, or {make_an_audio_parts.FAMILY} for the published"
      " shape."
    ),
  ] = None,
  topology: Annotated[
    str | None,
    typer.Option(help="TPUs, such as v5e:4x4; this machine if not given."),
  ] = None,
  slices: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
  mesh: Annotated[
    str | None,
    typer.Option(help="fsdp=16 or data=2,fsdp=-1; else the configuration's."),
  ] = None,
  batch: Annotated[
    int | None,
    typer.Option(
      min=1, help="Rows of a step; else the configuration's.  Sounds: 1."
    ),
  ] = None,
  sample: Annotated[
    bool, typer.Option("--sample", help="Sampling in place of training.")
  ] = False,
  find: Annotated[
    bool,
    typer.Option(
      "--search", help="Try steps: meshes, rematerialisation, batches."
    ),
  ] = False,
  tries: Annotated[
    int, typer.Option(min=1, help="Programs that a search compiles.")
  ] = 6,
  json_: Annotated[
    Path | None, typer.Option("--json", help="Write all figures here.")
  ] = None,
) -> None:
  """What training or sampling would cost on machines that are not here.

  Compiles the real programs, all of a run, with the compiler of the real chips
  (extra `plan`), and reads from them what they need.  Memory is what the
  compiler says.  Times are estimates from the chip's peaks, without latency:
  one for everything going on at once, one for nothing overlapping.
  """
  results.check(None, json_)
  if (config is None) == (model is None):
    raise InputError("give one of --config and --model")
  if model is not None and (find or context.args):
    extra = "--search" if find else context.args[0][:100]
    raise InputError(f"{extra!r} is for a --config; leave it out with --model")
  # A program that was kept would tell nothing of what compiling it takes.
  jax.config.update("jax_enable_compilation_cache", False)
  if topology:
    # TPU programs are compiled here; nothing runs, and no GPU need be waited
    # for.
    jax.config.update("jax_platforms", "cpu")
    chip, devices = chips.topology(topology, slices)
  else:
    chip, devices = chips.here()
  title = f"{config or model} on {_named(topology, slices, devices)}"
  if model is not None:
    axes = sizes(mesh, ["data", "tensor"]) if mesh else {"data": -1}
    placement = Placement.make(_arranged(axes, devices, slices))
    found = _sampled(model, topology, batch or 1, chip, placement)
    plan_tables.tell(title, found, chip)
    _write(json_, found)
    return
  values = configuration.changed(config, context.args)
  if mesh is not None:
    values.mesh = ConfigDict(sizes(mesh, list(values.mesh)))
  if batch is not None:
    values.data.batch = batch
  run, task = configuration.parse(values)
  task.check_parts()
  hosts: dict[int, list[int]] = {}
  with terminal.bar() as bar:
    if find:
      found = _search(run, task, chip, devices, slices, tries, bar)
    else:
      mesh_ = _arranged(run.mesh, devices, slices)
      asked = 0.0
      if sample:
        placement = Placement.make(mesh_)
        wanted = compiling.of_sampling(task, batch or 1, placement)
      else:
        placement = Placement.make(mesh_, run.rules)
        wanted = compiling.of_run(run, task, placement)
        hosts = reading.rows(placement, run.data.batch)
        asked = task.model_flops(run.data.batch, run.data.duration_s)
      found = _compiled(wanted, chip, mesh_.size, bar, asked)
  if find:
    plan_tables.rank(title, found, chip)
  else:
    plan_tables.tell(title, found, chip)
  if hosts:
    sound = "audio" in task.batch_spec(1, run.data.duration_s)
    plan_tables.tell_hosts(
      hosts, run.data.duration_s, found["step"], sound=sound
    )
  _write(json_, found, hosts)


def sizes(text: str, axes: list[str]) -> dict[str, int]:
  """Devices along each axis; 1 where nothing is said."""
  sizes = dict.fromkeys(axes, 1)
  for part in text.split(","):
    name, _, number = (word.strip() for word in part.partition("="))
    if not re.fullmatch(r"-1|[1-9]\d*", number):
      raise InputError(f"mesh {text!r}: write AXIS=NUMBER, as in data=2,fsdp=8")
    if name not in sizes:
      raise InputError(
        f"mesh {text!r}: {name!r} is not one of {', '.join(axes)}"
      )
    sizes[name] = int(number)
  return sizes


def _sampled(
  model: str,
  topology: str | None,
  batch: int,
  chip: Chip,
  placement: Placement,
) -> dict[str, ProgramReport]:
  """Reports of what sounds of a Make-An-Audio take."""
  if model == make_an_audio_parts.FAMILY:
    parts = make_an_audio_parts.published()
  else:
    parts = make_an_audio_parts.open_parts(model)
  # As it is loaded on a TPU, or here.
  dtype = types.resolve_dtype("bfloat16" if topology else None)
  wanted = latents_planning.sampling(parts, dtype, batch, placement)
  with terminal.bar() as bar:
    later = compiling.later(wanted, placement)
    return _compiled(later, chip, placement.mesh.size, bar)


def _write(
  file: Path | None,
  found: Mapping[str, ProgramReport],
  hosts: Mapping[int, Sequence[int]] = {},
) -> None:
  """All figures, if a file for them was given."""
  if file:
    plain = {name: made.plain() for name, made in found.items()}
    results.write_json(file, {"programs": plain, "hosts": hosts})
    results.name(file)


def _arranged(
  axes: Mapping[str, int], devices: Sequence[jax.Device], slices: int
) -> Mesh:
  """A mesh; one that leaves slices out would plan for less than was asked."""
  mesh = sharding.arrange(axes, devices)
  used = len({getattr(d, "slice_index", 0) for d in mesh.devices.flat})
  if used < slices:
    raise InputError(
      f"the mesh {dict(mesh.shape)} takes {used} of {slices} slices; give data"
      f" a multiple of {slices}, or -1"
    )
  return mesh


def _compiled(
  wanted: Mapping[str, Callable[[], Compiled]],
  chip: Chip,
  devices: int,
  bar: Progress,
  step_flops: float = 0.0,
) -> dict[str, ProgramReport]:
  """Reports of programs, compiled in turn; a step asks for `step_flops`."""
  shown = bar.add_task("", total=len(wanted))
  found = {}
  for name, compile_ in wanted.items():
    bar.update(shown, description=f"compiling {name}")
    try:
      made = compile_()
    except InputError as error:
      raise InputError(f"{name}: {error}") from None
    asked = step_flops if name == "step" else 0.0
    found[name] = report.of(made, chip, devices, model_flops=asked)
    bar.advance(shown)
  return found


def _search(
  run: RunConfig,
  task: Task,
  chip: Chip,
  devices: Sequence[jax.Device],
  slices: int,
  tries: int,
  bar: Progress,
) -> dict[str, ProgramReport]:
  """Reports of some ways to train, by what they are: their steps alone."""
  ways = search.candidates(run, task, chip, devices, slices)
  shown = bar.add_task("compiling", total=tries)
  found = {}
  for way, _ in zip(ways, range(tries), strict=False):
    bar.update(shown, description=way.name)
    data = dataclasses.replace(run.data, batch=way.batch, eval_batch=way.batch)
    try:
      compiled = compiling.training(
        dataclasses.replace(run, data=data), way.task, way.placement
      )
    except InputError as error:
      terminal.err.print(f"{way.name}: {error}", markup=False)
      continue
    finally:
      bar.advance(shown)
    asked = way.task.model_flops(way.batch, run.data.duration_s)
    found[way.name] = report.of(compiled, chip, len(devices), model_flops=asked)
  if not found:
    raise InputError("nothing that was tried fits; take more chips")

  def cost(item):  # seconds a row; model FLOPs are in proportion
    return (not item[1].fits, item[1].slowest_s / item[1].model_flops)

  return dict(sorted(found.items(), key=cost))


def _named(
  topology: str | None, slices: int, devices: Sequence[jax.Device]
) -> str:
  """What is planned for, in words."""
  if not topology:
    return f"{len(devices)} {devices[0].device_kind}"
  return f"{slices} x {topology}" if slices > 1 else topology
