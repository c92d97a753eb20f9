"""Captions for sounds that have none: experts propose, CLAP chooses.

Make-An-Audio's expert distillation (Huang et al., 2023, "Prompt-Enhanced"):

    dataset --hear--> CLAP <--read-- sentences of experts (`experts`)
                        └--> the nearest, its score and origin --> dataset

Of the bank only the nearest sentence is a candidate: by the same CLAP it is the
one of the highest score.  Each process takes every P-th shard and every P-th
piece of the bank, on its own devices; they meet in the folder.  What was chosen
is written down batch by batch, so a kill costs one batch a process.
"""

import collections
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import tensorflow_datasets as tfds

from audiogen_jax.audio import drawing, io
from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import experts, folders, reading, shards, spec
from audiogen_jax.data.experts import Bank, Listener, Proposals, Reader
from audiogen_jax.data.shards import About, LeftOut, Shard
from audiogen_jax.data.spec import SoundSpec

REPORT, PICTURE = "enhanced.json", "enhanced.png"  # in the folder
ORIGIN, SCORE = "caption_origin", "caption_score"  # of each example

# By origin, the best sentence and its score; None where none is sought.
Candidates: TypeAlias = Mapping[str, Sequence[Any]] | None


@dataclasses.dataclass(frozen=True)
class EnhanceConfig:
  """Which captions are sought, and which are good enough.

  Attributes:
    every: Whether for all sounds, their own captions being candidates; else for
      those that have none, or only their tags in a row.
    min_score: Cosine that the best caption must reach; a sound without such a
      caption is left out.
    batch: Sounds heard together.
  """

  every: bool = False
  min_score: float = -1.0
  batch: int = 16

  def __post_init__(self) -> None:
    if not -1 <= self.min_score <= 1:
      raise InputError(
        f"min_score {self.min_score} must lie in [-1, 1]: it is a cosine"
      )
    if self.batch < 1:
      raise InputError(f"batch {self.batch} must be 1 or more")


@dataclasses.dataclass(frozen=True)
class EnhanceReport:
  """What was found.

  Attributes:
    examples: Sounds written, by split.
    chosen: Captions by origin; "kept" are those that were not looked for.
    scores: Of the best candidate of each origin, of each sound.
    left_out: Sounds without a caption, and why.
    bank: Sentences of the bank.
    listener: The CLAP.
  """

  examples: Mapping[str, int]
  chosen: Mapping[str, int]
  scores: Mapping[str, Sequence[float]]
  left_out: Sequence[LeftOut]
  bank: int
  listener: str


@dataclasses.dataclass(frozen=True)
class _Clip:
  """Clip `number` of a split; `made` tells by what its caption is chosen."""

  number: int
  made: str


def enhance(
  dataset: str | os.PathLike,
  folder: str | os.PathLike,
  listener: Listener,
  proposals: Proposals,
  *,
  config: EnhanceConfig | None = None,
  progress: Callable[[str, int, int], None] | None = None,
) -> EnhanceReport:
  """Writes a dataset with captions, or goes on with doing so.

  Every process must call it; all get the report.

  Args:
    dataset: Of sounds.
    folder: For the new one; all processes must see it.
    listener: The CLAP.
    proposals: Of the experts.
    config: What is sought.
    progress: Called with what this process does, how much of it, and its total.

  Raises:
    InputError: If the dataset is not one of sounds, no sound gets a caption, or
      the folder cannot be written or holds something else.
  """
  config, folder = config or EnhanceConfig(), Path(folder)
  report = progress or (lambda *_: None)
  builder = opened(dataset)
  about = _about(builder)
  items = _items(builder, listener, proposals, config)
  index, count = jax.process_index(), jax.process_count()
  with shards.Build.open(folder, about, items, leads=index == 0) as build:
    state = folder / shards.BUILDING
    bank = _bank(listener, proposals.bank, state, (index, count), report)
    work = _Work(state, listener, bank, proposals, config, about.settings)
    todo = {shard.file for shard in build.todo}
    mine = [s for s in build.shards[index::count] if s.file in todo]
    total, done = sum(shard.last - shard.first for shard in mine), 0
    for shard in mine:
      source = reading.Examples(builder, shard.split)
      before = done - shard.first
      examples = work.examples(
        source, shard, lambda at, n=before: report("clips", n + at, total)
      )
      shards.write(folder, shard, about.features, examples)
      done += shard.last - shard.first
    build.wait()
    # Who finishes takes away what the others wait for.
    processes.gathered(index)
    told = processes.agreed(lambda: _finish(build, folder, work))
  left_out = [LeftOut(*row) for row in told.pop("left_out")]
  return EnhanceReport(**told, left_out=left_out)


