"""Generated sounds beside real ones, as published evaluations judge them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiogen_jax.convert import judges
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import frechet, protocols
from audiogen_jax.embedding.extractor import Extractor
from audiogen_jax.embedding.frechet import Statistics
from audiogen_jax.embedding.protocols import Measure, Protocol
from audiogen_jax.evaluate import bootstrap, figures, listening, sound_sets
from audiogen_jax.evaluate.figures import Figure, Sets
from audiogen_jax.evaluate.listening import Listened, Progress
from audiogen_jax.evaluate.sound_sets import SoundSet

STATISTICS = ".npz"


@dataclasses.dataclass(frozen=True)
class Report:
  """What an evaluation found.

  Attributes:
    protocol: Whose way it went.
    generated: Title of the generated set.
    reference: Of the other one.
    clips_sha256: Of the list of generated clips' names.
    figures: In the order in which they were asked for.
    notes: What is to be known of them.
  """

  protocol: Protocol
  generated: str
  reference: str
  clips_sha256: str
  figures: tuple[Figure, ...]
  notes: tuple[str, ...]

  def __getitem__(self, measure: str) -> Figure:
    """The figure of a measure, by its name."""
    return {figure.measure.name: figure for figure in self.figures}[measure]

  def plain(self) -> dict[str, Any]:
    """As JSON takes it."""
    return {
      "protocol": self.protocol.name,
      "source": self.protocol.source,
      "generated": self.generated,
      "reference": self.reference,
      "clips_sha256": self.clips_sha256,
      "notes": list(self.notes),
      "figures": [figure.plain() for figure in self.figures],
    }


@dataclasses.dataclass(frozen=True)
class _Stored:
  """Statistics that stand for a reference.

  Attributes:
    path: The file.
    statistics: By measure.
    about: Words beside them.
  """

  path: Path
  statistics: Mapping[str, Statistics]
  about: Mapping[str, str]

  def check(self, protocol: Protocol, measure: Measure, sha256: str) -> None:
    """Raises InputError if it was made in another way."""
    if self.about.get("protocol") != protocol.name:
      raise InputError(
        f"{self.path} is of protocol {self.about.get('protocol')}, not of"
        f" {protocol.name}; write it with --protocol {protocol.name}"
      )
    if measure.hearing not in self.statistics:
      raise InputError(
        f"{self.path} holds no statistics for {measure.name}; write it again"
      )
    made = self.about.get(f"{measure.hearing}/sha256")
    if made != sha256:
      raise InputError(
        f"{self.path} was made with weights of hash {made}, these have"
        f" {sha256}; write it again"
      )


def usual_protocol(weights: Path | None = None) -> str:
  """AudioGen's own, or `sfx` where weights for it are not at hand."""
  way = protocols.get("audiogen")
  hearings = [way.hearings[measure.hearing] for measure in way.chosen(())]
  names = {judges.JUDGES[hearing.judge].weights for hearing in hearings}
  at_hand = all(judges.is_here(name, weights) for name in names)
  return way.name if at_hand else "sfx"


def check(
  protocol: str, measures: Sequence[str] = (), weights: Path | None = None
) -> None:
  """Whether `evaluate` could begin, where sounds are made first.

  Raises:
    InputError: If there is no such protocol, measure, or its weights.
  """
  way = protocols.get(protocol)
  for measure in way.chosen(tuple(measures)):
    judges.check(way.hearings[measure.hearing].judge, weights)


