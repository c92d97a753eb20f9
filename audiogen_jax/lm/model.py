"""The language model over codec tokens: steps and text -> logits.

Each step's K tokens are embedded and summed, the transformer runs, and K heads
predict tokens: with a causal mask those of the next step (AudioGen, Kreuk et
al., 2023, §3.2), with another those of the step itself (MAGNeT, Ziv et al.,
2024, §3).  Text may be prepended to the steps, attended to by cross-attention,
or both.

Parameters come in two shapes.  Checkpoints and training hold all layers stacked
(`layers/…` with a leading axis), so that one compiled layer is scanned.
Sampling holds them apart (`layer_0/…`): a scan would copy each layer's weights
out of the stack at every step.  `unstack` and `stack` go between the two.
"""

import dataclasses
import re
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.core.sharding import constrain, path_name
from audiogen_jax.core.types import Cond, Tree
from audiogen_jax.lm import masks
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.transformer import (
  Block,
  KVCache,
  TransformerConfig,
  norm,
  sinusoids,
  truncated_normal,
  uniform,
)

_LAYER = {
  "self_attn/qkv/kernel": ("embed", None, "heads", None),
  "self_attn/qkv/bias": (None, "heads", None),
  "cross_attn/kv/kernel": ("embed", None, "heads", None),
  "cross_attn/kv/bias": (None, "heads", None),
  "cross_attn/q/kernel": ("embed", "heads", None),
  "cross_attn/q/bias": ("heads", None),
  "(self|cross)_attn/out/kernel": ("heads", None, "embed"),
  "(self|cross)_attn/out/bias": ("embed",),
  "(self|cross|ff)_norm/(scale|bias)": (None,),
  "up/kernel": ("embed", "ff"),
  "up/bias": ("ff",),
  "down/kernel": ("ff", "embed"),
  "down/bias": ("embed",),
}
AXES = (
  {
    "text_proj/kernel": (None, "embed"),
    "text_proj/bias": ("embed",),
    "embed": (None, None, "embed"),
    "out_norm/(scale|bias)": (None,),
    "heads/kernel": (None, "embed", "vocab"),
    "heads/bias": (None, "vocab"),
  }
  | {f"layers/{rule}": ("layers", *axes) for rule, axes in _LAYER.items()}
  | {rf"layer_\d+/{rule}": axes for rule, axes in _LAYER.items()}
)


# Of kernels, the axes that they read and those that they write; what is left
# (layers; queries, keys and values) is many matrices side by side.
MATRICES = {
  r"layers/self_attn/qkv/kernel": ((1,), (3, 4)),
  r"layers/cross_attn/kv/kernel": ((1,), (3, 4)),
  r"layers/cross_attn/q/kernel": ((1,), (2, 3)),
  r"layers/(self|cross)_attn/out/kernel": ((1, 2), (3,)),
  r"layers/(up|down)/kernel": ((1,), (2,)),
}

