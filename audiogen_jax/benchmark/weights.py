"""Random weights of published sizes, made on the devices."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree


def drawn(
  placement: Placement,
  init: Callable[[jax.Array], Tree],
  axes: Mapping[str, Axes],
  dtype: jnp.dtype,
) -> Tree:
  """Parameters as `init` makes them of a key, in `dtype` and where they belong.

  Args:
    placement: The devices.
    init: Of a room, with its configuration.
    axes: The room's `AXES`.
    dtype: Of the parameters.
  """
  like = jax.eval_shape(init, jax.random.key(0))
  places = sharding.shardings(like, axes, placement)

  def draw(key: jax.Array) -> Tree:
    return jax.tree.map(lambda x: x.astype(dtype), init(key))

  return jax.jit(draw, out_shardings=places)(jax.random.key(0))
