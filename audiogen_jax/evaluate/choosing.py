"""The best of several sounds of a prompt, as a scorer hears them.

    text, seed -> N seeds -> N sounds -> `Scorer` -> the one that scores best

What scores can be changed: a `Scorer` is all that `BestOf` asks for.  The one
here is the classifier of `audiogen evaluate classes`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy
from jaxtyping import Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.evaluate import classes, classifier
from audiogen_jax.evaluate.classified import FeatureExtractor, Progress
from audiogen_jax.evaluate.classifier import Classifier
from audiogen_jax.evaluate.clips import Clips
from audiogen_jax.families import TextToAudio


@runtime_checkable
class Scorer(Protocol):
  """Says how well sounds are what their texts ask for."""

  def check(self, texts: Sequence[str | None]) -> None:
    """Raises InputError for texts that it cannot judge by."""

  def score(
    self,
    sounds: Float[np.ndarray, "b n c"],
    rate_hz: int,
    texts: Sequence[str | None],
  ) -> Float[np.ndarray, " b"]:
    """More for better; to be compared between sounds of one text alone."""


@dataclasses.dataclass(frozen=True)
class BestOf:
  """Makes several sounds of each prompt, and keeps the best.

  Attributes:
    call: What makes sounds, such as `model.generate`.
    scorer: Says which is best.
    count: Sounds of each prompt.
    rate_hz: Of the sounds.
  """

  call: Callable[..., np.ndarray]
  scorer: Scorer
  count: int
  rate_hz: int

  def __call__(
    self,
    texts: Sequence[str | None],
    *,
    seed: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    **asked: Any,
  ) -> Float[np.ndarray, "b n c"]:
    """The best sound of each text; of equals the first.

    A row's choice depends on its text and seed alone.  As many sounds are in
    memory as there are texts, twice.

    Args:
      texts: Sentences.
      seed: One for each; the first sound of a text has its very seed.
      progress: Called with (steps done, steps in all), of all sounds.
      **asked: Whatever else `call` takes.
    """
    self.scorer.check(texts)
    best = top = None
    for turn in range(self.count):

      def report(done: int, total: int, turn: int = turn) -> None:
        if progress is not None:
          progress(turn * total + done, self.count * total)

      seeds = [self._seed(one, turn) for one in seed]
      made = self.call(texts=texts, seed=seeds, progress=report, **asked)
      score = self.scorer.score(made, self.rate_hz, texts)
      if best is None:
        best, top = np.array(made), score
        continue
      better = score > top
      best[better] = made[better]
      top = np.where(better, score, top)
    return best

  def _seed(self, seed: int, turn: int) -> int:
    """Seeds of a prompt lie far apart: those of its neighbours are others."""
    return (seed + turn * (2**32 // self.count)) % 2**32


class ClassScorer:
  """Scores by the classes that a text names: how surely they are heard.

  A class is named where each word of its name begins a word of the text: `dog`
  by "two dogs bark", `sea_waves` by "waves on the sea".
  """

  def __init__(
    self,
    model: TextToAudio,
    train: Clips,
    duration_s: Seconds,
    *,
    progress: Progress | None = None,
  ) -> None:
    """Trains a classifier.

    Args:
      model: Whose sounds are judged.
      train: Recordings at the model's rate; the first tag of each is its class.
      duration_s: Of the sounds.
      progress: Called now and then.

    Raises:
      InputError: If the recordings or the duration do not do.
    """
    if not duration_s >= classifier.LEAST_S:
      raise InputError(
        f"{duration_s:g} s are too short to be judged: ask for"
        f" {classifier.LEAST_S:g} s or more"
      )
    self._names = classes.classes_of(train, train)
    self._rate_hz = model.sample_rate_hz
    self._extractor = FeatureExtractor(model, duration_s)
    real, coded, labels, _ = self._extractor.extract_clips(
      train, self._names, "recordings", progress or (lambda *_: None)
    )
    self._classifier = Classifier(real.features, coded.features, labels)

  def check(self, texts: Sequence[str | None]) -> None:
    """Raises InputError for a text that names no class."""
    for text in texts:
      self._named(text)

  def score(
    self,
    sounds: Float[np.ndarray, "b n c"],
    rate_hz: int,
    texts: Sequence[str | None],
  ) -> Float[np.ndarray, " b"]:
    """The mean of log-probabilities of the classes that are named.

    They are those of a softmax over what the classifier decides by, and no
    calibrated ones.  Silence has -inf.

    Raises:
      InputError: For sounds at another rate than the model's, or as `check`.
    """
    if rate_hz != self._rate_hz:
      raise InputError(
        f"sounds at {rate_hz} Hz cannot be judged by recordings at"
        f" {self._rate_hz} Hz; resample them"
      )
    found = self._extractor.extract(sounds)
    scores = self._classifier.scores(found.features)
    log_p = scipy.special.log_softmax(scores, axis=1)
    named = [row[self._named(t)] for row, t in zip(log_p, texts, strict=True)]
    mean = np.array([row.mean() for row in named])
    return np.where(found.silent, -np.inf, mean)

  def _named(self, text: str | None) -> list[int]:
    words = (text or "").casefold().split()
    found = [
      i
      for i, name in enumerate(self._names)
      if all(
        any(word.startswith(part) for word in words)
        for part in name.casefold().replace("_", " ").split()
      )
    ]
    if not found:
      raise InputError(
        f"the prompt {(text or '')[:60]!r} names none of the classes that the"
        f" scorer knows: {', '.join(self._names)[:300]}"
      )
    return found
