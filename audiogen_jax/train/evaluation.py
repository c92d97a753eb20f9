"""What a run shows on its way: figures over held-out data, and a few sounds."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from audiogen_jax.audio import drawing
from audiogen_jax.core import sharding
from audiogen_jax.data.loader import Loader
from audiogen_jax.train import inputs
from audiogen_jax.train.metrics import Log
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.reporting import say
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.task import Task


def evaluate(
  programs: Programs,
  task: Task,
  state: TrainState,
  loader: Loader,
  spec: Mapping[str, Any],
  step: int,
  log: Log,
) -> dict[str, float]:
  """Goes through all that is held out; returns the task's figures by name.

  They are printed and logged as `eval/NAME`, beside sounds and spectrograms of
  the first rows.  Sums over rows are added up on the devices, so that a batch
  counts by its valid rows.

  Args:
    programs: Of the run.
    task: What is trained.
    state: Which is evaluated.
    loader: Of what is held out; goes through it once.
    spec: Names of what the programs take of a batch.
    step: Updates made so far.
    log: Where the figures go.
  """
  sums = None
  with loader.batches() as batches:
    for number, batch in enumerate(batches):
      arrays = inputs.arrays(batch, spec | {"valid": None})
      more = programs.evaluate(state, arrays)
      sums = more if sums is None else jax.tree.map(jnp.add, sums, more)
      if number == 0 and programs.sample_rows:
        _log_sounds(log, step, programs.samples(state, arrays), task.rate_hz)
  figures = task.summary(jax.tree.map(sharding.fetch, sums))
  shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
  say(f"evaluation at step {step:,}: {shown}")
  log.scalars(step, {f"eval/{k}": v for k, v in figures.items()})
  log.flush()
  return figures


def _log_sounds(
  log: Log, step: int, sounds: Mapping[str, jax.Array], rate_hz: int
) -> None:
  """Sounds `b n c` by name, whole on every device, and their spectrograms."""
  if jax.process_index():
    return
  sounds = {name: sharding.fetch(rows) for name, rows in sounds.items()}
  log.audio(step, sounds, rate_hz)
  pictures = {
    name: np.stack([drawing.mel_image(sound, rate_hz) for sound in rows])
    for name, rows in sounds.items()
  }
  log.images(step, pictures)
