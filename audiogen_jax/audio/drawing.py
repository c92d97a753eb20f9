"""Pictures of sound."""

import os
import pathlib
import warnings

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from audiogen_jax.audio import dsp, io
from audiogen_jax.core.errors import InputError


def spectrogram(
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
  io.check_rate(rate_hz)
  audio = io.checked(audio, f"the sound for {path}")

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
  with io.whole(path) as part, warnings.catch_warnings():
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
