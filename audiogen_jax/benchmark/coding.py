"""How fast a codec encodes and decodes: ours and another, in turn."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from audiogen_jax.benchmark import machine
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core.types import Seconds


@runtime_checkable
class Coder(Protocol):
  """Anything that turns sound `b n c` into codes `b k t` and back."""

  name: str

  def encode(self, audio: np.ndarray) -> Any:
    """Sound to codes."""

  def decode(self, codes: np.ndarray) -> Any:
    """Codes to sound."""


class Ours:
  """This package's codec."""

  name = "audiogen_jax"

  def __init__(self, codec: Encodec) -> None:
    self.encode, self.decode = codec.encode, codec.decode


@dataclasses.dataclass(frozen=True)
class CodecFigures:
  """What one codec took.

  Attributes:
    name: The codec's.
    batch: Sounds at once.
    duration_s: Seconds of each.
    encode_s: Seconds of each run of the encoder.
    decode_s: Seconds of each run of the decoder.
    peak_bytes: Most memory of device or process so far.
  """

  name: str
  batch: int
  duration_s: Seconds
  encode_s: Sequence[float]
  decode_s: Sequence[float]
  peak_bytes: int

  @property
  def speeds(self) -> tuple[float, float]:
    """Seconds of sound a second, encoded and decoded: medians."""
    sound_s = self.batch * self.duration_s
    return (
      sound_s / machine.median(self.encode_s),
      sound_s / machine.median(self.decode_s),
    )

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    encoded, decoded = self.speeds
    more = {"encoded_per_s": encoded, "decoded_per_s": decoded}
    return dataclasses.asdict(self) | more


def compare(
  codec: Encodec,
  rivals: Sequence[Coder],
  batches: Sequence[int],
  durations_s: Sequence[Seconds],
  *,
  runs: int,
  progress: Callable[[str, int, int], None],
) -> list[CodecFigures]:
  """Every codec on noise of every shape, in turn; the first run is not told.

  Raises:
    InputError: If the sounds cannot fit into memory.
  """
  told = codec.config
  works = [(batch, seconds) for batch in batches for seconds in durations_s]
  for batch, duration_s in works:
    machine.check_memory(batch, duration_s, told.sample_rate_hz * told.channels)
  found, done, contestants = [], itertools.count(), [Ours(codec), *rivals]
  total = len(works) * len(contestants) * (runs + 1)

  def run(
    audio: np.ndarray, codes: np.ndarray, what: str, coder: Coder
  ) -> tuple[float, float]:
    progress(f"{coder.name}, {what}", next(done), total)
    start = time.perf_counter()
    coder.encode(audio)
    middle = time.perf_counter()
    coder.decode(codes)
    return middle - start, time.perf_counter() - middle

  numbers = np.random.default_rng(0)
  for batch, duration_s in works:
    tokens = codec.tokens
    frames = tokens.frames(duration_s)
    shape = batch, frames * codec.config.hop, codec.config.channels
    audio = numbers.normal(0, 0.1, shape).astype(np.float32)
    size = batch, tokens.codebooks, frames
    codes = numbers.integers(0, tokens.size, size).astype(np.int32)
    what = f"{batch} x {duration_s:g} s"
    work = functools.partial(run, audio, codes, what)
    taken = machine.in_turn(contestants, work, runs)
    found += [
      CodecFigures(
        *(each.name, batch, duration_s),
        *map(list, zip(*later, strict=True)),
        machine.peak_bytes(),
      )
      for each, (_, later) in zip(contestants, taken, strict=True)
    ]
  return found
