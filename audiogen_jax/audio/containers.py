"""Opening sound files, also those whose header does not state their length.

A recorder that was stopped, or a program that writes to a pipe, leaves the
length open or zero; an MP3 of variable bit rate tells it only in a frame that
many programs leave out.  libsndfile believes what it is told, so what is wrong
is put right before it looks.
"""

import contextlib
import io
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float32

from audiogen_jax.audio import mpeg
from audiogen_jax.core.errors import InputError

# MP3 announces up to two of its frames, of 1152 samples, more than it holds.
_SLACK = 2 * 1152
_UNKNOWN = 2**62  # about what libsndfile says of a length that is open
_BLOCK = 2**20  # samples that are decoded at once
# A file of 10 MB could announce hours of silence: what is decoded is bounded by
# this, or by what the worst codecs in use reach, whichever is more.
_VALUES, _VALUES_A_BYTE = 2**28, 30
_LONGEST_S = 4 * 3600
_LEAST_HZ, _MOST_HZ = 100, 1_536_000
_MOST_CHANNELS = 256
_FFMPEG_S = 300


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator["Sound"]:
  """A sound file, ready to be decoded.

  Raises:
    InputError: If it is no regular file, holds no sound that libsndfile or,
      where installed, ffmpeg knows, or is cut short.
  """
  try:
    mode = path.stat().st_mode
  except FileNotFoundError:
    raise InputError(f"no sound file at {path}: check the path") from None
  if stat.S_ISDIR(mode):
    raise InputError(f"{path} is a folder: name one sound file in it")
  if not stat.S_ISREG(mode):
    raise InputError(f"{path} is a pipe or device: save it to a file first")
  with contextlib.ExitStack() as stack:
    try:
      file = _file(path, stack)
      _refuse_cut(path, file)
      yield Sound(path, file)
    except InputError:
      raise
    # TypeError is soundfile's answer to a file named .raw: no header, no rate.
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
      raise InputError(
        f"cannot read {path} as sound ({_reason(path, error)}): convert it to"
        " WAV or FLAC"
      ) from error


