"""What a run trains: every parameter, its shape and where it lives."""

from typing import Any

import jax
from etils import epath

from audiogen_jax.core import abstract, processes, sharding
from audiogen_jax.core.sharding import Placement
from audiogen_jax.train.reporting import say
from audiogen_jax.train.state import TrainState

FILE = "parameters.txt"


def tell(
  folder: epath.Path,
  placement: Placement,
  state: TrainState,
  flops: float,
) -> None:
  """Writes the table of parameters to `folder`; prints their number.

  Args:
    folder: Of the run.
    placement: The mesh.
    state: Of which the parameters are.
    flops: Operations of a step; 0 if they are not known.
  """
  processes.agreed(lambda: (folder / FILE).write_text(table(state)))
  count = sum(x.size for x in jax.tree.leaves(state.params))
  work = f"; {flops:.3g} FLOP a step" if flops else ""
  devices = placement.mesh.devices
  shape = " x ".join(f"{k} {v}" for k, v in placement.mesh.shape.items())
  say(
    f"{count:,} parameters ({folder / FILE}){work}; {devices.size}"
    f" {devices.flat[0].device_kind} ({shape})"
  )


def table(state: TrainState) -> str:
  """A line for each parameter, and one for each part of the state.

  Columns: path, shape, type, the mesh axes along which each of its axes is
  split ("-" for none), values, and MiB on one device.
  """
  rows = [("parameter", "shape", "type", "split along", "values", "MiB")]
  flat, _ = jax.tree_util.tree_flatten_with_path(state.params)
  rows += [
    (
      sharding.path_name(path),
      "x".join(map(str, x.shape)) or "scalar",
      str(x.dtype),
      " ".join(map(_axis, _spec(x))) or "-",
      f"{x.size:,}",
      _mib([x]),
    )
    for path, x in flat
  ]
  for part in ("params", "optimiser", "extra", "average"):
    leaves = jax.tree.leaves(getattr(state, part))
    count = sum(x.size for x in leaves)
    rows.append((f"all of {part}", "", "", "", f"{count:,}", _mib(leaves)))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

  def line(row: tuple[str, ...]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.ljust(width) for cell, width in cells).rstrip()

  return "".join(f"{line(row)}\n" for row in rows)


def _spec(x: jax.Array) -> tuple[Any, ...]:
  """The mesh axes of each axis of an array; none where it lies whole."""
  return tuple(getattr(x.sharding, "spec", ()))


def _axis(names: Any) -> str:
  return names if isinstance(names, str) else "+".join(names or ()) or "-"


def _mib(leaves: list[jax.Array]) -> str:
  return f"{abstract.size(leaves) / 2**20:.3f}"
