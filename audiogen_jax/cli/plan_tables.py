"""What `audiogen plan` prints."""

from collections.abc import Iterator

from rich.table import Table

from audiogen_jax.cli import terminal
from audiogen_jax.plan import reading
from audiogen_jax.plan.chips import Chip
from audiogen_jax.plan.report import ProgramReport

_GIB = 2**30
_HOSTS = 8  # that are shown one by one; --json has all
# What else is read of a program than its memory; the rest is in --json.
_TOLD = ("step", "prefill", "decode", "pass")
_TOLD += ("text", "U-Net", "autoencoder", "vocoder")  # of Make-An-Audio


def tell(title: str, found: dict[str, ProgramReport], chip: Chip) -> None:
  """All programs of a run in one table; times of the main ones."""
  _head(title)
  table = Table(
    title="memory a device, GiB, in the order of the run",
    title_justify="left",
  )
  for column in ("", "before", "temporary", "after", "needed", "fits"):
    table.add_column(column, justify="right" if column else "left")
  for name, made in found.items():
    kept = made.resident + made.arguments
    sizes = kept, made.temporaries, made.outputs - made.aliased, made.total
    told = [f"{size / _GIB:.2f}" for size in sizes]
    table.add_row(name, *told, _yes(made.fits))
  most = max(found.values(), key=lambda made: made.total)
  fits = all(made.fits for made in found.values())
  room = f" of {most.memory / _GIB:.2f}" if most.memory else ""
  table.add_section()
  table.add_row(
    "most", "", "", "", f"{most.total / _GIB:.2f}{room}", _yes(fits)
  )
  terminal.out.print(table)
  for name in _TOLD:
    if name in found:
      table = Table(title=name, title_justify="left", show_header=False)
      for label, value in _rows(found[name], chip):
        table.add_row(label, value)
      terminal.out.print(table)
  timed = [made for made in found.values() if made.runs and made.compute_s]
  if timed:
    least = sum(made.runs * made.fastest_s for made in timed)
    slowest = sum(made.runs * made.slowest_s for made in timed)
    terminal.say(
      f"estimated, a batch of sounds by these programs: {least:.2f} to"
      f" {slowest:.2f} s"
    )
  seconds = sum(made.compile_s for made in found.values())
  terminal.say(f"compiled in {seconds:.0f} s")


def rank(title: str, found: dict[str, ProgramReport], chip: Chip) -> None:
  """Ways to train, the best first; their steps alone."""
  _head(title)
  table = Table()
  for column in ("", "GiB", "fits", "step, estimated", "MFU, estimated"):
    table.add_column(column, overflow="fold")
  for name, made in found.items():
    times, share = _estimate(made, chip)
    table.add_row(
      name, f"{made.total / _GIB:.2f}", _yes(made.fits), times, share
    )
  terminal.out.print(table)


def tell_hosts(
  hosts: dict[int, list[int]],
  duration_s: float,
  step: ProgramReport,
  *,
  sound: bool,
) -> None:
  """Which rows of a batch each host reads, and how fast it must.

  Args:
    hosts: Rows by host.
    duration_s: Of a row.
    step: The training step.
    sound: Whether rows are sound, of which the loader's speed is known.
  """
  table = Table()
  for column in ("host", "rows of a batch that it reads"):
    table.add_column(column, overflow="fold")
  for host, rows in list(hosts.items())[:_HOSTS]:
    table.add_row(f"{host}", reading.stretches(rows))
  if len(hosts) > _HOSTS:
    table.add_row("…", f"{len(hosts)} hosts in all; --json has each")
  terminal.out.print(table)
  most = max(map(len, hosts.values()))
  each = f"a host reads {most} rows of {duration_s:g} s a step"
  if step.compute_s:
    rates = [most * duration_s / s for s in (step.slowest_s, step.fastest_s)]
    each += f", {rates[0]:,.0f} to {rates[1]:,.0f} s of sound a second"
    if sound:
      cores = [rate / reading.LOADED_PER_CORE_S for rate in rates]
      each += (
        f"; a core was measured to load {reading.LOADED_PER_CORE_S:,.0f} (mixed"
        f" crops of short clips): {cores[0]:.1f} to {cores[1]:.1f} cores"
      )
  terminal.say(each)


def _head(title: str) -> None:
  terminal.out.print(title, markup=False, style="bold", soft_wrap=True)


def _rows(made: ProgramReport, chip: Chip) -> Iterator[tuple[str, str]]:
  """Labels and values of one program."""
  yield "devices", f"{made.devices}"
  times = made.flops / made.model_flops if made.model_flops else 0
  more = f", {times:.2f} x the model's" if times else ""
  yield "FLOPs, a device", f"{made.flops:.3g}{more}"
  for kind, size in sorted(made.traffic.items()):
    yield f"{kind}, a device", f"{size / _GIB:.3f} GiB"
  if made.between:
    yield "to other slices, a device", f"{made.between / _GIB:.3f} GiB"
  yield "copies above 1 MB in loops", f"{made.copies / 1e6:.0f} MB"
  if not made.compute_s:
    return
  yield "at the peak of FLOP/s", _ms(made.compute_s)
  yield "at the bandwidth of memory", _ms(made.memory_s)
  yield "at the bandwidth of links", _ms(made.links_s)
  if made.between:
    yield "at the bandwidth between slices", _ms(made.between_s)
  yield "estimated, if all overlaps", _ms(made.fastest_s)
  yield "estimated, if nothing does", _ms(made.slowest_s)
  if made.runs:
    times = [made.runs * s for s in (made.fastest_s, made.slowest_s)]
    yield "runs for a batch of sounds", f"{made.runs}"
    yield "estimated, all of them", f"{times[0]:.2f} to {times[1]:.2f} s"
  if made.model_flops:
    yield "MFU, estimated", _estimate(made, chip)[1]


def _estimate(made: ProgramReport, chip: Chip) -> tuple[str, str]:
  if not made.compute_s:
    return "unknown", "unknown"
  low, high = made.utilisation(chip.flops)
  times = f"{_ms(made.fastest_s)} to {_ms(made.slowest_s)}"
  return times, f"{low:.0%} to {high:.0%}"


def _ms(seconds: float) -> str:
  return f"{1000 * seconds:,.1f} ms"


def _yes(fits: bool) -> str:
  return "yes" if fits else "no"
