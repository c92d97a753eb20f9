"""How fast training steps run, without data: the step of the loop alone."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from audiogen_jax.benchmark import machine
from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.task import Task


@dataclasses.dataclass(frozen=True)
class TrainFigures:
  """What training took.

  Attributes:
    batch: Rows of a step.
    devices: How many.
    first_s: Seconds of the first step, compilation included.
    step_s: Seconds of each step after it.
    flops: Operations that a step asks for; 0 if not known.
    peak_bytes: Most memory of device or process.
  """

  batch: int
  devices: int
  first_s: float
  step_s: list[float]
  flops: float
  peak_bytes: int

  @property
  def median_s(self) -> float:
    """Seconds a step."""
    return machine.median(self.step_s)

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    return dataclasses.asdict(self) | {"median_s": self.median_s}


def measure(
  run: RunConfig,
  task: Task,
  *,
  steps: int,
  progress: Callable[[str, int, int], None],
) -> TrainFigures:
  """Steps on one batch of noise, on the mesh of the run.

  Raises:
    InputError: If the mesh does not divide something.
  """
  placement = Placement.make(
    sharding.arrange(run.mesh, jax.devices()), run.rules
  )
  programs = Programs(task, placement, run.loop.seed, run.loop.samples)
  numbers = np.random.default_rng(0)

  def noise(x: jax.ShapeDtypeStruct) -> jax.Array:
    kind = np.dtype(x.dtype)
    if kind == np.bool_:
      values = np.ones(x.shape, kind)
    elif np.issubdtype(kind, np.integer):
      values = numbers.integers(2, 100, x.shape).astype(kind)
    else:
      values = numbers.normal(0, 0.1, x.shape).astype(kind)
    place = placement.sharding("batch", *[None] * (x.ndim - 1))
    return jax.device_put(values, place)

  spec = task.batch_spec(run.data.batch, run.data.duration_s)
  batch = {name: noise(x) for name, x in spec.items()}

  flops = task.model_flops(run.data.batch, run.data.duration_s)
  now = programs.init(programs.key)
  taken = []
  for i in range(steps + 1):
    progress("compiling" if not i else "training", i, steps + 1)
    start = time.perf_counter()
    now, values = programs.step(now, batch)
    jax.block_until_ready(values)
    taken.append(time.perf_counter() - start)
  return TrainFigures(
    batch=run.data.batch,
    devices=placement.mesh.devices.size,
    first_s=taken[0],
    step_s=taken[1:],
    flops=flops,
    peak_bytes=machine.peak_bytes(),
  )
