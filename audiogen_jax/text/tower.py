"""Sentences -> states that a diffusion model reads: CLAP's text tower, or T5.

sentences -> tokenizer -> ids of one length -> placement -> network
"""

from collections.abc import Sequence
from types import ModuleType
from typing import TypeAlias

import jax
from jaxtyping import Array, Float, Int

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.text import clap, t5_text
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text.t5_text import T5TextConfig
from audiogen_jax.text.tokenizer import Tokenizer

TowerConfig: TypeAlias = ClapTextConfig | T5TextConfig

# Their parameters have other names, so that one table is right for both.
AXES: dict[str, Axes] = clap.AXES | t5_text.AXES
_NETWORKS = {ClapTextConfig: clap, T5TextConfig: t5_text}


def network(config: TowerConfig) -> ModuleType:
  """The module with a tower's `init`, `encode` and `token_ids`."""
  return _NETWORKS[type(config)]


def init(config: TowerConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  return network(config).init(config, key)


def encode(
  config: TowerConfig, params: Tree, ids: Int[Array, "b l"]
) -> Float[Array, "b l d"]:
  """States of each token, and of the padding behind, in float32."""
  return network(config).encode(config, params, ids)


_encode = jax.jit(encode, static_argnames="config")


class TextTower:
  """A text tower with its weights and tokenizer.

  Attributes:
    config: Shape of the tower.
    params: Its parameters, as `init` makes them.
    words: Its tokenizer.
  """

  def __init__(
    self,
    config: TowerConfig,
    params: Tree,
    words: Tokenizer,
    placement: Placement,
  ) -> None:
    self.config = config
    self.params = params
    self.words = words
    self._placement = placement

  def __call__(self, texts: Sequence[str | None]) -> Float[jax.Array, "b l d"]:
    """States of each sentence's tokens and of the padding behind them.

    Args:
      texts: Sentences; None or "" for no text, which has states of its own.

    Returns:
      As many rows as the mesh divides: further ones mean nothing.
    """
    ways = self._placement.ways("batch")
    ids = network(self.config).token_ids(self.config, self.words, texts)
    ids = sharding.padded(ids, -(-len(ids) // ways) * ways)
    ids = self._placement.put(ids, "batch", None)
    return _encode(self.config, self.params, ids)
