"""Sound files, rates and channels, on the host: numpy in, numpy out.

Files appear whole or not at all, and whatever is wrong with a file or a sound
is an `InputError` that says so.
"""

import contextlib
import os
import pathlib
import uuid
import warnings

import jax.numpy as jnp
import numpy as np
import soundfile
import soxr
from jaxtyping import Array, Float

from audiogen_jax.audio import dsp
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
) -> tuple[Float[np.ndarray, "n c"], int]:
  """Reads any sound file that libsndfile knows: WAV, FLAC, OGG, MP3, ...

  Args:
    rate_hz: Resamples to this rate; None keeps the file's own.
    channels: As for `convert_channels`; None keeps the file's own.

  Returns:
    The sound and its rate in Hz.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise InputError(f"no sound file at {path}: check the path")
  if path.is_dir():
    raise InputError(f"{path} is a folder: name one sound file in it")
  try:
    with soundfile.SoundFile(path) as file:
      from_hz = file.samplerate
      audio = file.read(dtype="float32", always_2d=True)
  # TypeError is soundfile's answer to a file named .raw: no header, no rate.
  except (soundfile.SoundFileError, TypeError) as error:
    reason = str(error).strip(" .") or "its data are damaged"
    raise InputError(
      f"cannot read {path} as sound ({reason}): convert it to WAV or FLAC"
    ) from error
  audio = _checked(audio, str(path))
  # Channels first: averaging them leaves less to resample.
  if channels is not None:
    audio = convert_channels(audio, channels)
  if rate_hz is not None:
    audio = resample(audio, from_hz, rate_hz)
  return audio, from_hz if rate_hz is None else rate_hz


def resample(
  audio: Float[np.ndarray, "n c"], from_hz: int, to_hz: int
) -> Float[np.ndarray, "m c"]:
  """Resamples with soxr (very high quality); m is n * to_hz / from_hz."""
  for rate_hz in (from_hz, to_hz):
    _check_rate(rate_hz)
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
  _check_rate(rate_hz)
  audio = np.clip(_checked(audio, f"the sound for {path}"), -1.0, 1.0)
  kind, subtype = _FORMATS[path.suffix.lower()]
  if subtype == "PCM_16":
    # libsndfile scales by 2^15 - 1 into WAV but by 2^15 out of it; scaled here,
    # WAV and FLAC hold the same samples, each within half a step.
    audio = np.clip(np.rint(audio * 2**15), -(2**15), 2**15 - 1)
    audio = audio.astype(np.int16)
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


def draw_spectrogram(
  path: str | os.PathLike,
  audio: Float[Array | np.ndarray, "n c"],
  rate_hz: int,
  *,
  title: str = "",
) -> None:
  """Draws a PNG: the waveform above its mel spectrogram.

  The waveform is the extremes over all channels, the spectrogram the mean of
  their powers in dB below a full-scale sine, the loudest 80 dB of it.
  """
  # Half a second to import, and whoever draws nothing should not pay for it.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  path = pathlib.Path(path)
  if path.suffix.lower() != ".png":
    raise InputError(f"cannot draw {path}: the name must end in .png")
  _check_rate(rate_hz)
  audio = _checked(audio, f"the sound for {path}")

  # Figure instead of pyplot: no global state, no display, safe in threads.
  figure = Figure(figsize=(10, 5), dpi=150, layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  wave, mel = figure.subplots(2, sharex=True, height_ratios=[1, 3])
  _draw_waveform(wave, audio, rate_hz)
  image = _draw_mel(mel, audio, rate_hz)
  figure.colorbar(image, ax=[wave, mel], label="dBFS", pad=0.015, aspect=35)
  figure.align_ylabels([wave, mel])
  if title:
    # Titles are prompts: any length, and a dollar sign starts no formula.
    line = " ".join(title.split())
    short = line if len(line) <= 100 else line[:99] + "…"
    wave.set_title(short, loc="left", fontsize=11, parse_math=False)
  with whole(path) as part, warnings.catch_warnings():
    # The font has no Chinese and no emoji; a box in the title harms nobody.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    figure.savefig(part, format="png")


def _draw_waveform(axes, audio, rate_hz):
  n = len(audio)
  # Extremes of at most 2000 stretches: no screen shows more, and a line through
  # a million points takes seconds.
  starts = np.unique(np.linspace(0, n, 2000, endpoint=False).astype(int))
  low = np.minimum.reduceat(audio.min(axis=1), starts)
  high = np.maximum.reduceat(audio.max(axis=1), starts)
  axes.fill_between(starts / rate_hz, low, high, color="#3b4a8c", linewidth=0.6)
  # At least [-0.05, 0.05], so that silence looks like silence.
  reach = max(1.05 * float(np.abs(audio).max()), 0.05)
  axes.set(xlim=(0, n / rate_hz), ylim=(-reach, reach), ylabel="amplitude")
  axes.grid(alpha=0.25, linewidth=0.5)
  axes.spines[["top", "right"]].set_visible(False)


def _draw_mel(axes, audio, rate_hz):
  n, n_mels = len(audio), 96
  # The power of two nearest to 50 ms resolves both clicks and harmonics.
  n_fft = max(64, 2 ** round(np.log2(0.05 * rate_hz)))
  hop = n_fft // 4
  audio = np.pad(audio, ((0, max(0, n_fft - n)), (0, 0)))
  power = dsp.mel_spectrogram(
    jnp.asarray(audio.T),
    rate_hz,
    n_fft=n_fft,
    hop=hop,
    n_mels=n_mels,
    f_min_hz=0.0,
  )
  power = np.asarray(power).mean(axis=0) / (n_fft / 4) ** 2  # t m
  db = 10 * np.log10(power + 1e-14)
  top = max(float(db.max()), -60.0)  # silence stays black
  image = axes.imshow(
    db.T,
    origin="lower",
    aspect="auto",
    extent=(0, len(db) * hop / rate_hz, 0, n_mels),
    cmap="magma",
    vmin=top - 80,
    vmax=top,
    interpolation="nearest",
  )

  def height(hz):
    """Where a frequency lies among the mel bands."""
    mel = np.log10(1 + np.array([hz, rate_hz / 2]) / 700)
    return n_mels * mel[0] / mel[1]

  ticks = [0, 200, 500, 1000, 2000, 4000, 8000, 16000]
  ticks = [hz for hz in ticks if hz <= rate_hz / 2]
  labels = [f"{hz // 1000}k" if hz >= 1000 else f"{hz}" for hz in ticks]
  axes.set_yticks([height(hz) for hz in ticks], labels)
  axes.set(xlim=(0, n / rate_hz), xlabel="seconds", ylabel="Hz")
  return image


def _check_rate(rate_hz):
  if rate_hz < 1:
    raise InputError(f"a rate must be 1 Hz or more, got {rate_hz}")


def _checked(audio, what: str) -> np.ndarray:
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
  twice = {stem for stem in stems if stems.count(stem) > 1}
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
  part = folder / f".{uuid.uuid4().hex}.part"
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
