"""From what an axis means to where it lives.

A room names the axes of its parameters (`AXES`: regular expression on the path
-> meanings), a caller says where meanings go (`rules`: meaning -> mesh axes),
and a `Placement` joins the two.  No model ever names a mesh axis.
"""

import contextlib
import contextvars
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, Tree

Axes: TypeAlias = tuple[str | None, ...]
Rules: TypeAlias = Mapping[str, str | tuple[str, ...] | None]

# Sampling: prompts are spread over `data`; heads, feed-forward and channels
# over `tensor`.
SAMPLING_RULES: Rules = {
  "batch": "data",
  "heads": "tensor",
  "ff": "tensor",
  "channels": "tensor",
  "vocab": "tensor",
}

_active: contextvars.ContextVar["Placement | None"] = contextvars.ContextVar(
  "placement", default=None
)


@dataclasses.dataclass(frozen=True)
class Placement:
  """A mesh and the rules that send meanings to its axes.

  Hashable, so that it can be a static argument of `jax.jit`: the same function
  on another mesh is another compilation.
  """

  mesh: Mesh
  rules: tuple[tuple[str, str | tuple[str, ...] | None], ...]

  @classmethod
  def make(
    cls, mesh: Mesh | None, rules: Rules = SAMPLING_RULES
  ) -> "Placement":
    """A placement on `mesh`; None takes this process's devices along `data`.

    Raises:
      InputError: If it is no mesh.
    """
    if mesh is None:
      mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
    if not isinstance(mesh, jax.sharding.Mesh):
      raise InputError(
        f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__};"
        " core.sharding.make_mesh(data=4, tensor=2) makes one"
      )
    # Users' meshes may come with explicit axis types, under which every
    # operation would have to name its output's sharding; the compiler's own
    # propagation is what this code is written for.
    auto = (AxisType.Auto,) * len(mesh.axis_names)
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=auto)
    return cls(mesh, tuple(sorted(rules.items())))

  def spec(self, axes: Axes) -> PartitionSpec:
    """Mesh axes for these meanings; an absent mesh axis splits nothing."""
    rules = dict(self.rules)
    parts = []
    for axis in axes:
      target = rules.get(axis) if axis else None
      names = (target,) if isinstance(target, str) else target or ()
      names = tuple(n for n in names if n in self.mesh.axis_names)
      parts.append(names[0] if len(names) == 1 else names or None)
    return PartitionSpec(*parts)

  def sharding(self, *axes: str | None) -> NamedSharding:
    """Sharding of an array whose dimensions have these meanings."""
    return NamedSharding(self.mesh, self.spec(axes))

  @property
  def spans(self) -> bool:
    """Whether devices of other processes take part."""
    return len({d.process_index for d in self.mesh.devices.flat}) > 1

  def put(self, values: AnyArray | np.generic, *axes: str | None) -> jax.Array:
    """Values that every process has, on the devices: each holds its part."""
    return put(values, self.sharding(*axes))

  def ways(self, axis: str) -> int:
    """Into how many parts an axis of this meaning is split."""
    (names,) = self.spec((axis,))
    names = (names,) if isinstance(names, str) else names or ()
    return int(np.prod([self.mesh.shape[n] for n in names], dtype=int))

  def rows(
    self, size: int, process: int | None = None
  ) -> Int[np.ndarray, " b"]:
    """Which rows of a batch of `size` the devices of a process hold.

    They need be no stretch: on a pod the order of the mesh is that of the
    torus, in which a host owns a square of chips.

    Args:
      size: Rows in all.
      process: Its number; None for this one.

    Returns:
      Row numbers, int64, rising; each once, on however many devices it lies.

    Raises:
      InputError: If the mesh does not divide `size`, or none of its devices is
        the process's.
    """
    self.check_batch(size)
    index = jax.process_index() if process is None else process
    slices = self.sharding("batch").devices_indices_map((size,))
    held = {
      rows.indices(size)
      for device, (rows,) in slices.items()
      if device.process_index == index
    }
    if not held:
      raise InputError(
        f"the mesh {dict(self.mesh.shape)} has no device of process {index};"
        " every process must take part in it"
      )
    return np.unique(np.concatenate([np.arange(*one) for one in held]))

  def check_batch(self, size: int, what: str = "batch") -> None:
    """Raises InputError if the mesh does not divide so many rows."""
    ways = self.ways("batch")
    if size % ways:
      below, above = size // ways * ways, -(-size // ways) * ways
      near = f"{below} or {above}" if below else f"{above}"
      raise InputError(
        f"{what} {size} does not divide over the mesh"
        f" {dict(self.mesh.shape)}, which splits it {ways} ways; the nearest"
        f" that do: {near}"
      )

  @contextlib.contextmanager
  def active(self) -> Iterator[None]:
    """Within it `constrain` speaks of this mesh; enter inside `jax.jit`."""
    token = _active.set(self)
    try:
      yield
    finally:
      _active.reset(token)


