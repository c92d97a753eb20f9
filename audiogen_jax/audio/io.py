"""Sound files, rates and channels, on the host: numpy in, numpy out.

Files appear whole or not at all, and whatever is wrong with a file or a sound
is an `InputError` that says so.
"""

import collections
import contextlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import uuid

import numpy as np
import soundfile
import soxr
from jax import Array
from jaxtyping import Float, Int16

from audiogen_jax.core.errors import InputError

# MP3 announces up to two of its frames, of 1152 samples, more than it holds.
_SLACK = 2 * 1152
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
  if not path.exists():
    raise InputError(f"no sound file at {path}: check the path")
  if path.is_dir():
    raise InputError(f"{path} is a folder: name one sound file in it")
  if not 0 <= start_s < (float("inf") if end_s is None else end_s):
    raise InputError(f"{path}: {start_s} s to {end_s} s is no stretch of it")
  try:
    with _open(path) as file:
      _refuse_cut(path, file)
      audio = _stretch(file, path, start_s, end_s)
      from_hz = file.samplerate
  # TypeError is soundfile's answer to a file named .raw: no header, no rate.
  except (soundfile.SoundFileError, TypeError) as error:
    reason = str(error).strip(" .") or "its data are damaged"
    raise InputError(
      f"cannot read {path} as sound ({reason}): convert it to WAV or FLAC"
    ) from error
  audio = checked(audio, str(path))
  # Channels first: averaging them leaves less to resample.
  if channels is not None:
    audio = convert_channels(audio, channels)
  if rate_hz is not None:
    audio = resample(audio, from_hz, rate_hz)
  return audio, from_hz if rate_hz is None else rate_hz


def length_s(path: str | os.PathLike) -> float:
  """How long a sound file is, from its header: nothing is decoded.

  Raises:
    InputError: If libsndfile does not know it; ffmpeg would have to decode all
      of it.
  """
  path = pathlib.Path(path)
  try:
    about = soundfile.info(path)
  except (soundfile.SoundFileError, TypeError) as error:
    reason = getattr(error, "error_string", str(error)).strip(" .")
    raise InputError(
      f"cannot read {path} as sound ({reason}): convert it to WAV, FLAC, OGG or"
      " MP3"
    ) from error
  return about.frames / about.samplerate


def _open(path: pathlib.Path) -> soundfile.SoundFile:
  """Opens a file with libsndfile, or what ffmpeg makes of it.

  Only a format that libsndfile does not know goes to ffmpeg: of a damaged file
  it would return what it can, and nobody would hear of the rest.
  """
  try:
    return soundfile.SoundFile(path)
  except soundfile.LibsndfileError:
    program = shutil.which("ffmpeg")
    if program is None:
      raise
    # file: keeps names such as "a:b.m4a" from being taken for protocols.
    source = ["-i", f"file:{path}", "-map", "0:a:0"]
    target = ["-f", "au", "-c:a", "pcm_f32be", "-"]  # AU: made for streaming
    run = subprocess.run(
      [program, "-v", "error", "-xerror", "-nostdin", *source, *target],
      capture_output=True,
      check=False,
    )
    if run.returncode or not run.stdout:
      raise
    return soundfile.SoundFile(io.BytesIO(run.stdout))


def _stretch(
  file: soundfile.SoundFile,
  path: pathlib.Path,
  start_s: float,
  end_s: float | None,
) -> Float[np.ndarray, "n c"]:
  start = round(start_s * file.samplerate)
  if start and start >= file.frames:
    length_s = file.frames / file.samplerate
    raise InputError(f"{path} ends at {length_s:.3f} s, before {start_s} s")
  file.seek(start)
  frames = file.frames - start
  if end_s is not None:
    frames = min(frames, round(end_s * file.samplerate) - start)
  audio = file.read(frames, dtype="float32", always_2d=True)
  if len(audio) < frames - _SLACK:
    raise InputError(
      f"{path} is cut short: {frames} samples are announced, {len(audio)}"
      " there; copy it again"
    )
  return audio


def _refuse_cut(path: pathlib.Path, file: soundfile.SoundFile) -> None:
  """Refuses a file without its end, of which libsndfile reads what is there."""
  # What libsndfile notes of a WAV or AIFF; a stream of unknown length announces
  # the largest number there is.
  told = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)", file.extra_info)
  if told and int(told[2]) < int(told[1]) < 2**31 - 2**16:
    raise InputError(
      f"{path} is cut short: {told[1]} bytes are announced, {told[2]} there;"
      " copy it again"
    )
  if file.format == "OGG":
    # The last page of a stream says that it is the last. A page has at most
    # 65,307 bytes.
    with path.open("rb") as raw:
      raw.seek(max(0, path.stat().st_size - 2**17))
      pages = raw.read().rpartition(b"OggS\0")
    if not pages[1] or not pages[2][:1] or not pages[2][0] & 4:
      raise InputError(f"{path} is cut short: its last page is missing")


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


def checked(audio, what: str) -> np.ndarray:
  """The sound as float32 [n c], or an error that says what is wrong with it."""
  audio = np.asarray(audio)
  if audio.ndim != 2:
    raise InputError(
      f"{what} must have two axes, samples and channels, got shape "
      f"{audio.shape}: pass one sound, mono as [n, 1]"
    )
  if audio.dtype.kind in "iubc":
    raise InputError(
      f"{what} must be floats in [-1, 1], got {audio.dtype}: "
      "divide integers by their range"
    )
  if not audio.size:
    raise InputError(
      f"{what} is empty, shape {audio.shape}: it needs at least one sample"
    )
  audio = audio.astype(np.float32)
  bad = audio.size - np.count_nonzero(np.isfinite(audio))
  if bad:
    raise InputError(
      f"{what} holds {bad} NaN or infinite samples of {audio.size}: repair it "
      "or leave it out"
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
def whole(path: pathlib.Path):
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
