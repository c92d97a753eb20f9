"""The transformer in both towers of CLIP (Radford et al., 2021).

Pictures and sentences go through layers of one kind, each with a norm before
attention and before the feed-forward.  Layers are stacked and scanned: one copy
of the layer is compiled, whatever the depth.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Shape of the layers.

  Attributes:
    width: Size of a state.
    layers: How many.
    heads: Attention heads.
    ff: Size of the feed-forward layer.
    activation: Exact GELU, or `x * sigmoid(1.702 x)`, which OpenAI took.
    epsilon: Added to variances in the norms.
  """

  width: int
  layers: int
  heads: int
  ff: int
  activation: Literal["gelu", "quick_gelu"] = "gelu"
  epsilon: float = 1e-5

  def __post_init__(self) -> None:
    if self.width % self.heads:
      raise InputError(
        f"width {self.width} is no multiple of {self.heads} heads"
      )


class _Layer(nn.Module):
  """Self-attention and feed-forward, each on the normed input, each added."""

  config: TransformerConfig
  causal: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"]
  ) -> tuple[Float[Array, "b l d"], None]:
    c, length = self.config, x.shape[1]
    e = c.width // c.heads
    y = norm(c, "attention_norm")(x)
    q, k, v = jnp.moveaxis(
      nn.DenseGeneral((3, c.heads, e), name="qkv")(y), 2, 0
    )
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) * e**-0.5
    if self.causal:
      seen = jnp.tri(length, dtype=bool)[None, None]
      scores = jnp.where(seen, scores, -jnp.inf)
    y = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores, axis=-1), v)
    x = x + nn.DenseGeneral(c.width, axis=(-2, -1), name="out")(y)
    y = nn.Dense(c.ff, name="up")(norm(c, "ff_norm")(x))
    if c.activation == "gelu":
      y = jax.nn.gelu(y, approximate=False)
    else:
      y = y * jax.nn.sigmoid(1.702 * y)
    return x + nn.Dense(c.width, name="down")(y), None


class Transformer(nn.Module):
  """States `b l d` -> states `b l d`, through all layers.

  Attributes:
    config: Its shape.
    causal: Whether a state looks at itself and those before it alone.
  """

  config: TransformerConfig
  causal: bool

  @nn.compact
  def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    layers = nn.scan(
      _Layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=self.config.layers,
    )
    x, _ = layers(self.config, self.causal, name="layers")(x)
    return x


def norm(config: TransformerConfig, name: str) -> nn.LayerNorm:
  """Layer norm over the width."""
  return nn.LayerNorm(config.epsilon, use_fast_variance=False, name=name)


def normalised(embedding: Float[Array, "b e"]) -> Float[Array, "b e"]:
  """Embeddings of unit length, as CLIP compares them."""
  length = jnp.linalg.norm(embedding, axis=-1, keepdims=True)
  return embedding / length
