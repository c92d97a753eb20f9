"""Residual vector quantisation: latents <-> a few integers a frame.

EnCodec (Défossez et al., 2022, §3.2), after SoundStream (Zeghidour et al.,
2021): the first codebook stands for the latent, the next for what the first
left over, and so on.  Codebooks are averages, not parameters: no gradient
reaches them, so they live beside the parameters in a collection of their own.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

AXES = {
  "embed|embed_sum": (None, None, None),
  "usage": (None, None),
  "ready": (None,),
}


@dataclasses.dataclass(frozen=True)
class RVQConfig:
  """Shape of the quantiser.

  Attributes:
    codebooks: How many, K.
    size: Entries in each, V.
    width: Size of an entry: that of a latent frame.
  """

  codebooks: int = 4
  size: int = 2048
  width: int = 128


class Codebooks(NamedTuple):
  """State of the quantiser.

  Attributes:
    embed: The entries.
    embed_sum: Running sums of the latents that chose each entry.
    usage: Running counts of how many did.
    ready: 1 once a codebook has been initialised from data.
  """

  embed: Float[Array, "k v d"]
  embed_sum: Float[Array, "k v d"]
  usage: Float[Array, "k v"]
  ready: Float[Array, " k"]


def init(config: RVQConfig) -> Codebooks:
  """Empty codebooks, to be filled from a checkpoint or the first batches."""
  k, v, d = config.codebooks, config.size, config.width
  zeros = jnp.zeros((k, v, d))
  return Codebooks(zeros, zeros, jnp.zeros((k, v)), jnp.zeros((k,)))


def encode(
  latents: Float[Array, "b t d"], codebooks: Codebooks
) -> Int[Array, "b k t"]:
  """The nearest entry for what each earlier codebook left over.

  Distances are expanded to |x|² - 2 x·e + |e|², as in the published code:
  near-ties then fall the same way.
  """

  def quantise(rest, embed):
    square = jnp.sum(jnp.square(rest), -1, keepdims=True)
    cross = 2 * jnp.einsum("btd,vd->btv", rest, embed)
    entry = jnp.sum(jnp.square(embed), -1)[None, None]
    index = jnp.argmax(-(square - cross + entry), axis=-1)
    return rest - embed[index], index.astype(jnp.int32)

  _, codes = jax.lax.scan(quantise, latents, codebooks.embed)
  return codes.transpose(1, 0, 2)


def decode(
  codes: Int[Array, "b k t"], codebooks: Codebooks
) -> Float[Array, "b t d"]:
  """The sum of the entries; works with the first few codebooks alone too."""
  k = codes.shape[1]
  entries = jax.vmap(lambda e, i: e[i], (0, 1), 0)(codebooks.embed[:k], codes)
  return jnp.sum(entries, axis=0)