def evaluate(
  generated: str | os.PathLike | SoundSet,
  reference: str | os.PathLike | SoundSet,
  protocol: str = "sfx",
  *,
  measures: Sequence[str] = (),
  captions: Mapping[str, str] | None = None,
  only: Sequence[str] | None = None,
  split: str | None = None,
  weights: Path | None = None,
  extractors: Mapping[str, Extractor] | None = None,
  kept: Path | None = None,
  replicates: int = bootstrap.REPLICATES,
  progress: Progress | None = None,
) -> Report:
  """Measures how far generated sounds are from real ones, and from captions.

  What was heard is kept, so that an evaluation that was killed goes on and one
  with another measure begins where this one ends.

  Args:
    generated: A folder, a dataset or a manifest, as `SoundSet.open` takes it,
      or what that gives: all of its clips.
    reference: Likewise; or a `.npz` that `write_statistics` wrote.
    protocol: Name of one of `protocols.PROTOCOLS`.
    measures: Names of those to take; its usual ones if none are given.
    captions: By name of clip; instead of those that come with the set.
    only: Names of the clips to take, of either set.
    split: Of datasets.
    weights: The folder with networks' weights; None for `judges.folder()`.
    extractors: Networks that are loaded already, by their names in
      `judges.JUDGES`.
    kept: The folder for what was heard; None for `listening.folder()`.
    replicates: Of the bootstrap.
    progress: Called with what is being done, how much of it, and of how much.

  Raises:
    InputError: If anything lacks: clips, their pairs, captions, weights.
  """
  way = protocols.get(protocol)
  chosen = way.chosen(tuple(measures))
  ours = _opened(generated, split, only)
  theirs: SoundSet | _Stored
  if not isinstance(reference, SoundSet) and (
    Path(reference).suffix == STATISTICS
  ):
    theirs = _Stored(Path(reference), *frechet.read(reference))
  else:
    theirs = _opened(reference, split, only)
    if ours.place == theirs.place:
      raise InputError(
        f"the reference {theirs.title} is the generated set itself; name the"
        " recordings"
      )
  together = isinstance(theirs, SoundSet) and ours.names == theirs.names
  words = _captions(chosen, ours, theirs, captions)
  if any(measure.paired for measure in chosen) and not together:
    if isinstance(theirs, _Stored):
      raise InputError(
        "KL compares clips of one name, and the reference is statistics; name"
        " its sounds"
      )
    sound_sets.check_pairs(ours, theirs)
  networks = dict(extractors or {})
  for measure in chosen:  # all of them, before hours of work
    judge = way.hearings[measure.hearing].judge
    if judge not in networks:
      networks[judge] = judges.load(judge, weights)
  lengths = None
  if way.cut and together:
    lengths = {name: item.length_s() for name, item in theirs.items.items()}
  heard: dict[str, tuple[Listened, Listened | None]] = {}
  found = []
  for measure in chosen:
    hearing = way.hearings[measure.hearing]
    extractor = networks[hearing.judge]
    if isinstance(theirs, _Stored):
      theirs.check(way, measure, extractor.sha256)
    if measure.hearing not in heard:
      real = None
      if isinstance(theirs, SoundSet):
        real = listening.listen(
          theirs, hearing, extractor, kept=kept, progress=progress
        )
      fake = listening.listen(
        ours,
        hearing,
        extractor,
        level_lufs=way.level_lufs,
        lengths_s=lengths,
        kept=kept,
        progress=progress,
      )
      heard[measure.hearing] = fake, real
    fake, real = heard[measure.hearing]
    sets = Sets(
      fake,
      real or theirs.statistics[measure.hearing],
      together,
      captions=words,
      **_stored(theirs, measure),
    )
    found.append(
      figures.take(
        measure,
        sets,
        replicates=replicates,
        progress=_named(progress, measure),
      )
    )
  return Report(
    way,
    ours.title,
    theirs.title if isinstance(theirs, SoundSet) else str(theirs.path),
    ours.sha256,
    tuple(found),
    _notes(way, chosen, found, lengths is None),
  )


