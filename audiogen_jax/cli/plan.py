"""`audiogen plan`."""

import ast
import contextlib
import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from typing import Annotated

import jax
import typer
from ml_collections import ConfigDict
from rich.table import Table

from audiogen_jax.cli import results, terminal
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.plan import chips, programs, report, search
from audiogen_jax.plan.report import Report
from audiogen_jax.train import __main__ as training
from audiogen_jax.train.lm_task import LMTask

_GIB = 2**30


def plan(
  config: Annotated[
    str, typer.Option(help="configs/NAME.py, or configs/NAME.py:tiny")
  ],
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
    typer.Option(min=1, help="Rows of a step; else the configuration's."),
  ] = None,
  set_: Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of the configuration; repeatable."),
  ] = None,
  sample: Annotated[
    bool, typer.Option("--sample", help="Sampling in place of training.")
  ] = False,
  find: Annotated[
    bool,
    typer.Option("--search", help="Try meshes, rematerialisation, batches."),
  ] = False,
  tries: Annotated[
    int, typer.Option(min=1, help="Programs that a search compiles.")
  ] = 6,
  json_: Annotated[
    Path | None, typer.Option("--json", help="Write all figures here.")
  ] = None,
) -> None:
  """What training or sampling would cost on machines that are not here.

  Compiles the real programs, with the compiler of the real chips (extra
  `plan`), and reads from them what they need.
  """
  results.check(None, json_)
  # A program that was kept would tell nothing of what compiling it takes.
  jax.config.update("jax_enable_compilation_cache", False)
  if topology:
    # TPU programs are compiled here; nothing runs, and no GPU need be waited
    # for.
    jax.config.update("jax_platforms", "cpu")
    chip, devices = chips.topology(topology, slices)
  else:
    chip, devices = chips.here()
  values = load(config, set_ or [])
  if mesh is not None:
    values.mesh = ConfigDict(sizes(mesh, list(values.mesh)))
  if batch is not None:
    values.data.batch = batch
  run, task = training.parse(values)
  if (sample or find) and not isinstance(task, LMTask):
    raise InputError(f"{config} is not the configuration of a language model")
  found: dict[str, Report] = {}
  with terminal.bar() as bar:
    if find:
      found = _search(run, task, chip, devices, tries, bar)
    else:
      bar.add_task("compiling", total=None)
      arranged = sharding.arrange(run.mesh, devices)
      count = arranged.devices.size
      if sample:
        placement = Placement.make(arranged)
        rows = batch or 1
        compiled = programs.sampling(task, rows, task.window_s, placement)
        found = {
          name: report.of(made, chip, count, in_place=name == "decode")
          for name, made in compiled.items()
        }
      else:
        placement = Placement.make(arranged, run.rules)
        compiled = programs.training(run, task, placement)
        flops = report.model_flops(task, run.data.batch, run.data.duration_s)
        made = report.of(compiled, chip, count, model_flops=flops)
        found = {"step": made}
  _tell(found, chip, f"{config} on {_named(topology, slices, devices)}", find)
  if json_:
    plain = {name: made.plain() for name, made in found.items()}
    results.write_json(json_, plain)
    results.name(json_)


def load(config: str, changes: list[str]) -> ConfigDict:
  """A configuration by file, variant and changes.

  Raises:
    InputError: If there is none, or a key or value is wrong.
  """
  name, _, variant = config.partition(":")
  path = Path(name).absolute()
  if not path.is_file():
    raise InputError(f"{name} is not there; give configs/NAME.py")
  # Configurations import their siblings as `configs.NAME`.
  root = str(path.parent.parent)
  if root not in sys.path:
    sys.path.insert(0, root)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    values = module.get_config(variant)
  except (AttributeError, ValueError, SyntaxError) as error:
    raise InputError(f"{name}: {error}") from None
  for change in changes:
    key, sign, text = change.partition("=")
    if not sign:
      raise InputError(f"--set {change}: write KEY=VALUE")
    value = text
    with contextlib.suppress(ValueError, SyntaxError):
      value = ast.literal_eval(text)
    try:
      values.update_from_flattened_dict({key: value})
    except (KeyError, AttributeError, TypeError, ValueError) as error:
      raise InputError(f"--set {change}: {error}") from None
  return values


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


