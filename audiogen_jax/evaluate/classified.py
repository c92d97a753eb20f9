"""What a classifier takes clips for, as they are and through a codec."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import classifier
from audiogen_jax.evaluate.classifier import Classifier, MixClassifier
from audiogen_jax.evaluate.clips import Clip, Clips
from audiogen_jax.families import TextToAudio

TOP = 3  # among which both classes of a pair have to be
_BATCH = 8  # recordings coded together
_MOST_OF_CLASS = 24  # recordings of each class, for mixes
# RMS; -80 dB of full scale, a few steps of 16 bits.
_SILENCE = 1e-4

# What is being done, how much of it is done, and how much there is.
Progress: TypeAlias = Callable[[str, int, int], None]
Pair: TypeAlias = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Classified:
  """What some clips were taken for.

  Attributes:
    confusion: Clips of each class (rows) that were taken for each (columns);
      the last column is silence.
    pairs: Two classes of each clip of two.
    both: Whether both were heard, for each of them.
  """

  confusion: Int[np.ndarray, "rows columns"]
  pairs: Sequence[Pair] = ()
  both: Sequence[bool] = ()

  @property
  def shares(self) -> list[float | None]:
    """Accuracy of each class, in [0, 1]; None for a class without clips."""
    right, clips = np.diag(self.confusion), self.confusion.sum(axis=1)
    return [
      one / many if many else None
      for one, many in zip(right.tolist(), clips.tolist(), strict=True)
    ]

  @property
  def share(self) -> float | None:
    """Accuracy over all clips of one class, in [0, 1]; None without clips."""
    clips = int(self.confusion.sum())
    return int(np.trace(self.confusion)) / clips if clips else None

  @property
  def share_both(self) -> float | None:
    """Share of the clips of two classes in which both were recognised."""
    return float(np.mean(self.both)) if len(self.both) else None

  def plain(self, classes: Sequence[str]) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
      "share": self.share,
      "shares": dict(zip(classes, self.shares, strict=True)),
      "confusion": self.confusion.tolist(),
      "share_both": self.share_both,
      "pairs": [
        {"classes": [classes[i] for i in pair], "both": bool(both)}
        for pair, both in zip(self.pairs, self.both, strict=True)
      ],
    }


class ClipFeatures(NamedTuple):
  """Features of some clips, and which of them are silent."""

  features: np.ndarray
  silent: np.ndarray

  @classmethod
  def join(cls, parts: "Sequence[ClipFeatures]") -> "ClipFeatures":
    if not parts:
      return cls(np.zeros((0, 0), np.float32), np.zeros(0, bool))
    return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

  def cut(self, at: int) -> "tuple[ClipFeatures, ClipFeatures]":
    """The first `at` clips, and the rest."""
    return (
      ClipFeatures(self.features[:at], self.silent[:at]),
      ClipFeatures(self.features[at:], self.silent[at:]),
    )


class FeatureExtractor:
  """Features of clips of one length, as they are and through the model's codec.

  Of a model without a codec both are the clips as they are.
  """

  def __init__(self, model: TextToAudio, duration_s: float) -> None:
    self._codec = getattr(model, "codec", None)
    self._rate_hz = model.sample_rate_hz
    self._samples = round(duration_s * self._rate_hz)

  def extract(self, audio: np.ndarray) -> ClipFeatures:
    """Features of clips [b n c] as they are."""
    audio = np.resize(
      np.moveaxis(audio, 1, 0), (self._samples, len(audio), audio.shape[2])
    )
    audio = np.moveaxis(audio, 0, 1)
    if not np.isfinite(audio).all():
      raise InputError(
        "the model makes NaN or infinite samples: its weights are damaged"
      )
    silent = np.sqrt(np.mean(np.square(audio), axis=(1, 2))) < _SILENCE
    return ClipFeatures(classifier.features(audio, self._rate_hz), silent)

  def extract_both(
    self, sounds: Iterable[np.ndarray]
  ) -> tuple[ClipFeatures, ClipFeatures]:
    """Features of clips [n c] as they are, and through the codec."""
    real, coded = [], []
    sounds = iter(sounds)
    while some := list(itertools.islice(sounds, _BATCH)):
      audio = np.stack(some)
      real.append(self.extract(audio))
      if self._codec is not None:
        audio = self._codec.decode(self._codec.encode(audio))
      coded.append(self.extract(audio))
    return ClipFeatures.join(real), ClipFeatures.join(coded)

  def extract_clips(
    self, clips: Clips, names: Sequence[str], what: str, report: Progress
  ) -> tuple[ClipFeatures, ClipFeatures, np.ndarray, list[list[np.ndarray]]]:
    """Features of recordings (both ways), classes, some of each class."""
    labels: list[int] = []
    recordings: list[list[np.ndarray]] = [[] for _ in names]

    def sounds() -> Iterator[np.ndarray]:
      for clip in clips:
        report(what, len(labels), len(clips))
        n, c = self._samples, clip.audio.shape[1]
        audio = np.resize(clip.audio, (n, c))
        labels.append(names.index(label_of(clip, clips.title)))
        if len(recordings[labels[-1]]) < _MOST_OF_CLASS:
          recordings[labels[-1]].append(audio)
        yield audio

    real, coded = self.extract_both(sounds())
    return real, coded, np.array(labels), recordings


def label_of(clip: Clip, title: str) -> str:
  """The class of a clip: the first of its tags.

  Raises:
    InputError: If the clip has no tag; the message names it and `title`.
  """
  if not clip.tags:
    raise InputError(
      f"clip {clip.name} of {title} has no tag: the first tag of a clip is its"
      " class"
    )
  return clip.tags[0]


def confusion_matrix(
  classifier: Classifier, clips: ClipFeatures, labels: Int[np.ndarray, " b"]
) -> Int[np.ndarray, "classes columns"]:
  """How many clips of each class (rows) were taken for which (columns).

  Args:
    classifier: A trained one.
    clips: Features of `b` clips.
    labels: Their true classes.

  Returns:
    Counts; a last column, beside those of the classes, is for silent clips.
  """
  n = classifier.classes
  confusion = np.zeros((n, n + 1), np.int64)
  first = classifier.rank(clips.features)[:, 0]
  np.add.at(confusion, (labels, np.where(clips.silent, n, first)), 1)
  return confusion


def both_in_top(
  classifier: MixClassifier | None, clips: ClipFeatures, pairs: Sequence[Pair]
) -> list[bool]:
  """Whether both classes of each clip are among its first `TOP` predictions."""
  if not len(pairs):
    return []
  top = classifier.rank(clips.features)[:, :TOP].tolist()
  return [
    not silent and set(pair) <= set(row)
    for pair, row, silent in zip(pairs, top, clips.silent.tolist(), strict=True)
  ]
