"""Low-rank adapters (LoRA; Hu et al., 2022) of the U-Net's attention.

An adapted kernel W gets A and B beside it, and is in each step (equation 3)

    W + alpha / rank A B        A: inputs, rank; B: rank, outputs

B starts at zero, so training starts from the model as it is.  A U-Net is run on
hundreds of places at once: to add A B to kernels costs next to nothing.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import path_name
from audiogen_jax.core.types import Tree

# Adapters are small and replicated.
AXES = {r".*/(a|b)": (None, None)}

_KERNEL = re.compile(r"(.*/(self|cross)_attn/(q|k|v|out))/kernel")


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Adapters.

  Attributes:
    rank: Columns of A; 0 for no adapters, all parameters being trained.
    alpha: Scale of what adapters add, divided by the rank.
  """

  rank: int = 0
  alpha: float = 16.0

  def __post_init__(self) -> None:
    if self.rank < 0:
      raise InputError(f"lora.rank {self.rank} must be 0 (none) or more")


def init(config: LoRAConfig, base: Tree, key: jax.Array) -> Tree:
  """Adapters by the path of what they adapt, dots between its names.

  Args:
    config: How large.
    base: The U-Net's parameters, or their shapes.
    key: For A.

  Raises:
    InputError: If the U-Net has no attention to a context.
  """
  adapters: Tree = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(base):
    name = _adapted(path)
    if not name:
      continue
    key, own = jax.random.split(key)
    # `q`, `k` and `v` read one axis and write heads, `out` does the reverse.
    reads = math.prod(
      leaf.shape[:2] if name.endswith("out") else leaf.shape[:1]
    )
    writes = math.prod(leaf.shape) // reads
    a = jax.random.normal(own, (reads, config.rank)) * reads**-0.5
    adapters[name] = {"a": a, "b": jnp.zeros((config.rank, writes))}
  if not adapters:
    raise InputError("lora: this U-Net attends to no context; set lora.rank=0")
  return adapters


def merged(config: LoRAConfig, base: Tree, adapters: Tree) -> Tree:
  """The U-Net's parameters with what adapters add to them."""

  def add(path: tuple, kernel: jax.Array) -> jax.Array:
    name = _adapted(path)
    if not name:
      return kernel
    a, b = adapters[name]["a"], adapters[name]["b"]
    added = config.alpha / config.rank * jnp.matmul(a, b, precision="highest")
    return kernel + added.reshape(kernel.shape).astype(kernel.dtype)

  return jax.tree_util.tree_map_with_path(add, base)


def _adapted(path: tuple) -> str:
  """The name of the adapter of a kernel; empty where it has none."""
  found = _KERNEL.fullmatch(path_name(path))
  return found[1].replace("/", ".") if found else ""
