"""Clips through Opus (RFC 6716), by ffmpeg: a codec to compare ours with.

    piece --ffmpeg--> Ogg, its bytes counted --ffmpeg--> sound --shift--> piece

Pieces are those of `codec.evaluate`, and so are the distances.
"""

import collections
import dataclasses
import functools
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import scipy
import soundfile
from jaxtyping import Float

from audiogen_jax.audio.io import to_int16
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import reconstruction
from audiogen_jax.evaluate.clips import Clip, Clips
from audiogen_jax.evaluate.reconstruction import ClipFigures

_LEAST, _MOST = 6.0, 510.0  # kbit/s, RFC 6716, section 2.1.1
# Opus says how late its decoder is, but not to the sample: at low rates it is
# one or two samples of 16 kHz later, which costs SI-SNR 2.5 dB.
_SHIFT_S = 0.005
_FIGURES = "si_snr_db", "mel_distance", "log_spectral_distance_db"


@dataclasses.dataclass(frozen=True)
class OpusReport:
  """How well Opus reconstructs some clips, and at what rate.

  Attributes:
    kbit_per_s: The target rate; Opus decides what each sound takes.
    bits_per_second: Bits per second of sound in the Ogg files.
    bits_per_second_packets: Bits of the packets alone, without Ogg's pages and
      the two headers, which in files of a few seconds are a sixth.
    clips: Figures of each clip, in the order of reading.
  """

  kbit_per_s: float
  bits_per_second: float
  bits_per_second_packets: float
  clips: Sequence[ClipFigures]

  def mean(self, figure: str) -> float | None:
    """The mean of the field `figure` over all clips."""
    return reconstruction.mean_of(self.clips, figure)

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    fields = "clip", "seconds", *_FIGURES
    return {
      "kbit_per_s": self.kbit_per_s,
      "bits_per_second": self.bits_per_second,
      "bits_per_second_packets": self.bits_per_second_packets,
      **{figure: self.mean(figure) for figure in _FIGURES},
      "each": [
        {name: getattr(clip, name) for name in fields} for clip in self.clips
      ],
    }


class Opus:
  """Opus at one rate: variable, as by default, and for any sound."""

  def __init__(self, kbit_per_s: float) -> None:
    if not _LEAST <= kbit_per_s <= _MOST:
      raise InputError(
        f"Opus takes {_LEAST:g} to {_MOST:g} kbit/s, not {kbit_per_s:g}"
      )
    self.kbit_per_s = kbit_per_s
    self._program = _find()

  def code(
    self, audio: Float[np.ndarray, "n c"], rate_hz: int
  ) -> tuple[Float[np.ndarray, "n c"], bytes]:
    """What a sound becomes, and the Ogg file between.

    The result is as long as `audio`, and shifted by at most 5 ms to where it
    correlates best with it.

    Raises:
      InputError: If ffmpeg fails; the message says how.
    """
    wav = io.BytesIO()
    soundfile.write(wav, to_int16(audio), rate_hz, format="WAV")
    rate = ["-b:a", f"{round(1000 * self.kbit_per_s)}"]
    # Without ffmpeg's version among the tags: the same bytes everywhere.
    rate += ["-map_metadata", "-1", "-bitexact"]
    ogg = self._run(wav.getvalue(), ["-c:a", "libopus", *rate, "-f", "ogg"])
    c = audio.shape[1]
    raw = ["-ar", f"{rate_hz}", "-ac", f"{c}", "-f", "f32le"]
    decoded = np.frombuffer(self._run(ogg, raw), "<f4").reshape(-1, c)
    fake = np.zeros_like(audio)
    fake[: len(decoded)] = decoded[: len(audio)]
    return _shifted(audio, fake, int(_SHIFT_S * rate_hz)), ogg

  def _run(self, given: bytes, words: Sequence[str]) -> bytes:
    quiet = ["-v", "error", "-nostdin"]
    run = subprocess.run(
      [self._program, *quiet, "-i", "pipe:0", *words, "pipe:1"],
      input=given,
      capture_output=True,
      check=False,
    )
    if run.returncode:
      lines = run.stderr.decode(errors="replace").strip().splitlines()
      reason = lines[-1] if lines else f"exit status {run.returncode}"
      raise InputError(f"ffmpeg could not run Opus: {reason}")
    return run.stdout


