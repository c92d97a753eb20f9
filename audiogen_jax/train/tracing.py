"""A trace of five steps, for TensorBoard or Perfetto."""

import contextlib
from collections.abc import Iterator

import jax
from etils import epath

from audiogen_jax.train.reporting import say

_STEPS = 5


class Trace:
  """Traces steps `first` to `first + 4`, or what a run has of them.

  A run that goes on from within the five traces the rest; one that stops there
  keeps what it has.
  """

  def __init__(self, folder: epath.Path, first: int, steps: int) -> None:
    """Traces nothing yet.

    Args:
      folder: Where the trace goes.
      first: The first step of it; 0 for no trace.
      steps: Steps of the run, in all.
    """
    self._folder, self._first = folder, first
    self._last = min(first + _STEPS - 1, steps)
    self._begun: int | None = None  # the step at which it began, while it runs
    self._step = 0

  def __enter__(self) -> "Trace":
    return self

  def __exit__(self, *_: object) -> None:
    self._end()

  @contextlib.contextmanager
  def around(self, step: int) -> Iterator[list[jax.Array]]:
    """Surrounds a step.

    The caller puts into the list what the step computes: a trace ends once that
    is there, and so holds all of its last step.
    """
    computed: list[jax.Array] = []
    if (
      self._first
      and self._begun is None
      and (self._first <= step <= self._last)
    ):
      jax.profiler.start_trace(str(self._folder))
      self._begun = step
    yield computed
    self._step = step
    if self._begun is not None and step == self._last:
      jax.block_until_ready(computed)
      self._end()

  def _end(self) -> None:
    """Writes the trace, if one has begun."""
    if self._begun is None:
      return
    jax.profiler.stop_trace()
    say(
      f"a trace of steps {self._begun:,} to {self._step:,} is in {self._folder}"
    )
    self._begun = None