def _search(run, task, chip, devices, tries, bar) -> dict[str, Report]:
  """Reports of some ways to train, by what they are."""
  ways = search.candidates(task, chip, len(devices), run.data.batch)
  shown = bar.add_task("compiling", total=tries)
  found = {}
  for way, _ in zip(ways, range(tries), strict=False):
    mesh = " ".join(f"{k} {n}" for k, n in way.mesh.items() if n > 1)
    name = f"{mesh}, remat {way.remat}, batch {way.batch}"
    bar.update(shown, description=name)
    own = dataclasses.replace(task, remat=way.remat)
    data = dataclasses.replace(run.data, batch=way.batch)
    placement = Placement.make(sharding.arrange(way.mesh, devices), run.rules)
    try:
      compiled = programs.training(
        dataclasses.replace(run, data=data), own, placement
      )
    except InputError as error:
      terminal.err.print(f"{name}: {error}", markup=False)
      continue
    finally:
      bar.advance(shown)
    flops = report.model_flops(own, way.batch, run.data.duration_s)
    found[name] = report.of(compiled, chip, len(devices), model_flops=flops)
  if not found:
    raise InputError("nothing that was tried fits; take more chips")

  def cost(item):  # seconds a model FLOP
    return (not item[1].fits, item[1].slowest_s / item[1].model_flops)

  return dict(sorted(found.items(), key=cost))


def _named(topology, slices, devices) -> str:
  if not topology:
    return f"{len(devices)} {devices[0].device_kind}"
  return f"{slices} x {topology}" if slices > 1 else topology


def _tell(found: dict[str, Report], chip, title: str, ranked: bool) -> None:
  terminal.out.print(title, markup=False, style="bold", soft_wrap=True)
  if ranked:
    _rank(found, chip)
    return
  for name, made in found.items():
    table = Table(title=name, title_justify="left", show_header=False)
    for label, value in _rows(made, chip):
      table.add_row(label, value)
    terminal.out.print(table)


def _rank(found: dict[str, Report], chip) -> None:
  table = Table()
  for column in ("", "GiB", "fits", "step", "MFU"):
    table.add_column(column, overflow="fold")
  for name, made in found.items():
    times, share = _estimate(made, chip)
    table.add_row(
      name, f"{made.total / _GIB:.2f}", _yes(made.fits), times, share
    )
  terminal.out.print(table)


def _rows(made: Report, chip):
  """Labels and values of one program."""
  yield "devices", f"{made.devices}"
  for name in ("arguments", "temporaries", "outputs", "aliased"):
    yield f"{name}, a device", f"{getattr(made, name) / _GIB:.2f} GiB"
  room = f" of {made.memory / _GIB:.2f}" if made.memory else ""
  yield "needed, a device", f"{made.total / _GIB:.2f}{room} GiB"
  yield "fits", _yes(made.fits)
  times = made.flops / made.model_flops if made.model_flops else 0
  more = f", {times:.2f} x the model's" if times else ""
  yield "FLOPs, a device", f"{made.flops:.3g}{more}"
  for kind, size in sorted(made.traffic.items()):
    yield f"{kind}, a device", f"{size / _GIB:.3f} GiB"
  yield "copies above 1 MB in loops", f"{made.copies / 1e6:.0f} MB"
  if made.compute_s:
    yield "at the peak of FLOP/s", _ms(made.compute_s)
    yield "at the bandwidth of memory", _ms(made.memory_s)
    yield "at the bandwidth of links", _ms(made.links_s)
    times, share = _estimate(made, chip)
    yield "a step, estimated", times
    if made.model_flops:
      yield "MFU, estimated", share
  yield "compiled in", f"{made.compile_s:.0f} s"


def _estimate(made: Report, chip) -> tuple[str, str]:
  if not made.compute_s:
    return "unknown", "unknown"
  low, high = made.utilisation(chip.flops)
  times = f"{_ms(made.fastest_s)} to {_ms(made.slowest_s)}"
  return times, f"{low:.0%} to {high:.0%}"


def _ms(seconds: float) -> str:
  return f"{1000 * seconds:,.1f} ms"


def _yes(fits: bool) -> str:
  return "yes" if fits else "no"