class Sound:
  """An open sound file.

  Attributes:
    rate_hz: Sample rate in Hz.
    channels: How many.
  """

  def __init__(self, path: pathlib.Path, file: soundfile.SoundFile) -> None:
    self._path, self._file = path, file
    self.rate_hz, self.channels = file.samplerate, file.channels
    if not _LEAST_HZ <= self.rate_hz <= _MOST_HZ:
      raise InputError(
        f"{path} has {self.rate_hz} samples a second, and rates from"
        f" {_LEAST_HZ} to {_MOST_HZ} Hz are read: its header is damaged, or it"
        " is no sound"
      )
    if self.channels > _MOST_CHANNELS:
      raise InputError(
        f"{path} has {self.channels} channels; at most {_MOST_CHANNELS} are"
        " read"
      )
    size = path.stat().st_size
    most = max(_VALUES, _VALUES_A_BYTE * size) // self.channels
    self._most = min(most, _LONGEST_S * self.rate_hz)

  @property
  def frames(self) -> int | None:
    """Samples of each channel, or None where the file does not say."""
    frames = self._file.frames
    return None if frames >= _UNKNOWN else frames

  def count(self) -> int:
    """Samples of each channel, decoded if need be."""
    if self.frames is not None:
      return self.frames
    return sum(map(len, self._blocks(None)))

  def read(self, start: int, end: int | None) -> Float32[np.ndarray, "n c"]:
    """Samples from `start` to `end`, or to the end of the file.

    Raises:
      InputError: If there are too many for memory, fewer than the file says, or
        none after `start`.
    """
    total = self.frames
    if total is not None:
      if start and start >= total:
        self._refuse_start(start, total)
      end = total if end is None else min(end, total)
      if end - start > self._most:
        self._refuse_length(end - start)
    self._skip(start, total)
    blocks, held = [], 0
    for block in self._blocks(None if end is None else end - start):
      blocks.append(block)
      held += len(block)
      if held > self._most:
        self._refuse_length(held)
    if total is not None and held < end - start - _SLACK:
      raise InputError(
        f"{self._path} is cut short: {end - start} samples are announced,"
        f" {held} there; copy it again"
      )
    if start and not held:
      self._refuse_start(start, start)
    return np.concatenate(blocks or [np.zeros((0, self.channels), np.float32)])

  def _skip(self, start: int, total: int | None) -> None:
    """Goes to a sample; where the file cannot seek, by decoding up to it."""
    if not start:
      return
    if total is not None and self._file.seekable():
      with contextlib.suppress(soundfile.LibsndfileError):
        self._file.seek(start)
        return
    at = sum(map(len, self._blocks(start)))
    if at < start:
      self._refuse_start(start, at)

  def _blocks(self, frames: int | None) -> Iterator[np.ndarray]:
    """The next samples, at most so many."""
    size = max(1, _BLOCK // self.channels)
    while frames is None or frames > 0:
      ask = size if frames is None else min(size, frames)
      block = self._file.read(ask, dtype="float32", always_2d=True)
      if len(block):
        yield block
      if len(block) < ask:
        return
      if frames is not None:
        frames -= len(block)

  def _refuse_start(self, start: int, frames: int) -> None:
    raise InputError(
      f"{self._path} ends at {frames / self.rate_hz:.3f} s, before"
      f" {start / self.rate_hz:g} s"
    )

  def _refuse_length(self, frames: int) -> None:
    raise InputError(
      f"{self._path} lasts {frames / self.rate_hz:,.0f} s or more, with"
      f" {self.channels} channel(s) at {self.rate_hz} Hz; at most"
      f" {self._most / self.rate_hz:,.0f} s are read at once: cut it, or name"
      " a stretch of it"
    )


def _file(
  path: pathlib.Path, stack: contextlib.ExitStack
) -> soundfile.SoundFile:
  """The file in libsndfile's hands, its length put right.

  Only a format that libsndfile does not know goes to ffmpeg: of a damaged file
  it would return what it can, and nobody would hear of the rest.
  """
  raw = stack.enter_context(path.open("rb"))
  head = raw.read(4096)
  source: str | io.RawIOBase | io.BytesIO = str(path)
  if head[:3] == b"ID3" or path.suffix.lower() == ".mp3":
    source = mpeg.with_frame_count(raw) or source
  elif head[:4] == b"RIFF" and head[8:12] == b"WAVE":
    source = _with_data_size(raw) or source
  try:
    file = stack.enter_context(soundfile.SoundFile(source))
    if file.frames >= _UNKNOWN:
      file.seekable = lambda: False  # it says that it is, and then fails
    return file
  except soundfile.LibsndfileError:
    decoded = _by_ffmpeg(path, stack)
    if decoded is None:
      raise
    return stack.enter_context(soundfile.SoundFile(decoded))


def _by_ffmpeg(
  path: pathlib.Path, stack: contextlib.ExitStack
) -> BinaryIO | None:
  """The sound decoded by ffmpeg to AU, in a file without a name.

  None if ffmpeg cannot decode it or is not installed.
  """
  program = shutil.which("ffmpeg")
  if program is None:
    return None
  target = stack.enter_context(tempfile.TemporaryFile())
  # file: keeps names such as "a:b.m4a" from being taken for protocols, and the
  # whitelist keeps play lists from naming servers.
  source = ["-protocol_whitelist", "file", "-i", f"file:{path}"]
  most = 4 * max(_VALUES, _VALUES_A_BYTE * path.stat().st_size) + 2**20
  to = ["-map", "0:a:0", "-fs", str(most)]
  to += ["-f", "au", "-c:a", "pcm_f32be", "-"]  # AU: made for streaming
  try:
    run = subprocess.run(
      [program, "-v", "error", "-xerror", "-nostdin", *source, *to],
      stdout=target,
      stderr=subprocess.DEVNULL,
      check=False,
      timeout=_FFMPEG_S,
    )
  except subprocess.TimeoutExpired:
    raise InputError(
      f"ffmpeg has not decoded {path} within {_FFMPEG_S} s: convert it to WAV"
      " or FLAC"
    ) from None
  if run.returncode or not target.tell():
    return None
  target.seek(0)
  return target


def _reason(path: pathlib.Path, error: Exception) -> str:
  """Why a file cannot be opened, where libsndfile gives a wrong reason."""
  with path.open("rb") as file:
    head = file.read(512).lstrip().lower()
  if not head:
    return "it is empty"
  if head.startswith((b"<!doctype", b"<html", b"<?xml")):
    return "it is a web page"
  words = getattr(error, "error_string", str(error)).strip(" .")
  if not words:
    return "its data are damaged"
  # Said of whatever it cannot open, although the file is there.
  if "File does not exist" in words:
    return "no sound of a known format is in it"
  return words


def _refuse_cut(path: pathlib.Path, file: soundfile.SoundFile) -> None:
  """Refuses a file without its end, of which libsndfile reads what is there."""
  # What libsndfile notes of a WAV or AIFF; a stream of unknown length announces
  # the largest number there is.
  sizes = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)", file.extra_info)
  if sizes and int(sizes[2]) < int(sizes[1]) < 2**31 - 2**16:
    raise InputError(
      f"{path} is cut short: {sizes[1]} bytes are announced, {sizes[2]} there;"
      " copy it again"
    )
  if file.format == "OGG":
    _refuse_pages(path)


