"""Stored trees -> arrays on the devices of a placement."""

from collections.abc import Mapping

import jax

from audiogen_jax.convert import engine, finite
from audiogen_jax.core import checkpoint, sharding
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree


def realise(
  tree: Tree, abstract: Tree, table: Mapping[str, Axes], placement: Placement
) -> Tree:
  """Arrays on the devices of `placement`, in the types of `abstract`.

  Where the mesh is that of several processes, each reads what its own devices
  hold.

  Args:
    tree: Lazy arrays, or a `checkpoint.Folder`.
    abstract: Shapes and wanted types.
    table: The room's `AXES`.
    placement: Where to.

  Raises:
    InputError: If weights are damaged, or not finite in the wanted type.
  """
  targets = sharding.shardings(abstract, table, placement)
  if isinstance(tree, checkpoint.Folder):
    wanted = jax.tree.map(
      lambda leaf, to: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=to
      ),
      abstract,
      targets,
    )
    arrays = tree.restore(wanted)
    finite.check(arrays, tree)
    return arrays
  dtypes, places = (
    {
      sharding.path_name(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(each)
    }
    for each in (jax.tree.map(lambda leaf: leaf.dtype, abstract), targets)
  )

  def place(path: str, leaf: engine.Lazy) -> jax.Array:
    dtype, to = dtypes[path], places[path]
    if to.is_fully_addressable:
      return jax.device_put(leaf.read().astype(dtype, copy=False), to)
    return jax.make_array_from_callback(
      leaf.shape, to, lambda where: leaf.part(where).astype(dtype, copy=False)
    )

  arrays = engine.realise(tree, place)
  finite.check(arrays, tree)
  return arrays
