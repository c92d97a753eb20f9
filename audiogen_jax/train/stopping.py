"""A clean end when the machine is wanted by others."""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax

from audiogen_jax.core.checkpoints import Checkpoints


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
  """Collects SIGTERM and SIGINT instead of dying of them; a second one kills.

  With several processes JAX's own service watches for SIGTERM in each of them,
  so that all stop at the same step (`Checkpoints.reached_preemption`); a Ctrl-C
  in one is handed to it.
  """
  caught: list[int] = []
  alone = jax.process_count() == 1
  watched = [signal.SIGINT, signal.SIGTERM] if alone else [signal.SIGINT]

  def note(number, _):
    if caught:
      raise KeyboardInterrupt
    caught.append(number)
    if not alone:
      os.kill(os.getpid(), signal.SIGTERM)

  before = {number: signal.signal(number, note) for number in watched}
  try:
    yield caught
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def agreed(caught: list[int], checkpoints: Checkpoints, step: int) -> int:
  """The signal that ends the run after `step`, or 0; all processes agree.

  Args:
    caught: From `collected`.
    checkpoints: Of the run; they know of pre-emptions.
    step: Updates made so far.
  """
  if jax.process_count() == 1:
    return caught[0] if caught else 0
  return signal.SIGTERM if checkpoints.reached_preemption(step) else 0
