"""CLAP as a scorer: how near a sound is to its text in a joint space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from audiogen_jax.convert import judges
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.embedding import agreement, hearing, protocols
from audiogen_jax.embedding.clap import Clap
from audiogen_jax.embedding.extractor import TextExtractor

# Protocols that have a CLAP score, and so say which CLAP and how it hears.
NAMES = tuple(
  name
  for name, protocol in protocols.PROTOCOLS.items()
  if any(measure.kind == "clap" for measure in protocol.measures)
)


class ClapScorer:
  """Scores by a protocol's CLAP, as published demos choose among candidates.

  A `choosing.Scorer` of any text.
  """

  def __init__(
    self,
    protocol: str,
    *,
    weights: Path | None = None,
    extractor: TextExtractor | None = None,
    placement: Placement | None = None,
  ) -> None:
    """Loads the network.

    Args:
      protocol: Of `NAMES`.
      weights: The folder with networks' weights; None for `judges.folder()`.
      extractor: The network, if it is loaded already.
      placement: Devices that share sounds out; None for one device.

    Raises:
      InputError: If the protocol has no CLAP, or its weights are missing.
    """
    way = protocols.get(protocol)
    found = [each for each in way.measures if each.kind == "clap"]
    if not found:
      raise InputError(
        f"protocol {protocol} has no CLAP to choose by; take {', '.join(NAMES)}"
      )
    self._hearing = way.hearings[found[0].hearing]
    loaded = extractor or judges.load(self._hearing.judge, weights)
    if not isinstance(loaded, TextExtractor):
      raise InputError(f"{loaded.name} reads no sentences; take a CLAP")
    self._extractor = loaded
    if placement and isinstance(loaded, Clap):
      self._extractor = loaded.spread(placement)

  @property
  def identity(self) -> str:
    """What tells it from other networks: its name and the hash of its file."""
    return f"{self._extractor.name} {self._extractor.sha256[:12]}".strip()

  def hear(
    self, sounds: Sequence[Float[np.ndarray, "_ c"]], rate_hz: int
  ) -> Float[np.ndarray, "b d"]:
    """One vector a sound, the mean of its windows'.

    Raises:
      InputError: If a sound is too short for the network.
    """
    heard = self._extractor.embed(
      [
        hearing.prepare(
          self._hearing, sound, rate_hz, self._extractor.sample_rate_hz
        )
        for sound in sounds
      ]
    )
    return np.stack([each.embeddings.mean(axis=0) for each in heard])

  def read(self, texts: Sequence[str]) -> Float[np.ndarray, "m d"]:
    """One vector a sentence."""
    return self._extractor.embed_texts(texts)

  def check(self, texts: Sequence[str | None]) -> None:
    """Raises InputError for a sound without a text."""
    if any(not (text or "").strip() for text in texts):
      raise InputError(
        "CLAP compares sounds with texts, and a prompt here says nothing"
      )

  def score(
    self,
    sounds: Float[np.ndarray, "b n c"],
    rate_hz: int,
    texts: Sequence[str | None],
  ) -> Float[np.ndarray, " b"]:
    """The cosine of each sound and its text; -inf for silence.

    Raises:
      InputError: As `check`, or if a sound is too short for the network.
    """
    self.check(texts)
    found = agreement.cosines(
      self.hear(list(sounds), rate_hz),
      self.read([text or "" for text in texts]),
    )
    silent = ~np.abs(sounds).max(axis=(1, 2)).astype(bool)
    return np.where(silent, -np.inf, found)