def write_statistics(
  reference: str | os.PathLike,
  path: Path,
  protocol: str = "sfx",
  *,
  only: Sequence[str] | None = None,
  split: str | None = None,
  weights: Path | None = None,
  extractors: Mapping[str, Extractor] | None = None,
  kept: Path | None = None,
  progress: Progress | None = None,
) -> int:
  """Writes what may stand for a reference in Fréchet distances.

  Args:
    reference: As for `evaluate`.
    path: A .npz file.
    protocol: As for `evaluate`, and so are all others.
    only: Names of the clips to take.
    split: Of a dataset.
    weights: The folder with networks' weights.
    extractors: Networks that are loaded already.
    kept: The folder for what was heard.
    progress: Called with what is being done, how much of it, and of how much.

  Returns:
    How many clips they are of.

  Raises:
    InputError: As `evaluate`; if the protocol has no Fréchet distance; if the
      file has another suffix.
  """
  if path.suffix != STATISTICS:
    raise InputError(f"{path} must end in {STATISTICS}")
  way = protocols.get(protocol)
  names = {m.hearing for m in way.measures if m.kind == "frechet"}
  if not names:
    raise InputError(f"protocol {protocol} has no Fréchet distance")
  clips = SoundSet.open(reference, split=split, only=only)
  about = {
    "protocol": protocol,
    "clips": str(len(clips.items)),
    "clips_sha256": clips.sha256,
  }
  found = {}
  for name in sorted(names):
    hearing = way.hearings[name]
    extractor = (extractors or {}).get(hearing.judge)
    extractor = extractor or judges.load(hearing.judge, weights)
    heard = listening.listen(
      clips, hearing, extractor, kept=kept, progress=progress
    )
    found[name] = figures.statistics(heard)
    about[f"{name}/sha256"] = extractor.sha256
    floor = figures.floor_of(heard)
    if floor is not None:
      about[f"{name}/floor"] = repr(floor)
  frechet.write(path, found, about)
  return len(clips.items)


def _opened(
  source: str | os.PathLike | SoundSet,
  split: str | None,
  only: Sequence[str] | None,
) -> SoundSet:
  if isinstance(source, SoundSet):
    return source
  return SoundSet.open(source, split=split, only=only)


def _captions(
  chosen: Sequence[Measure],
  ours: SoundSet,
  theirs: SoundSet | _Stored,
  given: Mapping[str, str] | None,
) -> tuple[str, ...]:
  """Of the generated clips, if a measure needs them."""
  if all(measure.kind != "clap" for measure in chosen):
    return ()
  known: Mapping[str, str] = given or ours.captions
  if not known and isinstance(theirs, SoundSet):
    known = theirs.captions
  lacking = [name for name in ours.names if not known.get(name, "").strip()]
  if lacking:
    raise InputError(
      f"CLAP compares sounds with captions, and {len(lacking)} of"
      f" {len(ours.names)} clips have none: {sound_sets.some(lacking)}; name a"
      " file of them (--captions), or other measures"
    )
  return tuple(known[name] for name in ours.names)


def _stored(theirs: SoundSet | _Stored, measure: Measure) -> dict[str, Any]:
  if isinstance(theirs, SoundSet):
    return {}
  fields: dict[str, Any] = {}
  with contextlib.suppress(KeyError, ValueError):
    fields["stored_clips"] = int(theirs.about["clips"])
    floor = theirs.about[f"{measure.hearing}/floor"]
    fields["stored_floor"] = float(floor)
  return fields


def _named(
  progress: Progress | None, measure: Measure
) -> Callable[[int, int], None] | None:
  if progress is None:
    return None
  return lambda done, total: progress(f"{measure.name}: interval", done, total)


def _notes(
  way: Protocol, chosen: Sequence[Measure], found: Sequence[Figure], uncut: bool
) -> tuple[str, ...]:
  notes = list(way.notes)
  if way.cut and uncut:
    notes.append(
      "the sets do not pair, so generated clips were not cut to the length of"
      " their references"
    )
  if any(measure.kind == "infinity" for measure in chosen):
    notes.append("the interval of FAD∞ is that of its line, 1.96 errors")
  for figure in found:
    notes += [f"{figure.measure.name}: {note}" for note in figure.notes]
  return tuple(dict.fromkeys(notes))
