"""A clean end when the machine is wanted by others."""

import contextlib
import signal
from collections.abc import Iterator

import jax


class Stopped(Exception):
  """A signal ended the run; its state is saved.

  Attributes:
    number: Of the signal.
  """

  def __init__(self, number: int, step: int):
    super().__init__(
      f"stopped by {signal.Signals(number).name} at step {step:,}; the state"
      " is saved, and the same command goes on from there"
    )
    self.number = number


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
  """Collects SIGTERM and SIGINT instead of dying of them; a second one kills.

  With several processes JAX's own service watches for SIGTERM, so that all of
  them stop at the same step.
  """
  caught: list[int] = []
  watched = [signal.SIGINT]
  if jax.process_count() == 1:
    watched.append(signal.SIGTERM)

  def note(number, _):
    if caught:
      raise KeyboardInterrupt
    caught.append(number)

  before = {number: signal.signal(number, note) for number in watched}
  try:
    yield caught
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
