"""Sound files, rates and channels, on the host: numpy in, numpy out.

Files appear whole or not at all, and whatever is wrong with a file or a sound
is an `InputError` that says so.
"""

import collections
import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr
from jax import Array
from jaxtyping import Float, Int16
from numpy.typing import ArrayLike

from audiogen_jax.audio import checks, containers
from audiogen_jax.core.errors import InputError

_FORMATS = {
  ".wav": ("WAV", "PCM_16"),
  ".flac": ("FLAC", "PCM_16"),
  ".ogg": ("OGG", "VORBIS"),
}


def read(
  path: str | os.PathLike,
  *,
  rate_hz: int | None = None,
  channels: int | None = None,
  start_s: float = 0.0,
  end_s: float | None = None,
) -> tuple[Float[np.ndarray, "n c"], int]:
  """Reads any sound file that libsndfile or, where installed, ffmpeg knows.

  libsndfile reads WAV, FLAC, OGG and MP3 among others; M4A needs ffmpeg.

  Args:
    rate_hz: Resamples to this rate; None keeps the file's own.
    channels: As for `convert_channels`; None keeps the file's own.
    start_s: Where to begin, in seconds.
    end_s: Where to stop; None, or beyond the end, for the rest.

  Returns:
    The sound and its rate in Hz.

  Raises:
    InputError: If there is no such file, or no sound in it, or NaN.
  """
  path = pathlib.Path(path)
  if not 0 <= start_s < (float("inf") if end_s is None else end_s):
    raise InputError(f"{path}: {start_s} s to {end_s} s is no stretch of it")
  with containers.opened(path) as sound:
    from_hz = sound.rate_hz
    end = None
    if end_s is not None and end_s < float("inf"):
      end = round(end_s * from_hz)
    audio = sound.read(round(start_s * from_hz), end)
  audio = checked(audio, str(path))
  # Channels first: averaging them leaves less to resample.
  if channels is not None:
    audio = convert_channels(audio, channels)
  if rate_hz is not None:
    audio = resample(audio, from_hz, rate_hz)
  return audio, from_hz if rate_hz is None else rate_hz


def length_s(path: str | os.PathLike) -> float:
  """How long a sound file is: by its header, or decoded where that is silent.

  Raises:
    InputError: As for `read`.
  """
  with containers.opened(pathlib.Path(path)) as sound:
    return sound.count() / sound.rate_hz


def resample(
  audio: Float[np.ndarray, "n c"], from_hz: int, to_hz: int
) -> Float[np.ndarray, "m c"]:
  """Resamples with soxr (very high quality); m is n * to_hz / from_hz."""
  for rate_hz in (from_hz, to_hz):
    check_rate(rate_hz)
  if from_hz == to_hz:
    return audio
  resampled = soxr.resample(audio, from_hz, to_hz, quality="VHQ")
  if not len(resampled):
    raise InputError(
      f"{len(audio)} samples at {from_hz} Hz are less than one at {to_hz} Hz: "
      "use a longer sound"
    )
  return resampled


def convert_channels(
  audio: Float[np.ndarray, "n c"], channels: int
) -> Float[np.ndarray, "n d"]:
  """Averages down to mono, copies mono, or keeps the first channels.

  There is no rule for making, say, 6 channels of 2, so that raises.
  """
  have = audio.shape[1]
  if channels < 1:
    raise InputError(f"channels must be 1 or more, got {channels}")
  if channels == have:
    return audio
  if channels == 1:
    return audio.mean(axis=1, keepdims=True)
  if have == 1:
    return np.repeat(audio, channels, axis=1)
  if have > channels:
    return audio[:, :channels]
  raise InputError(
    f"cannot make {channels} channels of {have}: ask for 1 to {have}"
  )


def to_int16(audio: Float[np.ndarray, "*axes"]) -> Int16[np.ndarray, "*axes"]:
  """Nearest 16-bit samples, 2^15 for 1.0, clamped."""
  audio = np.rint(audio * np.float32(2**15))
  return np.clip(audio, -(2**15), 2**15 - 1).astype(np.int16)


