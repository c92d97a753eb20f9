"""What the machine can do, and what a run took of it."""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from audiogen_jax.benchmark.roofline import Speed
from audiogen_jax.core import types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds

C = TypeVar("C")
T = TypeVar("T")

_GIB = 2**30
_BYTES = 2**29  # read to measure bandwidth: far more than any cache holds
_MATRIX = 1024, 4096  # as the weights of a language model are
_SQUARE = 2048  # rows and columns, to measure arithmetic
_RUNS = 7


def name() -> str:
  """Devices, as JAX calls them."""
  devices = jax.devices()
  kind = devices[0].device_kind
  return f"{len(devices)} x {kind}" if len(devices) > 1 else kind


def check_memory(batch: int, duration_s: Seconds, samples_per_s: int) -> None:
  """Refuses sounds that this machine cannot hold.

  Raises:
    InputError: Before memory runs out, with what it has.
  """
  has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  # As noise in float64, in float32, and what comes back.
  needs = 16 * batch * duration_s * samples_per_s
  if needs > has:
    raise InputError(
      f"{batch:,} x {duration_s:g} s of sound need {needs / _GIB:,.0f} GiB, and"
      f" this machine has {has / _GIB:,.0f}; take fewer or shorter ones"
    )


def bandwidth() -> float:
  """Bytes a second that a device reads, at best of several runs.

  Measured with products of matrices and two vectors, which is what decoding one
  guided prompt does with its weights.
  """
  rows, columns = _MATRIX
  count = max(1, _BYTES // (4 * rows * columns))
  matrices = [jnp.full(_MATRIX, i, jnp.float32) for i in range(count)]
  vectors = jnp.ones((2, rows), jnp.float32)

  @jax.jit
  def products(vectors, matrices):
    return [vectors @ matrix for matrix in matrices]

  taken = min(times(lambda: products(vectors, matrices), _RUNS))
  return count * 4 * rows * columns / taken


def arithmetic(dtype: jnp.dtype) -> float:
  """Operations a second on numbers of a type, at best of several runs.

  Measured with a product of matrices that is far larger than what it reads.
  """
  matrix = jnp.ones((_SQUARE, _SQUARE), dtype)
  product = jax.jit(lambda x: x @ x)
  return 2 * _SQUARE**3 / min(times(lambda: product(matrix), _RUNS))


def speed(dtype: jnp.dtype) -> Speed:
  """What this machine reads and computes a second.

  Args:
    dtype: What products are computed in; of int8 what it is widened to.
  """
  return Speed(name(), arithmetic(types.float_of(dtype)), bandwidth())


def times(run: Callable[[], Any], count: int) -> list[float]:
  """Seconds of so many runs, after one that may compile."""
  jax.block_until_ready(run())
  found = []
  for _ in range(count):
    start = time.perf_counter()
    jax.block_until_ready(run())
    found.append(time.perf_counter() - start)
  return found


def in_turn(
  contestants: Sequence[C], run: Callable[[C], T], runs: int
) -> list[tuple[T, list[T]]]:
  """What `run` gives of each contestant, the next one after every run.

  So whatever else the machine does meets all alike.

  Args:
    contestants: Those that are compared.
    run: Has one of them do the work.
    runs: Of each, after a first one, which may compile.

  Returns:
    For each contestant what its first run gave, and what the others did.
  """
  turns = [[run(each) for each in contestants] for _ in range(runs + 1)]
  return [(first, later) for first, *later in zip(*turns, strict=True)]


def peak_bytes() -> int:
  """The most memory so far: of the fullest device, or of this process."""
  found = [device.memory_stats() for device in jax.local_devices()]
  known = [told["peak_bytes_in_use"] for told in found if told]
  if known:
    return max(known)
  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return most if sys.platform == "darwin" else 1024 * most


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
  """A list that grows by the seconds of each compilation within."""
  found: list[float] = []

  def listen(event: str, seconds: float, **_) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
      found.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def median(values: list[float]) -> float:
  """The median; runs differ, and the slow ones tell of other work."""
  return float(np.median(values))
