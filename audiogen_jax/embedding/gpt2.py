"""GPT-2 (Radford et al., 2019): ids -> a vector, the state of the last token.

Unlike BERT it norms before each layer and no token sees those behind it, so
that padding needs no mask.  Layers are stacked and scanned.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree


@dataclasses.dataclass(frozen=True)
class GPT2Config:
  """Shape of the model; the defaults are those of gpt2.

  Attributes:
    vocabulary: Rows of the embedding.
    width: Size of a state.
    layers: How many.
    heads: Attention heads.
    ff: Size of the feed-forward layer.
    positions: Rows of the embedding of positions.
    padding: Id of what is no token.
    epsilon: Added to variances in the norms.
  """

  vocabulary: int = 50257
  width: int = 768
  layers: int = 12
  heads: int = 12
  ff: int = 3072
  positions: int = 1024
  padding: int = 0
  epsilon: float = 1e-5

  def __post_init__(self) -> None:
    if self.width % self.heads:
      raise InputError(
        f"width {self.width} is no multiple of {self.heads} heads"
      )

  @property
  def limit(self) -> int:
    """The most tokens of a sentence."""
    return self.positions


class _Layer(nn.Module):
  """Causal self-attention and feed-forward, each on the normed input."""

  config: GPT2Config

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], _: None
  ) -> tuple[Float[Array, "b l d"], None]:
    c = self.config
    e, length = c.width // c.heads, x.shape[1]
    y = _norm(c, "attention_norm")(x)
    qkv = nn.DenseGeneral((3, c.heads, e), name="qkv")(y)
    q, k, v = (qkv[..., i, :, :] for i in range(3))
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) * e**-0.5
    past = jnp.tri(length, dtype=bool)[None, None]
    scores = jnp.where(past, scores, jnp.finfo(scores.dtype).min)
    y = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores, axis=-1), v)
    x = x + nn.DenseGeneral(c.width, axis=(-2, -1), name="out")(y)
    y = nn.Dense(c.ff, name="up")(_norm(c, "ff_norm")(x))
    y = jax.nn.gelu(y, approximate=True)
    return x + nn.Dense(c.width, name="down")(y), None


class GPT2(nn.Module):
  """Token ids `b l`, padded behind -> a vector for each sentence `b d`.

  The last token is found by counting the ids that are no padding, as Microsoft
  CLAP (2023) does: padding's id within a sentence moves it forward by one.
  """

  config: GPT2Config

  @nn.compact
  def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b d"]:
    c = self.config
    length = ids.shape[1]
    if length > c.limit:
      raise InputError(f"{length} tokens do not fit into {c.limit} positions")
    normal = nn.initializers.normal(0.02)
    words = self.param("words", normal, (c.vocabulary, c.width))
    places = self.param("positions", normal, (c.positions, c.width))
    layers = nn.scan(
      _Layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=c.layers,
    )
    x, _ = layers(c, name="layers")(words[ids] + places[None, :length], None)
    last = jnp.sum(ids != c.padding, axis=1) - 1
    return _norm(c, "out_norm")(x[jnp.arange(len(x)), last])


def _norm(config: GPT2Config, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(config.epsilon, use_fast_variance=False, name=name)


def init(config: GPT2Config, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  return GPT2(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