def write(
  path: str | os.PathLike,
  audio: Float[Array | np.ndarray, "n c"],
  rate_hz: int,
) -> None:
  """Writes 16-bit WAV or FLAC, or OGG/Vorbis, whichever the suffix names.

  Samples beyond [-1, 1] are clamped.  An existing file is replaced, and only
  once the new one is complete.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in _FORMATS:
    raise InputError(
      f"cannot write {path}: the name must end in {', '.join(_FORMATS)}"
    )
  check_rate(rate_hz)
  audio = np.clip(checked(audio, f"the sound for {path}"), -1.0, 1.0)
  kind, subtype = _FORMATS[path.suffix.lower()]
  if subtype == "PCM_16":
    # libsndfile scales by 2^15 - 1 into WAV but by 2^15 out of it; scaled here,
    # WAV and FLAC hold the same samples, each within half a step.
    audio = to_int16(audio)
  with whole(path) as part:
    try:
      with soundfile.SoundFile(
        part, "w", rate_hz, audio.shape[1], subtype, format=kind
      ) as file:
        # A second at a time: given ten minutes at once, libsndfile's Vorbis
        # encoder (1.2.2) ends the whole process with a segmentation fault.
        for start in range(0, len(audio), rate_hz):
          file.write(audio[start : start + rate_hz])
    except soundfile.LibsndfileError as error:
      reason = str(error.error_string).strip(" .")
      raise InputError(
        f"cannot write {path} with {audio.shape[1]} channels at {rate_hz} Hz "
        f"({reason}): check the folder, the disk and these numbers"
      ) from error


def check_rate(rate_hz: int) -> None:
  """Raises for a rate that none is."""
  if rate_hz < 1:
    raise InputError(f"a rate must be 1 Hz or more, got {rate_hz}")


def checked(audio: ArrayLike, what: str) -> Float[np.ndarray, "n c"]:
  """The sound as float32, or an error that says what is wrong with it."""
  audio = checks.samples(audio, what)
  if audio.ndim != 2:
    raise InputError(
      f"{what} must have two axes, samples and channels, got shape "
      f"{audio.shape}: pass one sound, mono as [n, 1]"
    )
  return audio


def name_outputs(
  output: pathlib.Path, stems: list[str], suffixes: tuple[str, ...]
) -> list[pathlib.Path]:
  """A file for each result, in a folder that can be written.

  Args:
    output: One file, if its suffix is among `suffixes`, or a folder, which is
      made if need be.
    stems: Names of the results, without suffix.
    suffixes: Those allowed; the first is given to files in a folder.

  Raises:
    InputError: If the names clash or the folder cannot be written: better now
      than after hours of work.
  """
  twice = [stem for stem, n in collections.Counter(stems).items() if n > 1]
  if twice:
    raise InputError(
      f"two results would be called {min(twice)}; make them one at a time"
    )
  if output.suffix.lower() in suffixes and not output.is_dir():
    if len(stems) > 1:
      raise InputError(
        f"{output} is one file for {len(stems)} results; name a folder"
      )
    _writable(output.parent)
    return [output]
  if output.suffix and not output.is_dir():
    raise InputError(
      f"{output}: the suffix must be {', '.join(suffixes)}; or name a folder"
    )
  _writable(output)
  return [output / f"{stem}{suffixes[0]}" for stem in stems]


def _writable(folder: pathlib.Path) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{uuid.uuid4().hex}.part"
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise InputError(
      f"cannot write into {folder}: {error.strerror}; choose another folder"
    ) from None


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary sibling of path that takes its place on success."""
  check_target(path)
  part = path.parent / f".{uuid.uuid4().hex}.part"
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def check_target(path: pathlib.Path) -> None:
  """Raises if no file can be written there: better before work than after."""
  folder = path.parent
  if not folder.is_dir():
    raise InputError(
      f"cannot write {path}: no folder {folder}, create it first"
    )
  if not os.access(folder, os.W_OK):
    raise InputError(
      f"cannot write {path}: no permission to write in {folder}, "
      "choose another folder"
    )
  if path.is_dir():
    raise InputError(f"cannot write {path}: it is a folder, name a file in it")
