"""What a plan compiles of a language model: reading its parts, and sampling."""

import functools

import jax
import jax.numpy as jnp

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import engine
from audiogen_jax.core import abstract, sharding, types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Cond, Tree, bucket
from audiogen_jax.lm import model, patterns, sampler, tiling
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.sampler import Inputs, State
from audiogen_jax.lm.sampling import TracedSampling
from audiogen_jax.lm.transformer import KVCache
from audiogen_jax.text import t5
from audiogen_jax.train.lm_sources import TextConfig
from audiogen_jax.train.lm_start import Start
from audiogen_jax.train.state import TrainState


def prepare(start: Start, state: TrainState, placement: Placement) -> Program:
  """What sources hold beside a state that has room for it, and the average.

  By shapes alone: the tiles that a TPU fills up are not in it.
  """
  tables = {"codec": encodec.AXES, "text": t5.AXES, "lm": model.AXES}
  weights = [
    abstract.placed(tree, sharding.shardings(tree, tables[name], placement))
    for name, tree in start.read().items()
  ]
  return Program(None, (state,), outputs=(weights, state.average))


def sampling(
  lm: LMConfig,
  text: TextConfig,
  codec: EncodecConfig,
  dtype: str,
  batch: int,
  duration_s: float,
  placement: Placement,
) -> dict[str, Program]:
  """`prefill` and `decode` of the sampler, guided.

  Text encoder and codec are on the devices, too, in float32.

  Args:
    lm: The language model.
    text: The text encoder.
    codec: The codec.
    dtype: Of the products, by name.
    batch: Sounds.
    duration_s: Of each.
    placement: The mesh.
  """
  dtype = types.resolve_dtype(dtype)
  t, tokens = lm.transformer, codec.tokens
  layout = patterns.layout(lm.pattern, lm.codebooks, tokens.frames(duration_s))
  capacity = bucket(layout.frame.shape[1], least=sampler.LEAST_STEPS)
  length = bucket(text.length, least=16)

  def shaped(shape, kind, *axes):
    return abstract.put(jax.ShapeDtypeStruct(shape, kind), placement, *axes)

  params = sampled_params(lm, dtype, placement)
  resident = beside(text, codec, placement)
  prepended = length if lm.prepend_text else 0

  def cache(steps: int) -> KVCache:
    shape = (2 * batch, t.heads, t.head_size, steps)
    one = shaped(shape, dtype, "batch", "heads", None, None)
    if tiling.matters(placement):
      wanted = tiling.of_kv_cache(placement).k
      one = jax.ShapeDtypeStruct(shape, dtype, sharding=wanted)
    return KVCache(one, one)

  cond, keys = asked(lm, dtype, batch, length, placement)
  steps = shaped(
    (batch, lm.codebooks, capacity), jnp.int32, "batch", None, None
  )
  head = shaped((batch, lm.codebooks, 0), jnp.int32, "batch", None, None)
  number = functools.partial(shaped, ())
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
  options = dict(config=lm, dtype=dtype, placement=placement, guided=True)
  prefill, decode, _ = sampler.compiled(lm, placement)
  return {
    "prefill": Program(
      prefill,
      (params, head, cond),
      options | {"capacity": sampler.LEAST_STEPS},
      resident=resident,
      runs=1,
    ),
    "decode": Program(
      decode,
      (
        params,
        state,
        Inputs(text_caches, cond.mask, keys, traced),
        number(jnp.int32),
      ),
      options,
      resident=resident,
      runs=layout.frame.shape[1] - 1,
      in_place=True,
    ),
  }


def asked(
  lm: LMConfig,
  dtype: jnp.dtype,
  batch: int,
  length: int,
  placement: Placement,
) -> tuple[Cond, jax.ShapeDtypeStruct]:
  """What rows' texts say, and their keys, abstract.

  Args:
    lm: The language model.
    dtype: Of the products.
    batch: Rows.
    length: Tokens of a text, padded.
    placement: The mesh.
  """

  def put(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    axes = ["batch", *[None] * (x.ndim - 1)]
    return abstract.put(x, placement, *axes)

  states = jax.ShapeDtypeStruct((batch, length, lm.transformer.width), dtype)
  mask = jax.ShapeDtypeStruct((batch, length), jnp.bool_)
  keys = jax.eval_shape(
    lambda: jax.vmap(jax.random.key)(jnp.arange(batch, dtype=jnp.uint32))
  )
  return Cond(put(states), put(mask)), put(keys)


def sampled_params(
  lm: LMConfig, dtype: jnp.dtype, placement: Placement
) -> Tree:
  """The parameters that a sampler holds, abstract, in the type of products."""
  like = jax.eval_shape(
    lambda key: model.unstack(model.init(lm, key)), jax.random.key(0)
  )
  places = sharding.shardings(like, model.AXES, placement)
  params = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, dtype, sharding=place),
    like,
    places,
  )
  return tiling.tiled(params, placement)


def beside(
  text: TextConfig, codec: EncodecConfig, placement: Placement
) -> list[Tree]:
  """Text encoder and codec, abstract, in float32: they lie beside a sampler."""
  trees = []
  for init, config, axes in (
    (t5.init, text.encoder, t5.AXES),
    (encodec.init, codec, encodec.AXES),
  ):
    tree = engine.abstract(init, config)
    places = sharding.shardings(tree, axes, placement)
    trees.append(abstract.placed(tree, places))
  return trees
