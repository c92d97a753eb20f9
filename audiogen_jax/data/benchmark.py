"""How fast datasets are built and read, and in how much memory.

    python -m audiogen_jax.data.benchmark --root ../shared/data/esc10
    ... --batches 10000 --runs 1 --plot memory.png

Builds the dataset of a source in a temporary folder, then reads batches of 64
mixed crops of 10 s from it in one worker process.  "× real time" is seconds of
sound per second of processor time, all processes counted: the work of one core.
Beside each stands a rival on the same recordings in the same run: librosa for
decoding and resampling; and for reading, what loaders without a built dataset
do, which is to decode and resample the recording of each crop.
"""

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import librosa
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from audiogen_jax.audio import io
from audiogen_jax.data import builder, mixing, sources, summary
from audiogen_jax.data.listings import Record
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.text.tokenizer import ByteTokenizer

_CONFIG = LoaderConfig(batch=64, duration_s=10.0, mix=MixConfig(), workers=1)


def main(
  root: Annotated[Path, typer.Option(help="Where the source's files lie.")],
  source: Annotated[str, typer.Option()] = "esc10",
  workers: Annotated[int, typer.Option(help="For building.")] = 2,
  batches: Annotated[int, typer.Option(help="Read for each figure.")] = 200,
  runs: Annotated[int, typer.Option(help="Of which the median counts.")] = 3,
  plot: Annotated[
    Path | None, typer.Option(help="A PNG of memory against batches.")
  ] = None,
) -> None:
  """Measures how fast a dataset is built and read; prints a table."""
  table = Table(title=f"{source}, {os.cpu_count()} cores, medians of {runs}")
  for name in ("", "wall", "processor", "× real time a core"):
    table.add_column(name, justify="right" if name else "left")
  with tempfile.TemporaryDirectory() as folder:
    records = sources.read(source, root).records
    built = Path(folder) / "0"

    def build(run: int) -> None:
      builder.build(source, root, Path(folder) / str(run), workers=workers)

    timed = [_timed(lambda run=run: build(run)) for run in range(runs)]
    _, splits = summary.summarise(built)
    seconds = sum(3600 * split.hours for split in splits.values())
    label = f"build {len(records)} clips, {workers} workers"
    _row(table, label, timed, seconds)
    timed = [_timed(lambda: _decode_by_librosa(records)) for _ in range(runs)]
    _row(table, "  librosa.load of each, one process", timed, seconds)

    part, memory = Part(built), []
    timed = [_timed(lambda: _read(part, batches, memory)) for _ in range(runs)]
    seconds = batches * _CONFIG.batch * _CONFIG.duration_s
    _row(table, f"load {batches} batches of 64, mixed", timed, seconds)
    few = max(1, batches // 50)
    timed = [_timed(lambda: _decode_crops(records, few)) for _ in range(runs)]
    seconds = few * _CONFIG.batch * _CONFIG.duration_s
    _row(table, f"  {few} of them, decoded from the recordings", timed, seconds)
  console = Console()
  console.print(table)
  worker = [row[1] for row in memory]
  console.print(
    f"memory of the worker: {max(worker):.0f} MiB at most,"
    f" {worker[len(worker) // 10]:.0f} MiB after a tenth of a run,"
    f" {worker[-1]:.0f} MiB at its end"
  )
  if plot is not None:
    _draw(plot, memory)
    console.print(str(plot))


def _timed(work: Callable[[], None]) -> tuple[float, float]:
  """Wall and processor seconds, those of ended children included."""

  def used() -> float:
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    usages = [resource.getrusage(kind) for kind in kinds]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

  wall, processor = time.perf_counter(), used()
  work()
  return time.perf_counter() - wall, used() - processor


def _row(
  table: Table, name: str, timed: list[tuple[float, float]], seconds: float
) -> None:
  wall, processor = map(statistics.median, zip(*timed, strict=True))
  speed = f"{seconds / processor:,.0f}"
  table.add_row(name, f"{wall:.2f} s", f"{processor:.2f} s", speed)


def _decode_by_librosa(records: Sequence[Record]) -> None:
  for record in records:
    librosa.load(record.path, sr=SoundSpec.rate_hz, mono=True)


def _read(part: Part, batches: int, memory: list) -> None:
  """Reads batches through a worker; notes the memory now and then."""
  memory.clear()
  loader = Loader([part], _CONFIG, tokenizer=ByteTokenizer())
  host = loader.host_batches()
  for i in range(batches):
    next(host)
    if i % max(1, batches // 200) == 0:
      (worker,) = multiprocessing.active_children()
      memory.append((i, _resident_mib(worker.pid), _resident_mib(os.getpid())))
  host.close()


def _resident_mib(process: int | None) -> float:
  """Resident memory, shared pages included."""
  pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
  return pages * resource.getpagesize() / 2**20


def _decode_crops(records: Sequence[Record], batches: int) -> None:
  """Mixed crops as `_read` reads them, decoded from the recordings."""
  draw = np.random.default_rng(0)
  spec, length = SoundSpec(), 160_000

  def crop() -> np.ndarray:
    record = records[draw.integers(len(records))]
    audio, _ = io.read(record.path, rate_hz=spec.rate_hz, channels=1)
    made = np.zeros((length, 1), np.float32)
    start = draw.integers(max(1, len(audio) - length))
    stretch = audio[start : start + length]
    made[: len(stretch)] = stretch
    return made

  pairs = _CONFIG.batch
  for _ in range(batches):
    seed = int(draw.integers(2**32))
    random = mixing.generator(seed, 0)
    mixed = mixing.draw(random, pairs, length, _CONFIG.mix).mixed
    sounds = [crop() for _ in range(pairs)]
    others = [crop() if both else sounds[0] for both in mixed]
    random = mixing.generator(seed, 0)  # the same draws again
    mixing.mix(np.stack(sounds + others), random, _CONFIG.mix)


def _draw(path: Path, memory: list) -> None:
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 3.5), dpi=150, layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots()
  steps, worker, parent = zip(*memory, strict=True)
  axes.plot(steps, worker, label="worker")
  axes.plot(steps, parent, label="main process")
  axes.axhline(1024, color="grey", linestyle=":", label="1 GiB")
  axes.set(xlabel="batches", ylabel="resident memory, MiB", ylim=(0, 1150))
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False)
  with io.whole(path) as part:
    figure.savefig(part, format="png")


if __name__ == "__main__":
  typer.run(main)
