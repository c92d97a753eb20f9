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

from audiogen_jax.core import fields
from audiogen_jax.core.errors import InputError

_SMOOTHING = 1e-5  # of the counts, so that an unused entry divides nothing by 0

# What a code sees, and the sum of a frame's entries: that frame alone.
FIELD = fields.POINTWISE

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
    ready: 1 once a codebook has been initialised from data.  Nothing here asks
      for it; the published format does (`inited`), and its readers.
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
  """The nearest entry for what each earlier codebook left over."""

  def quantise(rest, embed):
    index = _nearest(rest, embed)
    return rest - embed[index], index

  _, codes = jax.lax.scan(quantise, latents, codebooks.embed)
  return codes.transpose(1, 0, 2)


def decode(
  codes: Int[Array, "b k t"], codebooks: Codebooks
) -> Float[Array, "b t d"]:
  """The sum of the entries; works with the first few codebooks alone too."""
  k = codes.shape[1]
  entries = jax.vmap(lambda e, i: e[i], (0, 1), 0)(codebooks.embed[:k], codes)
  return jnp.sum(entries, axis=0)


@dataclasses.dataclass(frozen=True)
class RVQTraining:
  """How codebooks follow the latents (van den Oord et al., 2017, appendix A).

  Attributes:
    decay: Decay of the running sums and counts, in [0, 1).
    iterations: Iterations of k-means, from which codebooks start.
    revive_below: Entries that fewer latents choose than this share of what an
      even spread would give them are dead: a latent of the batch takes their
      place.  0 leaves them dead.  That is what the published code does, against
      its intention: it writes a latent into the dead entry, and the update
      right after overwrites the entry from sums and counts that it forgot.  Its
      threshold, a count of 2, would call most entries dead at the batches that
      it trains with.
    dropout: Use a random number of the first codebooks in each step, so that
      any number of them makes a codec (SoundStream, §III.D).
  """

  decay: float = 0.99
  iterations: int = 50
  revive_below: float = 0.1
  dropout: bool = False

  def __post_init__(self) -> None:
    if not 0 <= self.decay < 1:
      raise InputError(f"rvq decay {self.decay} must lie in [0, 1)")
    if not 0 <= self.revive_below < 1:
      raise InputError(
        f"rvq revive_below {self.revive_below} must lie in [0, 1): it is a"
        " share of an even spread"
      )


class Quantised(NamedTuple):
  """What quantising in training gives.

  Attributes:
    latents: The sum of entries; its gradient passes to what was quantised.
    codes: Which entries.
    commitment: Mean squared distance of each level's input to its entry, a
      mean over the levels in use.  Its gradient reaches the latents alone.
    codebooks: After this batch.
    metrics: Usage and perplexity of each level, by the running counts.
  """

  latents: Float[Array, "b t d"]
  codes: Int[Array, "b k t"]
  commitment: Float[Array, ""]
  codebooks: Codebooks
  metrics: dict[str, Float[Array, ""]]


def train(
  latents: Float[Array, "b t d"],
  codebooks: Codebooks,
  key: jax.Array,
  config: RVQTraining,
) -> Quantised:
  """Quantises a batch and lets the codebooks follow it.

  Sums and counts are taken over the whole batch: under `jax.jit` that is the
  global one, however it is spread over devices.
  """
  count = codebooks.embed.shape[0]
  drop, *keys = jax.random.split(key, count + 1)
  used = jnp.int32(count)
  if config.dropout:
    used = jax.random.randint(drop, (), 1, count + 1)

  def level(carry, xs):
    rest, total = carry
    number, key, book = xs
    codes = _nearest(rest, book.embed)
    entries = book.embed[codes]
    active = number < used
    distance = jnp.mean(jnp.square(rest - entries))
    after = _follow(book, jax.lax.stop_gradient(rest), codes, key, config)
    after = jax.tree.map(lambda a, b: jnp.where(active, a, b), after, book)
    total = total + jnp.where(active, entries, 0)
    return (rest - entries, total), (codes, distance * active, after)

  # Codebooks are no parameters: no gradient may reach them.
  books = jax.lax.stop_gradient(codebooks)
  start = latents, jnp.zeros_like(latents)
  (_, total), (codes, distances, books) = jax.lax.scan(
    level, start, (jnp.arange(count), jnp.stack(keys), books)
  )
  return Quantised(
    latents=latents + jax.lax.stop_gradient(total - latents),
    codes=codes.transpose(1, 0, 2),
    commitment=jnp.sum(distances) / used,
    codebooks=books,
    metrics=_metrics(books.usage),
  )


