"""Weights that are no numbers: NaN and infinity make sounds of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.convert.engine import Lazy
from audiogen_jax.core import checkpoint, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree


def check(arrays: Tree, stored: Tree) -> None:
  """Raises InputError, with the tensor's name, for values that are not finite.

  Looked for where the arrays lie, at the speed of memory and without a copy.
  Where a mesh is that of several processes, each of them sees its own part, the
  verdict is a collective's, and all of them raise the same.

  Args:
    arrays: On the devices.
    stored: The tree that they were read from, for the message.
  """
  flat = {
    sharding.path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  }
  if not flat:
    return
  zeros = sharding.fetch(_zeros(list(flat.values())))
  bad = [name for name, zero in zip(flat, zeros, strict=True) if zero != 0]
  if bad:
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    reason = _reason(bad[0], flat[bad[0]].dtype, stored)
    raise InputError(f"{reason}{more}")


@jax.jit
def _zeros(arrays: list[Array]) -> Float[Array, " arrays"]:
  """For each array 0, or NaN if there is anything that is not finite.

  NaN and infinity times 0 are NaN, which every sum passes on: the maximum of
  several shards drops it.  Ten times as fast on CPUs as to count them.
  """
  return jnp.stack([jnp.sum(array * 0, dtype=jnp.float32) for array in arrays])


def _reason(name: str, dtype: jnp.dtype, stored: Tree) -> str:
  if isinstance(stored, checkpoint.Folder):
    return (
      f"{stored.path}: {name} holds values that are not finite in {dtype} (NaN,"
      " or too large); get the model again, or load it as float32"
    )
  leaf = stored
  for part in name.split("/"):
    leaf = leaf[part]
  peak = 0.0
  for origin, tensor in leaf.pieces if isinstance(leaf, Lazy) else ():
    values = np.asarray(tensor.read(), np.float32)
    if not np.isfinite(values).all():
      return (
        f"{origin} holds {np.size(values) - np.isfinite(values).sum():,} values"
        " that are not finite (NaN or infinity); get the checkpoint again"
      )
    peak = max(peak, float(np.max(np.abs(values), initial=0)))
  return (
    f"{name} reaches {peak:.3g}, which is too large for {dtype}; take float32"
  )