# What of a layer is stored for the backward pass; the rest is recomputed.
REMAT = {
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class LMConfig:
  """A language model; the defaults are those of AudioGen-medium.

  Attributes:
    codebooks: Tokens a step, K.
    size: Entries of a codebook, V.  Token V is special: it fills empty cells
      and is never predicted.
    transformer: The stack.
    pattern: How codes are laid out over steps.
    text_width: Size of the text encoder's states.
    prepend_text: Whether text precedes the steps.
    head_bias: Biases in the K output heads.
  """

  codebooks: int = 4
  size: int = 2048
  transformer: TransformerConfig = TransformerConfig()
  pattern: Pattern = Pattern("delay", delays=(0, 1, 2, 3))
  text_width: int = 1024
  prepend_text: bool = False
  head_bias: bool = False


class LM(nn.Module):
  """The model: tokens and text -> logits, under whatever attention mask.

  Attributes:
    config: Shape of the model.
    dtype: Type of matrix products; norms, softmax and logits are float32.
    stacked: Whether parameters hold all layers in one stack.
    remat: What the backward pass computes again: `none`; all but the products
      of weights (`dots`); or each layer in `full`.
  """

  config: LMConfig
  dtype: jnp.dtype = jnp.dtype(jnp.float32)
  stacked: bool = True
  remat: Literal["none", "dots", "full"] = "none"

  def setup(self) -> None:
    c, t = self.config, self.config.transformer
    init = truncated_normal(t.width**-0.5)
    # One more row than codes: the special token.
    shape = (c.codebooks, c.size + 1, t.width)
    self.embed = self.param("embed", init, shape)
    even = uniform(c.text_width**-0.5)
    self.text_proj = nn.Dense(
      t.width, dtype=self.dtype, kernel_init=even, bias_init=even
    )
    if self.stacked:
      block = Block
      if self.remat != "none":
        # Within a scan nothing could be merged, so nothing need be prevented.
        policy = REMAT[self.remat]
        block = nn.remat(Block, policy=policy, prevent_cse=False)
      scan = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=t.layers,
      )
      self.layers = scan(t, self.dtype)
    else:
      self.blocks = [
        Block(t, self.dtype, name=f"layer_{i}") for i in range(t.layers)
      ]
    self.out_norm = norm("out_norm")
    self.heads = _Heads(c, self.dtype)

  def condition(
    self, states: Float[Array, "b l e"], mask: Bool[Array, "b l"]
  ) -> Cond:
    """Text states at the model's width; zeros where `mask` is False."""
    projected = constrain(self.text_proj(states), "batch", None, None)
    return Cond(jnp.where(mask[..., None], projected, 0), mask)

  def __call__(
    self,
    steps: Int[Array, "b k s"],
    cond: Cond,
    mask: Bool[Array, "#b s s"],
  ) -> Float[Array, "b _ s v"]:
    """Logits at each step, all steps at once.

    Args:
      steps: Tokens in [0, V]; V is special.
      cond: What the text says.
      mask: Whether step i (the first `s`) attends to step j (the second), each
        to one at least: `masks.causal`, or any other.  One for all rows or one
        for each; a traced value, so that masks that differ by codebook share
        one compilation.  It says nothing of text: see `masks.with_text`.

    Returns:
      float32 logits of all K codebooks, or of those alone whose heads are among
      the parameters: of the next step for a model trained with a causal mask.
    """
    x, mask = self._inputs(steps, cond, mask)
    if self.stacked:
      x, _ = self.layers(x, mask, cond.states, cond.mask)
    else:
      for block in self.blocks:
        x, _ = block(x, mask, cond.states, cond.mask)
    return self._logits(x[:, x.shape[1] - steps.shape[2] :])

  def prefill(
    self, steps: Int[Array, "b k s"], cond: Cond, capacity: int
  ) -> tuple[list[KVCache | None], list[KVCache]]:
    """Reads the text, and the first steps of a prompt if there are any.

    Causal, as `step` is: what a cache holds of a step must not depend on later
    ones.  The KV cache of one layer, for text prepended (`l`) and steps (`s`):

        |  l0  l1  l2  |  s0  s1  s2   -   -  …  |
        |<- prepended->|<------- capacity ------>|

    Args:
      steps: First steps; those past the prompt's end may hold anything, as each
        position is written again before it is attended to.
      cond: What the text says.
      capacity: Steps that the caches must hold, at least `s`.

    Returns:
      KV caches, one a layer: of the text (None without cross-attention), and of
      prepended text and steps.
    """
    t = self.config.transformer
    b, _, s = steps.shape
    prepended = cond.mask.shape[1] if self.config.prepend_text else 0
    empty = jnp.zeros(
      (b, t.heads, t.head_size, prepended + capacity), self.dtype
    )
    empty = constrain(empty, "batch", "heads", None, None)
    caches = [KVCache(empty, empty) for _ in self.blocks]
    text_caches = [
      block.text_cache(cond.states) if t.cross_attention else None
      for block in self.blocks
    ]
    if prepended + s:
      x, mask = self._inputs(steps, cond, masks.causal(s))
      mask = jnp.pad(mask, ((0, 0), (0, 0), (0, capacity - s)))
      for i, block in enumerate(self.blocks):
        x, caches[i] = block(x, mask, text_caches[i], cond.mask, caches[i])
    return text_caches, caches

  def step(
    self,
    tokens: Int[Array, "b k"],
    step: Int[Array, ""],
    text_mask: Bool[Array, "b l"],
    text_caches: list[KVCache | None],
    caches: list[KVCache],
  ) -> tuple[Float[Array, "b k v"], list[KVCache]]:
    """Logits for step `step + 1` from the tokens of step `step`.

    Args:
      tokens: The tokens of one step.
      step: Its number, from 0.
      text_mask: The text positions that are attended to.
      text_caches: From `prefill`.
      caches: From `prefill` or the step before.

    Returns:
      float32 logits, and the caches with this step in them.
    """
    prepended = text_mask.shape[1] if self.config.prepend_text else 0
    x = self._embedded(tokens[..., None])
    x = self._with_positions(x, self._first(text_mask) + step[None, None])
    at = prepended + step
    cached = jnp.arange(caches[0].k.shape[3])
    mask = (cached <= at)[None, None]
    if prepended:
      visible = jnp.pad(
        text_mask,
        ((0, 0), (0, len(cached) - prepended)),
        constant_values=True,
      )
      mask = mask & visible[:, None]
    updated = []
    for block, text, cache in zip(
      self.blocks, text_caches, caches, strict=True
    ):
      x, cache = block(x, mask, text, text_mask, cache, at)
      updated.append(cache)
    return self._logits(x)[:, :, 0], updated

  def _embedded(self, steps: Int[Array, "b k s"]) -> Float[Array, "b s d"]:
    """The sum of each step's K embeddings."""
    book = jnp.arange(self.config.codebooks)[None, :, None]
    return jnp.sum(self.embed[book, steps], axis=1)

  def _first(self, text_mask: Bool[Array, "b l"]) -> Int[Array, "#b 1"]:
    """Position of the first step: that after the row's prepended text."""
    if not self.config.prepend_text:
      return jnp.zeros((1, 1), jnp.int32)
    return jnp.sum(text_mask, axis=1, keepdims=True, dtype=jnp.int32)

  def _with_positions(
    self, x: Float[Array, "b s d"], position: Int[Array, "#b s"]
  ) -> Float[Array, "b s d"]:
    """Embeddings plus sinusoids, added in float32."""
    x = x.astype(jnp.float32) + sinusoids(position, x.shape[-1])
    return constrain(x.astype(self.dtype), "batch", None, None)

  def _inputs(
    self,
    steps: Int[Array, "b k s"],
    cond: Cond,
    mask: Bool[Array, "#b s s"],
  ) -> tuple[Float[Array, "b q d"], Bool[Array, "#b q q"]]:
    """What the first block reads, prepended text included, and its mask."""
    x = self._embedded(steps)
    position = jnp.arange(steps.shape[2])[None] + self._first(cond.mask)
    if self.config.prepend_text:
      length = cond.mask.shape[1]
      x = jnp.concatenate([cond.states.astype(x.dtype), x], axis=1)
      of_text = jnp.broadcast_to(jnp.arange(length), cond.mask.shape)
      position = jnp.concatenate([of_text, position], axis=1)
      mask = masks.with_text(mask, cond.mask)
    return self._with_positions(x, position), mask

  def _logits(self, x: Float[Array, "b s d"]) -> Float[Array, "b _ s v"]:
    return self.heads(self.out_norm(x).astype(self.dtype))


