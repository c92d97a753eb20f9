"""The programs that sampling runs, compiled ahead of time."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from audiogen_jax.codec import encodec
from audiogen_jax.convert import engine
from audiogen_jax.core import sharding, types
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Cond, bucket
from audiogen_jax.lm import model, patterns, sampler, tiling
from audiogen_jax.lm.sampler import Inputs, State
from audiogen_jax.lm.sampling import TracedSampling
from audiogen_jax.lm.transformer import KVCache
from audiogen_jax.plan import programs
from audiogen_jax.plan.programs import Compiled
from audiogen_jax.text import t5
from audiogen_jax.train.lm_task import LMTask


def of_sampling(
  task: LMTask, batch: int, duration_s: float, placement: Placement
) -> dict[str, Callable[[], Compiled]]:
  """`prefill` and `decode` of the sampler, guided, in `task.dtype`.

  Text encoder and codec are on the devices, too, in float32.
  """
  config, dtype = task.lm, types.resolve_dtype(task.dtype)
  t, tokens = config.transformer, task.encodec.tokens
  layout = patterns.layout(
    config.pattern, config.codebooks, tokens.frames(duration_s)
  )
  capacity = bucket(layout.frame.shape[1], least=sampler.LEAST_STEPS)
  length = bucket(task.text.length, least=16)

  def shaped(shape, kind, *axes):
    return programs.put(jax.ShapeDtypeStruct(shape, kind), placement, *axes)

  abstract = jax.eval_shape(
    lambda key: model.unstack(model.init(config, key)), jax.random.key(0)
  )
  places = sharding.shardings(abstract, model.AXES, placement)
  params = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, dtype, sharding=place),
    abstract,
    places,
  )
  resident = 0
  for init, its, axes in (
    (t5.init, task.text.encoder, t5.AXES),
    (encodec.init, task.encodec, encodec.AXES),
  ):
    tree = engine.abstract(init, its)
    resident += programs.size(
      programs.placed(tree, sharding.shardings(tree, axes, placement))
    )
  params = tiling.tiled(params, placement)
  prepended = length if config.prepend_text else 0

  def cache(steps: int) -> KVCache:
    shape = (2 * batch, t.heads, t.head_size, steps)
    one = shaped(shape, dtype, "batch", "heads", None, None)
    if tiling.matters(placement):
      wanted = tiling.of_kv_cache(placement).k
      one = jax.ShapeDtypeStruct(shape, dtype, sharding=wanted)
    return KVCache(one, one)

  text_mask = shaped((batch, length), jnp.bool_, "batch", None)
  states_ = shaped((batch, length, t.width), dtype, "batch", None, None)
  steps = shaped(
    (batch, config.codebooks, capacity), jnp.int32, "batch", None, None
  )
  head = shaped((batch, config.codebooks, 0), jnp.int32, "batch", None, None)
  number = functools.partial(shaped, ())
  keys = jax.eval_shape(
    lambda: jax.vmap(jax.random.key)(jnp.arange(batch, dtype=jnp.uint32))
  )
  keys = programs.put(keys, placement, "batch")
  traced = TracedSampling(
    number(jnp.float32),
    number(jnp.int32),
    number(jnp.float32),
    number(jnp.float32),
  )
  state = State(
    steps, number(jnp.int32), [cache(prepended + capacity)] * t.layers
  )
  text_caches = [cache(length) if t.cross_attention else None] * t.layers
  options = dict(config=config, dtype=dtype, placement=placement, guided=True)
  prefill, decode, _ = sampler.compiled(config, placement)
  return {
    "prefill": programs.later(
      prefill,
      placement,
      params,
      head,
      Cond(states_, text_mask),
      resident=resident,
      capacity=sampler.LEAST_STEPS,
      **options,
    ),
    "decode": programs.later(
      decode,
      placement,
      params,
      state,
      Inputs(text_caches, text_mask, keys, traced),
      number(jnp.int32),
      resident=resident,
      **options,
    ),
  }
