"""Which host reads what of the data, and how fast it must."""

from collections.abc import Iterable

import numpy as np

from audiogen_jax.core.sharding import Placement

# Seconds of sound that a core of a host loads a second: 200 batches of 64 crops
# of 10 s, mixed, from the 320 clips of ESC-10, on two cores of a shared x86-64
# machine (README, the loader's figures).
LOADED_PER_CORE_S = 5689.0


def rows(placement: Placement, batch: int) -> dict[int, list[int]]:
  """The rows of a batch that each host reads, by the number of its process.

  Several hosts read the same rows where the mesh splits something else over
  them.
  """
  hosts = sorted({d.process_index for d in placement.mesh.devices.flat})
  return {host: placement.rows(batch, host).tolist() for host in hosts}


def stretches(numbers: Iterable[int]) -> str:
  """Rising numbers as `0-7, 16-23`."""
  values = np.asarray(list(numbers))
  parts = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
  return ", ".join(
    f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts
  )
