"""Arrays and programs by their shapes alone, for what is not at hand."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree


class Program(NamedTuple):
  """A program that can be compiled without an array being there.

  Attributes:
    function: Under `jax.jit`; None for what only reads and places arrays.
    arguments: Abstract arrays, with the shardings that they will have.
    options: Static arguments, by name.
    outputs: Abstract arrays that are there afterwards, where there is no
      function to ask.
    resident: Abstract arrays that lie on the devices meanwhile and are neither
      arguments nor results.
    runs: How often a batch of sounds takes it; 0 where that has no meaning.
    in_place: Whether results that take the place of arguments are hardly
      written, as of a KV cache for one step.
  """

  function: Callable | None
  arguments: tuple[Tree, ...]
  options: Mapping[str, Any] = {}
  outputs: Tree = ()
  resident: Tree = ()
  runs: int = 0
  in_place: bool = False


def put(
  x: jax.ShapeDtypeStruct, placement: Placement, *axes: str | None
) -> jax.ShapeDtypeStruct:
  """An abstract array on a mesh; `axes` say what each of its axes means."""
  place = placement.sharding(*axes)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def placed(tree: Tree, shardings: Tree) -> Tree:
  """Abstract arrays with the shardings of a tree like theirs."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    tree,
    shardings,
  )


def size(tree: Tree) -> int:
  """Bytes on one device, of arrays or of abstract arrays with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )
