"""Topologies of pods that are not there, and how meshes lie on them."""

import importlib.util
import math

import numpy as np
import pytest

from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.plan import chips, reading

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install 'audiogen_jax[plan]'",
)


def test_slices_are_joined_along_data():
  """Only `data` crosses the data centre's network; the rest stays inside."""
  _, devices = chips.topology("v5e:2x2", 2)
  for sizes in (
    {"data": 2, "fsdp": 4},
    {"data": -1, "fsdp": 4},
    {"data": 1, "fsdp": -1},  # as in the configurations
    {"fsdp": 4, "data": 2},
    {"data": 4, "fsdp": 2, "tensor": 1},
  ):
    mesh = sharding.arrange(sizes, devices)
    grid = np.moveaxis(mesh.devices, mesh.axis_names.index("data"), 0)
    slices = [{d.slice_index for d in row.flat} for row in grid]
    half = len(slices) // 2
    assert slices in (
      [{0}] * half + [{1}] * half,
      [{1}] * half + [{0}] * half,
    ), sizes
  # One slice alone is no matter of the network.
  mesh = sharding.arrange({"data": 1, "fsdp": 4}, devices)
  assert {d.slice_index for d in mesh.devices.flat} == {0}
  for sizes in (
    {"data": 1, "fsdp": 8},  # weights would be gathered between slices
    {"fsdp": -1},
    {"data": 2, "fsdp": 3},
  ):
    with pytest.raises(InputError, match="2 slices of 4 devices are joined"):
      sharding.arrange(sizes, devices)
  _, devices = chips.topology("v5e:2x2", 3)
  with pytest.raises(InputError, match="data=3 or a multiple"):
    sharding.arrange({"data": 2, "fsdp": -1}, devices)


@pytest.mark.parametrize("kind", chips.CHIPS)
def test_every_slice_that_is_offered(kind):
  """One device a chip, of v4's two cores, too; four chips a host, or one."""
  for shape in chips.CHIPS[kind].shapes:
    chip, devices = chips.topology(f"{kind}:{shape}")
    count = math.prod(map(int, shape.split("x")))
    assert chip.name == kind and len(devices) == count
    hosts = {d.process_index for d in devices}
    assert len(hosts) == max(1, count // 4)
    mesh = sharding.arrange({"data": 1, "fsdp": -1, "tensor": 1}, devices)
    rows = reading.rows(Placement.make(mesh, {"batch": ("fsdp",)}), 2 * count)
    assert sorted(sum(rows.values(), [])) == list(range(2 * count))


def test_which_host_reads_what():
  """Rows of a host are no stretch; hosts that share rows read the same."""
  _, devices = chips.topology("v5e:4x4")
  rules = {"batch": ("data", "fsdp")}

  def of(batch, **sizes):
    mesh = sharding.arrange(sizes, devices)
    rows = reading.rows(Placement.make(mesh, rules), batch)
    return [reading.stretches(rows[host]) for host in range(4)]

  assert of(16, fsdp=16) == ["0-1, 6, 15", "2-5", "7, 12-14", "8-11"]
  assert of(4, data=4, tensor=4) == ["0-1", "0-1", "2-3", "2-3"]


def test_neighbours_in_the_mesh_are_neighbours_in_the_torus():
  _, devices = chips.topology("v5e:4x4")
  mesh = sharding.arrange({"data": 4, "fsdp": 4}, devices)
  for row in mesh.devices:
    along = {tuple(d.coords) for d in row}
    assert (
      len({x for x, *_ in along}) == 1 or len({y for _, y, *_ in along}) == 1
    )
