"""T5 as the text tower of a diffusion model: sentences of one length.

As in Make-An-Audio's comparison of text encoders (Huang et al., 2023), all
sentences are padded to one length, and the padding is attended like words.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.text import t5
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import Tokenizer

AXES = t5.AXES


@dataclasses.dataclass(frozen=True)
class T5TextConfig:
  """Shape of the tower; the defaults are those of t5-large.

  Attributes:
    t5: Of the network that reads.
    length: Tokens that each sentence is padded, or cut, to.
  """

  t5: T5Config = T5Config()
  length: int = 77

  def __post_init__(self) -> None:
    if self.length < 2:
      raise InputError(f"sentences of {self.length} tokens are fewer than 2")

  @property
  def width(self) -> int:
    """The size of a state, T5's own."""
    return self.t5.width


def init(config: T5TextConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  return t5.init(config.t5, key)


def encode(
  config: T5TextConfig, params: Tree, ids: Int[Array, "b l"]
) -> Float[Array, "b l d"]:
  """States of each token, and of the padding behind, in float32."""
  return t5.encode(config.t5, params, ids, jnp.ones(ids.shape, bool))


def token_ids(
  config: T5TextConfig, words: Tokenizer, texts: Sequence[str | None]
) -> Int[np.ndarray, "b l"]:
  """Ids of sentences, cut and padded to the tower's length.

  Args:
    config: Its shape.
    words: T5's tokenizer.
    texts: Sentences; None or "" for none, which has its end mark all the same.
  """
  made = np.full((len(texts), config.length), words.pad_id, np.int32)
  for row, text in zip(made, texts, strict=True):
    ids = words.ids(text or "")[: config.length]
    row[: len(ids)] = ids
  return made
