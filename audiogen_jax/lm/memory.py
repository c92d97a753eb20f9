"""Whether KV caches will fit into memory, asked before any is allocated."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

from audiogen_jax.core import processes, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.lm.model import LMConfig

_GIB = 2**30


def check(
  sounds: int,
  rows: int,
  steps: int,
  *,
  config: LMConfig,
  guided: bool,
  dtype: jnp.dtype,
  placement: Placement,
) -> None:
  """Refuses what cannot fit, and says what would.

  Operating systems promise memory that they do not have; whoever takes it is
  killed without a word.

  Args:
    sounds: How many are sampled at once.
    rows: Rows of the batch that holds them, a power of two or a multiple of
      the mesh.
    steps: Steps that a KV cache must hold, prepended text included.
    config: The model.
    guided: Whether each row runs twice, with and without its text
      (classifier-free guidance).
    dtype: Type of the model's matrix products.
    placement: Where it runs.

  Raises:
    InputError: If keys and values alone need more than is free.
  """
  free = free_bytes(placement)
  if free is None:
    return
  t, size = config.transformer, types.float_of(dtype).itemsize
  one = (2 if guided else 1) * 2 * t.width * t.layers * steps * size
  if placement.mesh.devices.flat[0].platform != "cpu":  # each has its own
    one /= placement.ways("batch") * placement.ways("heads")
  if rows * one <= free:
    return
  most = int(free // one)
  # Rows come in powers of two.
  fits = f"{1 << most.bit_length() - 1:,}" if most else "not even one"
  raise InputError(
    f"{sounds:,} sounds of {steps:,} steps need {rows * one / _GIB:,.1f} GiB"
    f" for keys and values, and {free / _GIB:,.1f} GiB are free; {fits} at once"
    " would fit"
  )


def free_bytes(placement: Placement) -> int | None:
  """Bytes free on a device, or on the machine; None if that is not known.

  Where processes share a mesh it is the least of them all: what one refuses all
  must refuse.
  """
  free = _free_here(placement)
  if not placement.spans:
    return free
  least = min(processes.gathered(-1 if free is None else free))
  return None if least < 0 else least


def _free_here(placement: Placement) -> int | None:
  """Bytes free on this process's first device, or on its machine.

  None where neither JAX nor the operating system (Linux) says so.
  """
  index = jax.process_index()
  own = (d for d in placement.mesh.devices.flat if d.process_index == index)
  if stats := next(own).memory_stats():
    return stats["bytes_limit"] - stats["bytes_in_use"]
  try:
    lines = Path("/proc/meminfo").read_text().splitlines()
  except OSError:  # another system than Linux
    return None
  fields = dict(line.split(":") for line in lines)
  return 1024 * int(fields["MemAvailable"].split()[0])


@contextlib.contextmanager
def explained(rows: int) -> Iterator[None]:
  """Says in our words what ran out within.

  Raises:
    InputError: If a device had no memory left.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    advice = f"try {rows // 2:,}" if rows > 1 else "try a smaller model"
    raise InputError(
      f"the device ran out of memory with {rows:,} sounds at once; {advice}"
    ) from None
