"""Long sounds in pieces, so that memory does not grow with them.

A sample depends on the frames around it, as far as the layers' declared fields
add up to.  Pieces are made of that much more than they give:

    frames:   |---------------------------------------|
    reads:    |=========:===|        |===:=======:===|      all of one width
    gives:    |---------|                |-------|

so what comes out is what the whole would give, but for rounding.
"""

import functools

import jax
import numpy as np
from jaxtyping import Float

from audiogen_jax.core import sharding
from audiogen_jax.core.fields import ReceptiveField
from audiogen_jax.core.types import AnyArray, Tree
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import Generator, VocoderConfig

_PIECE = 512  # frames

_synthesize = jax.jit(generator.synthesize, static_argnames="config")


@functools.cache
def field(config: VocoderConfig) -> ReceptiveField:
  """What a sample sees of the frames."""
  return Generator(config).bind({}).field


def extent(
  config: VocoderConfig, frames: int, *, piece: int = _PIECE
) -> tuple[int, int]:
  """Frames that are read at once, and how often, to make sound of so many.

  Args:
    config: As for `synthesize`.
    frames: Of a mel spectrogram.
    piece: As for `synthesize`.
  """
  width = sum(field(config).context()) + piece
  return (frames, 1) if frames <= width else (width, -(-frames // piece))


def synthesize(
  config: VocoderConfig,
  params: Tree,
  mel: Float[AnyArray, "b t m"],
  *,
  piece: int = _PIECE,
) -> Float[np.ndarray, "b n 1"]:
  """Sound of mel spectrograms of any length.

  Args:
    config: Weight norm folded, see `generator.folded`.
    params: Of this shape.
    mel: As the configuration's recipe makes them; rows may be spread over a
      mesh.
    piece: Frames that are made at once, besides those to either side of them.
  """
  frames, hop = mel.shape[1], config.mel.hop
  left, _ = field(config).context()
  width, count = extent(config, frames, piece=piece)
  if count == 1:
    return sharding.fetch(_synthesize(config, params, mel))
  made = []
  for at in range(0, frames, piece):
    # At the ends a piece has more on the other side, for one shape serves all.
    start = min(max(at - left, 0), frames - width)
    sound = _synthesize(config, params, mel[:, start : start + width])
    stop = min(at + piece, frames)
    sound = sharding.fetch(sound)  # parts may lie with other processes
    made.append(sound[:, (at - start) * hop : (stop - start) * hop])
  return np.concatenate(made, axis=1)
