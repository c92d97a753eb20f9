"""Tables that say, once, how foreign tensors and ours correspond.

A table maps each foreign name to the targets in our tree that it fills.  Both
directions read the same table, so what is imported can be exported.  Foreign
tensors differ from ours by a reshape and a transposition only: values are never
touched.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

Index: TypeAlias = tuple[int | slice, ...]


@runtime_checkable
class Stored(Protocol):
  """A tensor that is read when asked for."""

  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self) -> np.ndarray:
    """Reads the values of the whole tensor, `shape` and `dtype` as given."""


@dataclasses.dataclass(frozen=True)
class Target:
  """What a foreign tensor, or some of its first axis, is in our tree.

  Attributes:
    path: Our parameter, `encoder/conv_in/kernel`.
    split: Shape that the foreign tensor is seen in.
    order: Axes of `split` in our order.
    rank: Leading axes of `split` that are one foreign axis; the rest are the
      foreign tensor's other axes.
    index: Where in our array the result goes: a layer, a codebook.
  """

  path: str
  split: tuple[int, ...]
  order: tuple[int, ...]
  rank: tuple[int, ...]
  index: Index = ()

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape that the values have in the foreign tensor."""
    sizes, at = [], 0
    for count in self.rank:
      sizes.append(math.prod(self.split[at : at + count]))
      at += count
    return tuple(sizes)

  def ours(self, foreign: np.ndarray) -> np.ndarray:
    """The foreign values with their axes in our order."""
    return foreign.reshape(self.split).transpose(self.order)

  def foreign(self, ours: np.ndarray) -> np.ndarray:
    """Our values in the foreign layout."""
    ordered = ours[self.index].reshape([self.split[a] for a in self.order])
    return ordered.transpose(np.argsort(self.order)).reshape(self.shape)


Table: TypeAlias = Mapping[str, list[Target]]


def linear(
  path: str,
  out: tuple[int, ...],
  into: tuple[int, ...],
  index: Index = (),
) -> Target:
  """A foreign `[out, in]` matrix that is ours as `[*in, *out]`."""
  o, i = len(out), len(into)
  order = (*range(o, o + i), *range(o))
  return Target(path, (*out, *into), order, (o, i), index)


def vector(path: str, *shape: int, index: Index = ()) -> Target:
  """A foreign vector that is ours as an array of `shape`."""
  order = tuple(range(len(shape)))
  return Target(path, shape, order, (len(shape),), index)


def array(
  path: str,
  *shape: int,
  order: tuple[int, ...] | None = None,
  index: Index = (),
) -> Target:
  """A foreign array of `shape` with its axes in another order."""
  order = tuple(range(len(shape))) if order is None else order
  return Target(path, shape, order, (1,) * len(shape), index)


def abstract(init: Callable[[Any, jax.Array], Tree], config: Any) -> Tree:
  """Shapes and types of what `init(config, key)` returns; computes nothing."""
  return jax.tree.map(lambda leaf: leaf, _shapes(init, config))  # one's own


# Tracing a whole model takes a second, and opening one asks several times.
@functools.lru_cache(maxsize=32)
def _shapes(init: Callable[[Any, jax.Array], Tree], config: Any) -> Tree:
  return jax.eval_shape(lambda: init(config, jax.random.key(0)))


