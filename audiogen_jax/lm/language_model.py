"""A language model with its weights on their devices, and what runs on them.

    condition: text states -> Cond at the model's width
    logits:    codes, Cond -> logits of every code

Both take and give rows and text in buckets, on the devices: nothing that a
sampler needs goes through the host.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.core.sharding import Placement, constrain, fetch
from audiogen_jax.core.types import AnyArray, Cond, Tree, bucket, precision
from audiogen_jax.lm import lora, masks, model, patterns, tiling
from audiogen_jax.lm.lora import LoRAConfig
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.quantised import apart, quantise

LEAST_PROMPT = 64  # steps, the smallest bucket of what is read at once


class LanguageModel:
  """A language model with its weights.

  Attributes:
    config: Shape of the model.
    params: Parameters, the layers unstacked.
    dtype: Type of matrix products; int8 for quantised weights.
    placement: The devices that hold it.
    adapters: Configuration and stacked parameters of each; they act once
      `set_strengths` was called.
    options: `config`, `dtype` and `placement`, as compiled functions take them.
  """

  def __init__(
    self,
    config: LMConfig,
    params: Tree,
    *,
    dtype: jnp.dtype,
    placement: Placement,
  ) -> None:
    self.config = config
    self.params = tiling.tiled(params, placement)
    self.dtype = dtype
    self.placement = placement
    self.adapters: list[tuple[LoRAConfig, Tree]] = []
    self.options = dict(config=config, dtype=dtype, placement=placement)

  @classmethod
  def of(
    cls,
    config: LMConfig,
    params: Tree,
    *,
    dtype: jnp.dtype,
    placement: Placement,
  ) -> "LanguageModel":
    """From unstacked floating-point parameters, which it empties.

    With `dtype` int8 they are quantised first.
    """
    if dtype == jnp.int8:
      params = quantise(config, params)
    return cls(config, params, dtype=dtype, placement=placement)

  def set_strengths(self, strengths: Sequence[float | int]) -> None:
    """Says how strongly each adapter acts; compiles nothing.

    Adapters stay beside the weights (see `lora`): 0 is the model without them,
    1 as they were trained.

    Args:
      strengths: One for each of `adapters`.

    Raises:
      InputError: If there are more or fewer, or one is no number of at most
        100.
    """
    adapters = lora.weighted(self.adapters, strengths)
    self.params = lora.adapted(self.params, model.unstack(adapters))

  def rows(self, count: int) -> int:
    """Rows of a batch of `count`: their bucket, which the mesh divides."""
    ways = self.placement.ways("batch")
    return -(-bucket(count) // ways) * ways

  def steps(self, frames: int, known: int = 0) -> int:
    """Steps that sampling `frames` frames takes, the first `known` given."""
    layout = patterns.layout(self.config.pattern, self.config.codebooks, frames)
    return layout.frame.shape[1] - patterns.first_step(layout, known)

  def condition(
    self,
    states: Float[Array, "b l e"],
    mask: Bool[Array, "b l"],
    *,
    rows: int,
    mask_padding: bool = True,
  ) -> Cond:
    """What texts say, as sampling and `logits` take it.

    Args:
      states: Text states on the devices, rows and length in buckets.
      mask: Where a row has text.
      rows: Rows of the result, at least `b`; further ones have no text.
      mask_padding: Whether attention skips the padding of shorter texts.

    Returns:
      States at the model's width, split over the mesh by rows; zeros where a
      row has no text.
    """
    return condition(
      self.params,
      states,
      mask,
      rows=rows,
      mask_padding=mask_padding,
      **self.options,
    )

  def logits(
    self, codes: Int[AnyArray, "b k t"], cond: Cond
  ) -> tuple[Float[np.ndarray, "b k t v"], Bool[np.ndarray, "k t"]]:
    """Logits of every code given those before it, and which are predicted.

    The last frames of delayed codebooks fall off the end of what training
    feeds; their logits are zeros.

    Args:
      codes: Codes in [0, V).
      cond: From `condition`, of `rows(b)` rows.
    """
    codes = fetch(codes).astype(np.int32)
    b, k, t = codes.shape
    layout = patterns.layout(self.config.pattern, k, t)
    frame, special = layout.frame[:, : layout.trained], self.config.size
    steps = patterns.interleave(codes, frame, special)
    length = bucket(layout.trained, least=LEAST_PROMPT)
    more = ((0, self.rows(b) - b), (0, 0), (0, length - layout.trained))
    steps = np.pad(steps, more, constant_values=special)
    steps = self.placement.put(steps, "batch", None, None)
    by_step = fetch(logits(self.params, steps, cond, **self.options))[:b]
    valid = patterns.valid(layout)
    # Step s - 1 predicts step s.
    before = np.where(valid, layout.step - 1, 0)
    by_frame = patterns.deinterleave(by_step, before)
    return np.where(valid[None, ..., None], by_frame, 0), valid


@functools.partial(
  jax.jit,
  static_argnames=("config", "dtype", "placement", "rows", "mask_padding"),
)
def condition(
  params: Tree,
  states: Float[Array, "b l e"],
  mask: Bool[Array, "b l"],
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  rows: int,
  mask_padding: bool,
) -> Cond:
  """`LanguageModel.condition` under jit."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    more = (0, rows - len(mask)), (0, 0)
    states = constrain(jnp.pad(states, (*more, (0, 0))), "batch", None, None)
    mask = constrain(jnp.pad(mask, more), "batch", None)
    lm = apart(config, dtype)
    cond = lm.apply({"params": params}, states, mask, method="condition")
    # The released code attends to all positions of the longest text.
    attended = mask if mask_padding else jnp.any(mask, axis=0, keepdims=True)
    # A row without text attends to one vector of zeros.
    attended = jnp.broadcast_to(attended, mask.shape).at[:, 0].set(True)
    return Cond(cond.states, constrain(attended, "batch", None))


@functools.partial(jax.jit, static_argnames=("config", "dtype", "placement"))
def logits(
  params: Tree,
  steps: Int[Array, "b k s"],
  cond: Cond,
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
) -> Float[Array, "b k s v"]:
  """`LM.__call__` with the causal mask, under jit."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    mask = masks.causal(steps.shape[2])
    return apart(config, dtype).apply({"params": params}, steps, cond, mask)
