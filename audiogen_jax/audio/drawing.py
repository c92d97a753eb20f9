"""Pictures of sound."""

import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, UInt8

from audiogen_jax.audio import io, mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.errors import InputError

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure
  import matplotlib.image

# A dollar sign starts no formula.
_TITLE = {"loc": "left", "fontsize": 11, "parse_math": False}
_MELS = 96
_FEW = 20  # points of a line that are marked one by one
# Sounds of a list have lengths of their own.
_Sound: TypeAlias = Float[Array | np.ndarray, "_ _"]


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
  path = pathlib.Path(path)
  check_png(path)
  io.check_rate(rate_hz)
  audio = io.checked(audio, f"the sound for {path}")
  figure = _figure(10.0, 5.0)
  wave, bands = figure.subplots(2, sharex=True, height_ratios=[1, 3])
  _draw_waveform(wave, audio, rate_hz)
  db = _mel_db(audio, rate_hz)
  top = max(float(db.max()), -60.0)  # silence stays black
  image = _draw_mel(bands, db, audio, rate_hz, top)
  figure.colorbar(image, ax=[wave, bands], label="dBFS", pad=0.015, aspect=35)
  figure.align_ylabels([wave, bands])
  if title:
    wave.set_title(_short(title, 100), **_TITLE)
  _save(figure, path)


def comparison(
  path: str | os.PathLike,
  pairs: Sequence[tuple[str, _Sound, _Sound]],
  rate_hz: int,
) -> None:
  """Draws a PNG: a column for each sound, its reconstruction below it.

  Mel spectrograms as in `spectrogram`; both of a column are in dB below the
  loudest point of the original, so that what is lost or added can be seen.

  Args:
    pairs: Title, original and reconstruction of each.
  """
  path = pathlib.Path(path)
  check_png(path)
  io.check_rate(rate_hz)
  if not pairs:
    raise InputError(f"there is nothing to draw in {path}")
  figure = _figure(1.2 + 3.6 * len(pairs), 6.0)
  grid = figure.subplots(2, len(pairs), squeeze=False, sharex="col")
  for i, (title, *sounds) in enumerate(pairs):
    top = None
    for axes, kind, audio in zip(
      grid[:, i], ("original", "decoded"), sounds, strict=True
    ):
      audio = io.checked(audio, f"the sound for {path}")
      db = _mel_db(audio, rate_hz)
      if top is None:
        top = max(float(db.max()), -60.0)
      image = _draw_mel(axes, db - top, audio, rate_hz, 0.0)
      axes.label_outer()
      axes.set_ylabel("" if i else f"{kind}, Hz")
    grid[0, i].set_title(_short(title, 36), **_TITLE)
  figure.colorbar(
    image,
    ax=grid,
    label="dB, 0 for the original's loudest",
    pad=0.015,
    aspect=35,
  )
  _save(figure, path)


def mel_image(
  audio: Float[Array | np.ndarray, "n c"], rate_hz: int
) -> UInt8[np.ndarray, "m t 3"]:
  """The mel spectrogram of `spectrogram` alone, as a picture of its bands."""
  from matplotlib import colormaps

  db = _mel_db(np.asarray(audio), rate_hz)
  top = max(float(db.max()), -60.0)
  share = np.clip((db.T[::-1] - top) / 80 + 1, 0, 1)
  return (colormaps["magma"](share)[..., :3] * 255).astype(np.uint8)


