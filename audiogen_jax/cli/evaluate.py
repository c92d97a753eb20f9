"""`audiogen evaluate`: `codec` here, the rest in files of their own."""

import contextlib
import functools
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from audiogen_jax.audio import drawing, io
from audiogen_jax.cli import (
  audiocaps,
  classes,
  listen,
  order,
  precision,
  results,
  sounds,
  terminal,
)
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import opus as opus_evaluation
from audiogen_jax.evaluate import reconstruction
from audiogen_jax.evaluate.clips import Clips
from audiogen_jax.evaluate.opus import Opus, OpusReport
from audiogen_jax.evaluate.reconstruction import CodecReport, Piece
from audiogen_jax.evaluate.visqol import Visqol

app = typer.Typer(no_args_is_help=True, help="How good a model is.")
app.command()(classes.classes)
app.command()(order.order)
app.command()(precision.precision)
app.command()(sounds.sounds)
app.command()(sounds.statistics)
app.command()(sounds.weights)
app.command()(audiocaps.audiocaps)
app.command()(listen.listen)
app.command()(listen.listen_report)

_DRAWN = 4  # clips in a picture
# Frames an entry; the entropy of fewer is too low by 0.07 bits and more: in
# nats by about entries / (2 frames), after Miller (1955).
_ENOUGH = 10
_LABELS = {
  "si_snr_db": "SI-SNR, dB, segments of 5 s (more is better)",
  "mel_distance": "mel distance, log10 of power",
  "log_spectral_distance_db": "log-spectral distance, dB",
  "visqol_mos_lqo": "ViSQOL, MOS-LQO (1 to 4.75)",
}


@app.command()
def codec(
  model: Annotated[
    str, typer.Argument(help="Whose codec: hub id, folder or gs:// URI.")
  ],
  data: Annotated[
    Path,
    typer.Argument(
      help="A dataset of sounds, or .wav, .flac or .ogg: a file, or a folder."
    ),
  ],
  split: Annotated[
    str | None, typer.Option(help="Of a dataset; validation if not given.")
  ] = None,
  clips: Annotated[
    int | None,
    typer.Option(help="So many clips, evenly spread; else all."),
  ] = None,
  plot: Annotated[
    Path | None,
    typer.Option(help="A PNG to draw: some clips before and after."),
  ] = None,
  json_file: Annotated[
    Path | None,
    typer.Option("--json", help="A file for all figures, of each clip, too."),
  ] = None,
  save: Annotated[
    Path | None,
    typer.Option(help="A folder for the clips before and after, as .wav."),
  ] = None,
  visqol: Annotated[
    Path | None,
    typer.Option(help="ViSQOL's program; else visqol, if that is on PATH."),
  ] = None,
  opus: Annotated[
    list[float] | None,
    typer.Option(
      help="The same clips through Opus at so many kbit/s, 6 or more; again for"
      " another rate.  Needs ffmpeg."
    ),
  ] = None,
) -> None:
  """Encode and decode sounds, and say what became of them."""
  results.check(plot, json_file)
  marker = Visqol.find(visqol)
  rivals = [Opus(rate) for rate in dict.fromkeys(opus or ())]
  with terminal.bar() as bar, contextlib.ExitStack() as stack:
    task = bar.add_task(f"loading {model}", total=None)
    coder = load_codec(model)
    rate_hz = coder.config.sample_rate_hz
    opened = Clips.open(
      data,
      rate_hz=rate_hz,
      channels=coder.config.channels,
      split=split,
      most=clips,
    )
    keeper = _Keeper(
      len(opened),
      rate_hz,
      draws=plot is not None,
      folder=stack.enter_context(_staged(save)) if save else None,
    )

    def progress(done: int, total: int, label: str = "clips") -> None:
      bar.update(task, description=label, completed=done, total=total)

    bar.update(task, description=f"compiling, {len(opened)} clips")
    report = reconstruction.evaluate(
      coder, opened, visqol=marker, keep=keeper, progress=progress
    )
    others = [
      opus_evaluation.evaluate(
        coder,
        opened,
        rival,
        progress=functools.partial(progress, label=_opus(rival.kbit_per_s)),
      )
      for rival in rivals
    ]
    if plot is not None:
      drawing.comparison(plot, keeper.pairs, rate_hz)
    if json_file is not None:
      document = {"model": model, "data": opened.title} | report.plain()
      document |= (
        {"opus": [other.plain() for other in others]} if others else {}
      )
      results.write_json(json_file, document)
  _tell(f"{model} on {opened.title}", report, marker, others)
  results.name(plot, json_file, save)


