"""TPUs that are not there, and how fast they are."""

import dataclasses
import os

import jax
from jax.experimental import topologies

from audiogen_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one chip can do; from cloud.google.com/tpu/docs/system-architecture.

  Attributes:
    name: As in topologies.
    memory: Bytes of HBM.
    flops: A second, bfloat16.
    bandwidth: Bytes of HBM a second.
    links: Bytes a second to other chips, all links together.
  """

  name: str
  memory: float
  flops: float
  bandwidth: float
  links: float


CHIPS = {
  "v4": Chip("v4", 32e9, 275e12, 1228e9, 300e9),
  "v5e": Chip("v5e", 16e9, 197e12, 819e9, 200e9),
  "v5p": Chip("v5p", 95e9, 459e12, 2765e9, 600e9),
  "v6e": Chip("v6e", 32e9, 918e12, 1640e9, 448e9),
}
# What libtpu asks a machine with TPUs; one without has no answers.
_SILENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  # Several programs may compile at once: none of them holds a TPU.
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def topology(name: str, slices: int = 1) -> tuple[Chip, list[jax.Device]]:
  """A pod's chips, to compile for.

  Args:
    name: Kind and shape, `v5e:4x4` or `v5p:2x2x4`.
    slices: Pods of that shape, joined by the data centre's network.

  Raises:
    InputError: For a topology that does not exist, or without libtpu.
  """
  kind = name.partition(":")[0]
  if kind not in CHIPS:
    raise InputError(
      f"topology {name!r}: the kind must be one of {', '.join(CHIPS)}, as in"
      " v5e:4x4 or v5p:2x2x4"
    )
  for key, value in _SILENT.items():
    os.environ.setdefault(key, value)
  options = {"num_slices": slices} if slices > 1 else {}
  try:
    found = topologies.get_topology_desc(
      topology_name=name, platform="tpu", **options
    )
  except Exception as error:  # the plugin's errors have no common ancestor
    reason = " ".join(str(error).split())[:200]
    if "libtpu" in reason and "topology" not in reason.lower():
      raise InputError(
        f"the TPU compiler cannot be loaded: {reason}; pip install"
        " 'audiogen_jax[plan]'"
      ) from None
    raise InputError(
      f"topology {name!r} is unknown to the compiler ({reason}); shapes are"
      " those of slices, such as v5e:2x2, v5e:4x4, v5e:16x16, v5p:2x2x4"
    ) from None
  return CHIPS[kind], list(found.devices)


def here() -> tuple[Chip, list[jax.Device]]:
  """The devices of this machine; what is not known of them is 0."""
  devices = jax.devices()
  first = devices[0]
  told = first.memory_stats() or {} if first.platform != "cpu" else {}
  memory = told.get("bytes_limit", 0)
  if first.platform == "cpu":
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = pages / len(devices)
  return Chip(first.device_kind, float(memory), 0.0, 0.0, 0.0), devices
