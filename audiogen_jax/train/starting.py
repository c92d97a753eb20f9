"""Where a run begins: its last whole checkpoint, or a fresh state."""

from collections.abc import Mapping
from typing import Any

import jax

from audiogen_jax.core import abstract, processes, sharding
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.loader import Batches, Loader
from audiogen_jax.train import inputs
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.reporting import say
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.task import Task


def start(
  programs: Programs,
  task: Task,
  placement: Placement,
  loader: Loader,
  checkpoints: Checkpoints,
  spec: Mapping[str, Any],
) -> tuple[TrainState, Batches]:
  """The state to go on from, on the devices of the mesh, and its batches.

  A checkpoint that cannot be read is set aside, and the one before is taken.
  With several processes, one that any of them cannot read is none.

  Args:
    programs: Of the run.
    task: What is trained.
    placement: The mesh.
    loader: Of what is trained on.
    checkpoints: Of the work folder.
    spec: Names of what a step takes of a batch.

  Raises:
    InputError: If there are checkpoints and none of them can be read.
  """
  step = processes.agreed(checkpoints.latest)
  if step is None:
    return _fresh(programs, task, placement, loader, spec), loader.batches()
  like = abstract.placed(programs.like, programs.places)
  while True:
    restored = reason = None
    try:
      restored = checkpoints.restore(step, like)
    except InputError as error:
      reason = str(error)
    reasons = list(filter(None, processes.gathered(reason)))
    if not reasons:
      say(f"going on from step {step:,}")
      state, notes = restored
      return state, loader.batches(notes["loader"])
    older = [s for s in checkpoints.steps() if s < step]
    if not older:
      raise InputError(reasons[0])
    say(f"{reasons[0]}: going on from the one before")
    checkpoints.set_aside(step)
    step = older[-1]


def _fresh(
  programs: Programs,
  task: Task,
  placement: Placement,
  loader: Loader,
  spec: Mapping[str, Any],
) -> TrainState:
  """The state before the first step, prepared from data and sources."""
  state = programs.init(programs.key)
  with loader.batches() as batches:
    arrays = (inputs.arrays(batch, spec) for batch in batches)
    with placement.active():
      state = task.prepare(state, arrays, programs.key)
  return jax.tree.map(sharding.moved, state, programs.places)
