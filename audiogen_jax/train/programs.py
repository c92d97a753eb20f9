"""The programs of a run: its task's functions, compiled for its mesh.

The loop runs them; plans compile them for other machines, benchmarks time them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.train import state
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.task import Batch, Generating, Task

# A TPU's compiler takes long to make programs fast, which is not worth it for
# what runs once, or once in thousands of steps: `samples` of `lm_1p5b` took 251
# seconds of processor time, and takes 106 with this.
_SOON = {"exec_time_optimization_effort": -1.0}


class Programs:
  """Functions under jit, their results where they belong.

  Attributes:
    key: Of all randomness of the run.
    like: A state, abstract.
    places: Where each of its arrays lives.
    sample_rows: Rows that `samples` takes; 0 for none.
    names: Of the metrics of a step, once there has been one.
    init: A key to a state.
    step: A state, which is donated, and a batch to the next and its metrics.
    evaluate: `Task.eval_step`.
    samples: `Task.samples` of the first rows of a batch.
    generated: `Generating.generated`; None if the task makes no sounds of
      texts.
    recorded: `Generating.recorded`; likewise.
  """

  def __init__(
    self, task: Task, placement: Placement, seed: int, samples: int
  ) -> None:
    """Compiles nothing yet.

    Args:
      task: What is trained.
      placement: Where.
      seed: Of all randomness.
      samples: Rows that `samples` takes.

    Raises:
      InputError: If the mesh does not divide something, or a rule of sharding
        is about nothing.
    """
    self._task, self._placement = task, placement
    self.sample_rows = samples
    self.key = jax.random.key(seed)
    self.like = jax.eval_shape(task.init, self.key)
    self.places = state.shardings(self.like, task.axes, placement)
    self.names: tuple[str, ...] = ()
    whole = placement.sharding()
    self.init = self._jit(task.init, self.places, options=_SOON)
    self.step = self._jit(self._update, (self.places, whole), donate=0)
    self.evaluate = self._jit(task.eval_step, whole)
    self.samples = self._jit(self._heard, whole, options=_SOON)
    self.generated = self.recorded = None
    if isinstance(task, Generating):
      self.generated = self._jit(task.generated, whole, options=_SOON)
      self.recorded = self._jit(task.recorded, whole, options=_SOON)

  def _update(
    self, now: TrainState, batch: Batch
  ) -> tuple[TrainState, jax.Array]:
    """A step, its metrics as one array: one small transfer for all."""
    key = jax.random.fold_in(self.key, now.step)
    new, values = self._task.train_step(now, batch, key)
    # What a step returns must itself be finite, or a checkpoint might not be.
    values["param_norm"] = optax.tree.norm(new.params)
    self.names = tuple(values)
    return new, jnp.stack([jnp.float32(value) for value in values.values()])

  def _heard(self, now: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """The first rows, all of them on every device.

    They may be fewer than the mesh splits rows into.  And where rows are not
    split, no device needs whole weights for its own: products of a part of the
    weights are summed, which for a few rows is next to nothing to send.
    """
    rules = tuple(rule for rule in self._placement.rules if rule[0] != "batch")
    unsplit = dataclasses.replace(self._placement, rules=rules)
    few = {
      name: jax.lax.with_sharding_constraint(
        x[: self.sample_rows], unsplit.sharding()
      )
      for name, x in batch.items()
    }
    with unsplit.active():
      return self._task.samples(now, few)

  def _jit(
    self,
    function: Callable,
    places: Tree,
    donate: int | tuple[int, ...] = (),
    options: Mapping[str, Any] | None = None,
  ) -> Callable:
    """`function` under jit on the run's mesh, its results at `places`."""

    @functools.wraps(function)
    def within(*arguments):
      with self._placement.active():
        return function(*arguments)

    # The whole state is on the devices whatever a program looks at of it; as an
    # argument it is in what the compiler says of memory, tiles filled up.
    return jax.jit(
      within,
      out_shardings=places,
      donate_argnums=donate,
      keep_unused=True,
      compiler_options=options,
    )
