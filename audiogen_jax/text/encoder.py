"""Sentences -> text states: tokenizer, buckets of length, placement, T5."""

import jax
import numpy as np
from jaxtyping import Bool, Float

from audiogen_jax.core import sharding
from audiogen_jax.core.types import Tree, bucket
from audiogen_jax.text import t5
from audiogen_jax.text import tokenizer as tokenizers
from audiogen_jax.text.t5 import T5Config

_LEAST_TOKENS = 16  # the smallest bucket of text length

_encode = jax.jit(t5.encode, static_argnames="config")


class TextEncoder:
  """T5 with its weights and tokenizer.

  Attributes:
    config: Shape of the T5 encoder.
    params: Its parameters, as `t5.init` makes them.
    tokenizer: Turns sentences into token ids.
  """

  def __init__(
    self,
    config: T5Config,
    params: Tree,
    tokenizer: tokenizers.Tokenizer,
    placement: sharding.Placement | None = None,
  ):
    self.config = config
    self.params = params
    self.tokenizer = tokenizer
    self._placement = placement

  def __call__(
    self, texts: list[str | None]
  ) -> tuple[Float[np.ndarray, "b l d"], Bool[np.ndarray, "b l"]]:
    """Text states and attention mask, as long as the longest text.

    Batch and length are padded to powers of two before anything is compiled.

    Args:
      texts: Sentences; None for a prompt without text, which is masked whole.

    Raises:
      InputError: For a text of more than 512 tokens.
    """
    ids, mask = tokenizers.pad(self.tokenizer, texts)
    b, length = ids.shape
    rows = bucket(b) - b
    room = bucket(length, least=_LEAST_TOKENS) - length
    inputs = [np.pad(x, ((0, rows), (0, room))) for x in (ids, mask)]
    if self._placement is not None:
      inputs = [self._placement.put(x, None, None) for x in inputs]
    states = _encode(self.config, self.params, *inputs)
    return sharding.fetch(states)[:b, :length], mask
