"""Make-An-Audio's dynamic reprogramming: events joined to a sound, and told.

Huang et al. (2023), "Prompt-Enhanced": at load time none, one or two events
from a bank of single-label clips are put before, behind or over a sound, and
the caption says so in a template whose words match the order.

    original    |~~~~~~~~~~~~~~~~|              "a car passes"
    events      |eeee|  |fff|                    dog bark, rain
    "e x f"     |eeee|~~~~~~~~|fff|              "after noticing the clear sound
                                                 of dog bark and before …"

No code of it was published.  Of the paper the four sets of words and two
templates are known (marked below); the other templates are ours.  It only joins
in time; laying over ("x+e") is ours, too.  So that nothing falls off the end of
a row, an event is shortened to a share of it, and of the original its loudest
stretch stays that fits beside the events.

Like a mix, a row is a function of the seed and its number alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import mixing

# What is heard in time, left to right, and the words for it.  x is the
# original, e and f are events; what stands on both sides of a + sounds at once.
# {e} becomes "q a n of LABEL", {hearing e} "v q a n of LABEL".
TEMPLATES: tuple[tuple[str, str], ...] = (
  ("x e", "before {hearing e}, {x}"),  # the paper's
  ("x e", "{x} before {hearing e}"),
  ("x e", "{x}, followed by {e}"),
  ("x e", "first {x}, then {e}"),
  ("e x", "{x} after {hearing e}"),  # the paper's
  ("e x", "after {hearing e}, {x}"),
  ("e x", "{e}, followed by {x}"),
  ("e x", "first {e}, then {x}"),
  ("x+e", "{x} while {hearing e}"),
  ("x+e", "{x} with {e} in the background"),
  ("x+e", "{x}, and at the same time {e}"),
  ("x e f", "{x}, followed by {e}, followed by {f}"),
  ("x e f", "first {x}, then {e}, and last {f}"),
  ("e f x", "{e}, followed by {f}, followed by {x}"),
  ("e f x", "first {e}, then {f}, and last {x}"),
  ("e x f", "before {hearing f}, {x} after {hearing e}"),
  ("e x f", "after {hearing e} and before {hearing f}, {x}"),
  ("e x f", "{e}, followed by {x}, followed by {f}"),
  ("e x f", "first {e}, then {x}, and last {f}"),
  ("x+e f", "before {hearing f}, {x} with {e} in the background"),
  ("x+e f", "first {x} with {e} in the background, then {f}"),
  ("e x+f", "after {hearing e}, {x} with {f} in the background"),
  ("e x+f", "first {e}, then {x} with {f} in the background"),
  ("x+e+f", "{x} with {e} and {f} in the background"),
)
VERBS = "hearing", "noticing", "listening to", "appearing"  # the paper's v,
QUANTITIES = "a", "the", "some"  # q,
ADJECTIVES = "clear", "noisy", "close-up", "weird", "clean"  # a,
NOUNS = "audio", "sound", "voice"  # and n

_ORDERS = tuple(
  [
    order
    for order in dict.fromkeys(order for order, _ in TEMPLATES)
    if sum(letter in order for letter in "ef") == count
  ]
  for count in range(3)
)
_MOST = len(_ORDERS) - 1  # events
_NUMBERS = 1 << 32  # added to the seed, which is below: no draw is a mix's
_QUIETEST = 0.01  # RMS of an event, -40 dBFS, where the original is near silent
_SILENCE = 1e-3  # of the peak: what is below at either end is no sound
_FADE_S = 0.01  # at both ends of each part, so that no join clicks
_PEAK = 0.99  # a louder row is scaled to this


@dataclasses.dataclass(frozen=True)
class ReprogramConfig:
  """How sounds and captions are reprogrammed.

  Attributes:
    bank: Datasets of sounds with one label each, separated by commas.
    bank_split: Their split.
    chances: Probabilities of no, one and two events.  The paper draws among
      the three; theirs are not known, and these leave most captions as they
      are or near.
    min_event_s: Events are drawn to be so long at least; shorter clips stay.
    max_event_s: And so long at most.
    share: Of a row, what one event takes at most.
  """

  bank: str = ""
  bank_split: str = "train"
  chances: tuple[float, ...] = (0.4, 0.4, 0.2)
  min_event_s: float = 1.0
  max_event_s: float = 4.0
  share: float = 0.3

  def __post_init__(self) -> None:
    sound = all(0 <= chance <= 1 for chance in self.chances)
    if len(self.chances) != _MOST + 1 or not sound:
      raise InputError(
        f"chances {self.chances} must be {_MOST + 1} probabilities: of no"
        " event, one, and two"
      )
    if abs(sum(self.chances) - 1) > 1e-6:
      raise InputError(
        f"chances {self.chances} add up to {sum(self.chances):g}; the"
        " probabilities of no event, one and two must add up to 1"
      )
    if not 0 < self.min_event_s <= self.max_event_s < float("inf"):
      raise InputError(
        f"events of {self.min_event_s:g} to {self.max_event_s:g} s are no"
        " range; give min_event_s more than 0, and max_event_s no less"
      )
    if not 0 < self.share <= 0.4:
      raise InputError(
        f"share {self.share} must lie in (0, 0.4]: beside two events a fifth of"
        " a row is left to the original"
      )

  def check(self, duration_s: float) -> None:
    """Raises InputError where the shortest events do not fit into rows."""
    if self.min_event_s > self.share * duration_s:
      raise InputError(
        f"events of {self.min_event_s:g} s or more do not fit: {self.share:g}"
        f" of a row of {duration_s:g} s is {self.share * duration_s:g} s; take"
        " longer rows or a smaller min_event_s"
      )


class Plan(NamedTuple):
  """What is done to one row.

  Attributes:
    order: Of `TEMPLATES`.
    words: The template, its words from the four sets filled in: `{x}`, and for
      labels `{e}` and `{f}`, are left.
    events: Numbers of clips of the bank, for e and f.
    seconds: How long each event is at most.
    where: Where each is laid over the original, as a share of what is free.
  """

  order: str
  words: str
  events: tuple[int, ...]
  seconds: tuple[float, ...]
  where: tuple[float, ...]


def draw(
  seed: int, row: int, clips: int, duration_s: float, config: ReprogramConfig
) -> Plan | None:
  """Draws what is done to a row; None if it stays as it is.

  Args:
    seed: In [0, 2^32).
    row: Number of the row, in [0, 2^64).
    clips: Of the bank.
    duration_s: Of a row.
    config: Chances and lengths.
  """
  random = mixing.generator(seed + _NUMBERS, row)
  count = _count(float(random.random()), config.chances)
  if not count:
    return None

  order = _one_of(random, _ORDERS[count])
  words = _one_of(random, [text for name, text in TEMPLATES if name == order])
  filled = {"x": "{x}"}
  for letter in "ef"[:count]:
    verb, *thing = (
      _one_of(random, words) for words in (VERBS, QUANTITIES, ADJECTIVES, NOUNS)
    )
    filled[letter] = f"{' '.join(thing)} of {{{letter}}}"
    filled[f"hearing {letter}"] = f"{verb} {filled[letter]}"
  # Another clip each, if the bank has so many.
  chosen = random.choice(clips, count, replace=clips < count)
  longest = min(config.max_event_s, config.share * duration_s)
  return Plan(
    order=order,
    words=words.format_map(filled),
    events=tuple(map(int, chosen)),
    seconds=tuple(
      float(random.uniform(config.min_event_s, longest)) for _ in range(count)
    ),
    where=tuple(float(random.random()) for _ in range(count)),
  )


def _one_of(random: np.random.Generator, words: Sequence[str]) -> str:
  return words[int(random.integers(len(words)))]


def _count(value: float, chances: Sequence[float]) -> int:
  """How many events a uniform value stands for."""
  reached = 0.0
  for count, chance in enumerate(chances):
    reached += chance
    if value < reached:
      return count
  # Chances that add up to a little less than 1: the last that can be.
  return max(i for i, chance in enumerate(chances) if chance)


def tell(plan: Plan, caption: str, labels: Sequence[str]) -> str:
  """The caption of a reprogrammed row.

  Args:
    plan: What was done.
    caption: Of the original; a full stop at its end is left away.
    labels: Of the events.
  """
  slots = dict(zip("ef", labels, strict=False)) | {"x": caption.rstrip(" .")}
  return plan.words.format_map(slots)


def join(
  plan: Plan,
  original: Float[np.ndarray, "n c"],
  events: Sequence[Float[np.ndarray, "_ c"]],
  rate_hz: int,
) -> Float[np.ndarray, "n c"]:
  """Puts events and an original together, as long as the original was.

  Each event has the RMS of the original beside it.

  Args:
    plan: What is done.
    original: A row, in ±1; silence at its ends is filled up by the events.
    events: Their clips, of any lengths, in the order of `plan.events`.
    rate_hz: Of all.
  """
  n = len(original)
  fade = max(1, round(_FADE_S * rate_hz))
  shown = {
    letter: loudest(_sounding(event), max(1, round(seconds * rate_hz)))
    for letter, event, seconds in zip("ef", events, plan.seconds, strict=False)
  }
  moments = [moment.split("+") for moment in plan.order.split()]
  beside = sum(len(shown[m[0]]) for m in moments if m[0] != "x")
  base = loudest(_sounding(original), n - beside)
  level = max(_rms(base), np.float32(_QUIETEST))
  shown = {
    letter: _faded(event, fade) * (level / max(_rms(event), 1e-7))
    for letter, event in shown.items()
  }
  parts = []
  for first, *over in moments:
    if first != "x":
      parts.append(shown[first])
      continue
    longest = max(len(base), *(len(shown[letter]) for letter in over), 0)
    whole = np.zeros((longest, base.shape[1]), np.float32)
    whole[: len(base)] = _faded(base, fade)
    for letter in over:
      event = shown[letter]
      share = plan.where["ef".index(letter)]
      start = int(share * (longest - len(event) + 1))
      whole[start : start + len(event)] += event
    parts.append(whole)
  row = np.concatenate(parts).astype(np.float32)
  peak = np.float32(max(np.max(np.abs(row), initial=0), _PEAK))
  return np.pad(row * (np.float32(_PEAK) / peak), ((0, n - len(row)), (0, 0)))


def loudest(
  sound: Float[np.ndarray, "_ c"], size: int
) -> Float[np.ndarray, "_ c"]:
  """The stretch of so many samples that has most power; all, if it is short."""
  if len(sound) <= size:
    return sound
  reached = np.zeros(len(sound) + 1)
  np.cumsum(np.einsum("nc,nc->n", sound, sound), out=reached[1:])
  start = int(np.argmax(reached[size:] - reached[:-size]))
  return sound[start : start + size]


def _sounding(sound: Float[np.ndarray, "_ c"]) -> Float[np.ndarray, "_ c"]:
  """A sound without the silence at its ends."""
  loud = np.abs(sound).max(axis=1, initial=0)
  heard = loud > _SILENCE * loud.max(initial=0)
  if not heard.any():
    return sound[:0]
  return sound[int(heard.argmax()) : len(heard) - int(heard[::-1].argmax())]


def _faded(
  sound: Float[np.ndarray, "_ c"], samples: int
) -> Float[np.ndarray, "_ c"]:
  """A sound that rises from silence and falls back to it."""
  made, count = sound.copy(), min(samples, len(sound) // 2)
  gain = np.arange(1, count + 1, dtype=np.float32)[:, None] / samples
  made[:count] *= gain
  made[len(made) - count :] *= gain[::-1]
  return made


def _rms(sound: Float[np.ndarray, "_ c"]) -> np.floating:
  if not len(sound):
    return np.float32(0)
  return np.sqrt(np.mean(np.square(sound)))
