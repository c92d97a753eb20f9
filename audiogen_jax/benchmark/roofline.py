"""How fast a machine could make sounds, by what it reads and computes a second.

Roofline (Williams et al., 2009): a pass over the weights takes as long as
reading them does, or as long as its arithmetic does, whichever is more.  An
autoregressive model reads its weights once a frame and computes little each
time; a masked one reads them a few dozen times and computes all frames each
time.  So the latter wins where few sounds are made at once, on chips that
compute much for each byte that they read, and there is a number of sounds at
once from which on it loses.
"""

from typing import NamedTuple

import jax

from audiogen_jax.core import sharding
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import patterns
from audiogen_jax.lm.model import LMConfig

# What is not read in each pass.
_ONCE = "embed", "text_proj", "cross_attn/kv", "cross_attn/k/", "cross_attn/v"


class Speed(NamedTuple):
  """What a machine does in a second.

  Attributes:
    name: Of the machine.
    flops: Operations on numbers of the type that is computed in.
    bandwidth: Bytes that it reads.
  """

  name: str
  flops: float
  bandwidth: float


class Passes(NamedTuple):
  """What making sounds asks of a machine; all devices together.

  Attributes:
    count: Passes over the weights.
    floor_bytes: That each must read: weights, and the live cache.  What was
      rounded up to buckets does not count.
    flops: Operations of each, two for a multiplication and an addition.
  """

  count: int
  floor_bytes: float
  flops: float

  def limit_s(self, speed: Speed) -> float:
    """Seconds that a pass takes at least."""
    reading_s = self.floor_bytes / speed.bandwidth
    return max(reading_s, self.flops / speed.flops)

  def total_s(self, speed: Speed) -> float:
    """Seconds that all passes take at least."""
    return self.count * self.limit_s(speed)


def autoregressive(
  lm: LMConfig,
  params: Tree,
  *,
  rows: int,
  frames: int,
  text: int,
  itemsize: int,
) -> Passes:
  """Of a model that makes one frame at a time with a KV cache.

  Reading the text, once, is left out.

  Args:
    lm: The model.
    params: Its parameters, or their shapes and types.
    rows: Sounds at once, twice as many under classifier-free guidance.
    frames: Of a sound; half of them are seen on average.
    text: Tokens of the text.
    itemsize: Bytes of a number in the cache.
  """
  weights, held = _weights(params, lm.codebooks, lm.codebooks)
  t = lm.transformer
  seen = frames / 2 + (text if t.cross_attention or lm.prepend_text else 0)
  cache = rows * 2 * t.width * t.layers * seen
  layout = patterns.layout(lm.pattern, lm.codebooks, frames)
  steps = layout.frame.shape[1] - patterns.first_step(layout, 0)
  # As many operations on what is in the cache as there are bytes of two each:
  # one product with the keys, one with the values.
  return Passes(steps, held + itemsize * cache, 2 * (rows * weights + cache))


def masked(
  lm: LMConfig,
  params: Tree,
  *,
  rows: int,
  frames: int,
  text: int,
  itemsize: int,
  passes: int,
) -> Passes:
  """Of a model that sees all frames in each of so many passes.

  Args:
    lm: The model.
    params: Its parameters, or their shapes and types.
    rows: Sounds at once, twice as many under classifier-free guidance.
    frames: Of a sound.
    text: Tokens of the text.
    itemsize: Bytes of a key or value of the text.
    passes: Over all codebooks, each with one codebook's head.
  """
  weights, held = _weights(params, 1, lm.codebooks)
  t = lm.transformer
  text = text if t.cross_attention or lm.prepend_text else 0
  scores = 4 * t.width * t.layers * frames * (frames + text)
  keys = rows * 2 * t.width * t.layers * text
  return Passes(
    passes, held + itemsize * keys, rows * (2 * frames * weights + scores)
  )


def _weights(params: Tree, heads: int, codebooks: int) -> tuple[float, float]:
  """How many weights a pass uses, and their bytes.

  Not embeddings, of which it reads a row each, nor what reads the text once.

  Args:
    params: All of them.
    heads: Codebooks whose heads a pass uses.
    codebooks: Those that there are.
  """
  count = held = 0.0
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = sharding.path_name(path)
    if any(part in name for part in _ONCE):
      continue
    share = heads / codebooks if name.startswith("heads") else 1
    count += share * leaf.size
    held += share * leaf.size * leaf.dtype.itemsize
  return count, held
