"""The U-Net: a noised latent, a time and a context -> the noise in it.

Latent diffusion's (Rombach et al., 2022), as Make-An-Audio has it.  With two
levels and one residual block in each:

    x ─ conv_in ─ R A ─ down ─ R A ─ R A R ─ R A ─ R A up ─ R A ─ R A ─ conv_out
          │        │     │      └────────────┘      │       │     │
          │        │     └──────────────────────────┘       │     │
          │        └────────────────────────────────────────┘     │
          └───────────────────────────────────────────────────────┘

`R` is a residual block, which knows the time, `A` attention, of which every
place sees every other and the context.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.core.upsampling import UpConv
from audiogen_jax.diffusion.layers import (
  ContextAttention,
  PlainAttention,
  Residual,
  embedded,
  norm,
)

# Meanings of the parameters' axes.  What an attention and a feed-forward layer
# are within is split, and of a residual block what lies between its two
# convolutions, so that each of them sums over devices once.
_RESIDUAL = {
  "norm_0/(scale|bias)": (None,),
  "conv_0/kernel": (None, None, None, "channels"),
  "conv_0/bias": ("channels",),
  "time/kernel": (None, "channels"),
  "time/bias": ("channels",),
  "norm_1/(scale|bias)": ("channels",),
  "conv_1/kernel": (None, None, "channels", None),
  "shortcut/kernel": (None, None),
  "(conv_1|shortcut)/bias": (None,),
}
_ATTENTION = {
  "norm/(scale|bias)": (None,),
  "qkv/kernel": (None, "heads", None, None),
  "qkv/bias": ("heads", None, None),
  "heads_out/kernel": ("heads", None, None),
  "(heads_out|into|out)/bias": (None,),
  "(into|out)/kernel": (None, None),
}
_BLOCK = {
  "(self|cross|ff)_norm/(scale|bias)": (None,),
  "(self|cross)_attn/(q|k|v)/kernel": (None, "heads", None),
  "(self|cross)_attn/out/kernel": ("heads", None, None),
  "((self|cross)_attn/out|down)/bias": (None,),
  "up/kernel": (None, None, "ff"),
  "up/bias": (None, "ff"),
  "down/kernel": ("ff", None),
}
AXES = (
  {
    r"time_\d/kernel": (None, None),
    r"(conv_in|conv_out|(down|up)_\d+)/kernel": (None, None, None, None),
    r"(time_\d|conv_in|conv_out|(down|up)_\d+)/bias": (None,),
    "norm_out/(scale|bias)": (None,),
  }
  | {rf"(.*_residual|down|up)_\d+/{r}": axes for r, axes in _RESIDUAL.items()}
  | {rf".*_attention(_\d+)?/{r}": axes for r, axes in _ATTENTION.items()}
  | {rf".*/block_\d+/{r}": axes for r, axes in _BLOCK.items()}
)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
  """Shape of the U-Net; the defaults are those of `maa1_full.ckpt`.

  Attributes:
    channels: Of a latent.
    beside: Channels beside it, which tell what is wanted (of inpainting: the
      latent of what is kept, and the mask).
    filters: Channels of the first level.
    multipliers: Of `filters`, for each level; between two of them columns and
      rows are halved.
    residual_layers: Residual blocks of a level on the way down; on the way up
      it has one more.
    attention: Levels that attend, after each block.
    heads: Attention heads; 0 where `head_size` counts them.
    head_size: Of a head; 0 where `heads` are given.
    layers: Transformer blocks of an attention.
    context_width: Of a token of the context; 0 where there is none.
    known_by_time: Whether the one token of the context is also added to the
      embedding of the time.
    resample: How the image becomes smaller and larger: by a convolution, or
      within a residual block.
  """

  channels: int = 4
  beside: int = 0
  filters: int = 320
  multipliers: tuple[int, ...] = (1, 2)
  residual_layers: int = 2
  attention: tuple[int, ...] = (0, 1)
  heads: int = 8
  head_size: int = 0
  layers: int = 1
  context_width: int = 1024
  known_by_time: bool = False
  resample: Literal["conv", "residual"] = "conv"

  def __post_init__(self) -> None:
    if bool(self.heads) == bool(self.head_size):
      raise InputError(
        f"give heads or head_size, not both; got {self.heads} and"
        f" {self.head_size}"
      )
    if self.beside < 0:
      raise InputError(
        f"the network reads {self.channels + self.beside} channels, fewer than"
        f" the {self.channels} of a latent"
      )
    for multiplier in (1, *self.multipliers):
      width = self.filters * multiplier
      if width % 32 or width % self.heads_of(width):
        raise InputError(
          f"{width} channels do not divide into 32 groups and"
          f" {self.heads_of(width)} heads"
        )
    if self.known_by_time and self.context_width != self.time_width:
      raise InputError(
        f"a context of {self.context_width} cannot be added to the time, which"
        f" has {self.time_width}"
      )

  @property
  def time_width(self) -> int:
    """Of the embedding of a time."""
    return 4 * self.filters

  @property
  def ratio(self) -> int:
    """What columns and rows must be multiples of."""
    return 2 ** (len(self.multipliers) - 1)

  def heads_of(self, width: int) -> int:
    """Attention heads of so many channels."""
    return self.heads or max(width // self.head_size, 1)


class UNet(nn.Module):
  """Latents at a time, and a context -> the noise in them, in float32.

  Attributes:
    config: Shape of the model.
    dtype: Type of matrix products; norms, softmax and the last convolution are
      float32.
  """

  config: UNetConfig
  dtype: jnp.dtype = jnp.dtype(jnp.float32)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b w z e"],
    time: Num[Array, " b"],
    context: Float[Array, "b l d"] | None = None,
  ) -> Float[Array, "b w z c"]:
    c = self.config
    dtype = self.dtype
    now = embedded(time, c.filters)
    now = nn.Dense(c.time_width, dtype=dtype, name="time_0")(now)
    now = jax.nn.silu(now)
    now = nn.Dense(c.time_width, dtype=dtype, name="time_1")(now)
    if c.known_by_time:
      now = now + context[:, 0]
    last = len(c.multipliers) - 1

    def block(x: jax.Array, name: str, level: int, which: int) -> jax.Array:
      """A residual block and its attention."""
      features = c.filters * c.multipliers[level]
      x = Residual(features, dtype, name=f"{name}_residual_{which}")(x, now)
      if level in c.attention:
        x = self._attention(x, context, f"{name}_attention_{which}")
      return x

    x = nn.Conv(c.filters, (3, 3), dtype=dtype, name="conv_in")(x)
    kept = [x]
    for i in range(last + 1):
      for j in range(c.residual_layers):
        x = block(x, f"down_{i}", i, j)
        kept.append(x)
      if i < last:
        x = self._down(x, now, f"down_{i}")
        kept.append(x)
    x = Residual(x.shape[-1], dtype, name="middle_residual_0")(x, now)
    x = self._attention(x, context, "middle_attention")
    x = Residual(x.shape[-1], dtype, name="middle_residual_1")(x, now)
    for i in reversed(range(last + 1)):
      for j in range(c.residual_layers + 1):
        x = jnp.concatenate([x, kept.pop()], axis=-1)
        x = block(x, f"up_{i}", i, j)
      if i:
        x = self._up(x, now, f"up_{i}")
    x = jax.nn.silu(norm("norm_out")(x))
    return nn.Conv(
      c.channels,
      (3, 3),
      dtype=jnp.float32,
      precision="highest",
      kernel_init=nn.initializers.zeros,
      name="conv_out",
    )(x)

  def _attention(
    self, x: jax.Array, context: jax.Array | None, name: str
  ) -> jax.Array:
    heads = self.config.heads_of(x.shape[-1])
    if not self.config.context_width:
      return PlainAttention(heads, self.dtype, name=name)(x)
    layers = self.config.layers
    return ContextAttention(heads, layers, self.dtype, name=name)(x, context)

  def _down(self, x: jax.Array, now: jax.Array, name: str) -> jax.Array:
    features = x.shape[-1]
    if self.config.resample == "residual":
      return Residual(features, self.dtype, "down", name=name)(x, now)
    return nn.Conv(
      features,
      (3, 3),
      strides=(2, 2),
      padding=((1, 1), (1, 1)),
      dtype=self.dtype,
      name=name,
    )(x)

  def _up(self, x: jax.Array, now: jax.Array, name: str) -> jax.Array:
    if self.config.resample == "residual":
      return Residual(x.shape[-1], self.dtype, "up", name=name)(x, now)
    return UpConv(self.dtype, name=name)(x)


def init(config: UNetConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  c, side = config, config.ratio
  image = jnp.zeros((1, side, side, c.channels + c.beside))
  context = jnp.zeros((1, 1, c.context_width)) if c.context_width else None
  time = jnp.zeros(1, jnp.int32)
  return UNet(c).init(key, image, time, context)["params"]
