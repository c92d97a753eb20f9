"""How well a codec keeps a sound, how little it needs, and how fast it is.

    clips --cut--> pieces of at most 10 s --batches of one bucket-->
      encode --> codes --> decode --> distances of each piece
                   |
                   +--> how often each entry of each codebook occurs

A clip's figure is the mean over its pieces, each weighted by its length, and
the codec's is the mean over clips.  Pieces keep the memory that is needed
bounded, whatever the length of a clip, and are what ViSQOL is made for.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.audio.distances import (
  log_spectral_distance,
  mel_distance,
  si_snr,
)
from audiogen_jax.codec import usage
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.codec.usage import code_statistics
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, bucket
from audiogen_jax.evaluate.clips import Clip, Clips
from audiogen_jax.evaluate.visqol import NoMark, Visqol

PIECE_S = 10.0
_BATCH = 8  # pieces coded together


@dataclasses.dataclass(frozen=True)
class Piece:
  """A stretch of a clip, of at most 10 s.

  Attributes:
    clip: Number of the clip.
    name: Name of the clip.
    audio: The samples.
    start: The first of them, in the clip.
    total: Samples of the clip.
  """

  clip: int
  name: str
  audio: Float[np.ndarray, "n c"]
  start: int
  total: int


# Called with each piece and its reconstruction, `n c`.
Keep: TypeAlias = Callable[[Piece, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class ClipFigures:
  """How far the reconstruction of one clip is from it.

  Means over the clip's pieces, weighted by length.

  Attributes:
    clip: Its name.
    seconds: Its duration.
    si_snr_db: Scale-invariant signal-to-noise ratio, higher is better.
    mel_distance: As `audio.distances.mel_distance`, in decades.
    log_spectral_distance_db: As `audio.distances.log_spectral_distance`.
    visqol_mos_lqo: ViSQOL's score from 1 to about 4.75; None without one.
  """

  clip: str
  seconds: float
  si_snr_db: float
  mel_distance: float
  log_spectral_distance_db: float
  visqol_mos_lqo: float | None = None


FIGURES = tuple(field.name for field in dataclasses.fields(ClipFigures)[2:])


def values_of(clips: Sequence[ClipFigures], figure: str) -> list[float]:
  """The values of the field `figure` of all clips where it is not None."""
  values = [getattr(clip, figure) for clip in clips]
  return [value for value in values if value is not None]


def mean_of(clips: Sequence[ClipFigures], figure: str) -> float | None:
  """The mean of the field `figure` where it is not None; None if nowhere."""
  values = values_of(clips, figure)
  return float(np.mean(values)) if values else None


@dataclasses.dataclass(frozen=True)
class CodecReport:
  """How well, and at what cost, a codec reconstructs some clips.

  Attributes:
    clips: Figures of each clip, in the order of reading.
    frames: Codes that were counted in each level.
    codebook_size: Entries of each level.
    usage: Share of the entries of each level that occurred.
    entropy_bits: Entropy of the codes of each level, in bits.
    bits_per_second: The entropies times the frame rate: what an ideal coder
      that knows how often each entry occurs would need.
    bits_per_second_available: What codes of fixed size take.
    encode_speed: Seconds of sound encoded in a second, as `Encodec` is called:
      in batches, with all copies to and from the device, without compilation.
    decode_speed: Seconds of sound decoded in a second.
    unmarked: Pieces without a mark of ViSQOL's, and why the first had none.
  """

  clips: Sequence[ClipFigures]
  frames: int
  codebook_size: int
  usage: Float[np.ndarray, " k"]
  entropy_bits: Float[np.ndarray, " k"]
  bits_per_second: float
  bits_per_second_available: float
  encode_speed: float
  decode_speed: float
  unmarked: tuple[int, str] = (0, "")

  def values(self, figure: str) -> list[float]:
    """The values of the field `figure` of all clips where it is not None."""
    return values_of(self.clips, figure)

  def mean(self, figure: str) -> float | None:
    """The mean of the field `figure` where it is not None; None if nowhere."""
    return mean_of(self.clips, figure)

  @property
  def seconds(self) -> float:
    """Seconds of all clips together."""
    return sum(clip.seconds for clip in self.clips)

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    means = {figure: self.mean(figure) for figure in FIGURES}
    return {
      "clips": len(self.clips),
      "seconds": self.seconds,
      **means,
      "codebooks": {
        "size": self.codebook_size,
        "frames": self.frames,
        "usage": self.usage.tolist(),
        "entropy_bits": self.entropy_bits.tolist(),
      },
      "bits_per_second": self.bits_per_second,
      "bits_per_second_available": self.bits_per_second_available,
      "encode_speed": self.encode_speed,
      "decode_speed": self.decode_speed,
      "visqol_unmarked": self.unmarked[0],
      "each": [dataclasses.asdict(clip) for clip in self.clips],
    }


def evaluate(
  codec: Encodec,
  clips: Clips | Sequence[Clip],
  *,
  visqol: Visqol | None = None,
  keep: Keep | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> CodecReport:
  """Encodes and decodes every clip, and says what became of it.

  Args:
    clips: At the rate and channels of the codec.
    visqol: Marks each piece, too.
    keep: Called with each piece once it is decoded, in any order.
    progress: Called with the clips done, and how many there are.

  Raises:
    InputError: If there is no clip, or the codec gives NaN.
  """
  if not len(clips):
    raise InputError("there is no clip to evaluate on")
  config = codec.config
  coder, rate_hz = _Coder(codec), config.sample_rate_hz
  clip_info: dict[int, tuple[str, float]] = {}
  figures: dict[int, list] = collections.defaultdict(list)
  unmarked, done = [], 0
  mark = functools.partial(_mark, visqol, rate_hz)
  with futures.ThreadPoolExecutor() as threads:
    for pieces in batches(clips, codec):
      real, fake, lengths = coder.run(pieces)
      fakes = [fake[i, : len(piece.audio)] for i, piece in enumerate(pieces)]
      _refuse_nan(pieces, fakes)
      distances = np.stack(measure(real, fake, rate_hz, lengths), axis=1)
      distances = distances[: len(pieces)].tolist()
      marks = list(threads.map(mark, pieces, fakes))
      unmarked += [str(mark) for mark in marks if isinstance(mark, NoMark)]
      for piece, *values in zip(pieces, distances, marks, strict=True):
        clip_info[piece.clip] = piece.name, piece.total / rate_hz
        figures[piece.clip].append((len(piece.audio), *values))
        done += piece.start + len(piece.audio) == piece.total
      if keep:
        for piece, one in zip(pieces, fakes, strict=True):
          keep(piece, one)
      if progress:
        progress(done, len(clips))
  used, entropy = (np.asarray(x) for x in code_statistics(coder.counts))
  frame_rate_hz = rate_hz / config.hop
  return CodecReport(
    clips=[joined(*clip_info[i], figures[i]) for i in sorted(clip_info)],
    frames=int(coder.counts[0].sum()),
    codebook_size=codec.tokens.size,
    usage=used,
    entropy_bits=entropy,
    bits_per_second=float(entropy.sum()) * frame_rate_hz,
    bits_per_second_available=config.bitrate,
    encode_speed=coder.coded_s / coder.spent_s[0],
    decode_speed=coder.coded_s / coder.spent_s[1],
    unmarked=(len(unmarked), unmarked[0] if unmarked else ""),
  )


@functools.partial(jax.jit, static_argnums=2)
def measure(
  real: Float[AnyArray, "b n c"],
  fake: Float[AnyArray, "b n c"],
  rate_hz: int,
  length: Int[AnyArray, " b"],
) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, " b"]]:
  """SI-SNR in dB, mel distance in decades and log-spectral distance in dB.

  Args:
    real: Originals.
    fake: Their reconstructions.
    rate_hz: Sample rate of both.
    length: Samples of each row; what lies beyond is ignored.
  """
  return (
    si_snr(real, fake, rate_hz, length=length),
    mel_distance(real, fake, rate_hz, length=length),
    log_spectral_distance(real, fake, length=length),
  )


def _pieces(clips: Iterable[Clip], rate_hz: int) -> Iterator[Piece]:
  """Cuts clips evenly: a last piece of a few samples would mean nothing."""
  for number, clip in enumerate(clips):
    n = len(clip.audio)
    size = -(-n // -(-n // int(PIECE_S * rate_hz)))
    for start in range(0, n, size):
      part = clip.audio[start : start + size]
      yield Piece(number, clip.name, part, start, n)


def batches(clips: Iterable[Clip], codec: Encodec) -> Iterator[list[Piece]]:
  """Pieces of one bucket, so that little is compiled."""
  config = codec.config
  # Chunks have no lengths: rows would have to be equally long.
  size = 1 if _in_chunks(codec) else _BATCH
  waiting: dict[int, list[Piece]] = collections.defaultdict(list)
  for piece in _pieces(clips, config.sample_rate_hz):
    frames = bucket(-(-len(piece.audio) // config.hop))
    waiting[frames].append(piece)
    if len(waiting[frames]) == size:
      yield waiting.pop(frames)
  yield from waiting.values()


def padded(
  sounds: Sequence[Float[np.ndarray, "_ c"]], codec: Encodec
) -> tuple[Float[np.ndarray, "b n c"], Int[np.ndarray, " b"]]:
  """Sounds as rows of one bucket, and the samples of each row."""
  config = codec.config
  frames = bucket(-(-max(map(len, sounds)) // config.hop))
  shape = bucket(len(sounds)), frames * config.hop, config.channels
  rows = np.zeros(shape, np.float32)
  lengths = np.ones(len(rows), np.int32)  # of rows that fill up: one sample
  for i, sound in enumerate(sounds):
    lengths[i] = len(sound)
    rows[i, : lengths[i]] = sound
  return rows, lengths


def _in_chunks(codec: Encodec) -> bool:
  return codec.config.renormalise or codec.config.chunk_s is not None


class _Coder:
  """Encodes and decodes batches, and counts codes and seconds."""

  def __init__(self, codec: Encodec) -> None:
    tokens = codec.tokens
    self.counts = np.zeros((tokens.codebooks, tokens.size), np.int64)
    self.spent_s = np.zeros(2)  # encoding and decoding
    self.coded_s = 0.0
    self._codec, self._compiled = codec, set()

  def run(
    self, pieces: Sequence[Piece]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Originals and reconstructions, padded alike, and samples of each row."""
    config = self._codec.config
    real, lengths = padded([piece.audio for piece in pieces], self._codec)
    # What is compiled for chunks depends on where the last one ends.
    compiled = lengths[0] if _in_chunks(self._codec) else real.shape
    if compiled not in self._compiled:
      self._code(real, lengths)
      self._compiled.add(compiled)
    codes, fake, spent_s = self._code(real, lengths)
    self.spent_s += spent_s
    self.coded_s += int(lengths[: len(pieces)].sum()) / config.sample_rate_hz
    for row in codes[: len(pieces)]:
      self.counts += usage.count(row, self._codec.tokens.size)
    return real, fake, lengths

  def _code(
    self, real: Float[np.ndarray, "b n c"], lengths: Int[np.ndarray, " b"]
  ) -> tuple[
    list[Int[np.ndarray, "k _"]],
    Float[np.ndarray, "b n c"],
    Float[np.ndarray, "2"],
  ]:
    """Codes of each row, the sound of all, and the seconds of both steps."""
    codec, hop = self._codec, self._codec.config.hop
    times = [time.perf_counter()]
    if _in_chunks(codec):
      n = int(lengths[0])
      codes, scales = codec.encode_chunks(real[:, :n])
      times.append(time.perf_counter())
      fake = np.zeros_like(real)
      fake[:, :n] = codec.decode_chunks(codes, scales, n)
      chunk, starts = codec.chunks(n)
      ends = [-(-min(chunk, n - start) // hop) for start in starts]
      parts = [codes[0, i, :, :end] for i, end in enumerate(ends)]
      rows = [np.concatenate(parts, axis=1)]
    else:
      frames = -(-lengths // hop)
      codes = codec.encode(real, lengths=lengths)
      times.append(time.perf_counter())
      fake = codec.decode(codes, lengths=frames)
      rows = [row[:, :end] for row, end in zip(codes, frames, strict=True)]
    times.append(time.perf_counter())
    return rows, fake, np.diff(times)


def _refuse_nan(pieces: Sequence[Piece], fakes: Sequence[np.ndarray]) -> None:
  for piece, fake in zip(pieces, fakes, strict=True):
    if not np.isfinite(fake).all():
      raise InputError(
        f"the codec turns {piece.name} into NaN or infinite samples: its"
        " weights are damaged"
      )


def _mark(
  visqol: Visqol | None, rate_hz: int, piece: Piece, fake: np.ndarray
) -> float | NoMark | None:
  """ViSQOL's mark, or why there is none, or None where nobody asked."""
  try:
    return visqol and visqol.mark(piece.audio, fake, rate_hz)
  except NoMark as error:
    return error


def joined(name: str, seconds: float, pieces: Sequence[tuple]) -> ClipFigures:
  """Figures of a clip from those of its pieces, weighted by length."""
  lengths, distances, marks = zip(*pieces, strict=True)
  means = np.average(distances, axis=0, weights=lengths).tolist()
  marked = [
    (length, mark)
    for length, mark in zip(lengths, marks, strict=True)
    if isinstance(mark, float)
  ]
  mark = None
  if marked:
    weights, known = zip(*marked, strict=True)
    mark = float(np.average(known, weights=weights))
  return ClipFigures(name, seconds, *means, mark)