def put(
  values: AnyArray | np.generic, place: jax.sharding.Sharding
) -> jax.Array:
  """Values that every process has, as an array sharded as `place` says.

  `jax.device_put` would first compare them across all processes.
  """
  if place.is_fully_addressable:
    return jax.device_put(values, place)
  return jax.make_array_from_callback(
    np.shape(values), place, lambda index: np.asarray(values[index])
  )


def padded(values: AnyArray, rows: int) -> np.ndarray:
  """Values with rows of zeros behind them, so that there are `rows`."""
  values = np.asarray(values)
  behind = [(0, rows - len(values)), *[(0, 0)] * (values.ndim - 1)]
  return np.pad(values, behind)


def grouped(placement: Placement, values: AnyArray) -> Iterator[jax.Array]:
  """Rows in groups of one for each part that a batch is split into.

  Args:
    placement: Devices, which each hold one row of a group.
    values: Of shape `b …`, whole in every process; the last group is filled
      with zeros.
  """
  values = fetch(values)
  ways = placement.ways("batch")
  for at in range(0, len(values), ways):
    group = padded(values[at : at + ways], ways)
    yield placement.put(group, "batch", *[None] * (group.ndim - 1))


def moved(x: jax.Array, place: jax.sharding.Sharding) -> jax.Array:
  """An array resharded to `place`, which has the same devices."""
  if x.sharding.is_equivalent_to(place, x.ndim):
    return x
  if x.is_fully_addressable and place.is_fully_addressable:
    return jax.device_put(x, place)
  return jax.jit(_same, out_shardings=place)(x)


def fetch(x: AnyArray) -> np.ndarray:
  """The whole array on the host, in every process that calls this.

  Where parts of it lie with other processes all of them must call it.
  """
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    if not x.is_fully_replicated:
      x = jax.jit(
        _same, out_shardings=NamedSharding(x.sharding.mesh, PartitionSpec())
      )(x)
    x = x.addressable_data(0)
  return np.asarray(jax.device_get(x))


def _same(x: jax.Array) -> jax.Array:
  return x


def make_mesh(**sizes: int) -> Mesh:
  """A mesh with named axes, for example `make_mesh(data=4, tensor=2)`.

  Args:
    **sizes: Devices along each axis; one of them may be -1, for all devices
      that the others leave.

  Raises:
    InputError: If there are fewer devices than the sizes ask for, -1 cannot be
      filled in, or a process has no device in it.
  """
  mesh = arrange(sizes, jax.devices())
  inside = {device.process_index for device in mesh.devices.flat}
  outside = sorted(set(range(jax.process_count())) - inside)
  if outside:
    shown = " x ".join(f"{name}={size}" for name, size in sizes.items())
    raise InputError(
      f"mesh {shown} takes {mesh.devices.size} of {jax.device_count()} devices,"
      f" and none of process {outside[0]}'s; let one axis be -1, for all"
    )
  return mesh


