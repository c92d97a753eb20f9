"""What the loop asks of something to train."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
from etils import epath
from jaxtyping import Array, Float, Int

from audiogen_jax.core.abstract import Program
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.train.state import Batch, TrainState


class Wants(Protocol):
  """What a task asks of a dataset: see `data.spec`."""

  def check(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError unless the datasets in `folders` hold it.

    Args:
      settings: What the datasets say of themselves.
      folders: Where they are, for the message.
    """


@runtime_checkable
class Task(Protocol):
  """Something to train.  Everything is pure; the loop compiles it.

  Attributes:
    axes: Meanings of the axes of `params/…` and `extra/…`.
    best: The metric of an evaluation that is to be low.
    rate_hz: Of the sounds that `samples` gives.
    wants: What a dataset must hold.
  """

  axes: Mapping[str, Axes]
  best: str
  rate_hz: int
  wants: Wants

  def opened(self) -> "Task":
    """The task with what its sources say of themselves; reads no weights."""

  def tokenizer(self) -> Tokenizer | None:
    """What makes ids of captions; None if texts are not looked at."""

  def check_data(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError for data that `wants` would take and the task cannot.

    Args:
      settings: What the datasets say of themselves.
      folders: Where they are, for the message.
    """

  def check_parts(self) -> None:
    """Raises InputError where parts of the configuration do not fit together.

    `opened` does so, too; this reads nothing, and is for plans.
    """

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state."""

  def prepare(
    self, state: TrainState, batches: Iterator[Batch], key: jax.Array
  ) -> TrainState:
    """The state from which training starts, where that depends on data."""

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update; scalars, the first of them those that fail first."""

  def eval_step(self, state: TrainState, batch: Batch) -> Tree:
    """Sums over the valid rows of a batch, to be added up."""

  def summary(self, sums: Tree) -> dict[str, float]:
    """Metrics of an evaluation, from the sums of all its batches."""

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sounds `b n c` worth hearing."""

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Abstract arrays of a batch."""

  def model_flops(self, rows: int, seconds: float) -> float:
    """Operations that a step asks for, none done twice; 0 if not known.

    Args:
      rows: Of a batch.
      seconds: Of each row.
    """

  def prepare_programs(
    self,
    state: TrainState,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    key: jax.ShapeDtypeStruct,
    placement: Placement,
  ) -> dict[str, Program]:
    """What `prepare` runs, by name and in its order, for plans.

    Args:
      state: Abstract, with its shardings, as are all arguments.
      batch: One of those that `prepare` is given.
      key: Of the run.
      placement: The mesh.
    """

  def sampling_programs(
    self, rows: int, placement: Placement
  ) -> dict[str, Program]:
    """What making sounds from texts runs, for plans; none if it cannot.

    Args:
      rows: Sounds that are made side by side.
      placement: The mesh.
    """

  def variants(self) -> "Mapping[str, Task]":
    """Tasks that learn the same at another cost, by name: a plan's choices."""

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the model that was trained."""


@runtime_checkable
class Generating(Protocol):
  """A task whose model makes sounds of texts, which can be judged."""

  def generated(
    self, state: TrainState, batch: Batch, seeds: Int[Array, " b"]
  ) -> Float[Array, "b n c"]:
    """Sounds made for the texts of a batch, as long as its rows.

    What a row becomes depends on its text and seed, and not on the others.
    """

  def recorded(self, state: TrainState, batch: Batch) -> Float[Array, "b n c"]:
    """The recordings that the texts of a batch describe."""
