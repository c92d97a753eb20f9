"""The transformer: pre-norm blocks, with or without a KV cache.

MusicGen (Copet et al., 2023, §2.3) and AudioGen (Kreuk et al., 2023, §3.2).
One block attends to the sequence and, with cross-attention, to the text:

    x = x + self_attn(self_norm(x))
    x = x + cross_attn(cross_norm(x), text)
    x = x + down(gelu(up(ff_norm(x))))

What each position may attend to is the caller's mask: causal or not.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import constrain
from audiogen_jax.lm.lora import product


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Shape of the stack; the defaults are those of AudioGen-medium.

  Attributes:
    width: Size of a state.
    layers: Blocks.
    heads: Attention heads.
    ff: Size of the feed-forward layer.
    cross_attention: Whether blocks attend to the text.
    attention_bias: Biases in the attention's projections.
    ff_bias: Biases in the feed-forward layer.

  Raises:
    InputError: If `width` is odd, or `heads` does not divide it.
  """

  width: int = 1536
  layers: int = 48
  heads: int = 24
  ff: int = 6144
  cross_attention: bool = True
  attention_bias: bool = False
  ff_bias: bool = False

  def __post_init__(self) -> None:
    if self.width % self.heads or self.width % 2:
      raise InputError(
        f"width {self.width} must be even, and a multiple of {self.heads} heads"
      )

  @property
  def head_size(self) -> int:
    """Size of one head."""
    return self.width // self.heads


class KVCache(NamedTuple):
  """Keys and values of one layer: of all steps, or of the text.

  Positions (`s`) come last.  With heads of 64 last, TPUs would pad each to 128,
  and memory and traffic would double.
  """

  k: Float[Array, "b h e s"]
  v: Float[Array, "b h e s"]

  @classmethod
  def of(
    cls, k: Float[Array, "b s h e"], v: Float[Array, "b s h e"]
  ) -> "KVCache":
    """The cache that holds just these keys and values."""
    return cls(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 3, 1))

  def updated(self, new: "KVCache", start: Int[Array, ""] | int) -> "KVCache":
    """This cache with `new` in place of its positions from `start` on."""
    return KVCache(
      *(
        jax.lax.dynamic_update_slice(
          cached, part.astype(cached.dtype), (0, 0, 0, start)
        )
        for cached, part in zip(self, new, strict=True)
      )
    )


def uniform(bound: float) -> nn.initializers.Initializer:
  """U(-bound, bound) as an initializer.

  With 1/√fan_in it is PyTorch's default for a linear layer, at which the
  published code leaves queries, keys, values and the text's projection.
  """

  def draw(
    key: Key[Array, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32
  ) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return draw


def truncated_normal(std: float) -> nn.initializers.Initializer:
  """N(0, std²) cut at three `std`, not rescaled for the cut, as published."""
  return nn.initializers.truncated_normal(std, lower=-3.0, upper=3.0)


def norm(name: str) -> nn.LayerNorm:
  """Layer norm, computed in float32 whatever the parameters are.

  The quick variance E[x²] - E[x]² loses digits when the mean is large.
  """
  return nn.LayerNorm(
    epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False, name=name
  )


class Attention(nn.Module):
  """Multi-head attention (Vaswani et al., 2017, §3.2.2), to itself or to text.

  Projections are packed, so that weights are read in one piece: queries, keys
  and values in `qkv`; with `cross`, queries in `q`, keys and values in `kv`.

  Attributes:
    config: Shape of the stack.
    cross: Whether keys and values come from the text.
    dtype: Type of matrix products.
  """

  config: TransformerConfig
  cross: bool
  dtype: jnp.dtype

  def setup(self) -> None:
    c = self.config

    def project(*parts: int) -> nn.DenseGeneral:
      return nn.DenseGeneral(
        (*parts, c.heads, c.head_size),
        use_bias=c.attention_bias,
        dtype=self.dtype,
        kernel_init=uniform(c.width**-0.5),
      )

    if self.cross:
      self.q, self.kv = project(), project(2)
    else:
      self.qkv = project(3)
    self.out = nn.DenseGeneral(
      c.width,
      axis=(-2, -1),
      use_bias=c.attention_bias,
      dtype=self.dtype,
      kernel_init=truncated_normal(c.width**-0.5),
    )

  def self_projections(
    self, x: Float[Array, "b s d"]
  ) -> tuple[
    Float[Array, "b s h e"], Float[Array, "b s h e"], Float[Array, "b s h e"]
  ]:
    """Queries, keys and values of `x`; only without `cross`."""
    qkv = product(self.qkv, x)
    return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]

  def keys_values(
    self, states: Float[Array, "b l d"]
  ) -> tuple[Float[Array, "b l h e"], Float[Array, "b l h e"]]:
    """Keys and values of text states; only with `cross`."""
    kv = product(self.kv, states)
    return kv[:, :, 0], kv[:, :, 1]

  def attend(
    self,
    q: Float[Array, "b q h e"],
    k: Float[Array, "b s h e"],
    v: Float[Array, "b s h e"],
    mask: Bool[Array, "#b #q s"],
  ) -> Float[Array, "b q d"]:
    """softmax(q kᵀ / √e) v, projected; the softmax is in float32.

    Args:
      q: Queries.
      k: Keys.
      v: Values.
      mask: Which positions `s` each query attends to; at least one.
    """
    x = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
    return product(self.out, constrain(x, "batch", None, "heads", None))

  def attend_cache(
    self,
    q: Float[Array, "b q h e"],
    cache: KVCache,
    mask: Bool[Array, "#b #q s"],
  ) -> Float[Array, "b q d"]:
    """`attend`, to the keys and values of a cache in its own axis order."""
    q = q * jnp.asarray(self.config.head_size**-0.5, q.dtype)
    scores = jnp.einsum(
      "bqhe,bhes->bhqs", q, cache.k, preferred_element_type=jnp.float32
    )
    scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    x = jnp.einsum("bhqs,bhes->bqhe", weights, cache.v)
    return product(self.out, constrain(x, "batch", None, "heads", None))


