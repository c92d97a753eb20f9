"""Sentences -> text states: tokenizer, buckets of length, placement, T5."""

import jax
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
    placement: sharding.Placement,
  ) -> None:
    self.config = config
    self.params = params
    self.tokenizer = tokenizer
    self._placement = placement

  def __call__(
    self, texts: list[str | None]
  ) -> tuple[Float[jax.Array, "b l d"], Bool[jax.Array, "b l"]]:
    """Text states and attention mask, on every device of the placement.

    Args:
      texts: Sentences; None or "" for a prompt without text, which is masked
        whole.

    Returns:
      Both with rows and length in buckets, powers of two, before anything is
      compiled: further rows are without text.

    Raises:
      InputError: For a text of more than 512 tokens.
    """
    ids, mask = tokenizers.pad(
      self.tokenizer, texts, rows=bucket(len(texts)), least=_LEAST_TOKENS
    )
    ids, mask = (self._placement.put(x, None, None) for x in (ids, mask))
    return _encode(self.config, self.params, ids, mask), mask
