"""BERT (Devlin et al., 2019) and RoBERTa (Liu et al., 2019): ids -> states.

Both are one network, which learns a vector for each position, norms behind each
addition, and speaks for a sentence by its first token.  `embedding/` judges by
that vector, `text/` conditions on the states of all tokens.  Layers are stacked
and scanned: one copy of the layer is compiled, whatever the depth.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree

AXES = {
  "words|positions|kinds": (None, None),
  "words_norm/(scale|bias)": (None,),
  "layers/qkv/kernel": ("layers", None, None, "heads", None),
  "layers/qkv/bias": ("layers", None, "heads", None),
  "layers/out/kernel": ("layers", "heads", None, None),
  "layers/up/kernel": ("layers", None, "ff"),
  "layers/up/bias": ("layers", "ff"),
  "layers/down/kernel": ("layers", "ff", None),
  "layers/(out|down)/bias": ("layers", None),
  "layers/(attention|ff)_norm/(scale|bias)": ("layers", None),
  "pool/kernel": (None, None),
  "pool/bias": (None,),
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """Shape of the encoder; the defaults are those of roberta-base.

  Attributes:
    vocabulary: Rows of the embedding.
    width: Size of a state.
    layers: How many.
    heads: Attention heads.
    ff: Size of the feed-forward layer.
    positions: Rows of the embedding of positions.
    first_position: Row of the first token: RoBERTa leaves two out, BERT none.
    kinds: Rows of the embedding of kinds, of which every token has the first.
    padding: Id of what is no token, and is not looked at: 1 in RoBERTa, 0 in
      BERT.
    epsilon: Added to variances in the norms.
    pooled: Whether the first token's state passes a last layer and tanh.
  """

  vocabulary: int = 50265
  width: int = 768
  layers: int = 12
  heads: int = 12
  ff: int = 3072
  positions: int = 514
  first_position: int = 2
  kinds: int = 1
  padding: int = 1
  epsilon: float = 1e-5
  pooled: bool = True

  def __post_init__(self) -> None:
    if self.width % self.heads:
      raise InputError(
        f"width {self.width} is no multiple of {self.heads} heads"
      )
    if not self.padding < self.vocabulary:
      raise InputError(
        f"padding {self.padding} is no row of {self.vocabulary} tokens"
      )

  @property
  def limit(self) -> int:
    """The most tokens of a sentence."""
    return self.positions - self.first_position


class _Layer(nn.Module):
  """Self-attention and feed-forward, each added and then normed."""

  config: BertConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], seen: Bool[Array, "b l"]
  ) -> tuple[Float[Array, "b l d"], None]:
    c = self.config
    e = c.width // c.heads
    qkv = nn.DenseGeneral((3, c.heads, e), name="qkv")(x)
    q, k, v = (qkv[..., i, :, :] for i in range(3))
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) * e**-0.5
    hidden = jnp.finfo(scores.dtype).min
    scores = jnp.where(seen[:, None, None], scores, hidden)
    y = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores, axis=-1), v)
    y = nn.DenseGeneral(c.width, axis=(-2, -1), name="out")(y)
    x = _norm(c, "attention_norm")(x + y)
    y = jax.nn.gelu(nn.Dense(c.ff, name="up")(x), approximate=False)
    x = _norm(c, "ff_norm")(x + nn.Dense(c.width, name="down")(y))
    return x, None


class Bert(nn.Module):
  """Token ids `b l`, padded behind -> states, and a vector for each sentence.

  Attributes:
    config: Its shape.
    sees_padding: Whether padding is looked at like any token.
  """

  config: BertConfig
  sees_padding: bool = False

  @nn.compact
  def __call__(
    self, ids: Int[Array, "b l"]
  ) -> tuple[Float[Array, "b l d"], Float[Array, "b d"]]:
    c = self.config
    length = ids.shape[1]
    if length > c.limit:
      raise InputError(f"{length} tokens do not fit into {c.limit} positions")
    normal = nn.initializers.normal(0.02)
    words = self.param("words", normal, (c.vocabulary, c.width))
    places = self.param("positions", normal, (c.positions, c.width))
    kinds = self.param("kinds", normal, (c.kinds, c.width))
    place = places[c.first_position : c.first_position + length]
    x = words[ids] + (place + kinds[:1])[None]
    x = _norm(c, "words_norm")(x)
    layers = nn.scan(
      _Layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=c.layers,
    )
    seen = jnp.ones_like(ids, bool) if self.sees_padding else ids != c.padding
    x, _ = layers(c, name="layers")(x, seen)
    first = x[:, 0]
    if c.pooled:
      first = jnp.tanh(nn.Dense(c.width, name="pool")(first))
    return x, first


def _norm(config: BertConfig, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(config.epsilon, use_fast_variance=False, name=name)


def init(config: BertConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  return Bert(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]
