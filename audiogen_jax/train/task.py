"""What the loop asks of something to train."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
from etils import epath

from audiogen_jax.core.sharding import Axes
from audiogen_jax.core.types import TokenSpec, Tree
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.train.state import TrainState

Batch: TypeAlias = Mapping[str, jax.Array]


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
  wants: SoundSpec | TokenSpec

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

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the model that was trained."""
