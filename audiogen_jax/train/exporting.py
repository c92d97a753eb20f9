"""A model from the work folder of a run, whether it has ended or not."""

import os
from typing import Literal

import jax
from etils import epath

from audiogen_jax.core import checkpoint, sharding
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.train import configuration
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.workdir import told


def export(
  workdir: str | os.PathLike,
  folder: str | os.PathLike | None = None,
  *,
  step: int | Literal["last", "best"] = "last",
) -> tuple[epath.Path, int]:
  """Exports what a checkpoint of a run holds, on one device.

  Args:
    workdir: Of the run, local or in a bucket.
    folder: A new one for the model; None for `export_STEP` in the work folder.
    step: Of a checkpoint; or the last, or the best by the held-out metric.

  Returns:
    Where the model is, and its step.

  Raises:
    InputError: If there is no such run, step or metric, or the folder exists.
  """
  path = checkpoint.path_of(workdir)
  if not (path / "checkpoints").is_dir():
    raise InputError(f"{workdir} is no work folder: it has no checkpoints")
  run, task = configuration.parse(configuration.recognised(told(path)))
  task = task.opened()
  with Checkpoints(
    path / "checkpoints", keep=run.loop.keep, **run.loop.ranking(task)
  ) as checkpoints:
    number = _number(checkpoints, step, workdir)
    target = path / f"export_{number}" if folder is None else folder
    target = checkpoint.path_of(target)
    if target.exists():
      raise InputError(f"{target} exists; name another folder")
    placement = Placement.make(
      sharding.make_mesh(**dict.fromkeys(run.mesh, 1)), run.rules
    )
    programs = Programs(task, placement, run.loop.seed, run.loop.samples)
    like = jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      programs.like,
      programs.places,
    )
    state, _ = checkpoints.restore(number, like)
  task.export(state, target)
  return target, number


def _number(
  checkpoints: Checkpoints, step: int | str, workdir: str | os.PathLike
) -> int:
  steps = checkpoints.steps()
  if not steps:
    raise InputError(f"{workdir} holds no whole checkpoint yet")
  if step == "last":
    return steps[-1]
  if step == "best":
    best = checkpoints.best()
    if best is None:
      raise InputError(
        f"no checkpoint of {workdir} was evaluated; name one of"
        f" {', '.join(map(str, steps))}"
      )
    return best
  if step not in steps:
    raise InputError(
      f"{workdir} has no checkpoint of step {step}; it has"
      f" {', '.join(map(str, steps))}"
    )
  return step
