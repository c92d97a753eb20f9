"""The tower of CLIP (Radford et al., 2021) that looks: picture -> embedding.

    pixels b h w 3 -> patches, a class token before them, b l d
                   -> transformer -> class token -> projection b e

A vision transformer (Dosovitskiy et al., 2021).  Make-An-Audio makes sounds of
pictures with OpenCLIP's ViT-H/14 (Cherti et al., 2023).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.text.clip_layers import Transformer, TransformerConfig, norm


@dataclasses.dataclass(frozen=True)
class ClipImageConfig:
  """Shape of the tower; the defaults are those of ViT-H/14.

  Attributes:
    transformer: Its layers.
    width: Size of the embedding.
    image: Pixels on each side of a picture.
    patch: Pixels on each side of a patch.
  """

  transformer: TransformerConfig = TransformerConfig(
    width=1280, layers=32, heads=16, ff=5120
  )
  width: int = 1024
  image: int = 224
  patch: int = 14

  def __post_init__(self) -> None:
    if not self.image or self.image % self.patch:
      raise InputError(
        f"pictures of {self.image} pixels do not divide into patches of"
        f" {self.patch}"
      )

  @property
  def patches(self) -> int:
    """Patches of a picture."""
    return (self.image // self.patch) ** 2


class ClipImage(nn.Module):
  """Pixels -> embedding.

  Attributes:
    config: Its shape.
  """

  config: ClipImageConfig

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b e"]:
    c, t = self.config, self.config.transformer
    if pixels.shape[1:3] != (c.image, c.image):
      raise InputError(
        f"pictures of {pixels.shape[1]} x {pixels.shape[2]} pixels do not fit;"
        f" this CLIP sees {c.image} x {c.image}"
      )
    x = nn.Conv(
      t.width,
      (c.patch, c.patch),
      (c.patch, c.patch),
      padding="VALID",
      use_bias=False,
      name="patches",
    )(pixels)
    x = x.reshape(len(x), c.patches, t.width)
    normal = nn.initializers.normal(t.width**-0.5)
    first = self.param("class_token", normal, (t.width,))
    first = jnp.broadcast_to(first, (len(x), 1, t.width))
    places = self.param("positions", normal, (c.patches + 1, t.width))
    x = jnp.concatenate([first, x], axis=1) + places[None]
    x = norm(t, "in_norm")(x)
    x = Transformer(t, causal=False, name="transformer")(x)
    x = norm(t, "out_norm")(x[:, 0])
    return nn.Dense(c.width, use_bias=False, name="projection")(x)


def init(config: ClipImageConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  pixels = jnp.zeros((1, config.image, config.image, 3))
  return ClipImage(config).init(key, pixels)["params"]


def encode(
  config: ClipImageConfig, params: Tree, pixels: Float[Array, "b h w 3"]
) -> Float[Array, "b e"]:
  """Embeddings of pictures, in float32 and of whatever length.

  Args:
    pixels: As `pictures.pixels` makes them.
  """
  with jax.default_matmul_precision("highest"):
    return ClipImage(config).apply({"params": params}, pixels)
