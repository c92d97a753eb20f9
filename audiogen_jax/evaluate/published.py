"""Published figures of AudioCaps' test set, by protocol: frozen data."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Published:
  """What somebody has published of a model.

  Attributes:
    model: Its name.
    protocols: Names of those that the figures are of: all that take them alike.
    figures: By the name of the measure in these protocols.
    source: Who says so.
    clips: Of which list, as far as that is told.
  """

  model: str
  protocols: tuple[str, ...]
  figures: Mapping[str, float]
  source: str
  clips: str = "not told"


_AUDIOCRAFT = ("audiogen",)
# Both measure by audioldm_eval; the second has a CLAP besides.
_ALE = "audioldm", "make-an-audio"


def _row(
  model: str,
  protocols: tuple[str, ...],
  source: str,
  clips: str = "not told",
  **figures: float,
) -> Published:
  return Published(model, protocols, MappingProxyType(figures), source, clips)


_TANGO = "Tango's README"

PUBLISHED: tuple[Published, ...] = (
  _row("AudioGen 285M", _AUDIOCRAFT, "paper", fad=3.13, kl=2.09),
  _row("AudioGen 1B", _AUDIOCRAFT, "paper", fad=1.82, kl=1.69),
  _row("audiogen-medium", _AUDIOCRAFT, "card", fad=1.77, kl=1.58, clap=0.30),
  _row("audio-magnet-small", _AUDIOCRAFT, "card", fad=3.21, kl=1.42),
  _row("audio-magnet-medium", _AUDIOCRAFT, "card", fad=2.32, kl=1.64),
  _row("AudioLDM-L-Full-FT", _ALE, _TANGO, fad=1.96, kl=1.59, fd=23.31),
  _row("AudioLDM-M-Full-FT", _ALE, _TANGO, fad=2.57, kl=1.26, fd=26.12),
  _row("Make-An-Audio", _ALE, "others", fad=2.66, kl=1.61),
  _row("Make-An-Audio", _ALE, "others", fad=2.45, kl=1.59),
  _row("Tango", _ALE, _TANGO, "886", fad=1.59, kl=1.37, fd=24.52),
  _row("Tango-full-FT", _ALE, _TANGO, "886", fad=2.51, kl=1.15, **{"is": 7.87}),
  _row("Tango 2", _ALE, _TANGO, "886", fad=2.69, kl=1.12, **{"is": 9.09}),
  _row("AudioLDM 2-Full", _ALE, _TANGO, fad=2.18, kl=1.62, **{"is": 6.92}),
  _row(
    "AudioLDM 2-Full-Large", _ALE, _TANGO, fad=2.11, kl=1.54, **{"is": 8.29}
  ),
  _row(
    "the recordings",
    ("make-an-audio",),
    "a remark in Make-An-Audio's code",
    "validation",
    clap=0.479077,
  ),
)


def of(protocol: str, measures: Sequence[str]) -> tuple[Published, ...]:
  """The rows that have one of these measures in that protocol."""
  return tuple(
    row
    for row in PUBLISHED
    if protocol in row.protocols and row.figures.keys() & set(measures)
  )