def opened(dataset: str | os.PathLike) -> tfds.core.DatasetBuilder:
  """A dataset of sounds; raises InputError for one of codes."""
  builder = reading.read(dataset)
  kind = spec.kind_of(builder.info.metadata)
  if kind != "sounds":
    raise InputError(
      f"{dataset} holds {kind}, which nobody hears: name the dataset of sounds"
      " that they were made of"
    )
  return builder


def ids(builder: tfds.core.DatasetBuilder) -> Iterator[str]:
  """The ids of all clips."""
  for split, about in builder.info.splits.items():
    if about.num_examples:
      source = reading.Examples(builder, split)
      for number in range(len(source)):
        yield source[number]["id"].decode()


def _about(builder: tfds.core.DatasetBuilder) -> About:
  settings = dict(builder.info.metadata)
  known = {field.name for field in dataclasses.fields(SoundSpec)}
  spec = SoundSpec(**{name: settings[name] for name in known})
  more = {ORIGIN: tfds.features.Text(), SCORE: np.float32}
  return About(
    name=builder.info.name,
    features=tfds.features.FeaturesDict(dict(spec.features) | more),
    description=f"With captions of experts: {builder.info.description}",
    settings=settings,
    homepage=builder.info.homepage,
    citation=builder.info.citation,
    licence=reading.licence(builder),
  )


def _items(
  builder: tfds.core.DatasetBuilder,
  listener: Listener,
  proposals: Proposals,
  config: EnhanceConfig,
) -> dict[str, list[_Clip]]:
  what = [
    reading.digest(builder),
    listener.identity,
    dataclasses.asdict(proposals),
    [config.every, config.min_score, config.batch],
  ]
  made = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
  processes.check_same({"dataset, experts and options": made[:12]})
  return {
    split: [_Clip(number, made) for number in range(about.num_examples)]
    for split, about in builder.info.splits.items()
  }


def _bank(
  listener: Listener,
  sentences: Sequence[str],
  state: Path,
  process: tuple[int, int],
  report: Callable[[str, int, int], None],
) -> Bank | None:
  """Reads the bank: each process its pieces, which all find in the folder."""
  if not sentences:
    return None
  pieces = experts.pieces(sentences)
  paths = [state / f"bank-{number:05d}.npy" for number in range(len(pieces))]
  index, count = process
  for number in range(index, len(pieces), count):
    report("sentences of the bank", number, len(pieces))
    if not paths[number].exists():
      found = experts.directions(listener.read(pieces[number]))
      with folders.writing(state), io.whole(paths[number]) as part:
        with part.open("wb") as file:
          np.save(file, found)
  processes.gathered(index)
  return Bank(sentences, np.concatenate([np.load(path) for path in paths]))


