"""One measure of two sets: its value, its interval, and what it is beside.

Beside each figure stands that of halves of the reference: the floor of a
distance, of which no model comes below.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import agreement, frechet
from audiogen_jax.embedding.extractor import TextExtractor
from audiogen_jax.embedding.frechet import Statistics
from audiogen_jax.embedding.protocols import Measure
from audiogen_jax.evaluate import bootstrap, divergence, kid
from audiogen_jax.evaluate.listening import Listened

_SEED = 0  # of halves, and of FAD-infinity's draws
_REPLICATE_SUBSETS = 2  # of KID, in each replicate of the bootstrap
_SIGMAS = 1.96  # 95 % of a normal distribution

Times: TypeAlias = Int[np.ndarray, " _"]
Progress: TypeAlias = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Figure:
  """A measure of a generated set against a reference.

  Attributes:
    measure: What was measured.
    value: The figure.
    interval: 95 %, by a bootstrap over clips; of FAD-infinity that of its line.
    floor: The same of halves of the reference; None if there is none.
    clips: Generated, and reference.
    paired: Whether the figure is one of pairs.
    weights: Name of the network.
    sha256: Of its weights.
    by_clip: Of each clip, where a clip has a figure of its own.
    more: What else there is to tell, by name.
    notes: Warnings, with their numbers.
  """

  measure: Measure
  value: float
  interval: tuple[float, float]
  floor: float | None
  clips: tuple[int, int]
  paired: bool
  weights: str
  sha256: str
  by_clip: dict[str, float] = dataclasses.field(default_factory=dict)
  more: dict[str, float] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()

  def plain(self) -> dict[str, Any]:
    """As JSON takes it."""
    fields = dataclasses.asdict(self)
    fields["measure"], fields["title"] = self.measure.name, self.measure.title
    return fields


@dataclasses.dataclass(frozen=True)
class Sets:
  """What a measure is taken of.

  Attributes:
    generated: What was heard in it.
    reference: Likewise, or statistics alone.
    together: Whether both have the same clips, by name: pairs are drawn.
    stored_floor: Of a reference that is statistics, as it is stored with them.
    stored_clips: Likewise, of how many clips they are.
    captions: Of the clips, for CLAP.
  """

  generated: Listened
  reference: Listened | Statistics
  together: bool
  stored_floor: float | None = None
  stored_clips: int = 0
  captions: tuple[str, ...] = ()

  @property
  def counts(self) -> tuple[int, int]:
    """Clips of either set."""
    reference = self.reference
    stored = isinstance(reference, Statistics)
    size = self.stored_clips if stored else len(reference.names)
    return len(self.generated.names), size

  def drawn(self, draws: np.random.Generator) -> tuple[Times, Times | None]:
    """How often each clip of either set is drawn."""
    generated, reference = self.counts
    first = _times(draws, generated)
    if isinstance(self.reference, Statistics):
      return first, None
    return first, first if self.together else _times(draws, reference)


def take(
  measure: Measure,
  sets: Sets,
  *,
  replicates: int = bootstrap.REPLICATES,
  progress: Progress | None = None,
) -> Figure:
  """Takes a measure.

  Raises:
    InputError: If the sets do not have what it needs, with what that is.
  """
  if isinstance(sets.reference, Statistics) and measure.kind not in (
    "frechet",
    "infinity",
    "inception",
  ):
    raise InputError(
      f"{measure.name} needs the sounds of the reference, not its statistics"
      " alone; name the sounds"
    )
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    found = _KINDS[measure.kind](measure, sets, replicates, progress)
  extractor = sets.generated.extractor
  return Figure(
    measure=measure,
    clips=sets.counts,
    paired=measure.paired or measure.kind == "clap",
    weights=extractor.name,
    sha256=extractor.sha256,
    notes=tuple(str(caught[0].message) for _ in caught[:1]),
    **found,
  )


def halves(clips: int) -> tuple[Times, Times]:
  """Two random halves of a set; of an odd number one clip is in neither."""
  order = np.random.default_rng(_SEED).permutation(clips)
  half = clips // 2
  first, second = np.zeros((2, clips), int)
  first[order[:half]] = 1
  second[order[half : 2 * half]] = 1
  return first, second


def statistics(
  heard: Listened | Statistics, times: Times | None = None
) -> Statistics:
  """Those of a set, in one pass; of some of its clips, or several times."""
  if isinstance(heard, Statistics):
    return heard
  gatherer = frechet.Gatherer()
  for rows in heard.rows(times):
    gatherer.add(rows)
  return gatherer.statistics()


def floor_of(heard: Listened) -> float | None:
  """The Fréchet distance of halves; None of sets too small to be halved."""
  if len(heard.names) < 4:
    return None
  first, second = halves(len(heard.names))
  return frechet.distance(statistics(heard, first), statistics(heard, second))


def _frechet(
  measure: Measure,
  sets: Sets,
  replicates: int,
  progress: Progress | None,
) -> dict[str, Any]:
  reference = statistics(sets.reference)
  value = frechet.distance(statistics(sets.generated), reference)

  def figure(draws: np.random.Generator) -> float:
    first, second = sets.drawn(draws)
    theirs = reference
    if second is not None:
      theirs = statistics(sets.reference, second)
    return frechet.distance(statistics(sets.generated, first), theirs)

  floor = sets.stored_floor
  if isinstance(sets.reference, Listened):
    floor = floor_of(sets.reference)
  return {
    "value": value,
    "interval": bootstrap.interval(
      value, figure, replicates=replicates, progress=progress
    ),
    "floor": floor,
  }


def _infinity(
  measure: Measure,
  sets: Sets,
  replicates: int,
  progress: Progress | None,
) -> dict[str, Any]:
  rows = _all(sets.generated)
  draws = np.random.RandomState(_SEED)
  found = frechet.at_infinity(rows, statistics(sets.reference), draws)
  width = _SIGMAS * found.error
  return {
    "value": found.value,
    "interval": (found.value - width, found.value + width),
    "floor": None,
    "more": {"r2": found.r2, "slope": found.slope},
  }


def _kid(
  measure: Measure,
  sets: Sets,
  replicates: int,
  progress: Progress | None,
) -> dict[str, Any]:
  value, deviation = kid.kid(_all(sets.generated), _all(sets.reference))

  def figure(draws: np.random.Generator) -> float:
    first, second = sets.drawn(draws)
    rows = _all(sets.generated, first), _all(sets.reference, second)
    return kid.kid(*rows, subsets=_REPLICATE_SUBSETS)[0]

  parts = halves(len(sets.reference.names))
  floor = kid.kid(*(_all(sets.reference, part) for part in parts))[0]
  return {
    "value": value,
    "interval": bootstrap.interval(
      value, figure, replicates=replicates, progress=progress
    ),
    "floor": floor,
    "more": {"deviation": deviation},
  }


def _kl(
  measure: Measure,
  sets: Sets,
  replicates: int,
  progress: Progress | None,
) -> dict[str, Any]:
  names = sets.generated.names
  ours, theirs = sets.generated.logits(), sets.reference.logits()
  if measure.mean_of_windows:
    ours, theirs = (
      [clip.mean(axis=0, keepdims=True) for clip in clips]
      for clips in (ours, theirs)
    )
  for name, one, other in zip(names, ours, theirs, strict=True):
    if len(one) != len(other):
      raise InputError(
        f"clip {name} is heard in {len(one)} pieces, its reference in"
        f" {len(other)}; KL compares pieces, so bring both to one length"
      )
  squash = "sigmoid" if measure.sigmoid else "softmax"

  def between(some: list[np.ndarray], others: list[np.ndarray]) -> np.ndarray:
    pair = np.concatenate(some), np.concatenate(others)
    first, second = pair if measure.from_generated else pair[::-1]
    return divergence.kl(first, second, squash)

  values = between(ours, theirs)
  counts = np.array([len(clip) for clip in ours])
  sums = np.add.reduceat(values, np.cumsum(counts) - counts)
  value = float(values.mean())
  return {
    "value": value,
    "interval": _of_means(value, sums, counts, replicates, progress),
    "floor": None,
    "by_clip": dict(zip(names, (sums / counts).tolist(), strict=True)),
  }


def _inception(
  measure: Measure,
  sets: Sets,
  replicates: int,
  progress: Progress | None,
) -> dict[str, Any]:
  logits = np.concatenate(sets.generated.logits())
  value, deviation = divergence.inception_score(logits)

  def figure(draws: np.random.Generator) -> float:
    drawn = draws.integers(len(logits), size=len(logits))
    return divergence.inception_score(logits[drawn])[0]

  floor = None
  if isinstance(sets.reference, Listened):
    theirs = np.concatenate(sets.reference.logits())
    floor = divergence.inception_score(theirs)[0]
  return {
    "value": value,
    "interval": bootstrap.interval(
      value, figure, replicates=replicates, progress=progress
    ),
    "floor": floor,
    "more": {"deviation": deviation},
  }


def _clap(
  measure: Measure,
  sets: Sets,
  replicates: int,
  progress: Progress | None,
) -> dict[str, Any]:
  extractor = sets.generated.extractor
  if not isinstance(extractor, TextExtractor):
    raise InputError(f"{extractor.name} reads no sentences; take a CLAP")
  texts = extractor.embed_texts(sets.captions)
  cosines = agreement.cosines(sets.generated.means(), texts)
  counted = agreement.in_whole_groups(cosines, measure.group)
  value = float(counted.mean())
  floor = None
  if sets.together:
    theirs = agreement.cosines(sets.reference.means(), texts)
    floor = float(agreement.in_whole_groups(theirs, measure.group).mean())
  ones = np.ones(len(counted), int)
  names = sets.generated.names[: len(counted)]
  return {
    "value": value,
    "interval": _of_means(value, counted, ones, replicates, progress),
    "floor": floor,
    "by_clip": dict(zip(names, counted.tolist(), strict=True)),
  }


def _of_means(
  value: float,
  sums: Float[np.ndarray, " clips"],
  counts: Int[np.ndarray, " clips"],
  replicates: int,
  progress: Progress | None,
) -> tuple[float, float]:
  def figure(draws: np.random.Generator) -> float:
    drawn = draws.integers(len(sums), size=len(sums))
    return float(sums[drawn].sum() / counts[drawn].sum())

  return bootstrap.interval(
    value, figure, replicates=replicates, progress=progress
  )


def _all(heard: Listened, times: Times | None = None) -> np.ndarray:
  return np.concatenate(list(heard.rows(times)))


def _times(draws: np.random.Generator, clips: int) -> Times:
  drawn = draws.integers(clips, size=clips)
  return np.bincount(drawn, minlength=clips)


_KINDS = {
  "frechet": _frechet,
  "infinity": _infinity,
  "kid": _kid,
  "kl": _kl,
  "inception": _inception,
  "clap": _clap,
}
