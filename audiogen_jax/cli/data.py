"""`audiogen data build`, `info`, `read` and `tokenize`; and `enhance`."""

import contextlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.table import Table

from audiogen_jax.audio import io
from audiogen_jax.cli import terminal
from audiogen_jax.cli.enhance import enhance
from audiogen_jax.convert import make_an_audio_rooms
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.convert.make_an_audio_loading import load_autoencoder
from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import (
  beam,
  builder,
  codes,
  latents,
  reading,
  shards,
  sources,
  summary,
)
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.codes import TokenizeConfig
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.reprogramming import ReprogramConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.shards import BuildReport
from audiogen_jax.data.spec import SoundSpec

app = typer.Typer(
  no_args_is_help=True, help="Datasets of sounds and captions, for training."
)

app.command()(enhance)

_SHOWN = 5  # of what was left out; the report has the rest


@app.command()
def build(
  source: Annotated[
    str, typer.Option(help=f"One of {', '.join(sources.names())}.")
  ],
  root: Annotated[Path, typer.Option(help="Where the source's files lie.")],
  out: Annotated[
    Path,
    typer.Option(
      help="A new folder for the dataset, or one where this command was killed:"
      " it goes on where it stopped."
    ),
  ],
  rate: Annotated[int, typer.Option(help="Hz.")] = SoundSpec.rate_hz,
  channels: Annotated[int, typer.Option()] = SoundSpec.channels,
  workers: Annotated[
    int | None,
    typer.Option(min=1, help="Processes that decode.  \\[default: one a core]"),
  ] = None,
  lower: Annotated[
    bool, typer.Option("--lower", help="Captions in lower case.")
  ] = CaptionRules.lower,
  stop_words: Annotated[
    bool,
    typer.Option(
      "--drop-stop-words", help="Leave out a, the, of, ... and numbers."
    ),
  ] = CaptionRules.stop_words,
  lemmas: Annotated[
    bool, typer.Option("--lemmas", help="Words as in a dictionary.")
  ] = CaptionRules.lemmas,
  speech: Annotated[
    bool | None,
    typer.Option(
      "--keep-speech/--drop-speech",
      help="Clips whose tags or caption speak of speech.  \\[default: as in the"
      " paper, dropped where they dominate]",
    ),
  ] = None,
  bare: Annotated[
    bool,
    typer.Option(
      "--keep-bare",
      help="Keep sounds with neither caption nor tags, for `data enhance`.",
    ),
  ] = CaptionRules.bare,
  beam_options: Annotated[
    str | None,
    typer.Option(
      "--beam",
      help="Run under Apache Beam with these options, for example"
      ' "--runner=DirectRunner"; the dataset then lies in OUT/SOURCE/1.0.0.',
    ),
  ] = None,
) -> None:
  """Turn recordings and captions into a TFDS dataset."""
  spec = SoundSpec(rate_hz=rate, channels=channels)
  rules = CaptionRules(
    lower=lower, stop_words=stop_words, lemmas=lemmas, bare=bare
  )
  drop_speech = None if speech is None else not speech
  options = dict(spec=spec, rules=rules, drop_speech=drop_speech)
  if beam_options is not None:
    _tell(*beam.build(source, root, out, options=beam_options, **options))
    return
  with terminal.bar() as bar:
    task = bar.add_task(f"reading {source}", total=None)

    def progress(done: int, total: int) -> None:
      bar.update(task, description="clips", completed=done, total=total)

    report = builder.build(
      source, root, out, workers=workers, progress=progress, **options
    )
  _tell(out, report)


@app.command()
def tokenize(
  dataset: Annotated[Path, typer.Argument(help="A dataset of sounds.")],
  model: Annotated[
    str,
    typer.Option(
      help="Whose codec, or whose mel autoencoder: hub id, folder or gs:// URI."
    ),
  ],
  out: Annotated[
    Path, typer.Option(help="A new folder, or one where this was killed.")
  ],
  min_duration: Annotated[
    float, typer.Option(help="Seconds; silence fills up shorter clips.")
  ] = TokenizeConfig.min_duration_s,
  copies: Annotated[
    int, typer.Option(help="Copies of each clip, mixed with other clips.")
  ] = TokenizeConfig.copies,
  batch: Annotated[
    int, typer.Option(help="Clips encoded together.")
  ] = TokenizeConfig.batch,
  seed: Annotated[int, typer.Option(help="Of the mixing.")] = 0,
  distributed: Annotated[
    bool,
    typer.Option(
      "--distributed",
      help="One of several processes: a Cloud TPU slice, SLURM, or"
      " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.  The"
      " folder must be the same one for all.",
    ),
  ] = False,
) -> None:
  """Turn a dataset of sounds into one of codes, or of latents."""
  config = TokenizeConfig(
    min_duration_s=min_duration, copies=copies, batch=batch, seed=seed
  )
  with processes.distributed() if distributed else contextlib.nullcontext():
    process = jax.process_index(), jax.process_count()
    with terminal.bar(shown=process[0] == 0) as bar:
      task = bar.add_task(f"loading {model}", total=None)
      if make_an_audio_rooms.belongs(model):
        encode, coder = latents.tokenize, load_autoencoder(model)
      else:
        encode, coder = codes.tokenize, load_codec(model)

      def progress(done: int, total: int) -> None:
        bar.update(task, description="clips", completed=done, total=total)

      report = encode(
        dataset, coder, out, config=config, process=process, progress=progress
      )
    if report:
      _tell(out, report)