class _Work:
  """Chooses captions, batch by batch, and remembers them in the folder."""

  def __init__(
    self,
    state: Path,
    listener: Listener,
    bank: Bank | None,
    proposals: Proposals,
    config: EnhanceConfig,
    settings: Mapping[str, Any],
  ) -> None:
    self.listener, self.bank, self.config = listener, bank, config
    self._state, self._rate_hz = state, int(settings["rate_hz"])
    self._proposals, self._reader = proposals, Reader(listener)

  def examples(
    self,
    source: reading.Examples,
    shard: Shard,
    reached: Callable[[int], None],
  ) -> Iterator[dict[str, Any] | LeftOut]:
    """Examples with their captions, or why a clip has none.

    Args:
      source: The split.
      shard: Which of its clips.
      reached: Called with the number of the next clip.
    """
    for start, path in self.batches(shard):
      reached(start)
      stop = min(start + self.config.batch, shard.last)
      clips = [source[number] for number in range(start, stop)]
      if not path.exists():
        found = self._candidates(clips)
        with folders.writing(self._state), io.whole(path) as part:
          part.write_text(json.dumps(found, ensure_ascii=False))
      found = json.loads(path.read_text())
      for clip, candidates in zip(clips, found, strict=True):
        yield _written(clip, candidates, self.config)

  def batches(self, shard: Shard) -> Iterator[tuple[int, Path]]:
    """First clip of each batch of a shard, and where its choice is kept."""
    for start in range(shard.first, shard.last, self.config.batch):
      yield start, self._state / f"{shard.file}.{start:08d}.candidates"

  def _candidates(self, clips: Sequence[Mapping[str, Any]]) -> list[Candidates]:
    """The best of each origin, for each clip."""
    every = self.config.every
    found: list[Candidates] = [
      {} if every or experts.lacks_caption(clip) else None for clip in clips
    ]
    sought = [
      i
      for i, clip in enumerate(clips)
      if found[i] is not None and clip["audio"].any()
    ]
    if not sought:
      return found
    sounds = [clips[i]["audio"] * np.float32(2**-15) for i in sought]
    heard = experts.directions(self.listener.hear(sounds, self._rate_hz))
    texts = [self._proposals.of(clips[i], own=every) for i in sought]
    flat = [[text for text, _ in some] for some in texts]
    cosines = self._reader.cosines(heard, flat)
    near = self.bank.nearest(heard) if self.bank else [None] * len(sought)
    for i, nearest, some, scores in zip(
      sought, near, texts, cosines, strict=True
    ):
      best: dict[str, tuple[str, float]] = {"bank": nearest} if nearest else {}
      for (text, origin), score in zip(some, scores, strict=True):
        if origin not in best or score > best[origin][1]:
          best[origin] = text, score
      found[i] = best
    return found


def _written(
  clip: Mapping[str, Any], candidates: Candidates, config: EnhanceConfig
) -> dict[str, Any] | LeftOut:
  """An example with the best of its candidates, or why there is none."""
  name, caption = clip["id"].decode(), clip["caption"].decode()
  origin, score = "kept", float("nan")
  if candidates is not None:
    if not clip["audio"].any():
      return LeftOut(name, "is silent: every sample is 0")
    if not candidates:
      return LeftOut(name, "no expert has a caption for it: no bank, no tags")
    origin = _best(candidates)
    caption, score = candidates[origin]
    if score < config.min_score:
      return LeftOut(
        name,
        f"its best caption {caption[:60]!r} has the score {score:.3f}, less"
        f" than {config.min_score:g}",
      )
  return {
    "id": name,
    "audio": clip["audio"],
    "caption": caption,
    "tags": [tag.decode() for tag in clip["tags"]],
    "source": clip["source"].decode(),
    "licence": clip["licence"].decode(),
    ORIGIN: origin,
    SCORE: np.float32(score),
  }


def _best(candidates: Mapping[str, Sequence[Any]]) -> str:
  """The origin of the highest score."""
  return max(candidates, key=lambda origin: candidates[origin][1])


def _finish(build: shards.Build, folder: Path, work: _Work) -> dict[str, Any]:
  """Writes the report, then what makes the folder a dataset."""
  scores: dict[str, list[float]] = {}
  chosen: collections.Counter = collections.Counter()
  for shard in build.shards:
    found: list[Candidates] = []
    for _, path in work.batches(shard):
      found += json.loads(path.read_text())
    for candidates in found:
      for origin, (_, score) in (candidates or {}).items():
        scores.setdefault(origin, []).append(score)
      if candidates is None:
        chosen["kept"] += 1
      elif candidates:
        best = _best(candidates)
        chosen[best] += candidates[best][1] >= work.config.min_score
  told = {
    "chosen": dict(chosen),
    "scores": scores,
    "bank": len(work.bank.sentences) if work.bank else 0,
    "listener": work.listener.identity,
  }
  with folders.writing(folder):
    if scores:
      across = f"score: cosine of sound and caption, {work.listener.identity}"
      drawing.histograms(folder / PICTURE, scores, across=across)
    with io.whole(folder / REPORT) as part:
      text = json.dumps(told, indent=1, ensure_ascii=False)
      part.write_text(text + "\n")
  report = build.finish()
  rows = [[row.what, row.reason] for row in report.left_out]
  return told | {"examples": dict(report.examples), "left_out": rows}
