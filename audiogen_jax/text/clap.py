"""The tower of CLAP (Elizalde et al., 2023) that reads, token by token.

    ids b 77 -> BERT -> states b 77 d -> projection of each -> b 77 width

Make-An-Audio is conditioned on what CLAP would make one vector of.  Sentences
are padded to one length, and neither BERT nor what reads the states masks the
padding: what stands behind a short sentence is part of what was trained on.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.core import bert
from audiogen_jax.core.bert import Bert, BertConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.core.word_pieces import WordPieces

AXES = {f"bert/({rule})": axes for rule, axes in bert.AXES.items()} | {
  r"projection/dense_\d/kernel": (None, None),
  "projection/norm/(scale|bias)": (None,),
}


@dataclasses.dataclass(frozen=True)
class ClapTextConfig:
  """Shape of the tower; the defaults are Microsoft's CLAP of 2022.

  Attributes:
    bert: Of the network that reads.
    width: Of a state, once projected.
    length: Tokens that each sentence is padded, or cut, to.
    epsilon: Added to the variance in the projection's norm.
  """

  bert: BertConfig = BertConfig(
    vocabulary=30522,
    positions=512,
    first_position=0,
    kinds=2,
    padding=0,
    epsilon=1e-12,
  )
  width: int = 1024
  length: int = 77
  epsilon: float = 1e-5

  def __post_init__(self) -> None:
    if not 2 <= self.length <= self.bert.limit:
      raise InputError(
        f"sentences of {self.length} tokens do not fit into the"
        f" {self.bert.limit} positions of BERT, or are fewer than 2"
      )


class Projection(nn.Module):
  """A matrix, another one's share of it added, and a norm.

  Attributes:
    config: Of the tower.
  """

  config: ClapTextConfig

  @nn.compact
  def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l e"]:
    c = self.config
    x = nn.Dense(c.width, use_bias=False, name="dense_0")(x)
    y = jax.nn.gelu(x, approximate=False)
    x = x + nn.Dense(c.width, use_bias=False, name="dense_1")(y)
    return nn.LayerNorm(c.epsilon, use_fast_variance=False, name="norm")(x)


def init(config: ClapTextConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  keys = jax.random.split(key)
  states = jnp.zeros((1, 1, config.bert.width))
  return {
    "bert": bert.init(config.bert, keys[0]),
    "projection": Projection(config).init(keys[1], states)["params"],
  }


def encode(
  config: ClapTextConfig, params: Tree, ids: Int[Array, "b l"]
) -> Float[Array, "b l d"]:
  """States of each token, and of the padding behind, in float32."""
  with jax.default_matmul_precision("highest"):
    network = Bert(config.bert, sees_padding=True)
    states, _ = network.apply({"params": params["bert"]}, ids)
    projection = {"params": params["projection"]}
    return Projection(config).apply(projection, states)


def token_ids(
  config: ClapTextConfig, words: WordPieces, texts: Sequence[str | None]
) -> Int[np.ndarray, "b l"]:
  """Ids of sentences, cut and padded to the tower's length.

  Args:
    config: Its shape.
    words: BERT's tokenizer, which cuts at `config.length`.
    texts: Sentences; None or "" for none, which has its marks of beginning and
      end all the same.
  """
  made = np.full((len(texts), config.length), config.bert.padding, np.int32)
  for row, text in zip(made, texts, strict=True):
    ids = words.ids(text or "")
    row[: len(ids)] = ids
  return made