@app.command()
def read(
  datasets: Annotated[
    list[Path], typer.Argument(help="Datasets, drawn from alike.")
  ],
  split: Annotated[str, typer.Option()] = Part.split,
  batch: Annotated[int, typer.Option(help="Rows of a batch.")] = 16,
  duration: Annotated[
    float, typer.Option(help="Seconds of a crop.")
  ] = LoaderConfig.duration_s,
  mix: Annotated[
    bool, typer.Option("--mix", help="Mix half of the rows, as in the paper.")
  ] = False,
  bank: Annotated[
    str | None,
    typer.Option(
      help="Datasets of sounds with one label each, separated by commas: join"
      " some of them to the rows and tell of them, as Make-An-Audio does."
    ),
  ] = None,
  seed: Annotated[int, typer.Option()] = LoaderConfig.seed,
  workers: Annotated[
    int, typer.Option(help="Processes that prepare batches.")
  ] = LoaderConfig.workers,
  save: Annotated[
    Path | None,
    typer.Option(help="A folder for the sounds of the first batch, as .wav."),
  ] = None,
) -> None:
  """Read an epoch as training does: to hear it, and to see how fast it is."""
  config = LoaderConfig(
    batch=batch,
    duration_s=duration,
    mix=MixConfig() if mix else None,
    reprogram=None if bank is None else ReprogramConfig(bank=bank),
    seed=seed,
    epochs=1,
    workers=workers,
  )
  loader = Loader([Part(folder, split) for folder in datasets], config)
  if save is not None:
    save.mkdir(parents=True, exist_ok=True)
  clips, start = 0, time.perf_counter()
  with terminal.bar() as bar, loader.batches() as batches:
    for i, rows in enumerate(bar.track(batches, len(loader), description="")):
      clips += int(rows["valid"].sum())
      if save is not None and i == 0:
        _save(save, rows, loader.settings)
  wall = time.perf_counter() - start
  terminal.out.print(
    f"{len(loader):,} batches, {clips:,} clips, {clips * duration / 3600:.2f}"
    f" hours in {wall:.1f} s: {clips * duration / wall:,.0f} x real time"
  )


def _save(
  folder: Path, rows: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
  """Rows of a batch, each under the first words of its caption."""
  if "audio" not in rows:
    raise InputError(
      "codes and latents cannot be heard; save sounds before tokenising"
    )
  width = len(str(len(rows["caption"])))
  for i, (audio, caption) in enumerate(
    zip(np.asarray(rows["audio"]), rows["caption"], strict=True)
  ):
    words = re.sub(r"\W+", "-", caption.lower())[:60].strip("-")
    path = folder / f"{i:0{width}d}-{words or 'silence'}.wav"
    io.write(path, audio, settings["rate_hz"])


@app.command()
def info(
  dataset: Annotated[Path, typer.Argument(help="A dataset.")],
  plot: Annotated[
    Path | None,
    typer.Option(help="A PNG to draw: durations, levels, caption lengths."),
  ] = None,
) -> None:
  """Say what is in a dataset."""
  if plot is not None and plot.suffix.lower() != ".png":
    raise InputError(f"cannot draw {plot}: the name must end in .png")
  opened = reading.read(dataset)
  with terminal.bar() as bar:
    task = bar.add_task("clips", total=None)
    settings, splits = summary.summarise(
      dataset,
      progress=lambda done, total: bar.update(
        task, completed=done, total=total
      ),
    )
  table = Table(title=f"{opened.name}: {dataset}", title_justify="left")
  table.add_column("")
  for name in splits:
    table.add_column(name, justify="right", overflow="fold")
  rows = {
    "clips": lambda s: f"{s.clips:,}",
    "hours": lambda s: f"{'' if s.clips == s.looked_at else '≈ '}{s.hours:.2f}",
    "duration, s": lambda s: _spread(s.durations_s, "{:.2f}"),
    "level, dBFS": lambda s: _spread(s.levels_db, "{:.1f}"),
    "words in a caption": lambda s: _spread(s.caption_words, "{:.0f}"),
    "tags": lambda s: _most(s.tags),
    "sources": lambda s: _most(s.sources),
  }
  for label, cell in rows.items():
    table.add_row(label, *(cell(split) for split in splits.values()))
  terminal.out.print(table)
  for name, value in settings.items():
    terminal.out.print(f"{name}: {value}", markup=False)
  if licence := reading.licence(opened):
    terminal.out.print(f"licence: {licence}", markup=False)
  if plot is not None:
    summary.draw(plot, opened.name, splits)
    terminal.out.print(f"{plot}", markup=False)


def _spread(values: np.ndarray, form: str) -> str:
  """Least, median and greatest of some values, as text; "-" for none."""
  if not len(values):
    return "-"
  some = values.min(), np.median(values), values.max()
  return " / ".join(form.format(value) for value in some)


def _most(counts: Mapping[str, int]) -> str:
  """The ten most frequent names, each with its number, as text."""
  ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  parts = [f"{name} {count:,}" for name, count in ranked[:10]]
  more = [f"and {len(ranked) - 10:,} more"] if len(ranked) > 10 else []
  return ", ".join(parts + more) or "-"


def _tell(folder: Path, report: BuildReport) -> None:
  """Prints what was written, and the first few items that were left out."""
  written = ", ".join(f"{n:,} in {s}" for s, n in report.examples.items())
  terminal.out.print(f"{folder}: {written}", markup=False, soft_wrap=True)
  if not report.left_out:
    return
  terminal.err.print(
    f"left out: {len(report.left_out):,}; all of them, and why, in"
    f" {folder / shards.REPORT}",
    style="yellow",
    markup=False,
    soft_wrap=True,
  )
  for row in report.left_out[:_SHOWN]:
    line = f"  {row.what}: {row.reason}"
    terminal.err.print(line, markup=False, soft_wrap=True)
