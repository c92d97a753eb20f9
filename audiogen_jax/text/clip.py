"""CLIP (Radford et al., 2021), whole, and its tower that reads.

    ids b 77 -> transformer, causal -> state of the end token -> projection b e

Sentences and pictures are embedded in one space: a sound can be asked for by
either.  Make-An-Audio's model for pictures was trained with OpenCLIP's ViT-H/14
(Cherti et al., 2023), and what stands for no picture is the embedding of "".
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.text import clip_image
from audiogen_jax.text.clip_image import ClipImageConfig
from audiogen_jax.text.clip_layers import Transformer, TransformerConfig, norm


@dataclasses.dataclass(frozen=True)
class ClipTextConfig:
  """Shape of the tower that reads; the defaults are those of ViT-H/14.

  Attributes:
    transformer: Its layers.
    width: Size of the embedding.
    vocabulary: Rows of the embedding of tokens; the last two are the tokens of
      beginning and end.
    length: Tokens that each sentence is padded, or cut, to.
  """

  transformer: TransformerConfig = TransformerConfig(
    width=1024, layers=24, heads=16, ff=4096
  )
  width: int = 1024
  vocabulary: int = 49408
  length: int = 77


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Both towers, or the one that a checkpoint holds.

  Attributes:
    image: The tower that looks; None where it is missing.
    text: The tower that reads; None where it is missing.
    logit_scale: Logarithm of what cosines are multiplied by, a parameter of the
      training; None where it is missing.
  """

  image: ClipImageConfig | None = ClipImageConfig()
  text: ClipTextConfig | None = ClipTextConfig()
  logit_scale: float | None = None

  def __post_init__(self) -> None:
    if self.image and self.text and self.image.width != self.text.width:
      raise InputError(
        f"embeddings of {self.image.width} of pictures and {self.text.width} of"
        " sentences cannot be compared"
      )
    if not (self.image or self.text):
      raise InputError("neither of CLIP's towers is there; one has to be")

  @property
  def width(self) -> int:
    """How many numbers an embedding has, of a picture or a sentence."""
    return (self.image or self.text).width


class ClipText(nn.Module):
  """Token ids -> embedding.

  Attributes:
    config: Its shape.
  """

  config: ClipTextConfig

  @nn.compact
  def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b e"]:
    c, t, length = self.config, self.config.transformer, ids.shape[1]
    if length > c.length:
      raise InputError(f"{length} tokens do not fit into {c.length} positions")
    words = self.param(
      "words", nn.initializers.normal(0.02), (c.vocabulary, t.width)
    )
    places = self.param(
      "positions", nn.initializers.normal(0.01), (c.length, t.width)
    )
    x = words[ids] + places[None, :length]
    x = Transformer(t, causal=True, name="transformer")(x)
    # The end token has the highest id, and nothing before it saw the padding.
    end = jnp.argmax(ids, axis=1)[:, None, None]
    x = jnp.take_along_axis(x, end, axis=1)[:, 0]
    x = norm(t, "out_norm")(x)
    return nn.Dense(c.width, use_bias=False, name="projection")(x)


def init(config: ClipConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against.

  Returns:
    Those of `clip_image` under `image`, those of `ClipText` under `text`.
  """
  params, keys = {}, jax.random.split(key)
  if config.image:
    params["image"] = clip_image.init(config.image, keys[0])
  if config.text:
    ids = jnp.zeros((1, 1), jnp.int32)
    params["text"] = ClipText(config.text).init(keys[1], ids)["params"]
  return params


def encode(
  config: ClipTextConfig, params: Tree, ids: Int[Array, "b l"]
) -> Float[Array, "b e"]:
  """Embeddings of sentences, in float32 and of whatever length."""
  with jax.default_matmul_precision("highest"):
    return ClipText(config).apply({"params": params}, ids)


def no_text(config: ClipTextConfig) -> Int[np.ndarray, "1 l"]:
  """Ids of "", the sentence without words: beginning, end, and padding."""
  ids = np.zeros((1, config.length), np.int32)
  ids[0, :2] = config.vocabulary - 2, config.vocabulary - 1
  return ids
