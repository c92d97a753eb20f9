"""What every network that hears has in common, whoever published it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


class Heard(NamedTuple):
  """What a network hears in one clip.

  Attributes:
    embeddings: One row a window, of which a clip may have several.
    logits: Of the classes, one row a window; None if the network has no
      classes.
  """

  embeddings: Float[np.ndarray, "w d"]
  logits: Float[np.ndarray, "w k"] | None = None


@runtime_checkable
class Extractor(Protocol):
  """A network that turns clips into vectors, its weights and its windows.

  Attributes:
    name: As protocols and tables call it, `vggish` for one.
    sample_rate_hz: Of the sounds that it takes.
    sha256: Of the published file that holds its weights.
  """

  name: str
  sample_rate_hz: int
  sha256: str

  def embed(self, sounds: Sequence[Float[np.ndarray, " n"]]) -> list[Heard]:
    """What is heard in each of several clips of any lengths.

    Clips are computed in batches of one shape, so that few programs are
    compiled; what is heard in one does not depend on the others.

    Args:
      sounds: Mono, at `sample_rate_hz`, within ±1.

    Raises:
      InputError: If a clip is too short for the network, with both lengths.
    """


@runtime_checkable
class TextExtractor(Extractor, Protocol):
  """An extractor that takes sentences, too, into the same space (CLAP)."""

  def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """One vector a sentence."""
