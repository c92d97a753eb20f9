"""TPUs that are not there, and how fast they are."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from audiogen_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one chip can do; from cloud.google.com/tpu/docs, its page of each.

  Attributes:
    name: As in topologies.
    memory: Bytes of HBM.
    flops: A second, bfloat16.
    bandwidth: Bytes of HBM a second.
    links: Bytes a second to other chips, all links together.
    network: Bytes a second to other slices: its share of what its host sends
      into the data centre.  Documented as 6.4 and 25.6 Tbit/s for 256 chips of
      v5e and v6e, and 50 Gbit/s a chip for v5p; v4 is taken to be like that.
    shapes: Slices that are offered, up to 256 chips; the compiler knows others.
    options: What the compiler must be told, to make one device of each chip.
  """

  name: str
  memory: float
  flops: float
  bandwidth: float
  links: float
  network: float
  shapes: tuple[str, ...] = ()
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
CHIPS = {
  chip.name: chip
  for chip in (
    # Both cores of a chip are one device of training, as of v5p by default.
    Chip(
      *("v4", 32e9, 275e12, 1228e9, 300e9, 6.25e9, _DEEP),
      {"chip_config_name": "megacore"},
    ),
    Chip("v5e", 16e9, 197e12, 819e9, 200e9, 3.125e9, _FLAT),
    Chip("v5p", 95e9, 459e12, 2765e9, 600e9, 6.25e9, _DEEP),
    Chip("v6e", 32e9, 918e12, 1640e9, 448e9, 12.5e9, _FLAT),
  )
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
  chip, shape = CHIPS[kind], name.partition(":")[2]
  for key, value in _SILENT.items():
    os.environ.setdefault(key, value)
  options = dict(chip.options)
  if slices > 1:
    options["num_slices"] = slices
  if shape == "1x1":  # a part of a host, which has more
    options["chips_per_host_bounds"] = (1, 1, 1)
  unknown = InputError(
    f"topology {name!r} is unknown to the compiler; slices of {kind} are"
    f" {', '.join(chip.shapes)} and larger, as in {kind}:{chip.shapes[1]}"
  )
  # The compiler would take cubes for flat chips and the other way round.
  if shape.count("x") != chip.shapes[0].count("x"):
    raise unknown
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
    raise unknown from None
  return chip, list(found.devices)


def here() -> tuple[Chip, list[jax.Device]]:
  """The devices of this machine; what is not known of them is 0."""
  devices = jax.devices()
  first = devices[0]
  told = first.memory_stats() or {} if first.platform != "cpu" else {}
  memory = told.get("bytes_limit", 0)
  if first.platform == "cpu":
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = pages / len(devices)
  return Chip(first.device_kind, float(memory), *(4 * [0.0])), devices
