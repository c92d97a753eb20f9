"""Low-rank adapters (LoRA; Hu et al., 2022): a model changed by few parameters.

An adapted kernel W, one of each layer, gets A and B beside it, and its product
becomes (equation 3)

    x W + s (x A) B        A: layers, inputs, rank; B: layers, rank, outputs

with s = strength * alpha / rank.  B starts at zero, so training starts from the
model as it is.  Adapters lie in the model's parameters beside the kernels, as
`layers/self_attn/qkv/lora/(a|b|scale)`: several of them side by side along the
rank, each with its own `scale`: a strength is a value, not a program.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import path_name
from audiogen_jax.core.types import AnyArray, Matrices, Tree

# Adapters are small, and kept whole along all axes but the layers'.
AXES = {r".*/(a|b)": ("layers", None, None)}


_STRONGEST = 100.0


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
  where: str = r"(self|cross)_attn/(qkv|q|kv|out)"

  def __post_init__(self) -> None:
    if self.rank < 0:
      raise InputError(f"lora.rank {self.rank} must be 0 (none) or more")
    try:
      re.compile(self.where)
    except re.error as error:
      raise InputError(
        f"lora.where {self.where[:100]!r} is no regular expression: {error}"
      ) from None


def product(
  layer: nn.Module, x: Float[Array, "b s ..."]
) -> Float[Array, "b s ..."]:
  """What a linear layer makes of `x`, with what its adapters add if it has any.

  Adapters are multiplied outside of the layer, where int8 leaves them alone.
  """
  y = layer(x)
  if not layer.has_variable("params", "lora"):
    return y
  adapters = layer.get_variable("params", "lora")
  a, b, scale = (adapters[name].astype(y.dtype) for name in ("a", "b", "scale"))
  added = (x.reshape(*x.shape[:2], -1) @ a) @ (scale[:, None] * b)
  return y + added.reshape(y.shape)


def init(
  config: LoRAConfig, base: Tree, matrices: Matrices, key: jax.Array
) -> Tree:
  """Adapters by the path of what they adapt, as `layers.self_attn.qkv`.

  Args:
    config: Which and how large.
    base: The model's parameters, stacked, or their shapes.
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
    reads = math.prod(leaf.shape[axis] for axis in axes[0])
    writes = math.prod(leaf.shape[1:]) // reads
    key, own = jax.random.split(key)
    a = jax.random.normal(own, (leaf.shape[0], reads, config.rank))
    b = jnp.zeros((leaf.shape[0], config.rank, writes))
    name = name.removesuffix("/kernel").replace("/", ".")
    adapters[name] = {"a": a * reads**-0.5, "b": b}
  if not adapters:
    raise InputError(f"lora.where {config.where!r} chooses no kernel")
  return adapters


def beside(adapters: Sequence[tuple[LoRAConfig, Tree, float | Array]]) -> Tree:
  """Adapters in the tree of a model's stacked parameters, without those.

  Several adapters of one kernel are concatenated along the rank, so that their
  sum is one product.

  Args:
    adapters: What each is, its parameters as of `init`, and its strength.
  """
  by_kernel: dict[str, list[Tree]] = {}
  for config, tree, strength in adapters:
    for name, each in tree.items():
      layers = each["a"].shape[0]
      scale = jnp.full((layers, config.rank), config.alpha / config.rank)
      part = {**each, "scale": scale * strength}
      by_kernel.setdefault(name, []).append(part)
  result: Tree = {}
  for name, parts in by_kernel.items():
    node = result
    for step in name.split("."):
      node = node.setdefault(step, {})
    axis = {"a": -1, "b": -2, "scale": -1}
    node["lora"] = {
      leaf: jnp.concatenate([part[leaf] for part in parts], along)
      for leaf, along in axis.items()
    }
  return result


def weighted(
  adapters: Sequence[tuple[LoRAConfig, Tree]], strengths: Sequence[float | int]
) -> Tree:
  """Adapters with new strengths, on the devices that hold them; see `beside`.

  Raises:
    InputError: If there is not one strength for each, or one is no number of at
      most 100.
  """
  values = [np.float32(strength_of(each)) for each in strengths]
  if len(values) != len(adapters):
    raise InputError(
      f"{len(values)} strengths for {len(adapters)} adapters; give one for each"
    )
  configs = tuple(config for config, _ in adapters)
  return _beside(configs, [tree for _, tree in adapters], values)


@functools.partial(jax.jit, static_argnums=0)
def _beside(
  configs: tuple[LoRAConfig, ...],
  trees: list[Tree],
  values: list[Float[AnyArray, ""]],
) -> Tree:
  """`beside` under jit; strengths are traced, so new ones compile nothing."""
  return beside(list(zip(configs, trees, values, strict=True)))


def strength_of(value: object) -> float:
  """A strength, given as a number or as text.

  Raises:
    InputError: If it is no number of at most 100.
  """
  try:
    strength = float(value)
  except (TypeError, ValueError):
    strength = math.nan
  if not abs(strength) <= _STRONGEST:
    raise InputError(
      f"adapters' strength {str(value)[:50]!r} must be a number from"
      f" -{_STRONGEST:g} to {_STRONGEST:g}; 1 is as trained"
    )
  return strength


def adapted(params: Tree, adapters: Tree) -> Tree:
  """A model's parameters with those of `beside` among them; new dictionaries.

  Both are stacked, or both unstacked.
  """
  result = dict(params)
  for name, node in adapters.items():
    known = result.get(name)
    both = isinstance(known, Mapping) and name != "lora"
    result[name] = adapted(known, node) if both else node
  return result


def merged(params: Tree) -> Tree:
  """Parameters without adapters: each kernel is W + scale A B.

  Args:
    params: Parameters with adapters among them, as `adapted` returns them.

  Returns:
    New dictionaries; the model computes what it did, but for rounding.
  """
  result = {}
  for name, node in params.items():
    if isinstance(node, Mapping) and name != "lora":
      node = merged(node)
    result[name] = node
  if lora := result.pop("lora", None):
    kernel = result["kernel"]
    # What kernels read comes first, so that inputs x outputs is their order.
    added = (lora["a"] * lora["scale"][..., None, :]) @ lora["b"]
    result["kernel"] = kernel + added.reshape(kernel.shape).astype(kernel.dtype)
  return result


def _axes(
  config: LoRAConfig, name: str, matrices: Matrices
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
  """Axes that an adapted kernel reads and writes; None for all else."""
  inner = re.fullmatch(r"layers/(.*)/kernel", name)
  if not inner or not re.fullmatch(config.where, inner[1]):
    return None
  for rule, axes in matrices.items():
    if re.fullmatch(rule, name):
      return axes
  return None
