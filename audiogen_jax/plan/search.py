"""Meshes, rematerialisation and batches that are worth compiling."""

import dataclasses
import itertools
from collections.abc import Iterator

import jax

from audiogen_jax.plan.chips import Chip
from audiogen_jax.train.lm_task import LMTask

_REMAT = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A way to train.

  Attributes:
    mesh: Devices along each axis.
    remat: What the backward pass computes again.
    batch: Rows of a step.
  """

  mesh: dict[str, int]
  remat: str
  batch: int


def candidates(
  task: LMTask, chip: Chip, devices: int, batch: int, slices: int
) -> Iterator[Candidate]:
  """Ways that may fit, the likeliest to be fast first.

  The state alone must fit in three quarters of the memory.  Sharding no more
  than is needed sends least; computing nothing again, and larger batches, make
  the most of what is sent.  Slices are joined along `data`.
  """
  like = jax.eval_shape(task.init, jax.random.key(0))
  state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
  heads = task.lm.transformer.heads
  meshes = []
  for tensor, fsdp in itertools.product(_powers(devices), _powers(devices)):
    data, rest = divmod(devices, tensor * fsdp)
    if rest or not data or data % slices or heads % tensor or tensor > 8:
      continue
    if chip.memory and state / (fsdp * tensor) > 0.75 * chip.memory:
      continue
    meshes.append({"data": data, "fsdp": fsdp, "tensor": tensor})
  meshes.sort(key=lambda mesh: (mesh["tensor"], mesh["fsdp"]))
  # The nearest to the best of each come first, so that a few tries see
  # several of all three.
  ways = itertools.product(
    enumerate(meshes), enumerate((batch, 2 * batch)), enumerate(_REMAT)
  )
  for way in sorted(ways, key=lambda way: sum(place for place, _ in way)):
    mesh, rows, remat = (choice for _, choice in way)
    if rows % (mesh["data"] * mesh["fsdp"]) == 0:
      yield Candidate(mesh, remat, rows)


def _powers(most: int) -> list[int]:
  return [2**i for i in range(most.bit_length()) if 2**i <= most]
