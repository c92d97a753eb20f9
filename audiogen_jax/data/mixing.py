"""AudioGen's mixing augmentation: two sounds at once, and both captions.

Kreuk et al. (2023), §3.3: models that have heard sounds together compose them
better.  Numbers are those of the published code, with three differences: pairs
are disjoint, so no sound is mixed with itself; the coin is thrown and the
numbers are drawn for each pair, not for a batch; the ratio is continuous.

    first   |~~~~~~~~~~~~~~~~~~~~|        both at one loudness,
    second  |      ~~~~~~~~~~~~~~|~~~~~~  the second softer, and later
    mix     |~~~~~~~~~~~~~~~~~~~~|        at a level of its own

Everything here takes numpy or JAX arrays and returns the same kind: the loader
mixes on the host, a training step under jit, and both draw the same numbers.
"""

import dataclasses
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray

_TINY = 1.19e-7  # keeps silence from dividing by zero


@dataclasses.dataclass(frozen=True)
class MixConfig:
  """How sounds are mixed.

  Attributes:
    chance: Of a pair to be mixed; else its first sound stays as it is.
    min_snr_db: How much louder the first is than the second, at least.
    max_snr_db: And at most.
    min_overlap: The share of the first that the second lies under, at least.
    min_level_db: Of the mix: RMS below full scale, at least.
    max_level_db: And at most.
    peak: A louder mix is scaled to this.
  """

  chance: float = 0.5
  min_snr_db: float = -5.0
  max_snr_db: float = 5.0
  min_overlap: float = 0.5
  min_level_db: float = -35.0
  max_level_db: float = -16.0
  peak: float = 0.99

  def __post_init__(self):
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
  """What was drawn for `m` pairs among `2 m` sounds."""

  first: Int[AnyArray, "m"]
  second: Int[AnyArray, "m"]
  mixed: Bool[AnyArray, "m"]
  snr_db: Float[AnyArray, "m"]
  start: Int[AnyArray, "m"]
  level_db: Float[AnyArray, "m"]


def draw(
  key: UInt32[AnyArray, "2"], pairs: int, samples: int, config: MixConfig
) -> Draws:
  """Draws pairs and numbers; the key alone determines them.

  Args:
    key: `jax.random.key_data` of a threefry key; an array of numpy gives arrays
      of numpy.
    pairs: How many; they are made of the sounds 0 to 2 `pairs` - 1.
    samples: Length of a sound.
  """
  xp = np if isinstance(key, np.ndarray) else jnp
  one = np.float32(1)

  def uniform(stream, low=0.0, high=1.0):
    # 24 bits: float32 holds each of them exactly, whoever computes it.
    share = (_bits(xp, key, stream, pairs) >> 8).astype(np.float32)
    share = share * np.float32(2**-24)
    return share * np.float32(high) + (one - share) * np.float32(low)

  order = xp.argsort(_bits(xp, key, 0, 2 * pairs), stable=True)
  latest = int(samples * (1 - config.min_overlap))
  start = (uniform(3) * np.float32(latest + 1)).astype(np.int32)
  return Draws(
    first=order[:pairs].astype(np.int32),
    second=order[pairs:].astype(np.int32),
    mixed=uniform(1) < np.float32(config.chance),
    snr_db=uniform(2, config.min_snr_db, config.max_snr_db),
    start=xp.minimum(start, np.int32(latest)),
    level_db=uniform(4, config.min_level_db, config.max_level_db),
  )


def fold_in(key: UInt32[np.ndarray, "2"], data: int) -> UInt32[np.ndarray, "2"]:
  """`jax.random.fold_in` for the host."""
  words = [np.array([word], np.uint32) for word in (data >> 32, data & _WORD)]
  return np.concatenate(_threefry(np, key, *words))


def mix(
  audio: Float[AnyArray, "b n c"], key: AnyArray, config: MixConfig
) -> tuple[Float[AnyArray, "m n c"], Draws]:
  """Makes `m = b / 2` sounds of `b`: pairs, some of them mixed.

  Args:
    audio: An even number of sounds, all of one length.
    key: A key of JAX, or for arrays of numpy its `key_data` as numpy.

  Raises:
    InputError: If the number of sounds is odd.
  """
  b, n, _ = audio.shape
  if b % 2:
    raise InputError(f"mixing takes an even number of sounds, not {b}")
  if isinstance(audio, np.ndarray):
    drawn = draw(np.asarray(key), b // 2, n, config)
    rows = [
      mix_pair(audio[drawn.first[i]], audio[drawn.second[i]], *row, config)
      for i, row in enumerate(zip(*drawn[2:], strict=True))
    ]
    return np.stack(rows), drawn
  if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.key_data(key)
  drawn = draw(key, b // 2, n, config)
  pair = jax.vmap(lambda *row: mix_pair(*row, config))
  return pair(audio[drawn.first], audio[drawn.second], *drawn[2:]), drawn


def mix_pair(
  first: Float[AnyArray, "n c"],
  second: Float[AnyArray, "n c"],
  mixed: Bool[AnyArray, ""] | np.bool_,
  snr_db: Float[AnyArray, ""] | np.floating,
  start: Int[AnyArray, ""] | np.integer,
  level_db: Float[AnyArray, ""] | np.floating,
  config: MixConfig,
) -> Float[AnyArray, "n c"]:
  """One pair: the first sound as it is, or both together."""
  if isinstance(first, np.ndarray):
    if not mixed:
      return first
    late = np.zeros_like(second)
    late[start:] = second[: len(second) - start]
    return _together(np, first, second, late, snr_db, level_db, config)
  late = jnp.roll(second, start, axis=0)
  late = jnp.where(jnp.arange(len(second))[:, None] >= start, late, 0)
  both = _together(jnp, first, second, late, snr_db, level_db, config)
  return jnp.where(mixed, both, first)


def _together(xp: ModuleType, first, second, late, snr_db, level_db, config):
  gain = 10 ** (-snr_db / np.float32(20)) / (_rms(xp, second) + _TINY)
  both = first / (_rms(xp, first) + _TINY) + late * gain
  both = both * (10 ** (level_db / np.float32(20)) / (_rms(xp, both) + _TINY))
  peak = xp.max(xp.abs(both))
  return both * (config.peak / xp.maximum(peak, np.float32(config.peak)))


def _rms(xp: ModuleType, x):
  return xp.sqrt(xp.mean(xp.square(x)))


def join(first: str, second: str) -> str:
  """The caption of a mix: both, or one if they say the same."""
  if first == second or not second:
    return first
  return f"{first} {second}" if first else second


_WORD = 0xFFFFFFFF
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def _bits(xp: ModuleType, key, stream: int, count: int):
  """Random words number 0 to `count` - 1 of a stream."""
  high = xp.full(count, stream, np.uint32)
  low = xp.arange(count, dtype=np.uint32)
  return _threefry(xp, key, high, low)[0]


def _threefry(xp: ModuleType, key, x, y):
  """Threefry-2x32 with 20 rounds (Salmon et al., SC 2011), as in JAX.

  Written once more, as a worker of the loader must not wake the accelerator
  that its parent holds, which the first number of `jax.random` would do.
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
