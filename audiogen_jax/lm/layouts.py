"""How arrays of decoding lie in a TPU's memory.

TPUs store arrays in tiles of 8 x 128 numbers, and fill up what is smaller.  By
default the last axis lies along the 128; heads of 64 would be stored twice as
large as they are, and read twice as slowly.  Left to itself XLA then copies the
whole cache into an order that it likes better, before the loop and after it.
Laid out in that order from the start, nothing is copied (`audiogen plan
--sample` shows it).  Elsewhere the order of the axes is the order in memory.
"""

import jax
from jax.experimental.layout import Format, Layout

from audiogen_jax.core.sharding import Placement, moved, path_name
from audiogen_jax.core.types import Tree
from audiogen_jax.lm.transformer import KVCache

# `b h e s` with steps outermost: a step is written in one piece.
_KEPT = (3, 1, 0, 2)


def matter(placement: Placement) -> bool:
  """Whether this is a TPU."""
  return placement.mesh.devices.flat[0].platform == "tpu"


def kept(placement: Placement) -> KVCache:
  """Where and how keys and values lie."""
  one = Format(Layout(_KEPT), placement.sharding("batch", "heads", None, None))
  return KVCache(one, one)


def laid_out(params: Tree, placement: Placement) -> Tree:
  """Unstacked parameters, or their shapes, as decoding wants them.

  Kernels that write heads lie with what they read innermost.
  """

  def put(path, leaf):
    *_, name, last = ["", *path_name(path).split("/")]
    if last != "kernel" or name not in ("q", "kv", "qkv"):
      return leaf
    wanted = Format(Layout((*range(1, leaf.ndim), 0)), leaf.sharding)
    if isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=wanted)
    return moved(leaf, wanted)

  if not matter(placement):
    return params
  return jax.tree_util.tree_map_with_path(put, params)
