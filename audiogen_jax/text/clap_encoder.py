"""Sentences -> states of CLAP's text tower: tokenizer, placement, network."""

from collections.abc import Sequence

import jax
from jaxtyping import Float

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig

_encode = jax.jit(clap.encode, static_argnames="config")


class ClapTextEncoder:
  """CLAP's text tower with its weights and tokenizer.

  Attributes:
    config: Shape of the tower.
    params: Its parameters, as `clap.init` makes them.
    words: BERT's tokenizer, which cuts sentences at `config.length`.
  """

  def __init__(
    self,
    config: ClapTextConfig,
    params: Tree,
    words: WordPieces,
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
    ids = clap.token_ids(self.config, self.words, texts)
    ids = sharding.padded(ids, -(-len(ids) // ways) * ways)
    ids = self._placement.put(ids, "batch", None)
    return _encode(self.config, self.params, ids)
