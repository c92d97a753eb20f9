"""How each published evaluation measures: frozen data, one protocol a system.

A figure means something beside others of the same protocol alone: "FAD" and
"KL" name at least four things each, and the resampler by itself moves them.
What follows an original's code is named by it: audiocraft, audioldm_eval,
stable-audio-metrics, fadtk, Make-An-Audio's `wav_evaluation`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from audiogen_jax.core.errors import InputError

Resampler = Literal[
  "julius", "torchaudio", "torchaudio_module", "soxr_hq", "soxr_vhq"
]
Kind = Literal["frechet", "infinity", "kid", "kl", "inception", "clap"]


@dataclasses.dataclass(frozen=True)
class Hearing:
  """A network, and what is done to a clip before it.

  Attributes:
    judge: Of `convert.judges.JUDGES`.
    resampler: To the network's rate.
    channels: Their mean, the first one, or all, one behind the other.
    centred: Whether a clip's mean is subtracted.
    peak_db: What a clip's peak is brought to; None leaves it.
    stored: Whether samples are rounded to 16 bits, as in a file.
    least: Shorter clips get zeros behind, up to so many samples.
  """

  judge: str
  resampler: Resampler
  channels: Literal["mean", "first", "joined"] = "mean"
  centred: bool = False
  peak_db: float | None = None
  stored: bool = False
  least: int = 0


@dataclasses.dataclass(frozen=True)
class Measure:
  """A figure of two sets.

  Attributes:
    name: As `--measure` takes it.
    title: As the table has it.
    kind: How it is computed.
    hearing: Of the protocol's.
    from_generated: Whether KL is that of generated to reference, not the other
      way round.
    sigmoid: Whether KL is of sigmoids, not of a softmax.
    mean_of_windows: Whether a clip's logits are averaged over its windows;
      otherwise each window is a pair of its own.
    group: A CLAP score is of whole groups of so many pairs.
    more_is_better: Whether it is.
    usual: Whether it is computed unless others are asked for.
  """

  name: str
  title: str
  kind: Kind
  hearing: str
  from_generated: bool = False
  sigmoid: bool = False
  mean_of_windows: bool = False
  group: int = 1
  more_is_better: bool = False
  usual: bool = True

  @property
  def paired(self) -> bool:
    """Whether it compares clips of one name."""
    return self.kind == "kl"


@dataclasses.dataclass(frozen=True)
class Protocol:
  """All that makes a figure comparable.

  Attributes:
    name: As `--protocol` takes it.
    source: Whose evaluation it is.
    hearings: By name.
    measures: That it has.
    level_lufs: What generated clips are brought to first; references stay.
    cut: Whether a generated clip is cut to the length of its reference.
    notes: What is different here, or easily overlooked.
  """

  name: str
  source: str
  hearings: Mapping[str, Hearing]
  measures: tuple[Measure, ...]
  level_lufs: float | None = None
  cut: bool = False
  notes: tuple[str, ...] = ()

  def chosen(self, names: tuple[str, ...]) -> tuple[Measure, ...]:
    """The measures of these names, or the usual ones.

    Raises:
      InputError: For a name that the protocol does not have.
    """
    if not names:
      return tuple(measure for measure in self.measures if measure.usual)
    have = {measure.name: measure for measure in self.measures}
    for name in names:
      if name not in have:
        raise InputError(
          f"protocol {self.name} has no measure {name}; it has"
          f" {', '.join(have)}"
        )
    return tuple(have[name] for name in dict.fromkeys(names))


def _frechet(title: str, hearing: str, name: str = "fad") -> Measure:
  return Measure(name, title, "frechet", hearing)


def _infinity(hearing: str) -> Measure:
  return Measure("fad_inf", "FAD∞", "infinity", hearing, usual=False)


_FIRST_SECONDS = (
  "of clips longer than CLAP's window the original hears a part at random;"
  " here it is the first {}"
)

_SFX = Protocol(
  name="sfx",
  source="this project's: Ma and Lerch's sound effects network (ISMIR 2022)",
  hearings=MappingProxyType({"sfx": Hearing("sfx", "soxr_vhq")}),
  measures=(
    _frechet("Fréchet distance, sfx", "sfx"),
    Measure("kid", "KID, sfx", "kid", "sfx"),
    _infinity("sfx"),
  ),
  notes=("no published figures are of this protocol",),
)

_AUDIOGEN = Protocol(
  name="audiogen",
  source="audiocraft 896ec7c, solver/audiogen/evaluation=objective_eval",
  hearings=MappingProxyType(
    {
      "vggish": Hearing("vggish, seconds", "julius", peak_db=-1.0, stored=True),
      "passt": Hearing("passt", "julius"),
      "clap": Hearing("clap, laion music", "julius"),
    }
  ),
  measures=(
    _frechet("FAD, VGGish by google-research", "vggish"),
    Measure("kl", "KL(reference ‖ generated), PaSST", "kl", "passt"),
    Measure("clap", "CLAP, LAION", "clap", "clap", more_is_better=True),
    Measure(
      "kl_back",
      "KL(generated ‖ reference), PaSST",
      "kl",
      "passt",
      from_generated=True,
      usual=False,
    ),
    _infinity("vggish"),
  ),
  level_lufs=-14.0,
  cut=True,
  notes=(
    "every piece of 10 s is a pair of KL",
    _FIRST_SECONDS.format("10 s"),
    "the original pads a batch's clips with zeros to the longest, which CLAP"
    " hears; here each clip is heard by itself",
  ),
)

_ALE_MEASURES = (
  _frechet("FAD, VGGish by torchvggish", "vggish"),
  _frechet("FD, Cnn14", "cnn14", "fd"),
  Measure("kl", "KL(reference ‖ generated), Cnn14, softmax", "kl", "cnn14"),
  Measure(
    "kl_sigmoid",
    "KL(reference ‖ generated), Cnn14, sigmoid",
    "kl",
    "cnn14",
    sigmoid=True,
  ),
  Measure(
    "is",
    "inception score, Cnn14, 10 splits",
    "inception",
    "cnn14",
    more_is_better=True,
  ),
  Measure("kid", "KID, Cnn14", "kid", "cnn14", usual=False),
  _infinity("vggish"),
)
_ALE_HEARINGS = {
  name: Hearing(
    judge, "torchaudio", channels="first", centred=True, least=32_000
  )
  for name, judge in (("vggish", "vggish, patches"), ("cnn14", "cnn14"))
}

_AUDIOLDM = Protocol(
  name="audioldm",
  source="audioldm_eval 8dc07ee, backbone cnn14 at 16 kHz (AudioLDM, Tango)",
  hearings=MappingProxyType(_ALE_HEARINGS),
  measures=_ALE_MEASURES,
  notes=("the inception score depends on the number of clips",),
)

_MAKE_AN_AUDIO = Protocol(
  name="make-an-audio",
  source="audioldm_eval 8dc07ee, and Make-An-Audio's wav_evaluation 0d84177",
  hearings=MappingProxyType(
    _ALE_HEARINGS
    | {
      "clap": Hearing(
        "clap, microsoft 2022", "torchaudio_module", channels="joined"
      )
    }
  ),
  measures=(
    *_ALE_MEASURES,
    Measure(
      "clap",
      "CLAP, Microsoft 2022",
      "clap",
      "clap",
      group=20,
      more_is_better=True,
    ),
  ),
  notes=(
    "the inception score depends on the number of clips",
    "CLAP is of whole groups of 20 pairs",
    _FIRST_SECONDS.format("9 s"),
  ),
)

_STABLE_AUDIO = Protocol(
  name="stable-audio",
  source="stable-audio-metrics fd55536",
  hearings=MappingProxyType(
    {
      "passt": Hearing("passt, halves", "soxr_hq", peak_db=-1.0),
    }
  ),
  measures=(
    Measure(
      "kl",
      "KL(generated ‖ reference), PaSST",
      "kl",
      "passt",
      from_generated=True,
      mean_of_windows=True,
    ),
  ),
  notes=(
    "logits are averaged over windows of 10 s every 5 s",
    "neither its CLAP, with feature fusion, nor its FD by OpenL3 is here",
  ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
  {
    protocol.name: protocol
    for protocol in (
      _SFX,
      _AUDIOGEN,
      _AUDIOLDM,
      _MAKE_AN_AUDIO,
      _STABLE_AUDIO,
    )
  }
)


def get(name: str) -> Protocol:
  """The protocol of that name.

  Raises:
    InputError: If there is none, with those that there are.
  """
  if name not in PROTOCOLS:
    raise InputError(
      f"there is no protocol {name}; take {', '.join(PROTOCOLS)}"
    )
  return PROTOCOLS[name]
