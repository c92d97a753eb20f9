"""What a plan compiles of a masked model: a pass of its sampler."""

import jax
import jax.numpy as jnp
import numpy as np

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core import abstract, types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import bucket
from audiogen_jax.lm import masked
from audiogen_jax.lm.language_model import LEAST_PROMPT
from audiogen_jax.lm.masked import Stage, State
from audiogen_jax.lm.masked_sampling import Masking, Passes, Rules
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.train import lm_planning
from audiogen_jax.train.lm_sources import TextConfig


def sampling(
  lm: LMConfig,
  masking: Masking,
  text: TextConfig,
  codec: EncodecConfig,
  dtype: str,
  batch: int,
  duration_s: float,
  placement: Placement,
) -> dict[str, Program]:
  """The sampler's one program, guided: what is told of it is one pass.

  Text encoder and codec are on the devices, too, in float32.

  Args:
    lm: The language model.
    masking: How it decodes.
    text: The text encoder.
    codec: The codec.
    dtype: Of the products, by name.
    batch: Sounds.
    duration_s: Of each.
    placement: The mesh.
  """
  kind = types.resolve_dtype(dtype)
  frames = codec.tokens.frames(duration_s)
  length = bucket(frames, least=LEAST_PROMPT, parts=4)

  def shaped(shape: tuple[int, ...], kind: jnp.dtype, *axes: str | None):
    return abstract.put(jax.ShapeDtypeStruct(shape, kind), placement, *axes)

  def whole(x: np.ndarray) -> jax.ShapeDtypeStruct:
    return shaped(x.shape, x.dtype, *[None] * x.ndim)

  tokens = bucket(text.length, least=16)
  cond, keys = lm_planning.asked(lm, kind, batch, tokens, placement)
  state = State(
    shaped((batch, lm.codebooks, length), jnp.int32, "batch", None, None),
    shaped((batch, length), jnp.float32, "batch", None),
    shaped((batch, length), jnp.bool_, "batch", None),
  )
  number = whole(np.zeros((), np.int32))
  options = masking.sampling
  passes = Passes.make(options, 0, np.full(batch, frames))
  stage = Stage(
    number,
    number,
    shaped((batch, length), jnp.bool_, "batch", None),
    Passes(
      shaped(passes.count.shape, jnp.int32, "batch", None),
      *map(whole, passes[1:]),
    ),
    Rules(*map(whole, Rules.make(options, lm.size))),
    keys,
  )
  return {
    "pass": Program(
      masked.compiled(lm, placement),
      (
        lm_planning.sampled_params(lm, kind, placement),
        state,
        cond,
        stage,
        number,
        number,
      ),
      dict(
        config=lm,
        dtype=kind,
        placement=placement,
        context=masking.context,
        span=masking.span,
        guided=True,
      ),
      resident=lm_planning.beside(text, codec, placement),
      runs=sum(options.decoding_steps),
    )
  }
