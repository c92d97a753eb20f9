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
from jaxtyping import Bool, Float, Int, UInt32

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


def draw(
  key: UInt32[np.ndarray, "2"], pairs: int, samples: int, config: MixConfig
) -> Draws:
  """Draws pairs and numbers; the key alone determines them.

  Args:
    key: `jax.random.key_data` of a threefry key, or what `fold_in` gives.
    pairs: How many; they are made of the sounds 0 to 2 `pairs` - 1.
    samples: Length of a sound.
    config: The ranges of the numbers.
  """
  one = np.float32(1)

  def uniform(stream, low=0.0, high=1.0):
    # 24 bits: float32 holds each of them exactly.
    share = (_bits(key, stream, pairs) >> 8).astype(np.float32)
    share = share * np.float32(2**-24)
    return share * np.float32(high) + (one - share) * np.float32(low)

  order = np.argsort(_bits(key, 0, 2 * pairs), stable=True)
  latest = int(samples * (1 - config.min_overlap))
  start = (uniform(3) * np.float32(latest + 1)).astype(np.int32)
  return Draws(
    first=order[:pairs].astype(np.int32),
    second=order[pairs:].astype(np.int32),
    mixed=uniform(1) < np.float32(config.chance),
    snr_db=uniform(2, config.min_snr_db, config.max_snr_db),
    start=np.minimum(start, np.int32(latest)),
    level_db=uniform(4, config.min_level_db, config.max_level_db),
  )


def fold_in(key: UInt32[np.ndarray, "2"], data: int) -> UInt32[np.ndarray, "2"]:
  """A key of its own for `data`, in [0, 2^64): `jax.random.fold_in`."""
  words = [np.array([word], np.uint32) for word in (data >> 32, data & _WORD)]
  return np.concatenate(_threefry(key, *words))


def mix(
  audio: Float[np.ndarray, "b n c"],
  key: UInt32[np.ndarray, "2"],
  config: MixConfig,
) -> tuple[Float[np.ndarray, "m n c"], Draws]:
  """Makes `m = b / 2` sounds of `b`: pairs, some of them mixed.

  Args:
    audio: An even number of sounds, all of one length.
    key: As `draw` takes it.
    config: How they are mixed.

  Raises:
    InputError: If the number of sounds is odd.
  """
  b, n, _ = audio.shape
  if b % 2:
    raise InputError(f"mixing takes an even number of sounds, not {b}")
  drawn = draw(key, b // 2, n, config)
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


_WORD = 0xFFFFFFFF
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def _bits(
  key: UInt32[np.ndarray, "2"], stream: int, count: int
) -> UInt32[np.ndarray, " n"]:
  """Random words number 0 to `count` - 1 of a stream."""
  high = np.full(count, stream, np.uint32)
  low = np.arange(count, dtype=np.uint32)
  return _threefry(key, high, low)[0]


def _threefry(
  key: UInt32[np.ndarray, "2"],
  x: UInt32[np.ndarray, " n"],
  y: UInt32[np.ndarray, " n"],
) -> tuple[UInt32[np.ndarray, " n"], UInt32[np.ndarray, " n"]]:
  """Threefry-2x32 with 20 rounds (Salmon et al., SC 2011), as in JAX.

  Not `jax.random`, whose first number would wake the accelerator that the
  parent of a worker holds; and not another generator of numpy's, with which a
  run that goes on from its checkpoint would hear other mixes than it began
  with.
  """
  keys = key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)
  x, y = x + keys[0], y + keys[1]
  for i in range(5):
    for turn in _ROTATIONS[i % 2]:
      x = x + y
      y = (y << np.uint32(turn)) | (y >> np.uint32(32 - turn))
      y = x ^ y
    x = x + keys[(i + 1) % 3]
    y = y + keys[(i + 2) % 3] + np.uint32(i + 1)
  return x, y