def evaluate(
  codec: Encodec,
  clips: Clips | Sequence[Clip],
  opus: Opus,
  *,
  progress: Callable[[int, int], None] | None = None,
) -> OpusReport:
  """Sends through Opus what `codec.evaluate` sends through a codec.

  Args:
    codec: Whose rate, channels and pieces these are.
    clips: As for `reconstruction.evaluate`.
    progress: Called with the clips done, and how many there are.

  Raises:
    InputError: If ffmpeg fails.
  """
  rate_hz = codec.config.sample_rate_hz
  clip_info: dict[int, tuple[str, float]] = {}
  figures: dict[int, list] = collections.defaultdict(list)
  bits, done, samples = np.zeros(2), 0, 0
  code = functools.partial(opus.code, rate_hz=rate_hz)
  with futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    for pieces in reconstruction.batches(clips, codec):
      sounds = [piece.audio for piece in pieces]
      fakes, files = zip(*threads.map(code, sounds), strict=True)
      real, lengths = reconstruction.padded(sounds, codec)
      fake, _ = reconstruction.padded(fakes, codec)
      distances = reconstruction.measure(real, fake, rate_hz, lengths)
      distances = np.stack(distances, axis=1)[: len(pieces)].tolist()
      for piece, file, values in zip(pieces, files, distances, strict=True):
        clip_info[piece.clip] = piece.name, piece.total / rate_hz
        figures[piece.clip].append((len(piece.audio), values, None))
        bits += 8 * len(file), 8 * _in_packets(file)
        samples += len(piece.audio)
        done += piece.start + len(piece.audio) == piece.total
      if progress:
        progress(done, len(clips))
  whole, packets = (bits * rate_hz / max(samples, 1)).tolist()
  joined = reconstruction.joined
  clips = [joined(*clip_info[i], figures[i]) for i in sorted(clip_info)]
  return OpusReport(opus.kbit_per_s, whole, packets, clips)


def _find() -> str:
  """The ffmpeg on PATH, with libopus.

  Raises:
    InputError: If there is none; the message names the remedy.
  """
  program = shutil.which("ffmpeg")
  remedy = "install one, such as by apt install ffmpeg, or leave --opus away"
  if program is None:
    raise InputError(f"Opus needs ffmpeg, and none is on PATH: {remedy}")
  run = subprocess.run(
    [program, "-v", "error", "-encoders"], capture_output=True, check=False
  )
  if b"libopus" not in run.stdout:
    raise InputError(
      f"Opus needs an ffmpeg with libopus, and {program} lacks it: {remedy}"
    )
  return program


def _shifted(real: np.ndarray, fake: np.ndarray, most: int) -> np.ndarray:
  """`fake` moved by at most so many samples, zeros behind it."""
  n = len(real)
  most = min(most, n - 1)
  along = sum(
    scipy.signal.correlate(real[:, i], fake[:, i], method="fft")
    for i in range(real.shape[1])
  )
  along = along[n - 1 - most : n + most]
  # Of equals, such as those of silence, the one in the middle.
  order = sorted(range(-most, most + 1), key=abs)
  shift = max(order, key=lambda lag: along[lag + most])
  shifted = np.zeros_like(fake)
  shifted[max(shift, 0) : n + min(shift, 0)] = fake[
    max(-shift, 0) : n - max(shift, 0)
  ]
  return shifted


def _in_packets(ogg: bytes) -> int:
  """Bytes of the packets in an Ogg file (RFC 3533) behind Opus's two headers.

  A page is 27 bytes, of which the last tells how many lengths follow, those
  lengths, and what they are the lengths of; the headers have pages of their own
  (RFC 7845, section 3).
  """
  sizes, at = [], 0
  while ogg[at : at + 4] == b"OggS":
    count = ogg[at + 26]
    sizes.append(sum(ogg[at + 27 : at + 27 + count]))
    at += 27 + count + sizes[-1]
  return sum(sizes[2:])
