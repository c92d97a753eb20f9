"""What listeners answered: means by system, of those who listened."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import bootstrap
from audiogen_jax.evaluate.rating_page import ANCHOR, REFERENCE

# BS.1534-3, §6.1: who is wrong in more trials than that is left out.
MOST_WRONG = 0.15
_LEAST, _MOST = 1, 100


@dataclasses.dataclass(frozen=True)
class Key:
  """Which sound is whose; written by `rating_page.make`.

  Attributes:
    id: Of the test.
    questions: What was asked.
    systems: Those compared, in order.
    reference: Whether recordings were among the sounds.
    sounds: (clip, system) by the name that listeners' answers have.
  """

  id: str
  questions: tuple[str, ...]
  systems: tuple[str, ...]
  reference: bool
  sounds: Mapping[str, tuple[str, str]]

  @classmethod
  def read(cls, path: Path) -> "Key":
    """Raises InputError if the file is missing or no key."""
    told = _json(path)
    try:
      return cls(
        str(told["id"]),
        tuple(told["questions"]),
        tuple(told["systems"]),
        bool(told["reference"]),
        {
          name: (str(one["clip"]), str(one["system"]))
          for name, one in told["sounds"].items()
        },
      )
    except (KeyError, TypeError, AttributeError):
      raise InputError(
        f"{path} is no key of a listening test; it lies beside the page, as"
        " PAGE.key.json"
      ) from None


@dataclasses.dataclass(frozen=True)
class Mean:
  """What one system got.

  Attributes:
    system: Its name, or `reference`, or `anchor`.
    question: What was asked.
    mean: Of all ratings, 1 to 100.
    interval: 95 %, by a bootstrap over listeners and clips.
    ratings: How many there are.
  """

  system: str
  question: str
  mean: float
  interval: tuple[float, float]
  ratings: int


@dataclasses.dataclass(frozen=True)
class RatingReport:
  """Means of a listening test.

  Attributes:
    means: By system and question.
    listeners: Whose ratings count.
    dropped: By listener who failed the anchors: the share of trials that were
      wrong.
    clips: How many were rated.
  """

  means: tuple[Mean, ...]
  listeners: tuple[str, ...]
  dropped: Mapping[str, float]
  clips: int

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    return dataclasses.asdict(self)


def report(answers: Sequence[Path], key: Key) -> RatingReport:
  """Reads the answers of several listeners.

  A trial is wrong where the low anchor got more than the hidden reference in
  any question, or, in a test without a reference, more than the systems did on
  average.  Listeners with more than 15 % of wrong trials are dropped.

  Args:
    answers: Files that the page had listeners download.
    key: Of that page.

  Raises:
    InputError: If a file is none of this test, two are of one listener, or
      nobody is left.
  """
  rated: dict[str, np.ndarray] = {}
  clips = sorted({clip for clip, _ in key.sounds.values()})
  systems = [*key.systems, *[REFERENCE] * key.reference, ANCHOR]
  for path in answers:
    listener, table = _read(path, key, clips, systems)
    if listener in rated:
      raise InputError(
        f"{path} is of {listener}, and so is another file; leave one away"
      )
    rated[listener] = table
  wrong = {name: _wrong(table, key) for name, table in rated.items()}
  dropped = {name: x for name, x in wrong.items() if not x <= MOST_WRONG}
  kept = [name for name in rated if name not in dropped]
  if not kept:
    raise InputError(
      f"none of {len(rated)} listeners is left: each rated the low anchor best"
      f" in more than {MOST_WRONG:.0%} of the trials"
    )
  cube = np.stack([rated[name] for name in kept])  # listener clip system q
  means = tuple(
    _mean(cube[:, :, i, j], system, question)
    for j, question in enumerate(key.questions)
    for i, system in enumerate(systems)
  )
  return RatingReport(means, tuple(kept), dropped, len(clips))


def _read(
  path: Path, key: Key, clips: list[str], systems: list[str]
) -> tuple[str, np.ndarray]:
  """The listener, and ratings by clip, system and question; NaN for none."""
  told = _json(path)
  if not isinstance(told, dict) or told.get("test") != key.id:
    raise InputError(
      f"{path} holds no answers to this test; give the key of the page that"
      " they are of"
    )
  table = np.full((len(clips), len(systems), len(key.questions)), np.nan)
  try:
    listener, found = str(told["listener"]), list(told["answers"])
    for answer in found:
      clip, system = key.sounds[answer["sound"]]
      row = [float(answer[question]) for question in key.questions]
      if not all(_LEAST <= value <= _MOST for value in row):
        raise ValueError
      table[clips.index(clip), systems.index(system)] = row
  except (KeyError, TypeError, ValueError):
    raise InputError(
      f"{path} is damaged: every answer has a sound of this test and"
      f" {_LEAST} to {_MOST} for {', '.join(key.questions)}"
    ) from None
  if not found:
    raise InputError(f"{path} holds no answers; ask for the finished file")
  return listener, table


def _wrong(table: np.ndarray, key: Key) -> float:
  """The share of a listener's trials in which the anchor was not the worse."""
  anchor, others = table[:, -1], table[:, : len(key.systems)]
  better = table[:, -2] if key.reference else others.mean(axis=1)
  done = ~np.isnan(anchor).any(axis=1)
  if not done.any():
    return 1.0
  return float((anchor > better)[done].any(axis=1).mean())


def _mean(ratings: np.ndarray, system: str, question: str) -> Mean:
  value = float(np.nanmean(ratings))

  def again(draw: np.random.Generator) -> float:
    rows, columns = (draw.integers(0, n, n) for n in ratings.shape)
    drawn = ratings[rows][:, columns]
    return value if np.isnan(drawn).all() else float(np.nanmean(drawn))

  interval = bootstrap.interval(value, again, replicates=1000)
  return Mean(
    system, question, value, interval, int(np.isfinite(ratings).sum())
  )


def _json(path: Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}") from None
  except (ValueError, RecursionError):
    raise InputError(f"{path} is no JSON file") from None
