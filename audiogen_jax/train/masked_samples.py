"""Samples of a masked language model in training."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.core import sharding, types
from audiogen_jax.core.types import Cond, Tree
from audiogen_jax.lm import masked, model
from audiogen_jax.lm.masked import Stage, State
from audiogen_jax.lm.masked_sampling import Masking, Passes, Rules
from audiogen_jax.lm.model import LM, LMConfig


def sample(
  config: LMConfig,
  masking: Masking,
  params: Tree,
  states: Float[Array, "b l e"],
  mask: Bool[Array, "b l"],
  text_mask: Bool[Array, "b l"],
  seeds: Int[Array, " b"],
  *,
  frames: int,
  dtype: jnp.dtype,
) -> Int[Array, "b k _"]:
  """Samples codes for some texts.

  Pure, so that a training loop can compile it for its mesh.

  Args:
    config: The model.
    masking: How it decodes.
    params: Its parameters, stacked, however they are split over the mesh.
    states: Of the text encoder.
    mask: Positions of the text.
    text_mask: Positions that attention looks at.
    seeds: Of each row.
    frames: How many to sample; spans side by side may make a few less.
    dtype: Of the products.
  """
  params = model.unstack(dict(types.cast_kernels(params, dtype)))
  with jax.default_matmul_precision(types.precision(dtype)):
    cond = LM(config, dtype, stacked=False).apply(
      {"params": params}, states, mask, method="condition"
    )
  cond = Cond(cond.states, text_mask)
  b, books, sampling = states.shape[0], config.codebooks, masking.sampling
  frames = masking.frames(sampling, frames, 0)
  known = np.zeros((b, frames), bool)
  places = masking.places(sampling, known)
  passes = [Passes.make(sampling, book, places) for book in range(books)]
  passes = jax.tree.map(lambda *x: jnp.stack(x), *passes)
  steps = jnp.asarray(sampling.decoding_steps)
  rules = Rules(*map(jnp.asarray, Rules.make(sampling, config.size)))
  keys = jax.vmap(jax.random.key)(seeds)

  def fill(book: Int[Array, ""], state: State) -> State:
    stage = Stage(
      book,
      jnp.int32(frames),
      jnp.asarray(known),
      jax.tree.map(lambda x: x[book], passes),
      rules,
      keys,
    )
    return masked.decode(
      params,
      state,
      cond,
      stage,
      jnp.int32(0),
      steps[book],
      config=config,
      dtype=dtype,
      placement=sharding.current(),
      context=masking.context,
      span=masking.span,
      guided=sampling.guided,
    )

  empty = State(
    jnp.full((b, books, frames), config.size, jnp.int32),
    jnp.zeros((b, frames)),
    jnp.zeros((b, frames), bool),
  )
  return jax.lax.fori_loop(0, books, fill, empty).codes
