"""Meshes, variants of a task and batches that are worth compiling."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax

from audiogen_jax.core import abstract, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.plan.chips import Chip
from audiogen_jax.train import state
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.task import Task


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A way to train.

  Attributes:
    name: What tells it from the others.
    task: What is trained, a variant of what was given.
    placement: The mesh.
    batch: Rows of a step.
  """

  name: str
  task: Task
  placement: Placement
  batch: int


def candidates(
  run: RunConfig,
  task: Task,
  chip: Chip,
  devices: Sequence[jax.Device],
  slices: int,
) -> Iterator[Candidate]:
  """Ways that may fit, the likeliest to be fast first.

  The state alone must fit in three quarters of the memory.  Sharding no more
  than is needed sends least; computing nothing again, and larger batches, make
  the most of what is sent.  Slices are joined along `data`.
  """
  meshes = list(_meshes(run, task, chip, devices, slices))
  batches = (run.data.batch, 2 * run.data.batch)
  # The nearest to the best of each come first, so that a few tries see
  # several of all three.
  ways = itertools.product(
    enumerate(meshes), enumerate(batches), enumerate(task.variants().items())
  )
  for way in sorted(ways, key=lambda way: sum(place for place, _ in way)):
    placement, rows, (variant, own) = (choice for _, choice in way)
    if rows % placement.ways("batch"):
      continue
    mesh = placement.mesh.shape.items()
    words = [" ".join(f"{axis} {n}" for axis, n in mesh if n > 1)]
    words += [variant, f"batch {rows}"]
    yield Candidate(", ".join(filter(None, words)), own, placement, rows)


def _meshes(
  run: RunConfig,
  task: Task,
  chip: Chip,
  devices: Sequence[jax.Device],
  slices: int,
) -> Iterator[Placement]:
  """Meshes that divide the state and leave room beside it."""
  like = jax.eval_shape(task.init, jax.random.key(0))
  powers = [2**i for i in range(len(devices).bit_length())]
  for tensor, fsdp in itertools.product(powers, powers):
    data, rest = divmod(len(devices), tensor * fsdp)
    if rest or not data or data % slices or tensor > 8:
      continue
    mesh = {"data": data, "fsdp": fsdp, "tensor": tensor}
    placement = Placement.make(sharding.arrange(mesh, devices), run.rules)
    try:
      places = state.shardings(like, task.axes, placement)
    except InputError:
      continue  # it does not divide the heads, for example
    size = abstract.size(abstract.placed(like, places))
    if not chip.memory or size <= 0.75 * chip.memory:
      yield placement
