"""A clean end when the machine is wanted by others."""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax


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
