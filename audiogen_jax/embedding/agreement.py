"""How well sounds and sentences agree, by embeddings of both in one space."""

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError

_EPSILON = 1e-8


def cosines(
  sounds: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "m e"]
) -> Float[np.ndarray, " n"]:
  """Cosine of each pair, in [-1, 1]; 0 where a vector is zero.

  The mean of all is audiocraft's text consistency and the CLAP score of
  stable-audio-metrics: neither times 100 nor cut at 0.

  Raises:
    InputError: If there are not as many of one as of the other.
  """
  if sounds.shape != texts.shape:
    raise InputError(
      f"a CLAP score is of pairs, got embeddings of shapes {sounds.shape} and"
      f" {texts.shape}; give each sound one caption"
    )
  sounds, texts = sounds.astype(np.float64), texts.astype(np.float64)
  lengths = np.linalg.norm(sounds, axis=1) * np.linalg.norm(texts, axis=1)
  return np.sum(sounds * texts, axis=1) / np.maximum(lengths, _EPSILON)


def in_whole_groups(
  values: Float[np.ndarray, " n"], size: int
) -> Float[np.ndarray, " m"]:
  """Those of whole groups: Make-An-Audio leaves the last, shorter one out.

  Raises:
    InputError: If there is no whole group.
  """
  whole = len(values) // size * size
  if not whole:
    raise InputError(
      f"this protocol's CLAP score is of groups of {size} pairs, there are"
      f" {len(values)}; take more clips"
    )
  return values[:whole]
