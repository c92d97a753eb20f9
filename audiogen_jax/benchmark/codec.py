"""How fast a codec encodes and decodes: ours and another, in turn."""

import dataclasses
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
  found, done, contestants = [], 0, [Ours(codec), *rivals]
  total = len(works) * len(contestants) * (runs + 1)
  numbers = np.random.default_rng(0)
  for batch, duration_s in works:
    tokens = codec.tokens
    frames = tokens.frames(duration_s)
    shape = batch, frames * codec.config.hop, codec.config.channels
    audio = numbers.normal(0, 0.1, shape).astype(np.float32)
    size = batch, tokens.codebooks, frames
    codes = numbers.integers(0, tokens.size, size).astype(np.int32)
    taken = {each.name: ([], []) for each in contestants}
    for turn in range(runs + 1):
      for each in contestants:
        progress(f"{each.name}, {batch} x {duration_s:g} s", done, total)
        done += 1
        start = time.perf_counter()
        each.encode(audio)
        middle = time.perf_counter()
        each.decode(codes)
        if turn:
          encoded, decoded = taken[each.name]
          encoded.append(middle - start)
          decoded.append(time.perf_counter() - middle)
    found += [
      CodecFigures(
        each.name, batch, duration_s, *taken[each.name], machine.peak_bytes()
      )
      for each in contestants
    ]
  return found