def arrange(sizes: Mapping[str, int], devices: Sequence[jax.Device]) -> Mesh:
  """A mesh of these devices, or of the first of them.

  On TPUs neighbours in the mesh are neighbours in the torus, and slices are
  joined along `data`, which sends least: nothing else crosses the data centre's
  network.  Where `data` is 1 and another axis is -1, as in the configurations,
  `data` becomes the number of slices.  A mesh that would let another axis cross
  is refused: weights would be gathered over that network in every layer.
  Elsewhere devices keep their order.

  Raises:
    InputError: As for `make_mesh`, and for slices that `data` cannot join.
  """
  shown = " x ".join(f"{k}={v}" for k, v in sizes.items())
  slices = len({getattr(d, "slice_index", 0) for d in devices})
  if devices[0].platform != "tpu":  # others call a host a slice
    slices = 1
  if slices > 1 and -1 in sizes.values() and sizes.get("data") == 1:
    sizes = {**sizes, "data": slices}
  given = int(np.prod([n for n in sizes.values() if n != -1], dtype=int))
  if -1 in sizes.values() and (given < 1 or len(devices) % given):
    raise InputError(
      f"mesh {shown}: {given} does not divide the {len(devices)} devices"
    )
  sizes = {k: len(devices) // given if n == -1 else n for k, n in sizes.items()}
  shape = tuple(sizes.values())
  wanted = int(np.prod(shape, dtype=int))
  if not 0 < wanted <= len(devices):
    raise InputError(
      f"mesh {shown} needs {wanted} devices; {len(devices)} are here"
    )
  chosen = list(devices)[:wanted]
  if slices > 1 and wanted > len(devices) // slices:
    if wanted < len(devices) or sizes.get("data", 1) % slices:
      raise InputError(
        f"mesh {shown}: {slices} slices of {len(devices) // slices} devices are"
        f" joined along data, so it must take all of them with data={slices} or"
        " a multiple; what other axes send is too much for the network between"
      )
    across = [slices if k == "data" else 1 for k in sizes]
    inside = [n // m for n, m in zip(shape, across, strict=True)]
    grid = mesh_utils.create_hybrid_device_mesh(
      inside, across, chosen, allow_split_physical_axes=True
    )
  elif chosen[0].platform == "tpu" and wanted == len(devices):
    grid = mesh_utils.create_device_mesh(
      shape, chosen, allow_split_physical_axes=True
    )
  else:
    grid = np.asarray(chosen).reshape(shape)
  return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Tells the compiler where `x` lives; does nothing without a placement."""
  placement = _active.get()
  if placement is None:
    return x
  return jax.lax.with_sharding_constraint(x, placement.sharding(*axes))


def current() -> Placement:
  """The placement that is active, or this process's devices along `data`."""
  return _active.get() or Placement.make(None)


def path_name(path: tuple) -> str:
  """A key path as `encoder/down_0/conv/kernel`."""
  return "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)


def axes_of(name: str, rank: int, table: Mapping[str, Axes]) -> Axes:
  """Meanings of the axes of the parameter called `name`.

  Args:
    name: Path of the parameter, joined by slashes.
    rank: Its number of dimensions.
    table: A room's `AXES`.

  Raises:
    KeyError: If no expression matches, several do, or the rank differs.
  """
  hits = [axes for rule, axes in table.items() if re.fullmatch(rule, name)]
  if len(hits) != 1:
    raise KeyError(f"parameter {name!r} is matched by {len(hits)} rules, not 1")
  if len(hits[0]) != rank:
    raise KeyError(f"{name!r} has {rank} axes, its rule names {hits[0]}")
  return hits[0]


def shardings(
  tree: Tree, table: Mapping[str, Axes], placement: Placement
) -> Tree:
  """A NamedSharding for every parameter of `tree` (arrays or abstract arrays).

  Raises:
    KeyError: If a parameter has no rule in `table`; the message has its path.
    InputError: If the mesh does not divide an axis, or the rules send two axes
      of a parameter to one mesh axis.
  """

  def one(path, leaf):
    name = path_name(path)
    axes = axes_of(name, leaf.ndim, table)
    spec = placement.spec(axes)
    used = [n for part in spec for n in np.atleast_1d(part or ())]
    if len(used) > len(set(used)):
      raise InputError(
        f"parameter {name} with axes {axes} would be split as {spec}; send each"
        " meaning to a mesh axis of its own"
      )
    sharding = NamedSharding(placement.mesh, spec)
    try:
      sharding.shard_shape(leaf.shape)
    except ValueError:
      raise InputError(
        f"parameter {name} of shape {leaf.shape} cannot be split over the mesh"
        f" {dict(placement.mesh.shape)} as {sharding.spec}; choose mesh sizes"
        " that divide it"
      ) from None
    return sharding

  return jax.tree_util.tree_map_with_path(one, tree)