def curves(
  path: str | os.PathLike,
  panels: Sequence[tuple[str, Mapping[str, tuple[Sequence, Sequence]]]],
  *,
  across: str,
  least: float | None = None,
) -> None:
  """Draws a PNG: panels side by side, two in a row.

  Args:
    panels: Titles, and the lines below: by name, where and how high.
    across: What the horizontal axis is.
    least: Where vertical axes begin; None for the lowest value.
  """
  path = pathlib.Path(path)
  check_png(path)
  rows = -(-len(panels) // 2)
  figure = _figure(9.0, 0.4 + 2.4 * rows)
  grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
  for axes, (title, lines) in zip(grid.flat, panels, strict=False):
    for name, (x, y) in lines.items():
      mark = "o" if len(x) <= _FEW else None
      axes.plot(x, y, label=name, linewidth=1.2, marker=mark, markersize=3)
    axes.set_ylim(bottom=least)
    axes.set_title(_short(title, 60), **_TITLE)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
      axes.legend(frameon=False, fontsize=8)
  for axes in grid.flat[len(panels) :]:
    axes.set_axis_off()
  for axes in grid[-1]:
    axes.set_xlabel(across)
  _save(figure, path)


def confusions(
  path: str | os.PathLike,
  panels: Sequence[tuple[str, Int[np.ndarray, "_ _"]]],
  names: Sequence[str],
) -> None:
  """Draws a PNG of confusion matrices, side by side.

  Args:
    panels: Titles, and counts below: rows are the true classes, columns the
      predicted ones.  The shade is the share of the row.
    names: Of the columns; the first of them also name the rows.
  """
  path = pathlib.Path(path)
  check_png(path)
  rows, columns = panels[0][1].shape
  side = 1.0 + 0.32 * columns
  figure = _figure(1.6 + side * len(panels), 2.6 + 0.32 * rows)
  grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
  short = [_short(name, 24) for name in names]
  for axes, (title, counts) in zip(grid, panels, strict=True):
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
      shade = "white" if shares[row, column] > 0.5 else "black"
      label = f"{counts[row, column]:d}"
      style = {"ha": "center", "va": "center", "fontsize": 7}
      axes.text(column, row, label, color=shade, **style)
    axes.set_xticks(range(columns), short, rotation=90, fontsize=8)
    axes.set_yticks(range(rows), short[:rows], fontsize=8)
    axes.set_title(_short(title, 36), **_TITLE)
  figure.supxlabel("predicted", fontsize=9)
  figure.colorbar(image, ax=list(grid), label="share of the row", pad=0.015)
  _save(figure, path)


def histograms(
  path: str | os.PathLike,
  rows: Mapping[str, Sequence[float]],
  *,
  across: str,
) -> None:
  """Draws a PNG: histograms below each other, on one axis.

  Args:
    rows: What is counted, by title.
    across: What the axis is.
  """
  path = pathlib.Path(path)
  check_png(path)
  figure = _figure(7.0, 0.8 + 1.3 * len(rows))
  grid = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
  every = np.concatenate([np.asarray(values) for values in rows.values()])
  margin = 0.05 * max(float(np.ptp(every)), 0.01)
  edges = np.linspace(every.min() - margin, every.max() + margin, 41)
  for axes, (title, values) in zip(grid, rows.items(), strict=True):
    axes.hist(values, bins=edges, color="#3b4a8c")
    middle = float(np.median(values))
    axes.axvline(middle, color="#b3403a", linestyle="--")
    told = f"{title}: {len(values):,}, median {middle:.3f}"
    axes.set_title(_short(told, 70), **_TITLE | {"fontsize": 9})
    axes.spines[["top", "right"]].set_visible(False)
  grid[-1].set_xlabel(across)
  _save(figure, path)


def intervals(
  path: str | os.PathLike,
  rows: Sequence[tuple[str, float, tuple[float, float], float | None]],
  *,
  mark: str,
) -> None:
  """Draws a PNG: a figure with its interval on an axis of its own, each a row.

  Args:
    rows: Titles, figures, their intervals, and what to mark beside them.
    mark: What that is.
  """
  path = pathlib.Path(path)
  check_png(path)
  figure = _figure(7.0, 0.6 + 0.9 * len(rows))
  grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
  for axes, (title, value, (low, high), floor) in zip(grid, rows, strict=True):
    axes.plot([low, high], [0, 0], color="#3b4a8c", linewidth=3)
    axes.plot([value], [0], "o", color="#3b4a8c")
    if floor is not None:
      axes.axvline(floor, color="#b3403a", linestyle="--", label=mark)
      axes.legend(fontsize=7, loc="upper right")
    axes.set(yticks=(), ylim=(-1, 1))
    axes.set_title(_short(title, 70), **_TITLE | {"fontsize": 9})
  _save(figure, path)


def points(
  path: str | os.PathLike,
  panels: Sequence[
    tuple[str, Sequence[float], Sequence[tuple[float, float]], float | None]
  ],
  places: Sequence[tuple[str, float]],
  *,
  across: str,
  mark: str,
) -> None:
  """Draws a PNG: panels side by side, a line through points with intervals.

  Args:
    panels: Titles; below, a figure for each place, their intervals, and what to
      mark beside all of them.
    places: Of the points on the horizontal axis, with their labels.
    across: What that axis is.
    mark: What is marked.
  """
  path = pathlib.Path(path)
  check_png(path)
  figure = _figure(0.6 + 3.4 * len(panels), 3.0)
  grid = figure.subplots(1, len(panels), squeeze=False)[0]
  labels, x = zip(*places, strict=True)
  for axes, (title, values, ranges, floor) in zip(grid, panels, strict=True):
    axes.vlines(x, *zip(*ranges, strict=True), color="#9aa5d4", linewidth=3)
    axes.plot(x, values, "o-", color="#3b4a8c", linewidth=1.2, markersize=4)
    if floor is not None:
      axes.axhline(floor, color="#b3403a", linestyle="--", label=mark)
      axes.legend(frameon=False, fontsize=7)
    axes.set_xticks(x, labels, fontsize=8)
    axes.set_xlabel(across)
    axes.margins(x=0.1)
    axes.set_title(_short(title, 50), **_TITLE | {"fontsize": 9})
    axes.spines[["top", "right"]].set_visible(False)
  _save(figure, path)


def check_png(path: pathlib.Path) -> None:
  """Raises unless the name is that of a PNG."""
  if path.suffix.lower() != ".png":
    raise InputError(f"cannot draw {path}: the name must end in .png")


def _figure(width: float, height: float) -> "matplotlib.figure.Figure":
  """An empty figure, of so many inches."""
  # Half a second to import, and whoever draws nothing should not pay for it.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  # Figure instead of pyplot: no global state, no display, safe in threads.
  figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  return figure


def _short(title: str, most: int) -> str:
  """One line of at most so many characters: prompts may have any length."""
  line = " ".join(title.split())
  return line if len(line) <= most else line[: most - 1] + "…"


def _save(figure: "matplotlib.figure.Figure", path: pathlib.Path) -> None:
  with io.whole(path) as part, warnings.catch_warnings():
    # The font has no Chinese and no emoji; a box in the title harms nobody.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    figure.savefig(part, format="png")


def _draw_waveform(
  axes: "matplotlib.axes.Axes", audio: Float[np.ndarray, "n c"], rate_hz: int
) -> None:
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


def _n_fft(rate_hz: int) -> int:
  # The power of two nearest to 50 ms resolves both clicks and harmonics.
  return max(64, 2 ** round(np.log2(0.05 * rate_hz)))


def _mel_db(
  audio: Float[np.ndarray, "n c"], rate_hz: int
) -> Float[np.ndarray, "t m"]:
  """Mel spectrogram in dB below a full-scale sine."""
  n, n_fft = len(audio), _n_fft(rate_hz)
  audio = np.pad(audio, ((0, max(0, n_fft - n)), (0, 0)))
  bands = MelConfig(rate_hz, n_fft=n_fft, hop=n_fft // 4, n_mels=_MELS)
  power = mel.spectrogram(bands, jnp.asarray(audio.T))
  power = np.asarray(power).mean(axis=0) / (n_fft / 4) ** 2  # t m
  return 10 * np.log10(power + 1e-14)


def _draw_mel(
  axes: "matplotlib.axes.Axes",
  db: Float[np.ndarray, "t m"],
  audio: Float[np.ndarray, "n c"],
  rate_hz: int,
  top: float,
) -> "matplotlib.image.AxesImage":
  n, hop = len(audio), _n_fft(rate_hz) // 4
  image = axes.imshow(
    db.T,
    origin="lower",
    aspect="auto",
    extent=(0, len(db) * hop / rate_hz, 0, _MELS),
    cmap="magma",
    vmin=top - 80,
    vmax=top,
    interpolation="nearest",
  )

  def height(hz):
    """Where a frequency lies among the mel bands."""
    mels = np.log10(1 + np.array([hz, rate_hz / 2]) / 700)
    return _MELS * mels[0] / mels[1]

  ticks = [0, 200, 500, 1000, 2000, 4000, 8000, 16000]
  ticks = [hz for hz in ticks if hz <= rate_hz / 2]
  labels = [f"{hz // 1000}k" if hz >= 1000 else f"{hz}" for hz in ticks]
  axes.set_yticks([height(hz) for hz in ticks], labels)
  axes.set(xlim=(0, n / rate_hz), xlabel="seconds", ylabel="Hz")
  return image
