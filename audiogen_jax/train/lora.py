"""Low-rank adapters (LoRA; Hu et al., 2022): fine-tuning few parameters.

For each adapted kernel W, stacked over the layers, there are A and B, and the
model runs with

    W + (alpha / rank) A B     A: layers, inputs, rank; B: layers, rank, outputs

B starts at zero, so training starts from the model as it is.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import path_name
from audiogen_jax.core.types import Tree
from audiogen_jax.train.optimiser import Matrices

# Adapters are small, and kept whole along all axes but the layers'.
AXES = {r".*/(a|b)": ("layers", None, None)}


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Adapters.

  Attributes:
    rank: Columns of A; 0 for no adapters, all parameters being trained.
    alpha: Scale of what adapters add, divided by the rank.
    where: Which kernels, an expression on their paths in a layer.
  """

  rank: int = 0
  alpha: float = 16.0
  where: str = r"(self|cross)_attn/(qkv|q|k|v|kv|out)"

  def __post_init__(self):
    if self.rank < 0:
      raise InputError(f"lora.rank {self.rank} must be 0 (none) or more")


def init(
  config: LoRAConfig, base: Tree, matrices: Matrices, key: jax.Array
) -> Tree:
  """Adapters by the path of what they adapt, as `layers.self_attn.qkv`.

  Args:
    config: Which and how large.
    base: The model's parameters, or their shapes.
    matrices: The axes that each kernel reads and writes.
    key: For A.

  Raises:
    InputError: If no kernel is chosen.
  """
  adapters = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(base):
    name = path_name(path)
    axes = _axes(config, name, matrices)
    if axes is None:
      continue
    layers, reads, writes = _sizes(leaf.shape, axes)
    key, own = jax.random.split(key)
    a = jax.random.normal(own, (layers, reads, config.rank)) * reads**-0.5
    b = jnp.zeros((layers, config.rank, writes))
    adapters[_key(name)] = {"a": a, "b": b}
  if not adapters:
    raise InputError(f"lora.where {config.where!r} chooses no kernel")
  return adapters


def merged(
  config: LoRAConfig, base: Tree, adapters: Tree, matrices: Matrices
) -> Tree:
  """The model's parameters with what the adapters add."""

  def one(path, leaf):
    name = path_name(path)
    adapter = adapters.get(_key(name))
    if adapter is None:
      return leaf
    axes = _axes(config, name, matrices)
    assert axes is not None
    reads, writes = axes
    added = adapter["a"] @ adapter["b"] * (config.alpha / config.rank)
    order = (0, *reads, *_rest(leaf.ndim, reads), *writes)
    order = tuple(dict.fromkeys(order))
    shape = [leaf.shape[axis] for axis in order]
    added = added.reshape(shape).transpose(
      [order.index(axis) for axis in range(leaf.ndim)]
    )
    return leaf + added.astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(one, base)


def _axes(config, name, matrices):
  """Axes read and written of an adapted kernel; None for all else."""
  inner = re.fullmatch(r"layers/(.*)/kernel", name)
  if not inner or not re.fullmatch(config.where, inner[1]):
    return None
  for rule, axes in matrices.items():
    if re.fullmatch(rule, name):
      return axes
  return None


def _rest(rank, reads):
  """Axes that are neither the layers' nor read, in their order."""
  return [axis for axis in range(1, rank) if axis not in reads]


def _sizes(shape, axes):
  reads, _ = axes
  size = math.prod(shape[axis] for axis in reads)
  return shape[0], size, math.prod(shape) // shape[0] // size


def _key(name: str) -> str:
  return name.removesuffix("/kernel").replace("/", ".")
