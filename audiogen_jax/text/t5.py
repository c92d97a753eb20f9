"""The encoder of T5 (Raffel et al., 2020), v1.0 and v1.1: sentence -> states.

Layers are stacked and scanned: one copy of the layer is compiled, whatever the
depth.
"""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.core.sharding import constrain
from audiogen_jax.core.types import Tree

AXES = {
  "embed": (None, "embed"),
  "position_bias": (None, "heads"),
  "layers/(q|k|v)": ("layers", "embed", "heads", None),
  "layers/o": ("layers", "heads", None, "embed"),
  "layers/(up|gate)": ("layers", "embed", "ff"),
  "layers/down": ("layers", "ff", "embed"),
  "layers/(attention|ff)_norm": ("layers", None),
  "out_norm": (None,),
}


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Shape of the encoder; the defaults are those of t5-large.

  Attributes:
    vocabulary: Rows of the embedding.
    width: Size of a state.
    layers: How many.
    heads: Attention heads.
    head_size: Size of each; `heads * head_size` need not equal `width`.
    ff: Size of the feed-forward layer.
    activation: `relu` (v1.0) or gated `gelu` (v1.1, Flan).
    buckets: Relative positions that the attention tells apart.
    far: Distance from which on all positions are one.
    epsilon: Added to the mean square in the RMS norms.
  """

  vocabulary: int = 32128
  width: int = 1024
  layers: int = 24
  heads: int = 16
  head_size: int = 64
  ff: int = 4096
  activation: Literal["relu", "gated-gelu"] = "relu"
  buckets: int = 32
  far: int = 128
  epsilon: float = 1e-6


def relative_bucket(
  distance: Int[Array, "q k"], buckets: int, far: int
) -> Int[Array, "q k"]:
  """The bucket of each distance (key minus query), both directions.

  Half of the buckets are for keys behind, half for keys ahead; of each half the
  first half are single steps, the rest widen logarithmically up to `far`.
  """
  half = buckets // 2
  exact = half // 2
  steps = jnp.abs(distance)
  # The logarithm of zero is never used, but must not become NaN.
  ratio = jnp.log(jnp.maximum(steps, 1) / exact) / math.log(far / exact)
  wide = exact + (ratio * (half - exact)).astype(jnp.int32)
  bucketed = jnp.where(steps < exact, steps, jnp.minimum(wide, half - 1))
  return bucketed + jnp.where(distance > 0, half, 0)


def _rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
  power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(power + epsilon) * scale[None, None]


class _Layer(nn.Module):
  """Self-attention and feed-forward, each on the normed input, each added."""

  config: T5Config

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], bias: Float[Array, "b h l l"]
  ) -> tuple[Float[Array, "b l d"], None]:
    c = self.config
    d, h, e, f = c.width, c.heads, c.head_size, c.ff
    fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    ones = nn.initializers.ones

    def weight(name: str, *shape: int) -> Array:
      return self.param(name, fan_in, shape)

    y = _rms_norm(x, self.param("attention_norm", ones, (d,)), c.epsilon)
    q = jnp.einsum("bld,dhe->blhe", y, weight("q", d, h, e))
    k = jnp.einsum("bld,dhe->blhe", y, weight("k", d, h, e))
    v = jnp.einsum("bld,dhe->blhe", y, weight("v", d, h, e))
    # T5 does not divide by √e: its initialisation allowed for that.
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) + bias
    y = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores, axis=-1), v)
    x = x + jnp.einsum("bqhe,hed->bqd", y, weight("o", h, e, d))

    y = _rms_norm(x, self.param("ff_norm", ones, (d,)), c.epsilon)
    up = y @ weight("up", d, f)
    if c.activation == "gated-gelu":
      up = jax.nn.gelu(y @ weight("gate", d, f), approximate=True) * up
    else:
      up = jax.nn.relu(up)
    x = x + up @ weight("down", f, d)
    return constrain(x, "batch", None, None), None


class T5Encoder(nn.Module):
  """Token ids `b l` -> states `b l d`; masked positions are never looked at."""

  config: T5Config

  @nn.compact
  def __call__(
    self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
  ) -> Float[Array, "b l d"]:
    c = self.config
    normal = nn.initializers.normal(1.0)
    embed = self.param("embed", normal, (c.vocabulary, c.width))
    x = constrain(embed[ids], "batch", None, None)
    where = jnp.arange(ids.shape[1])
    distance = where[None, :] - where[:, None]
    table = self.param("position_bias", normal, (c.buckets, c.heads))
    bias = table[relative_bucket(distance, c.buckets, c.far)]
    bias = bias.transpose(2, 0, 1)[None]
    hidden = jnp.finfo(x.dtype).min
    bias = jnp.where(mask[:, None, None, :], bias, hidden)
    layers = nn.scan(
      _Layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=c.layers,
    )
    x, _ = layers(c, name="layers")(x, bias)
    scale = self.param("out_norm", nn.initializers.ones, (c.width,))
    return _rms_norm(x, scale, c.epsilon)


def init(config: T5Config, key: jax.Array) -> Tree:
  """Random parameters."""
  ids = jnp.zeros((1, 1), jnp.int32)
  return T5Encoder(config).init(key, ids, ids == 0)["params"]


def encode(
  config: T5Config,
  params: Tree,
  ids: Int[Array, "b l"],
  mask: Bool[Array, "b l"],
) -> Float[Array, "b l d"]:
  """Final hidden states, always in float32, as the published code runs T5."""
  with jax.default_matmul_precision("highest"):
    return T5Encoder(config).apply({"params": params}, ids, mask)
