"""AudioGen's mixing augmentation: two sounds at once, and both captions.

Kreuk et al. (2023), §3.3: models that have heard sounds together compose them
better.  Numbers are those of the published code, with three differences: pairs
are disjoint, so no sound is mixed with itself; the coin is thrown and the
numbers are drawn for each pair, not for a batch; the ratio is continuous.

    first   |~~~~~~~~~~~~~~~~~~~~|        both at one loudness,
    second  |      ~~~~~~~~~~~~~~|~~~~~~  the second softer, and later
    mix     |~~~~~~~~~~~~~~~~~~~~|        at a level of its own

Sounds are mixed on the host, by the workers of the loader and by what encodes a
data set once and for all; a training step gets what has been mixed.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.core.errors import InputError

_TINY = 1.19e-7  # keeps silence from dividing by zero


@dataclasses.dataclass(frozen=True)
class MixConfig:
  """How sounds are mixed.

  Attributes:
    chance: Probability that a pair is mixed; else its first sound stays alone.
    min_snr_db: How many dB louder the first is than the second, at least.
    max_snr_db: How many dB louder the first is than the second, at most.
    min_overlap: The share of the first that the second lies under, at least.
    min_level_db: Least RMS of a mix, in dB below full scale.
    max_level_db: Greatest RMS of a mix, in dB below full scale.
    peak: A louder mix is scaled to this.
  """

  chance: float = 0.5
  min_snr_db: float = -5.0
  max_snr_db: float = 5.0
  min_overlap: float = 0.5
  min_level_db: float = -35.0
  max_level_db: float = -16.0
  peak: float = 0.99

  def __post_init__(self) -> None:
    for name in ("chance", "min_overlap"):
      if not 0 <= getattr(self, name) <= 1:
        raise InputError(f"{name} {getattr(self, name)} must lie in [0, 1]")
    for what in ("snr", "level"):
      low = getattr(self, f"min_{what}_db")
      high = getattr(self, f"max_{what}_db")
      if not -200 < low <= high < 200:
        raise InputError(f"{what} [{low}, {high}] dB is no range of decibels")
    if not 0 < self.peak <= 1:
      raise InputError(f"peak {self.peak} must lie in (0, 1]")


class Draws(NamedTuple):
  """What was drawn for `m` pairs among `2 m` sounds.

  Attributes:
    first: The sound that a pair begins with, in [0, 2 m).
    second: The one that may be mixed into it.
    mixed: Whether it is.
    snr_db: How much louder the first is than the second.
    start: Samples after which the second begins.
    level_db: RMS of the mix, relative to full scale.
  """

  first: Int[np.ndarray, "m"]
  second: Int[np.ndarray, "m"]
  mixed: Bool[np.ndarray, "m"]
  snr_db: Float[np.ndarray, "m"]
  start: Int[np.ndarray, "m"]
  level_db: Float[np.ndarray, "m"]


def generator(seed: int, number: int) -> np.random.Generator:
  """Random numbers of their own for `number`: Philox, keyed by both.

  Philox (Salmon et al., SC 2011) is counter-based: another number's draws need
  not be made first, whichever worker asks.

  Args:
    seed: Seed of all, in [0, 2^64).
    number: For example that of a batch, in [0, 2^64).
  """
  key = np.array([seed, number], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


def draw(
  random: np.random.Generator, pairs: int, samples: int, config: MixConfig
) -> Draws:
  """Draws pairs and numbers; the generator alone determines them.

  Args:
    random: What they are drawn from.
    pairs: How many; they are made of the sounds 0 to 2 `pairs` - 1.
    samples: Length of a sound.
    config: The ranges of the numbers.
  """

  def uniform(low: float, high: float) -> Float[np.ndarray, "m"]:
    return random.uniform(low, high, pairs).astype(np.float32)

  order = random.permutation(2 * pairs).astype(np.int32)
  latest = int(samples * (1 - config.min_overlap))
  return Draws(
    first=order[:pairs],
    second=order[pairs:],
    mixed=random.random(pairs) < config.chance,
    snr_db=uniform(config.min_snr_db, config.max_snr_db),
    start=random.integers(latest, size=pairs, endpoint=True, dtype=np.int32),
    level_db=uniform(config.min_level_db, config.max_level_db),
  )


def mix(
  audio: Float[np.ndarray, "b n c"],
  random: np.random.Generator,
  config: MixConfig,
) -> tuple[Float[np.ndarray, "m n c"], Draws]:
  """Makes `m = b / 2` sounds of `b`: pairs, some of them mixed.

  Args:
    audio: An even number of sounds, all of one length.
    random: What pairs and numbers are drawn from.
    config: How they are mixed.

  Raises:
    InputError: If the number of sounds is odd.
  """
  b, n, _ = audio.shape
  if b % 2:
    raise InputError(f"mixing takes an even number of sounds, not {b}")
  drawn = draw(random, b // 2, n, config)
  rows = [
    mix_pair(audio[drawn.first[i]], audio[drawn.second[i]], *row, config)
    for i, row in enumerate(zip(*drawn[2:], strict=True))
  ]
  return np.stack(rows), drawn


def mix_pair(
  first: Float[np.ndarray, "n c"],
  second: Float[np.ndarray, "n c"],
  mixed: bool | np.bool_,
  snr_db: float | np.floating,
  start: int | np.integer,
  level_db: float | np.floating,
  config: MixConfig,
) -> Float[np.ndarray, "n c"]:
  """One pair: the first sound as it is, or both together.

  Args:
    first: A sound, in ±1.
    second: Another one of the same length.
    mixed: Whether to mix them; else `first` comes back itself.
    snr_db: How much louder the first is than the second.
    start: Samples after which the second begins.
    level_db: RMS of the mix, relative to full scale.
    config: Its `peak` is what a louder mix is scaled to.
  """
  if not mixed:
    return first
  late = np.zeros_like(second)
  late[start:] = second[: len(second) - start]
  gain = 10 ** (-snr_db / np.float32(20)) / (_rms(second) + _TINY)
  both = first / (_rms(first) + _TINY) + late * gain
  both = both * (10 ** (level_db / np.float32(20)) / (_rms(both) + _TINY))
  peak = np.max(np.abs(both))
  return both * (config.peak / np.maximum(peak, np.float32(config.peak)))


def _rms(x: Float[np.ndarray, "n c"]) -> np.floating:
  return np.sqrt(np.mean(np.square(x)))


def join(first: str, second: str) -> str:
  """The caption of a mix: both, or one if they say the same."""
  if first == second or not second:
    return first
  return f"{first} {second}" if first else second
