"""Sounds that were asked for, made: by all processes, and never twice."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import numpy as np
import typer
from rich import progress as bars

from audiogen_jax import families
from audiogen_jax.audio import drawing, io
from audiogen_jax.cli import models, plan, terminal
from audiogen_jax.cli.manifest import Folder
from audiogen_jax.core import processes, sharding

ROWS = 8  # sounds made together on each device

Batch = Annotated[
  int | None,
  typer.Option(
    help=f"Sounds made together.  \\[default: {ROWS} a device]", min=1
  ),
]
Mesh = Annotated[
  str | None,
  typer.Option(
    help="Devices that make each batch together, such as data=4,tensor=2."
    "  \\[default: each process's own, as data]"
  ),
]

# What is being done, how much of it is done, of how much.
Report: TypeAlias = Callable[[str, int, int], None]


class Job(NamedTuple):
  """A sound to make."""

  text: str | None
  seed: int
  path: Path
  entry: dict[str, Any]  # its line of the manifest


class Work(NamedTuple):
  """How sounds are made."""

  model: families.TextToAudio
  call: Callable[..., np.ndarray]  # its method that makes them
  asked: dict[str, Any]  # of that method, alike for all sounds
  loudness_lufs: float | None
  spectrogram: bool


def jobs(
  texts: Sequence[str | None],
  paths: Sequence[Path],
  seed: int,
  settings: Mapping[str, Any],
) -> list[Job]:
  """Sound i, of text i, with `seed` + i, and its line: these settings, too."""
  return [
    Job(
      text,
      seed + i,
      path,
      {"file": path.name, "prompt": text, "seed": seed + i, **settings},
    )
    for i, (text, path) in enumerate(zip(texts, paths, strict=True))
  ]


def opened(
  model: str,
  mesh: str | None,
  *,
  text_encoder: str | None,
  dtype: str | None,
  adapters: Sequence[str] | None,
) -> families.TextToAudio:
  """The model, on the mesh that `--mesh` names.

  Raises:
    InputError: As `families.load`, or for a mesh that is none.
  """
  return families.load(
    model,
    text_encoder=text_encoder,
    dtype=dtype,
    mesh=mesh and sharding.make_mesh(**plan.sizes(mesh, ["data", "tensor"])),
    adapters=adapters,
  )


def make(
  jobs: Sequence[Job],
  prepared: Callable[[Sequence[str | None], Report], Work],
  keeps: Path | None,
  batch: int | None,
) -> int:
  """Makes what is not there yet; within `processes.distributed`.

  Args:
    jobs: The same ones in all processes.
    prepared: Loads the model, given the texts that are left.
    keeps: A folder with a manifest; None makes all sounds, and writes none.
    batch: Sounds made together; None for `ROWS` a device.

  Returns:
    How many were not there, in all processes.

  Raises:
    InputError: As `Manifest`, `prepared` and the model.
  """
  with contextlib.closing(Folder(keeps)) as folder:
    entries = [job.entry for job in jobs]
    places = processes.agreed(lambda: folder.missing(entries))
    if folder.primary and len(places) < len(jobs):
      terminal.say(
        f"{len(jobs) - len(places)} of {len(jobs)} are there already"
      )
    if not places:
      return 0
    with terminal.bar(shown=folder.primary) as bar:
      task = bar.add_task("loading the model", total=None)
      left = [jobs[i] for i in places]
      work = prepared(
        [job.text for job in left],
        lambda what, done, total: bar.update(
          task, description=what, completed=done, total=total
        ),
      )
      left = _by_length(left, work.model)
      batches = _share(left, batch, work.model.placement)
      _sample(work, batches, folder, bar, task)
      folder.collect()
  return len(places)


def _share(
  jobs: Sequence[Job], batch: int | None, placement: sharding.Placement
) -> list[Sequence[Job]]:
  """The batches that this process makes.

  What a prompt becomes does not depend on what it is made with, so any share
  will do.  On a mesh of all processes every one of them makes all.
  """
  size = batch or ROWS * placement.mesh.devices.size
  sharing = 1 if placement.spans else jax.process_count()
  size = min(size, -(-len(jobs) // sharing))
  batches = [jobs[i : i + size] for i in range(0, len(jobs), size)]
  return batches if placement.spans else batches[jax.process_index() :: sharing]


def _sample(
  work: Work,
  batches: Sequence[Sequence[Job]],
  folder: Folder,
  bar: bars.Progress,
  task: bars.TaskID,
) -> None:
  """Makes all sounds of all batches, with a line for each."""
  model, rate = work.model, work.model.sample_rate_hz
  writes = folder.primary or not model.placement.spans
  made, in_all = 0, sum(map(len, batches))
  start, speed = time.monotonic(), ""
  for jobs in batches:
    rows = len(jobs)
    label = f"sampling {made + 1}-{made + rows} of {in_all}{speed}"
    bar.update(task, description=f"compiling, {label}", completed=0)

    def report(
      done: int, total: int, made=made, rows=rows, label=label
    ) -> None:
      if done:
        # Of all, not of this batch: the bar shows when the last is done.
        done, total = made * total + rows * done, in_all * total
        bar.update(task, description=label, completed=done, total=total)

    asked = dict(work.asked)
    for name in asked.keys() & {"prompt", "sound", "embeddings"}:
      asked[name] = np.stack([asked[name]] * rows)
    audio = work.call(
      texts=[job.text for job in jobs],
      seed=[job.seed for job in jobs],
      progress=report,
      **asked,
    )
    made += rows
    length_s = audio.shape[1] / rate
    speed = made * length_s / (time.monotonic() - start)
    speed = f", {speed:.1f} s of sound a second"
    if not writes:
      continue
    if work.loudness_lufs is not None:
      audio = models.normalize_loudness(audio, rate, work.loudness_lufs)
    for job, one in zip(jobs, audio, strict=True):
      io.write(job.path, one, rate)
      if work.spectrogram:
        picture = job.path.with_suffix(".png")
        drawing.spectrogram(picture, one, rate, title=job.text or "")
      folder.note(job.entry)


def _by_length(jobs: list[Job], loaded: families.TextToAudio) -> list[Job]:
  """Short texts first, if the family tells: a batch is as wide as its longest.

  Raises:
    InputError: For a text that is too long, before the hours of work.
  """
  if not hasattr(loaded, "text_lengths"):
    return jobs
  lengths = loaded.text_lengths([job.text for job in jobs])
  order = np.argsort(lengths, kind="stable")
  return [jobs[i] for i in order]
