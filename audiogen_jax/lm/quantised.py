"""Products in int8: weights rounded once, what they multiply at every step.

Each column of a weight has a scale of its own, and each row of what it
multiplies another, computed at every step (dynamic quantisation, as in
LLM.int8(), Dettmers et al., 2022, without its outliers).  Attention's own
products, norms, embeddings and the text's projection stay as they are.  Qwix
does the rounding.
"""

import functools

import jax
import jax.numpy as jnp

from audiogen_jax.core import types
from audiogen_jax.core.types import Cond, Tree
from audiogen_jax.lm.model import LM, LMConfig

_METHODS = ("__call__", "condition", "prefill", "step")
# Sums over more than this, those at the end of a feed-forward layer, are taken
# in parts, each with scales of its own: on CPUs long ones are slow (4096 x 1024
# read at 7 GB/s, 1024 x 1024 at 30).
_TILE = 1024
_PRODUCTS = r"layer_\d+/((self|cross)_attn/(qkv|q|kv|out)|up)|heads"


@functools.lru_cache(maxsize=8)
def apart(config: LMConfig, dtype: jnp.dtype) -> LM:
  """The model on unstacked parameters; in int8 on those of `quantise`."""
  lm = LM(config, types.float_of(dtype), stacked=False)
  if dtype != jnp.int8:
    return lm
  import qwix  # slow to import, and seldom needed

  rule = functools.partial(
    qwix.QuantizationRule, weight_qtype=jnp.int8, act_qtype=jnp.int8
  )
  ff = config.transformer.ff
  tile = _TILE if ff % _TILE == 0 and ff > _TILE else None
  rules = [
    rule(module_path=_PRODUCTS),
    rule(module_path=r"layer_\d+/down", tile_size=tile),
  ]
  return qwix.quantize_model(lm, qwix.PtqProvider(rules), methods=_METHODS)


def quantise(config: LMConfig, params: Tree) -> Tree:
  """Unstacked parameters in int8, with float32 scales for each column.

  Empties `params`, one entry after another, so that memory never holds both.
  """
  import qwix

  lm = apart(config, jnp.dtype(jnp.int8))
  steps = jax.ShapeDtypeStruct((1, config.codebooks, 1), jnp.int32)
  cond = Cond(
    jax.ShapeDtypeStruct((1, 1, config.transformer.width), jnp.float32),
    jax.ShapeDtypeStruct((1, 1), jnp.bool_),
  )
  mask = jax.ShapeDtypeStruct((1, 1, 1), jnp.bool_)
  abstract = jax.eval_shape(lm.init, jax.random.key(0), steps, cond, mask)[
    "params"
  ]
  quantised = {}
  for name in list(params):
    part = {name: params.pop(name)}
    # What a call with text at hand does not touch is none of `abstract`'s.
    if name in abstract:
      part = qwix.quantize_params(part, {name: abstract[name]})
    quantised |= part
  return quantised
