"""CLIP with its weights and devices: pictures, and no text -> embeddings."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.text import clip, clip_image, clip_layers, pictures
from audiogen_jax.text.clip import ClipConfig

_see = jax.jit(clip_image.encode, static_argnums=0)
_read = jax.jit(clip.encode, static_argnums=0)


class ClipEmbedder:
  """CLIP, which embeds pictures where it embeds sentences.

  Attributes:
    config: Its shape; of a tower that its files lack, None.
    params: Its parameters, as `clip.init` makes them.
  """

  def __init__(
    self, config: ClipConfig, params: Tree, placement: Placement
  ) -> None:
    self.config = config
    self.params = params
    self._placement = placement

  def pictures(
    self, images: Sequence[UInt8[np.ndarray, "h w 3"]]
  ) -> Float[np.ndarray, "1 e"]:
    """The embedding of a picture, or the mean of a video's frames', of norm 1.

    Raises:
      InputError: If there is no picture, or no tower that looks.
    """
    shape = self.config.image
    if shape is None:
      raise InputError("the files of CLIP lack the tower that looks")
    if not images:
      raise InputError("no picture was given; pass at least one")
    found = []
    for image in images:
      seen = pictures.pixels(image, shape.image)[None]
      seen = self._placement.put(seen, *[None] * 4)
      embedding = _see(shape, self.params["image"], seen)
      found.append(sharding.fetch(clip_layers.normalised(embedding)))
    return _normalised(np.mean(found, axis=0))

  def nothing(self) -> Float[np.ndarray, "1 e"]:
    """The embedding of no text, of norm 1: what guidance leads away from.

    Raises:
      InputError: If there is no tower that reads.
    """
    shape = self.config.text
    if shape is None:
      raise InputError(
        "the files of CLIP lack the tower that reads, whose embedding of no"
        " text guidance leads away from; take guidance 1, or files with both"
      )
    ids = self._placement.put(clip.no_text(shape), None, None)
    return _normalised(sharding.fetch(_read(shape, self.params["text"], ids)))


def _normalised(x: Float[np.ndarray, "1 e"]) -> Float[np.ndarray, "1 e"]:
  return np.asarray(clip_layers.normalised(jnp.asarray(x)))
