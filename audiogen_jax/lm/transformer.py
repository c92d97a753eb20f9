"""The decoder-only transformer: pre-norm blocks over an explicit cache.

MusicGen (Copet et al., 2023, §2.3) and AudioGen (Kreuk et al., 2023, §3.2).
One block reads itself and, if the model is told of text by cross-attention, the
text:

    x = x + self_attn(self_norm(x))
    x = x + cross_attn(cross_norm(x), text)
    x = x + down(gelu(up(ff_norm(x))))
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
    cross_attention: Whether blocks look at the text.
    packed: One product for queries, keys and values, which reads the weights in
      one piece; apart, each can have its own sharding or adapter.
    attention_bias: Biases in the attention's projections.
    ff_bias: Biases in the feed-forward layer.
  """

  width: int = 1536
  layers: int = 48
  heads: int = 24
  ff: int = 6144
  cross_attention: bool = True
  packed: bool = True
  attention_bias: bool = False
  ff_bias: bool = False

  def __post_init__(self):
    if self.width % self.heads or self.width % 2:
      raise InputError(
        f"width {self.width} must be even, and a multiple of {self.heads} heads"
      )

  @property
  def head_size(self) -> int:
    """Size of one head."""
    return self.width // self.heads


class KeysValues(NamedTuple):
  """What decoding keeps: one layer of the cache, or a layer's view of text.

  Steps come last.  With heads of 64 last, TPUs would pad each to 128, and cache
  and traffic would double.
  """

  k: Float[Array, "b h e s"]
  v: Float[Array, "b h e s"]

  @classmethod
  def of(
    cls, k: Float[Array, "b s h e"], v: Float[Array, "b s h e"]
  ) -> "KeysValues":
    """Keys and values of a sequence, as they are kept."""
    return cls(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 3, 1))

  def written(
    self, new: "KeysValues", at: Int[Array, ""] | int
  ) -> "KeysValues":
    """With the keys and values of some steps in their place."""
    return KeysValues(
      *(
        jax.lax.dynamic_update_slice(
          room, part.astype(room.dtype), (0, 0, 0, at)
        )
        for room, part in zip(self, new, strict=True)
      )
    )


