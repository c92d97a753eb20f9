"""Whether a model makes things happen in the order in which it is told them.

    "rain, then dog bark" -> model -> clip -> windows -> margin of rain over dog
                                                         falls: rain came first

The AudioGen paper (§6) names temporal order as what its text-to-sound model
lacks.  Every pair of classes is asked for in both orders with one seed.  A
model that always makes the same class first, or both at once, is right in half
of all prompts, as chance is; so the share of pairs in which both orders are
right is told, too, of which a quarter is chance.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.evaluate import classes, classified
from audiogen_jax.evaluate.classified import (
  ClipFeatures,
  FeatureExtractor,
  Pair,
  Progress,
)
from audiogen_jax.evaluate.classifier import Classifier
from audiogen_jax.evaluate.clips import Clips
from audiogen_jax.families import TextToAudio

PROMPT = "{first}, then {second}"
WINDOW_S, STEP_S = 1.0, 0.25
LEAST_S = 2 * WINDOW_S  # of a clip
_WINDOWS = 4  # of each recording, to train on


@dataclasses.dataclass(frozen=True)
class Order:
  """Which orders were right, of pairs asked for in both.

  Attributes:
    pairs: The two classes of each pair.
    forward: Of each pair, whether "first, then second" came in that order.
    reversed: Whether "second, then first" did.
  """

  pairs: Sequence[Pair]
  forward: Sequence[bool]
  reversed: Sequence[bool]

  @property
  def right(self) -> float:
    """Share of all prompts; chance is a half."""
    return float(np.mean([*self.forward, *self.reversed]))

  @property
  def both(self) -> float:
    """Share of pairs that are right in both orders; chance is a quarter."""
    return float(np.mean(np.logical_and(self.forward, self.reversed)))

  def plain(self, names: Sequence[str]) -> dict[str, Any]:
    """Plain values, for JSON."""
    rows = zip(self.pairs, self.forward, self.reversed, strict=True)
    return {
      "right": self.right,
      "forward": float(np.mean(self.forward)),
      "reversed": float(np.mean(self.reversed)),
      "both": self.both,
      "pairs": [
        {"classes": [names[i] for i in pair], "forward": one, "reversed": other}
        for pair, one, other in rows
      ],
    }


@dataclasses.dataclass(frozen=True)
class OrderReport:
  """Orders of recordings and of a model's clips.

  Attributes:
    classes: Their names.
    accuracy: Of the classifier of windows, cross-validated: of recordings as
      they are, and through the codec.
    real: Of held-out recordings, one after the other: the ceiling.
    generated: With each way to sample.
  """

  classes: Sequence[str]
  accuracy: tuple[float, float]
  real: Order
  generated: Sequence[tuple[Any, Order]]

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
      "classes": list(self.classes),
      "windows_cross_validation": list(self.accuracy),
      "chance": {"right": 0.5, "both": 0.25},
      "real": self.real.plain(self.classes),
      "generated": [
        {"sampling": dataclasses.asdict(way)} | order.plain(self.classes)
        for way, order in self.generated
      ],
    }


def evaluate(
  model: TextToAudio,
  train: Clips,
  held_out: Clips,
  samplings: Sequence[Any],
  *,
  pairs: int = 45,
  duration_s: Seconds = 5.0,
  prompt: str = PROMPT,
  seed: int = 0,
  batch: int = 8,
  progress: Progress | None = None,
) -> OrderReport:
  """Asks for pairs in both orders, and hears which class came first.

  Args:
    model: Its `generate` is used, and its codec, if it has one.
    train: Recordings to train a classifier of windows on, at the model's rate.
    held_out: Others, whose halves joined are what is heard of real order.
    samplings: Ways to sample (`model.options`).
    pairs: Of classes, each asked for twice.
    duration_s: Of a clip.
    prompt: With `{first}` and `{second}` for the names of the classes.
    seed: Pair i uses seed + i in both orders.
    batch: Clips generated together.
    progress: Called now and then.

  Raises:
    InputError: If the recordings do not fit, or an argument.
  """
  for name, value, least in (
    ("pairs", pairs, 1),
    ("batch", batch, 1),
    ("duration", duration_s, LEAST_S),
  ):
    if not least <= value < float("inf"):
      raise InputError(f"{name} {value:g} must be {least:g} or more")
  try:
    prompt.format(first="", second="")
    complete = "{first}" in prompt and "{second}" in prompt
  except (KeyError, IndexError, ValueError):
    complete = False
  if not complete:
    raise InputError(
      f"prompt {prompt[:60]!r} must hold {{first}} and {{second}}, and no other"
      " braces"
    )
  report = progress or (lambda *_: None)
  names = classes.classes_of(train, held_out)
  wanted = classes.draw_pairs(len(names), pairs, seed)
  if not wanted:
    raise InputError(
      f"{len(names)} classes are too few for pairs; take"
      f" {classified.TOP + 1} or more"
    )
  extractor = FeatureExtractor(model, WINDOW_S)
  rate_hz = model.sample_rate_hz
  judge = _train(extractor, train, names, rate_hz, seed, report)
  real = _real(extractor, judge, held_out, names, wanted, duration_s, rate_hz)
  texts = [
    prompt.format(first=names[a], second=names[b]).replace("_", " ")
    for pair in wanted
    for a, b in (pair, pair[::-1])
  ]
  seeds = [seed + i for i in range(len(wanted)) for _ in range(2)]
  asked = [order for pair in wanted for order in (pair, pair[::-1])]
  generated = []
  for way in samplings:
    right = []
    made = classes.generate(model, texts, way, duration_s, seeds, batch, report)
    for clip, order in zip(_each(made), asked, strict=True):
      right.append(_in_order(extractor, judge, clip, order, rate_hz))
    generated.append((way, Order(wanted, right[::2], right[1::2])))
  return OrderReport(names, judge.accuracy, real, generated)


def _each(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
  for batch in batches:
    yield from batch


def _windows(
  sound: Float[np.ndarray, "n c"], rate_hz: int, step_s: Seconds
) -> tuple[Float[np.ndarray, "w m c"], Float[np.ndarray, " w"]]:
  """Windows of a sound, and where each begins, in seconds."""
  size, step = round(WINDOW_S * rate_hz), round(step_s * rate_hz)
  starts = np.arange(0, max(1, len(sound) - size + 1), step)
  sound = np.pad(sound, ((0, max(0, size - len(sound))), (0, 0)))
  return np.stack([sound[at : at + size] for at in starts]), starts / rate_hz


def _train(
  extractor: FeatureExtractor,
  train: Clips,
  names: Sequence[str],
  rate_hz: int,
  seed: int,
  report: Progress,
) -> Classifier:
  """A classifier of windows: the loudest of each recording."""
  real, coded, labels = [], [], []
  for done, clip in enumerate(train):
    report("recordings", done, len(train))
    windows, _ = _windows(clip.audio, rate_hz, WINDOW_S)
    loud = np.argsort(-np.square(windows).mean(axis=(1, 2)), kind="stable")
    one, other = extractor.extract_both(windows[np.sort(loud[:_WINDOWS])])
    heard = ~one.silent
    real.append(one.features[heard])
    coded.append(other.features[heard])
    label = names.index(classified.label_of(clip, train.title))
    labels += [label] * int(heard.sum())
  return Classifier(
    np.concatenate(real), np.concatenate(coded), np.array(labels), seed=seed
  )


def _real(
  extractor: FeatureExtractor,
  judge: Classifier,
  held_out: Clips,
  names: Sequence[str],
  pairs: Sequence[Pair],
  duration_s: Seconds,
  rate_hz: int,
) -> Order:
  """Of recordings: half a clip of one class, and half of another."""
  half = round(duration_s * rate_hz / 2)
  by_class: dict[int, list[np.ndarray]] = {}
  for clip in held_out:
    label = names.index(classified.label_of(clip, held_out.title))
    shape = half, clip.audio.shape[1]
    by_class.setdefault(label, []).append(np.resize(clip.audio, shape))
  known = [pair for pair in pairs if all(i in by_class for i in pair)]
  if not known:
    raise InputError(
      f"{held_out.title} holds out no two classes of the {len(pairs)} pairs;"
      " take more --pairs, or another split"
    )
  right: list[list[bool]] = [[], []]
  for number, pair in enumerate(known):
    for order, found in zip((pair, pair[::-1]), right, strict=True):
      some = [by_class[i][number % len(by_class[i])] for i in order]
      sound = np.concatenate(some)
      found.append(_in_order(extractor, judge, sound, order, rate_hz))
  return Order(known, *right)


def _in_order(
  extractor: FeatureExtractor,
  judge: Classifier,
  sound: Float[np.ndarray, "n c"],
  order: Pair,
  rate_hz: int,
) -> bool:
  """Whether the first class of a pair is heard before the second.

  It is if the margin by which windows are rather of the first class falls with
  time (has a negative covariance with it).  Silent windows have no class.
  """
  windows, starts = _windows(sound, rate_hz, STEP_S)
  found: ClipFeatures = extractor.extract(windows)
  heard = ~found.silent
  if not heard.any():
    return False
  scores = judge.scores(found.features[heard])
  return falls(scores[:, order[0]] - scores[:, order[1]], starts[heard])


def falls(
  margin: Float[np.ndarray, " w"], times: Float[np.ndarray, " w"]
) -> bool:
  """Whether a margin falls with time."""
  return bool(np.sum((margin - margin.mean()) * (times - times.mean())) < 0)
