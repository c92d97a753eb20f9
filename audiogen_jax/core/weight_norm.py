"""Weight norm (Salimans & Kingma, 2016), and what convolutions start from."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.core.types import Tree


def uniform(fan_in: int) -> nn.initializers.Initializer:
  """U(±1/√fan_in): what the published training starts from."""
  bound = fan_in**-0.5

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def norm_over(v: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
  """Euclidean norm of `v` for each entry of `axis`; other axes become 1."""
  others = tuple(a for a in range(v.ndim) if a != axis)
  return jnp.sqrt(jnp.sum(jnp.square(v), others, keepdims=True))


def kernel(
  module: nn.Module, shape: tuple[int, ...], fan_in: int, axis: int
) -> jax.Array:
  """The kernel from its direction and length, parameters of `module`.

  Weight norm (Salimans & Kingma, 2016): `kernel = g v / |v|`, with one `g` for
  each entry of `axis`.
  """
  v = module.param("kernel_v", uniform(fan_in), shape)

  def init_g(key, length):
    return norm_over(v, axis).reshape(length)

  g = module.param("kernel_g", init_g, (shape[axis],))
  return folded(g, v, axis)


def folded(
  g: Float[Array, " f"], v: Float[Array, "..."], axis: int
) -> Float[Array, "..."]:
  """The kernel `g v / |v|`, with one `g` for each entry of `axis`."""
  along = [1] * v.ndim
  along[axis] = -1
  return g.reshape(along) * v / norm_over(v, axis)


def fold(params: Tree) -> Tree:
  """Replaces each `kernel_g, kernel_v` by the `kernel` that they stand for.

  The result belongs to the same configuration with `norm="none"`.  Those of
  transposed convolutions, whose names end in `_transposed`, have one length
  for each input.
  """
  made = {}
  for name, part in params.items():
    if not isinstance(part, dict):
      made[name] = part
    elif "kernel_v" in part:
      axis = 1 if name.endswith("_transposed") else 2
      rest = dict(part)
      g, v = rest.pop("kernel_g"), rest.pop("kernel_v")
      made[name] = {"kernel": folded(g, v, axis)} | rest
    else:
      made[name] = fold(part)
  return made