class _Keeper:
  """Collects pieces of clips, to write them and to draw some."""

  def __init__(
    self, clips: int, rate_hz: int, *, draws: bool, folder: Path | None
  ) -> None:
    self._rate_hz, self._folder = rate_hz, folder
    self._width = len(str(clips))
    some = np.linspace(0, clips - 1, min(_DRAWN, clips), dtype=int)
    self._drawn = set(some.tolist()) if draws else set()
    self._heads: dict[int, tuple[str, np.ndarray, np.ndarray]] = {}
    self._wholes: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    self._missing: dict[int, int] = {}

  @property
  def pairs(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Titles, originals and reconstructions of the clips to draw."""
    return [self._heads[number] for number in sorted(self._heads)]

  def __call__(self, piece: Piece, fake: np.ndarray) -> None:
    """Takes one piece; of a long clip, only the first is drawn."""
    if piece.clip in self._drawn and not piece.start:
      self._heads[piece.clip] = piece.name, piece.audio.copy(), fake.copy()
    if self._folder is None:
      return
    if piece.clip not in self._wholes:
      shape = piece.total, fake.shape[1]
      both = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
      self._wholes[piece.clip] = both
      self._missing[piece.clip] = piece.total
    for whole, part in zip(
      self._wholes[piece.clip], (piece.audio, fake), strict=True
    ):
      whole[piece.start : piece.start + len(part)] = part
    self._missing[piece.clip] -= len(fake)
    if not self._missing[piece.clip]:
      stem = "".join(
        letter if letter.isalnum() or letter in "-_." else "-"
        for letter in Path(piece.name).stem
      )[:60]
      stem = f"{piece.clip:0{self._width}d}-{stem}"
      both = self._wholes.pop(piece.clip)
      for kind, audio in zip(("original", "decoded"), both, strict=True):
        path = self._folder / f"{stem}-{kind}.wav"
        io.write(path, audio, self._rate_hz)


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
  """A hidden folder whose files move into `folder`, all of them or none."""
  created = not folder.exists()
  part = folder / f".{uuid.uuid4().hex}.part"
  try:
    try:
      part.mkdir(parents=True)
    except OSError as error:
      raise InputError(
        f"cannot write into {folder}: {error.strerror}; choose another folder"
      ) from None
    yield part
    for file in sorted(part.iterdir()):
      file.replace(folder / file.name)
    created = False
  finally:
    shutil.rmtree(part, ignore_errors=True)
    if created:
      with contextlib.suppress(OSError):
        folder.rmdir()


def _opus(kbit_per_s: float) -> str:
  return f"Opus, {kbit_per_s:g} kbit/s"


def _tell(
  title: str,
  report: CodecReport,
  visqol: Visqol | None,
  others: Sequence[OpusReport],
) -> None:
  """Prints tables of distances and codebooks, and lines about rates."""
  table = Table(title=Text(title), title_justify="left")
  table.add_column("")
  rivals = [_opus(other.kbit_per_s) for other in others]
  for name in ("mean", "least", "most", *rivals):
    table.add_column(name.replace(", ", ",\n"), justify="right")
  for figure, label in _LABELS.items():
    values = report.values(figure)
    if values:
      some = np.mean(values), min(values), max(values)
      means = [other.mean(figure) for other in others]
      cells = ["" if mean is None else f"{mean:.3f}" for mean in means]
      table.add_row(label, *(f"{value:.3f}" for value in some), *cells)
  terminal.out.print(table)
  table = Table()
  table.add_column("codebook")
  table.add_column("entries used", justify="right")
  full = np.log2(report.codebook_size)
  table.add_column(f"entropy, bits of {full:.4g}", justify="right")
  for i, (used, bits) in enumerate(
    zip(report.usage, report.entropy_bits, strict=True)
  ):
    table.add_row(str(i + 1), f"{used:.1%}", f"{bits:.2f}")
  terminal.out.print(table)
  used, available = report.bits_per_second, report.bits_per_second_available
  lines = [
    f"{len(report.clips):,} clips, {report.seconds / 60:,.1f} minutes,"
    f" {report.frames:,} frames",
    f"{used / 1000:.2f} kbit/s used of {available / 1000:.2f}",
    f"a second encodes {report.encode_speed:,.1f} s of sound and decodes"
    f" {report.decode_speed:,.1f} s",
  ]
  for other, label in zip(others, rivals, strict=True):
    packets, files = other.bits_per_second_packets, other.bits_per_second
    lines.append(
      f"{label}: {packets / 1000:.2f} kbit/s used, {files / 1000:.2f} with what"
      " Ogg adds"
    )
  if report.frames < _ENOUGH * report.codebook_size:
    lines.append(
      f"the entropies come out too low: {report.frames:,} frames are few for"
      f" {report.codebook_size:,} entries"
    )
  if visqol is None:
    lines.append("ViSQOL: skipped, no visqol on PATH; --visqol names one")
  elif report.unmarked[0]:
    pieces, reason = report.unmarked
    lines.append(f"ViSQOL: no mark for {pieces:,} pieces, such as: {reason}")
  for line in lines:
    terminal.out.print(line, markup=False, highlight=False, soft_wrap=True)
