"""In which order the axes of decoding's arrays lie in a TPU's memory.

TPUs store arrays in tiles of 8 x 128 numbers, and fill up what is smaller.  By
default the last axis lies along the 128; heads of 64 would be stored twice as
large as they are, and read twice as slowly.  Left to itself XLA then copies the
whole cache into an order that it likes better, before the loop and after it.
Stored in that order from the start, nothing is copied (`audiogen plan
--sample` shows it).  Elsewhere the order of the axes is the order in memory.
"""

import jax
from jax.experimental.layout import Format, Layout
from jax.tree_util import KeyPath

from audiogen_jax.core.sharding import Placement, moved, path_name
from audiogen_jax.core.types import Tree
from audiogen_jax.lm.transformer import KVCache

# `b h e s` with steps outermost: a step is written in one piece.
_STEPS_OUTERMOST = (3, 1, 0, 2)


def matters(placement: Placement) -> bool:
  """Whether the order of axes in memory can be chosen: on TPUs alone."""
  return placement.mesh.devices.flat[0].platform == "tpu"


def of_kv_cache(placement: Placement) -> KVCache:
  """Sharding and memory order of a KV cache."""
  sharding = placement.sharding("batch", "heads", None, None)
  one = Format(Layout(_STEPS_OUTERMOST), sharding)
  return KVCache(one, one)


def tiled(params: Tree, placement: Placement) -> Tree:
  """Unstacked parameters, or their shapes, in the order that decoding reads.

  Kernels that write heads lie with what they read innermost.
  """

  def put(
    path: KeyPath, leaf: jax.Array | jax.ShapeDtypeStruct
  ) -> jax.Array | jax.ShapeDtypeStruct:
    *_, name, last = ["", *path_name(path).split("/")]
    if last != "kernel" or name not in ("q", "kv", "qkv"):
      return leaf
    wanted = Format(Layout((*range(1, leaf.ndim), 0)), leaf.sharding)
    if isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=wanted)
    return moved(leaf, wanted)

  if not matters(placement):
    return params
  return jax.tree_util.tree_map_with_path(put, params)
