"""Which rows of a batch each host reads, on every pod up to 256 chips.

On libtpu's own descriptions of them; nothing is computed.
"""

import importlib.util
import json
import pathlib
import re

import numpy as np
import pytest
import virtual_pod

from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.loader import among

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install 'audiogen_jax[plan]'",
)
ROOT = pathlib.Path(__file__).parents[1]
FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
PODS = [f"{kind}:{shape}" for kind in ("v5e", "v6e") for shape in FLAT]
PODS += [f"{kind}:{shape}" for kind in ("v4", "v5p") for shape in DEEP]
RULES = {"batch": ("data", "fsdp")}


def meshes():
  """Those that README, configurations and launch files name, by axis."""
  files = [*ROOT.glob("**/README.md"), *(ROOT / "configs").glob("*.py")]
  files += filter(pathlib.Path.is_file, (ROOT / "launch").iterdir())
  found = {(1, -1, 1), (-1, 1, 1)}  # the configurations' defaults
  for file in files:
    text = file.read_text()
    for named in re.findall(r"--mesh[ =]([\w=,-]+)", text):
      found.add(sizes(re.findall(r"(\w+)=(-?\d+)", named)))
    for line in re.split(r"\n\s*\n|`", text):
      if named := re.findall(r"config\.mesh\.(\w+)=(-?\d+)", line):
        found.add(sizes(named))
    for line in re.findall(r"v\d\w:[\dx]+, ([a-z ×\d]+),", text):
      found.add(sizes(re.findall(r"(\w+) (\d+)", line)))
  return sorted(found)


def sizes(named):
  given = {"data": 1, "fsdp": 1, "tensor": 1} | {k: int(n) for k, n in named}
  return tuple(given.values())


def read_and_placed(placement, batch):
  """Rows by process, each held against what its devices want."""
  wanted = placement.sharding("batch").devices_indices_map((batch,))
  processes = {device.process_index for device in wanted}
  found = {index: placement.rows(batch, index) for index in processes}
  for device, (place,) in wanted.items():
    held = found[device.process_index]
    own = np.arange(batch)[place]
    np.testing.assert_array_equal(held[among(held, place)], own)
  for index, held in found.items():
    own = {
      row
      for device, (place,) in wanted.items()
      if device.process_index == index
      for row in range(*place.indices(batch))
    }
    assert set(held) == own  # no more than its devices hold
  assert set().union(*found.values()) == set(range(batch))
  return found


def test_every_mesh_is_found():
  named = meshes()
  assert {(1, 16, 1), (16, 16, 1), (1, 64, 1), (-1, 16, 1)} <= set(named)


@pytest.mark.parametrize("pod", PODS)
def test_rows_belong_to_their_hosts(pod):
  from audiogen_jax.plan import chips

  _, devices = chips.topology(pod)
  done = 0
  for shape in meshes():
    try:
      named = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
      mesh = sharding.arrange(named, devices)
    except InputError:
      continue  # another number of chips
    if mesh.devices.size < len(devices):
      continue
    placement = Placement.make(mesh, RULES)
    for rows_a_way in (1, 3):
      read_and_placed(placement, rows_a_way * placement.ways("batch"))
    done += 1
  assert done >= 2


def test_hosts_whose_rows_are_no_stretch():
  """What made three of four pods read wrong rows."""
  from audiogen_jax.plan import chips

  _, devices = chips.topology("v5e:4x4")
  mesh = sharding.arrange({"data": 1, "fsdp": 16}, devices)
  rows = read_and_placed(Placement.make(mesh, RULES), 16)
  assert any(np.any(np.diff(held) > 1) for held in rows.values())


@pytest.mark.parametrize("name", virtual_pod.TOPOLOGIES)
def test_virtual_pods_are_as_libtpu_says(name):
  """`topologies.json`; written anew by hand where a new libtpu differs."""
  from audiogen_jax.plan import chips

  count, _, pod = name.rpartition(" x ")
  _, devices = chips.topology(pod, int(count or 1))
  told = [
    [
      device.process_index,
      list(device.coords),
      device.core_on_chip,
      getattr(device, "slice_index", None) or 0,
    ]
    for device in devices
  ]
  assert json.loads(json.dumps(told)) == virtual_pod.TOPOLOGIES[name]