def _refuse_pages(path: pathlib.Path) -> None:
  """Refuses an Ogg file that lacks its last page or holds several streams."""
  last, begun = 0, False
  with path.open("rb") as raw:
    while (head := raw.read(27))[:4] == b"OggS" and len(head) == 27:
      sizes = raw.read(head[26])
      raw.seek(sum(sizes), 1)
      last = head[5]
      if begun and last & 2:
        raise InputError(
          f"{path} holds several streams, one after another, of which only the"
          " first would be heard: convert it to WAV or FLAC"
        )
      begun = begun or not last & 2
    end = raw.tell()
  if not last & 4 or end > path.stat().st_size:
    raise InputError(f"{path} is cut short: its last page is missing")


class _Patched(io.RawIOBase):
  """A file in which a few bytes are read as others."""

  def __init__(self, raw: BinaryIO, at: int, new: bytes) -> None:
    self._raw, self._at, self._new = raw, at, new

  def seekable(self) -> bool:
    return True

  def readable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._raw.tell()

  def seek(self, offset: int, whence: int = 0) -> int:
    return self._raw.seek(offset, whence)

  def readinto(self, buffer: Any) -> int:  # libsndfile's is of cffi
    start = self._raw.tell()
    data = bytearray(self._raw.read(len(buffer)))
    for i, byte in enumerate(self._new):
      if 0 <= self._at + i - start < len(data):
        data[self._at + i - start] = byte
    buffer[: len(data)] = bytes(data)
    return len(data)


def _with_data_size(raw: BinaryIO) -> _Patched | None:
  """A WAV whose header states no bytes of samples, with the real number.

  None for a WAV whose header states some, or that holds none.
  """
  raw.seek(12)
  while len(head := raw.read(8)) == 8:
    at, size = raw.tell(), int.from_bytes(head[4:], "little")
    if head[:4] == b"data":
      there = raw.seek(0, 2) - at
      if size or not there:
        return None
      there = min(there, 2**32 - 2**16)
      raw.seek(0)
      return _Patched(raw, at - 4, there.to_bytes(4, "little"))
    raw.seek(size + size % 2, 1)
  return None
