"""How many generated clips are heard as what was asked for.

    recordings,      as recorded and through the codec -> Classifier
    and mixes of two, as recorded and through the codec -> MixClassifier
    "rain"              -> model -> clip -> classified as rain?
    "rain and dog bark" -> model -> clip -> both among the first three?

How good the classifiers are is told by recordings that were held out, and by
mixes of two of those.  Through the codec these are the ceiling: a generated
clip comes through it, too.

A classifier judges kinds, neither beauty nor variety: a model that knows one
recording of each class by heart gets full marks.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.evaluate import classifier
from audiogen_jax.evaluate.classified import (
  TOP,
  Classified,
  ClipFeatures,
  FeatureExtractor,
  Pair,
  Progress,
  both_in_top,
  confusion_matrix,
  label_of,
)
from audiogen_jax.evaluate.classifier import Classifier, MixClassifier
from audiogen_jax.evaluate.clips import Clips
from audiogen_jax.families import TextToAudio

_MIXES = 50  # of two recordings to train on, for each class
_RATIO_DB = 5.0  # of the two in a mix, as AudioGen mixes


@dataclasses.dataclass(frozen=True)
class ClassReport:
  """How well classifiers recognise recordings and generated clips.

  Attributes:
    classes: Their names, in the order of every table.
    kind: Name of the kind of classifier that was chosen.
    validated: Its accuracy in cross-validation over the recordings trained on:
      as recorded, and through the codec.
    trained_on: Recordings.
    real: How held-out recordings were heard.
    coded: And how through the codec, the ceiling; None without a codec.
    generated: How the model's clips were heard, with each way to sample.
  """

  classes: Sequence[str]
  kind: str
  validated: tuple[float, float]
  trained_on: int
  real: Classified
  coded: Classified | None
  generated: Sequence[tuple[Any, Classified]]

  @property
  def chance(self) -> tuple[float, float]:
    """Chance of guessing one class, and both of two among the first three."""
    n = len(self.classes)
    return 1 / n, min(1.0, TOP * (TOP - 1) / (n * (n - 1)))

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
      "classes": list(self.classes),
      "confusion_columns": [*self.classes, "silence"],
      "classifier": self.kind,
      "trained_on": self.trained_on,
      "cross_validation": dict(
        zip(("real", "coded"), self.validated, strict=True)
      ),
      "chance": dict(zip(("one", "both"), self.chance, strict=True)),
      "real": self.real.plain(self.classes),
      "coded": self.coded and self.coded.plain(self.classes),
      "generated": [
        {"sampling": dataclasses.asdict(sampling)} | result.plain(self.classes)
        for sampling, result in self.generated
      ],
    }


def classes_of(train: Clips, held_out: Clips) -> list[str]:
  """The classes: the first tag of each clip, in the order of the alphabet.

  Raises:
    InputError: If a clip has no tag, there are fewer than two classes or two
      clips of one, or clips are held out of a class that is not trained on.
  """
  counts: dict[str, int] = {}
  for clip in train:
    name = label_of(clip, train.title)
    counts[name] = counts.get(name, 0) + 1
  if len(counts) < 2:
    raise InputError(
      f"{train.title} holds one class, {next(iter(counts))}; two are the least"
      " that can be told apart"
    )
  few = [name for name, count in counts.items() if count < 2]
  if few:
    raise InputError(
      f"{train.title} holds one clip of {few[0]}; two are the least"
    )
  for clip in held_out:
    name = label_of(clip, held_out.title)
    if name not in counts:
      raise InputError(
        f"{held_out.title} holds {name}, of which {train.title} has no clip"
      )
  return sorted(counts)


def evaluate(
  model: TextToAudio,
  train: Clips,
  held_out: Clips,
  samplings: Sequence[Any],
  *,
  clips: int = 20,
  pairs: int = 45,
  duration_s: Seconds = 5.0,
  prompts: Mapping[str, Sequence[str]] | None = None,
  seed: int = 0,
  batch: int = 8,
  progress: Progress | None = None,
) -> ClassReport:
  """Trains a classifier on recordings, and classifies what a model generates.

  The same arguments give the same figures.  All clips have `duration_s`: the
  first seconds of longer recordings, and shorter ones again and again.

  Args:
    model: Its `generate` is used, and its codec, if it has one.
    train: Recordings to train on, at the model's rate.
    held_out: Others, to say how good the classifier is.
    samplings: Ways to sample (`model.options`), each with the same prompts and
      seeds.
    clips: Generated for each class.
    pairs: Clips of two classes, each of another pair as long as there are any;
      none with three classes or less, where any two are among the first three.
    prompts: Of classes that are not called as one would ask for them; taken in
      turn.  Pairs are asked for by the first of either.
    seed: Clip i of all uses seed + i.
    batch: Clips generated together.
    progress: Called now and then.

  Raises:
    InputError: If the recordings do not fit, or an argument.
  """
  for name, value, least in (
    ("clips", clips, 1),
    ("pairs", pairs, 0),
    ("batch", batch, 1),
    ("duration", duration_s, classifier.LEAST_S),
  ):
    if not least <= value < float("inf"):
      raise InputError(f"{name} {value:g} must be {least:g} or more")
  names = classes_of(train, held_out)
  asked = _prompts_of(names, prompts or {})
  wanted = draw_pairs(len(names), pairs, seed)
  singles = [i for i in range(len(names)) for _ in range(clips)]
  texts = [asked[a][j % clips % len(asked[a])] for j, a in enumerate(singles)]
  texts += [f"{asked[a][0]} and {asked[b][0]}" for a, b in wanted]
  report = progress or _no_progress
  extractor = FeatureExtractor(model, duration_s)
  real, coded, labels, recordings = extractor.extract_clips(
    train, names, "recordings", report
  )
  single_classifier = Classifier(
    real.features, coded.features, labels, seed=seed
  )
  mix_classifier = None
  if wanted:
    count = min(2 * len(labels), _MIXES * len(names))
    drawn = draw_pairs(len(names), count, seed)
    mixes = extractor.extract_both(_mix(recordings, drawn, seed, report))
    mix_classifier = _train_on_mixes((real, coded), labels, mixes, drawn)
  *held, labels, recordings = extractor.extract_clips(
    held_out, names, "held out", report
  )
  mixed = [pair for pair in wanted if all(recordings[i] for i in pair)]
  mixes = extractor.extract_both(_mix(recordings, mixed, seed, report))
  real, coded = (
    Classified(
      confusion_matrix(single_classifier, one, labels),
      mixed,
      both_in_top(mix_classifier, two, mixed),
    )
    for one, two in zip(held, mixes, strict=True)
  )
  generated, seeds = [], [seed + i for i in range(len(texts))]
  for way in samplings:
    parts = generate(model, texts, way, duration_s, seeds, batch, report)
    features = ClipFeatures.join([extractor.extract(part) for part in parts])
    one, two = features.cut(len(singles))
    confusion = confusion_matrix(single_classifier, one, np.array(singles))
    both = both_in_top(mix_classifier, two, wanted)
    generated.append((way, Classified(confusion, wanted, both)))
  return ClassReport(
    classes=names,
    kind=single_classifier.name,
    validated=single_classifier.accuracy,
    trained_on=len(train),
    real=real,
    coded=coded if hasattr(model, "codec") else None,
    generated=generated,
  )


def _no_progress(what: str, done: int, total: int) -> None:
  """Progress that is reported to nobody."""


def _prompts_of(
  names: Sequence[str], prompts: Mapping[str, Sequence[str]]
) -> list[list[str]]:
  """Prompts of each class: its name, unless `prompts` has others."""
  asked = {name: [name.replace("_", " ")] for name in names}
  for name, given in prompts.items():
    if name not in asked:
      raise InputError(
        f"there is a prompt for {name}, which is not one of {', '.join(names)}"
      )
    asked[name] = list(given)
  return list(asked.values())


def draw_pairs(classes: int, count: int, seed: int) -> list[Pair]:
  """`count` random pairs of classes: each pair once before any comes again.

  None of three classes or less, of which any two are among the first three.
  """
  if classes <= TOP:
    return []
  every = list(itertools.combinations(range(classes), 2))
  rng, drawn = np.random.default_rng(seed), []
  while len(drawn) < count:
    order = rng.permutation(len(every))[: count - len(drawn)]
    drawn += [every[i] for i in sorted(order.tolist())]
  # Either may be named first.
  turned = rng.random(len(drawn)) < 0.5
  return [
    (b, a) if turn else (a, b)
    for (a, b), turn in zip(drawn, turned, strict=True)
  ]


def _mix(
  recordings: Sequence[Sequence[np.ndarray]],
  pairs: Sequence[Pair],
  seed: int,
  report: Progress,
) -> Iterator[np.ndarray]:
  """A recording of either class, one up to 5 dB louder than the other."""
  rng = np.random.default_rng(seed)
  for done, pair in enumerate(pairs):
    report("mixes", done, len(pairs))
    mixed, ratio_db = 0.0, rng.uniform(-_RATIO_DB, _RATIO_DB)
    for i, gain_db in zip(pair, (ratio_db / 2, -ratio_db / 2), strict=True):
      one = recordings[i][rng.integers(len(recordings[i]))]
      gain = 10 ** (gain_db / 20) / (np.sqrt(np.mean(np.square(one))) + 1e-9)
      mixed = mixed + 0.07 * gain * one
    yield mixed.astype(np.float32)


def _train_on_mixes(
  recordings: Sequence[ClipFeatures],
  labels: np.ndarray,
  mixes: Sequence[ClipFeatures],
  pairs: Sequence[Pair],
) -> MixClassifier:
  """A classifier of recordings and mixes, as they are and through the codec."""
  inside = np.zeros((len(labels) + len(pairs), labels.max() + 1), bool)
  inside[np.arange(len(labels)), labels] = True
  for i, pair in enumerate(pairs, len(labels)):
    inside[i, list(pair)] = True
  features = [
    part.features
    for both in zip(recordings, mixes, strict=True)
    for part in both
  ]
  return MixClassifier(
    np.concatenate(features), np.concatenate([inside, inside])
  )


def generate(
  model: TextToAudio,
  texts: Sequence[str],
  sampling: Any,
  duration_s: float,
  seeds: Sequence[int],
  batch: int,
  report: Progress,
) -> Iterator[Float[np.ndarray, "b n c"]]:
  """Generated clips, `batch` texts at a time, each with a seed of its own."""
  for first in range(0, len(texts), batch):
    part = texts[first : first + batch]

    def progress(done: int, steps: int, first=first, part=part) -> None:
      done = first * steps + len(part) * done
      report("clips", done, len(texts) * steps)

    yield np.asarray(
      model.generate(
        part,
        duration_s=duration_s,
        sampling=sampling,
        seed=seeds[first : first + batch],
        progress=progress,
      )
    )