@dataclasses.dataclass(frozen=True)
class Lazy:
  """An array that is made, from what is stored elsewhere, when it is read.

  Attributes:
    shape: Shape of the array.
    dtype: Type of its elements.
    read: Makes all of it.
    read_part: Makes what a slice for each axis cuts out, and reads no more than
      that; None where there is no such way.
    pieces: Names (with their file's) and tensors that it is made of.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]
  read_part: Callable[[Index], np.ndarray] | None = None
  pieces: tuple[tuple[str, Stored], ...] = ()

  def part(self, where: Index) -> np.ndarray:
    """`array[where]`, where `where` has a slice for each axis."""
    return self.read_part(where) if self.read_part else self.read()[where]


def load(
  stored: Mapping[str, Stored],
  table: Table,
  abstract: Tree,
  *,
  where: str,
  ignored: str = r"$^",
) -> Tree:
  """Our tree as lazy arrays, in the types they are stored in.

  Everything that can be wrong is found here, before any value is read.

  Args:
    stored: What the file holds.
    table: What to do with it.
    abstract: Our tree as shapes.
    where: Name of the file, for messages.
    ignored: Expression for foreign names that belong to no part of us.

  Raises:
    InputError: If names are missing or left over, or a shape differs.
  """
  left = [n for n in stored if n not in table and not re.match(ignored, n)]
  missing = [name for name in table if name not in stored]
  if left or missing:
    lists = [_some("lacks", missing), _some("holds unknown", left)]
    raise InputError(f"{where} {' and '.join(filter(None, lists))}")
  pieces: dict[str, list[tuple[Stored, slice, Target]]] = {}
  names: dict[str, list[tuple[str, Stored]]] = {}
  for name, parts in table.items():
    tensor = stored[name]
    rows = sum(part.shape[0] for part in parts)
    want = (rows, *parts[0].shape[1:])
    if tuple(tensor.shape) != want:
      raise InputError(
        f"{where}: {name} has shape {list(tensor.shape)}; its configuration"
        f" asks for {list(want)}"
      )
    row = 0
    for part in parts:
      span = slice(row, row + part.shape[0])
      pieces.setdefault(part.path, []).append((tensor, span, part))
      names.setdefault(part.path, []).append((f"{where}: {name}", tensor))
      row = span.stop
  flat = {
    path: dataclasses.replace(
      _assembled(path, leaf.shape, pieces.get(path, [])),
      pieces=tuple(names.get(path, [])),
    )
    for path, leaf in _flat(abstract)
  }
  return _nest(flat)


def _assembled(
  path: str, shape: tuple[int, ...], pieces: list[tuple[Stored, slice, Target]]
) -> Lazy:
  """One array of ours from the pieces of foreign ones that make it up."""
  sizes = [math.prod(part.split) for _, _, part in pieces]
  if sum(sizes) != math.prod(shape):
    raise ValueError(f"the table fills {sum(sizes)} of {path} {shape}")

  dtypes = {tensor.dtype for tensor, _, _ in pieces}
  dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)

  read_part = functools.partial(_cut, shape, dtype, pieces)
  whole = functools.partial(read_part, (slice(None),) * len(shape))
  return Lazy(shape, dtype, whole, read_part)


def _cut(
  shape: tuple[int, ...],
  dtype: np.dtype,
  pieces: list[tuple[Stored, slice, Target]],
  where: Index,
) -> np.ndarray:
  """What `where` cuts out of the array that pieces make up."""
  like = np.broadcast_to(np.zeros((), np.bool_), shape)  # takes no memory
  result = np.empty(like[where].shape, dtype)
  for tensor, span, part in pieces:
    both = _overlap(shape, where, part.index)
    if both is not None:
      into, out_of = both
      values = part.ours(tensor.read()[span])
      result[into] = values.reshape(like[part.index].shape)[out_of]
  return result


def _overlap(
  shape: tuple[int, ...], where: Index, index: Index
) -> tuple[Index, Index] | None:
  """Where the intersection of `array[where]` and `array[index]` lies in each.

  Returns:
    Its index in `array[where]` and in `array[index]`; None if it is empty.
  """
  into, out_of = [], []
  index = (*index, *(slice(None),) * (len(shape) - len(index)))
  for size, wanted, held in zip(shape, where, index, strict=True):
    start, stop, _ = wanted.indices(size)
    if isinstance(held, slice):
      first, last, _ = held.indices(size)
    else:
      first, last = held, held + 1
    low, high = max(start, first), min(stop, last)
    if low >= high:
      return None
    if isinstance(held, slice):
      into.append(slice(low - start, high - start))
      out_of.append(slice(low - first, high - first))
    else:
      into.append(low - start)
  return tuple(into), tuple(out_of)


def realise(tree: Tree, place: Callable[[str, Lazy], Any]) -> Tree:
  """Hands lazy arrays, the largest first, to `place`, which reads them.

  In this order no more is held at any time than the result and, at the very
  beginning, the largest array once more.
  """
  flat = dict(_flat(tree))
  order = sorted(flat, key=lambda path: -math.prod(flat[path].shape))
  arrays = {}
  for path in order:
    # Copies run in the background, and hold what they copy from, until they are
    # waited for.
    arrays[path] = jax.block_until_ready(place(path, flat[path]))
  return _nest({path: arrays[path] for path in flat})


def export(tree: Tree, table: Table) -> dict[str, Lazy]:
  """Foreign tensors by name, each computed from our arrays when it is read."""
  ours = dict(_flat(tree))
  foreign = {}
  for name, parts in table.items():
    shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])

    def read(parts=parts):
      blocks = [p.foreign(np.asarray(ours[p.path])) for p in parts]
      whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
      return np.ascontiguousarray(whole)

    dtype = np.dtype(ours[parts[0].path].dtype)
    foreign[name] = Lazy(shape, dtype, read)
  return foreign


def _some(verb: str, names: list[str]) -> str:
  if not names:
    return ""
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return f"{verb} {', '.join(names[:3])}{more}"


def _flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f"{prefix}{name}/")
    else:
      yield f"{prefix}{name}", value


def _nest(flat: Mapping[str, Any]) -> Tree:
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    *folders, name = path.split("/")
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = value
  return tree