def _nearest(
  rest: Float[Array, "*n d"], embed: Float[Array, "v d"]
) -> Int[Array, "*n"]:
  """Index of the entry nearest to each row.

  Distances are expanded to |x|² - 2 x·e + |e|², as in the published code:
  near-ties then fall the same way.
  """
  rest = jax.lax.stop_gradient(rest)
  square = jnp.sum(jnp.square(rest), -1, keepdims=True)
  cross = 2 * jnp.einsum("...d,vd->...v", rest, embed, precision="highest")
  entry = jnp.sum(jnp.square(embed), -1)
  entry = entry.reshape((1,) * (rest.ndim - 1) + (-1,))
  return jnp.argmax(-(square - cross + entry), axis=-1).astype(jnp.int32)


def _statistics(
  rows: Float[Array, "n d"], codes: Int[Array, " n"], size: int
) -> tuple[Float[Array, "{size}"], Float[Array, "{size} d"]]:
  """How many rows chose each entry, and their sum.

  A product with one-hot rows: matrix units like it better than scattering.
  Rows that are spread over devices are summed on each and then across, so that
  sums differ in rounding from those of one device.
  """
  chosen = jax.nn.one_hot(codes, size, dtype=rows.dtype)
  sums = jnp.einsum("nv,nd->vd", chosen, rows, precision="highest")
  return jnp.sum(chosen, axis=0), sums


def _follow(
  book: Codebooks,
  rest: Float[Array, "b t d"],
  codes: Int[Array, "b t"],
  key: jax.Array,
  config: RVQTraining,
) -> Codebooks:
  """One codebook after a batch: running averages, then revival.

  Args:
    book: One level of `Codebooks`, whose arrays lack the axis `k`.
    rest: What the earlier codebooks left over.
    codes: The entry that each frame chose.
    key: For the latents that take the place of dead entries.
  """
  size, width = book.embed.shape
  rows = rest.reshape(-1, width)
  counts, sums = _statistics(rows, codes.reshape(-1), size)
  usage = config.decay * book.usage + (1 - config.decay) * counts
  embed_sum = config.decay * book.embed_sum + (1 - config.decay) * sums
  even = jnp.sum(usage) / size
  smoothed = (usage + _SMOOTHING) / (even + _SMOOTHING) * even
  embed = embed_sum / smoothed[:, None]
  if config.revive_below:
    dead = usage < config.revive_below * even
    drawn = rows[jax.random.randint(key, (size,), 0, len(rows))]
    usage = jnp.where(dead, even, usage)
    embed = jnp.where(dead[:, None], drawn, embed)
    # With the sums, or the next batch would undo it.
    embed_sum = jnp.where(dead[:, None], drawn * even, embed_sum)
  return Codebooks(embed, embed_sum, usage, book.ready)


def _metrics(usage: Float[Array, "k v"]) -> dict[str, Float[Array, ""]]:
  """Entries in use (a hundredth of an even share or more), and perplexity."""
  share = usage / jnp.maximum(jnp.sum(usage, -1, keepdims=True), 1e-9)
  entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(share), 0), -1)
  alive = jnp.mean(share * usage.shape[-1] > 0.01, -1)
  metrics = {f"codebook_usage_{k}": alive[k] for k in range(len(usage))}
  return metrics | {
    f"codebook_perplexity_{k}": jnp.exp(entropy[k]) for k in range(len(usage))
  }


def initialise(
  latents: Float[Array, "n d"],
  key: jax.Array,
  config: RVQConfig,
  *,
  iterations: int,
  batches: int = 1,
) -> Codebooks:
  """Codebooks by k-means, each on what the ones before left over.

  EnCodec's start, with one difference: the running sums begin as entries times
  counts.  The published code lets them begin as the entries alone, which
  shrinks every entry at the first steps.

  Args:
    latents: Rows of some batches; one or two suffice for small codebooks.
    key: For the rows that k-means starts from.
    config: Number and size of the codebooks.
    iterations: Iterations of k-means for each codebook.
    batches: How many batches the latents are of: the counts become those of
      one.
  """
  n = len(latents)

  def fit(rest, key):
    if n >= config.size:
      start = jax.random.permutation(key, n)[: config.size]
    else:
      start = jax.random.randint(key, (config.size,), 0, n)

    def step(carry, _):
      means, _ = carry
      counts, sums = _statistics(rest, _nearest(rest, means), config.size)
      new = sums / jnp.maximum(counts, 1)[:, None]
      return (jnp.where(counts[:, None] > 0, new, means), counts), None

    first = rest[start], jnp.zeros(config.size)
    (means, counts), _ = jax.lax.scan(step, first, length=iterations)
    rest = rest - means[_nearest(rest, means)]
    return rest, (means, counts / batches)

  keys = jax.random.split(key, config.codebooks)
  _, (embed, usage) = jax.lax.scan(fit, latents, keys)
  ready = jnp.ones(config.codebooks)
  return Codebooks(embed, embed * usage[..., None], usage, ready)
