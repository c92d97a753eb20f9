"""Samples of a language model in training, and the sounds beside them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core import sharding, types
from audiogen_jax.core.types import Cond, Tree
from audiogen_jax.lm import model, patterns, sampler
from audiogen_jax.lm.model import LM, LMConfig
from audiogen_jax.lm.sampler import Inputs, State
from audiogen_jax.lm.sampling import Sampling, TracedSampling
from audiogen_jax.train.state import Batch


def sample(
  config: LMConfig,
  params: Tree,
  states: Float[Array, "b l e"],
  mask: Bool[Array, "b l"],
  text_mask: Bool[Array, "b l"],
  seeds: Int[Array, " b"],
  *,
  frames: int,
  guidance: float,
  dtype: jnp.dtype,
) -> Int[Array, "b k t"]:
  """Samples codes for some texts.

  Pure, so that a training loop can compile it for its mesh.

  Args:
    config: The model.
    params: Its parameters, stacked, however they are split over the mesh.
    states: States of the text encoder.
    mask: Positions of the text.
    text_mask: Positions that attention looks at.
    seeds: Of each row.
    frames: How many to sample.
    guidance: Classifier-free guidance.
    dtype: Type of matrix products.
  """
  # Cast while they are split, and taken apart as they are: what there is twice
  # is a device's own share, in half the bytes.
  params = model.unstack(dict(types.cast_kernels(params, dtype)))
  with jax.default_matmul_precision(types.precision(dtype)):
    cond = LM(config, dtype, stacked=False).apply(
      {"params": params}, states, mask, method="condition"
    )
  cond = Cond(cond.states, text_mask)
  b, k = states.shape[0], config.codebooks
  layout = patterns.layout(config.pattern, k, frames)
  stop = layout.frame.shape[1]
  unknown = jnp.full((b, k, frames), -1, jnp.int32)
  steps = patterns.interleave(unknown, layout.frame, config.size)
  options = dict(
    config=config, dtype=dtype, placement=sharding.current(), guided=True
  )
  text_caches, caches = sampler.prefill(
    params, steps[..., :0], cond, capacity=stop, **options
  )
  traced = TracedSampling.make(Sampling(guidance=guidance), config.size)
  sampled = sampler.decode(
    params,
    State(steps, jnp.int32(1), caches),
    Inputs(
      text_caches,
      cond.mask,
      jax.vmap(jax.random.key)(seeds),
      TracedSampling(*map(jnp.asarray, traced)),
    ),
    jnp.int32(stop),
    **options,
  )
  return patterns.deinterleave(sampled.steps, layout.step)


def decoded(
  config: EncodecConfig, variables: Tree, codes: Int[Array, "b k t"]
) -> Float[Array, "b n c"]:
  """Sound of codes, all `t` frames of each row."""
  b, _, frames = codes.shape
  length = jnp.full(b, frames, jnp.int32)
  return encodec.decode(config, variables, codes, length, jnp.ones(b))


def recorded(
  config: EncodecConfig, variables: Tree, batch: Batch
) -> Float[Array, "b n c"]:
  """The recordings of a batch; of cached codes, what the codec makes of them.

  Where a row of codes has ended there is silence.
  """
  if "audio" in batch:
    return batch["audio"]
  codes = batch["codes"]
  length = jnp.sum(codes[:, 0] >= 0, axis=1)
  codes = jnp.maximum(codes, 0)
  sound = encodec.decode(config, variables, codes, length, jnp.ones(len(codes)))
  ended = jnp.arange(sound.shape[1])[None] >= length[:, None] * config.hop
  return jnp.where(ended[..., None], 0, sound)