def uniform(bound: float) -> nn.initializers.Initializer:
  """U(±bound); with 1/√fan_in what PyTorch gives a linear layer by itself.

  The published code leaves queries, keys, values and the text's projection at
  that.
  """

  def draw(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return draw


def truncated_normal(std: float) -> nn.initializers.Initializer:
  """Cut at three standard deviations and not corrected for it, as published."""
  return nn.initializers.truncated_normal(std, lower=-3.0, upper=3.0)


def norm(name: str) -> nn.LayerNorm:
  """Layer norm, computed in float32 whatever the parameters are.

  The quick variance E[x²] - E[x]² loses digits when the mean is large.
  """
  return nn.LayerNorm(
    epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False, name=name
  )


class Attention(nn.Module):
  """Projections and the product of one attention.

  Attributes:
    config: The stack's.
    cross: Keys and values come from elsewhere than queries.
    dtype: Of the products.
  """

  config: TransformerConfig
  cross: bool
  dtype: jnp.dtype

  def setup(self):
    c = self.config

    def project(*parts: int) -> nn.DenseGeneral:
      return nn.DenseGeneral(
        (*parts, c.heads, c.head_size),
        use_bias=c.attention_bias,
        dtype=self.dtype,
        kernel_init=uniform(c.width**-0.5),
      )

    if not c.packed:
      self.q, self.k, self.v = project(), project(), project()
    elif self.cross:
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
    """Queries, keys and values of `x`."""
    if self.config.packed:
      qkv = product(self.qkv, x)
      return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    return product(self.q, x), product(self.k, x), product(self.v, x)

  def keys_values(
    self, states: Float[Array, "b l d"]
  ) -> tuple[Float[Array, "b l h e"], Float[Array, "b l h e"]]:
    """Keys and values of text."""
    if self.config.packed:
      kv = product(self.kv, states)
      return kv[:, :, 0], kv[:, :, 1]
    return product(self.k, states), product(self.v, states)

  def attend(
    self,
    q: Float[Array, "b q h e"],
    k: Float[Array, "b s h e"],
    v: Float[Array, "b s h e"],
    mask: Bool[Array, "#b #q s"],
  ) -> Float[Array, "b q d"]:
    """softmax(q kᵀ / √e) v over what `mask` shows; the softmax in float32."""
    x = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
    return product(self.out, constrain(x, "batch", None, "heads", None))

  def attend_kept(
    self,
    q: Float[Array, "b q h e"],
    kept: KeysValues,
    mask: Bool[Array, "#b #q s"],
  ) -> Float[Array, "b q d"]:
    """The same, of what decoding keeps."""
    q = q * jnp.asarray(self.config.head_size**-0.5, q.dtype)
    scores = jnp.einsum(
      "bqhe,bhes->bhqs", q, kept.k, preferred_element_type=jnp.float32
    )
    scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    x = jnp.einsum("bhqs,bhes->bqhe", weights, kept.v)
    return product(self.out, constrain(x, "batch", None, "heads", None))


class Block(nn.Module):
  """One block, see above.

  Attributes:
    config: The stack's.
    dtype: Of the products; norms and softmax are float32.
  """

  config: TransformerConfig
  dtype: jnp.dtype

  def setup(self):
    c = self.config
    self.self_norm, self.ff_norm = norm("self_norm"), norm("ff_norm")
    self.self_attn = Attention(c, cross=False, dtype=self.dtype)
    if c.cross_attention:
      self.cross_norm = norm("cross_norm")
      self.cross_attn = Attention(c, cross=True, dtype=self.dtype)
    self.up = self._dense(c.ff, c.width)
    self.down = self._dense(c.width, c.ff)

  def text(self, states: Float[Array, "b l d"]) -> KeysValues:
    """This layer's view of the text: once a prompt, not once a step."""
    return KeysValues.of(*self.cross_attn.keys_values(states))

  def __call__(
    self,
    x: Float[Array, "b q d"],
    mask: Bool[Array, "#b q s"],
    text: Float[Array, "b l d"] | KeysValues | None,
    text_mask: Bool[Array, "b l"],
    cache: KeysValues | None = None,
    at: Int[Array, ""] | int = 0,
  ) -> tuple[Float[Array, "b q d"], KeysValues | None]:
    """Runs the block.

    Args:
      x: States.
      mask: What each query may look at: of `x`, or of the cache if there is
        one.
      text: States of the text, or this layer's view of them if it is at hand;
        not looked at without cross-attention.
      text_mask: The text's visible positions.
      cache: Room for all steps; the keys and values of `x` are written into it.
      at: The place of the first state of `x` in the cache.

    Returns:
      New states, and the cache if there is one.
    """
    attn = self.self_attn
    q, k, v = attn.self_projections(self._normed(self.self_norm, x))
    if cache is None:
      x = x + attn.attend(q, k, v, mask)
    else:
      cache = cache.written(KeysValues.of(k, v), at)
      x = x + attn.attend_kept(q, cache, mask)
    if self.config.cross_attention:
      attn, shown = self.cross_attn, text_mask[:, None]
      q = product(attn.q, self._normed(self.cross_norm, x))
      if isinstance(text, KeysValues):
        x = x + attn.attend_kept(q, text, shown)
      else:
        x = x + attn.attend(q, *attn.keys_values(text), shown)
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

  def _normed(self, norm: nn.LayerNorm, x: Array) -> Array:
    return norm(x).astype(self.dtype)


def positions(place: Int[Array, "#b s"], width: int) -> Float[Array, "#b s d"]:
  """Sinusoidal positions: cosines, then sines.

  The published code divides by `width / 2 - 1` where Vaswani et al. (2017)
  divide by `width / 2`, and puts cosines first.
  """
  half = width // 2
  rate = 10000.0 ** (-jnp.arange(half) / (half - 1))
  phase = place[..., None].astype(jnp.float32) * rate[None, None]
  return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