class _Heads(nn.Module):
  """A linear head for each codebook; logits in float32.

  As many as the parameters hold: a caller may leave out those that it drops.
  """

  config: LMConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b _ s v"]:
    c, d = self.config, x.shape[-1]
    init = truncated_normal(d**-0.5)
    count = c.codebooks
    if self.has_variable("params", "kernel"):
      held = jax.tree.leaves(self.get_variable("params", "kernel"))
      count = held[0].shape[0]
    kernel = self.param("kernel", init, (count, d, c.size))
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    logits = jnp.einsum(
      "bsd,kdv->bksv",
      x,
      kernel,
      preferred_element_type=jnp.float32,
    )
    if c.head_bias:
      zeros = nn.initializers.zeros
      bias = self.param("bias", zeros, (count, c.size))
      logits = logits + bias[None, :, None]
    return logits


def init(config: LMConfig, key: jax.Array) -> Tree:
  """Random stacked parameters, drawn as the published training draws them.

  Output projections and feed-forward layers of layer i = 1, 2, … are divided by
  √(2i) ("depthwise: current").
  """
  steps = jnp.zeros((1, config.codebooks, 1), jnp.int32)
  states = jnp.zeros((1, 1, config.text_width))
  mask = jnp.ones((1, 1), bool)

  def everything(lm: LM) -> Float[Array, "1 k 1 v"]:
    return lm(steps, lm.condition(states, mask), masks.causal(1))

  params = nn.init(everything, LM(config))(key)["params"]
  depth = jnp.arange(1, config.transformer.layers + 1)

  def scale(path: KeyPath, leaf: Float[Array, "..."]) -> Float[Array, "..."]:
    if re.search(r"layers/.*(out|up|down)/kernel", path_name(path)):
      along = (-1,) + (1,) * (leaf.ndim - 1)
      return leaf * (2 * depth.reshape(along)) ** -0.5
    return leaf

  return jax.tree_util.tree_map_with_path(scale, params)


def unstack(params: Tree) -> Tree:
  """Parameters with the layers apart, for sampling; empties `params`.

  Each stacked array is let go once it is split, so that at most one exists
  twice.
  """
  rest = {k: v for k, v in params.items() if k != "layers"}
  leaves, treedef = jax.tree.flatten(params.pop("layers"))
  count = len(leaves[0])
  columns = []
  while leaves:
    stack = leaves.pop(0)
    columns.append([_slice(stack, i) for i in range(count)])
  for i, layer in enumerate(zip(*columns, strict=True)):
    rest[f"layer_{i}"] = jax.tree.unflatten(treedef, layer)
  return rest


def stack(params: Tree) -> Tree:
  """Unstacked parameters (`layer_0/…`) as one stack (`layers/…`); a copy.

  The inverse of `unstack`, but `params` keeps its arrays.
  """
  names = [k for k in params if k.startswith("layer_")]
  layers = [params[f"layer_{i}"] for i in range(len(names))]
  rest = {k: v for k, v in params.items() if k not in names}
  rest["layers"] = jax.tree.map(lambda *parts: jnp.stack(parts), *layers)
  return rest


@jax.jit
def _slice(stack: Array, i: Int[Array, ""] | int) -> Array:
  return jax.lax.dynamic_index_in_dim(stack, i, keepdims=False)