class Block(nn.Module):
  """One pre-norm block: self-attention, cross-attention, feed-forward.

  Attributes:
    config: Shape of the stack.
    dtype: Type of matrix products; norms and softmax are float32.
  """

  config: TransformerConfig
  dtype: jnp.dtype

  def setup(self) -> None:
    c = self.config
    self.self_norm, self.ff_norm = norm("self_norm"), norm("ff_norm")
    self.self_attn = Attention(c, cross=False, dtype=self.dtype)
    if c.cross_attention:
      self.cross_norm = norm("cross_norm")
      self.cross_attn = Attention(c, cross=True, dtype=self.dtype)
    self.up = self._dense(c.ff, c.width)
    self.down = self._dense(c.width, c.ff)

  def text_cache(self, states: Float[Array, "b l d"]) -> KVCache:
    """This layer's keys and values of the text: once a prompt, not a step."""
    return KVCache.of(*self.cross_attn.keys_values(states))

  def __call__(
    self,
    x: Float[Array, "b q d"],
    mask: Bool[Array, "#b #q s"],
    text: Float[Array, "b l d"] | KVCache | None,
    text_mask: Bool[Array, "b l"],
    cache: KVCache | None = None,
    start: Int[Array, ""] | int = 0,
  ) -> tuple[Float[Array, "b q d"], KVCache | None]:
    """Runs the block.

    Args:
      x: States.
      mask: Which positions each state attends to: of `x`, or of the cache if
        there is one.
      text: States of the text, or this layer's `text_cache` of them; unused
        without cross-attention.
      text_mask: The text positions that are attended to.
      cache: KV cache of all steps, into which those of `x` are written.
      start: Position in the cache of the first state of `x`.

    Returns:
      New states, and the updated cache if there is one.
    """
    attn = self.self_attn
    q, k, v = attn.self_projections(self._normed(self.self_norm, x))
    if cache is None:
      x = x + attn.attend(q, k, v, mask)
    else:
      cache = cache.updated(KVCache.of(k, v), start)
      x = x + attn.attend_cache(q, cache, mask)
    if self.config.cross_attention:
      attn, text_mask = self.cross_attn, text_mask[:, None]
      q = product(attn.q, self._normed(self.cross_norm, x))
      if isinstance(text, KVCache):
        x = x + attn.attend_cache(q, text, text_mask)
      else:
        x = x + attn.attend(q, *attn.keys_values(text), text_mask)
    y = jax.nn.gelu(
      product(self.up, self._normed(self.ff_norm, x)), approximate=False
    )
    y = constrain(y, "batch", None, "ff")
    return constrain(x + product(self.down, y), "batch", None, None), cache

  def _dense(self, size: int, fan_in: int) -> nn.Dense:
    return nn.Dense(
      size,
      use_bias=self.config.ff_bias,
      dtype=self.dtype,
      kernel_init=truncated_normal(fan_in**-0.5),
    )

  def _normed(
    self, norm: nn.LayerNorm, x: Float[Array, "b q d"]
  ) -> Float[Array, "b q d"]:
    return norm(x).astype(self.dtype)


def sinusoids(
  position: Int[Array, "#b s"], width: int
) -> Float[Array, "#b s d"]:
  """Sinusoidal embedding of positions, float32: cosines, then sines.

  The published code divides by `width / 2 - 1` where Vaswani et al. (2017,
  §3.5) divide by `width / 2`, and puts cosines first.
  """
  half = width // 2
  rate = 10000.0 ** (-jnp.arange(half) / (half - 1))
  phase = position[..., None].astype(jnp.float32) * rate[None, None]
  return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
