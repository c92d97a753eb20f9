"""Recordings and captions -> a TFDS dataset of sounds at one rate.

    read(source) -> records -> [workers: decode, mix down, resample] -> shards

Plain TFDS reads them: `tfds.builder_from_directory(folder).as_data_source()`.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import shards, sources
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.listings import Record
from audiogen_jax.data.shards import About, BuildReport, LeftOut, Shard
from audiogen_jax.data.spec import SoundSpec


def example(record: Record, spec: SoundSpec) -> Mapping[str, Any] | LeftOut:
  """Decodes what a record names, or says why it cannot be used."""
  try:
    audio, _ = io.read(
      record.path,
      rate_hz=spec.rate_hz,
      channels=spec.channels,
      start_s=record.start_s,
      end_s=record.end_s,
    )
  except (InputError, OSError) as error:
    reason = " ".join(str(error).split())
    return LeftOut(record.path, reason)
  samples = io.to_int16(audio)
  if not samples.any():
    return LeftOut(record.path, "is silent: every sample is 0")
  return {
    "id": record.id,
    "audio": samples,
    "caption": record.caption,
    "tags": list(record.tags),
    "source": record.source,
    "licence": record.licence,
  }


def about(name: str, spec: SoundSpec) -> About:
  """What a dataset of one source says of itself."""
  source = sources.get(name)
  return About(
    name=name,
    features=spec.features,
    description=f"Sounds and captions of {source.title}, {spec.rate_hz} Hz.",
    settings=dataclasses.asdict(spec),
    homepage=source.homepage,
    citation=source.citation,
    licence=source.licence,
  )


def build(
  name: str,
  root: str | os.PathLike,
  folder: str | os.PathLike,
  *,
  spec: SoundSpec | None = None,
  rules: CaptionRules | None = None,
  drop_speech: bool | None = None,
  workers: int | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
  """Builds the dataset of one source, or goes on with a build that was killed.

  Args:
    name: One of `sources.names()`.
    root: Where its files lie.
    folder: Where the dataset is written; nothing else may be there.
    rules: How captions are made of tags.
    drop_speech: Whether clips about speech are left out; None: as the paper
      does for that source.
    workers: Processes that decode; None: one a core.
    progress: Called with the items done and the total.

  Raises:
    InputError: If the root lacks what the source ships, or the folder cannot be
      written, or nothing could be read.
  """
  spec = spec or SoundSpec()
  reading = sources.read(name, root, rules=rules, drop_speech=drop_speech)
  items = by_split(reading.records)
  described = about(name, spec)
  folder = Path(folder)
  with shards.Build.open(folder, described, items) as whole:
    todo = whole.todo
    total = len(reading.records)
    done = total - sum(shard.last - shard.first for shard in todo)
    if progress:
      progress(done, total)
    for shard in _in_parallel(folder, todo, items, spec, workers):
      done += shard.last - shard.first
      if progress:
        progress(done, total)
    return whole.finish(reading.left_out)


def by_split(records: Sequence[Record]) -> dict[str, list[Record]]:
  """Records of each split, in their order."""
  items: dict[str, list[Record]] = {}
  for record in records:
    items.setdefault(record.split, []).append(record)
  return items


def _in_parallel(
  folder: Path,
  todo: Sequence[Shard],
  items: Mapping[str, Sequence[Record]],
  spec: SoundSpec,
  workers: int | None,
) -> Iterator[Shard]:
  """Writes shards in worker processes; yields each that is done."""
  workers = workers or os.cpu_count() or 1
  if not todo:
    return
  pool = concurrent.futures.ProcessPoolExecutor(
    min(workers, len(todo)),
    # Not forked: the parent may have started threads, JAX's among them.
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_end_with_parent,
    initargs=(os.getpid(),),
  )
  try:
    futures = {}
    for shard in todo:
      records = items[shard.split][shard.first : shard.last]
      futures[pool.submit(_write, folder, shard, records, spec)] = shard
    for future in concurrent.futures.as_completed(futures):
      future.result()
      yield futures[future]
  except BrokenProcessPool as error:
    raise InputError(
      "a worker died, perhaps for want of memory; run the same command again,"
      " with fewer --workers: it goes on where it stopped"
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


def _write(
  folder: Path, shard: Shard, records: list[Record], spec: SoundSpec
) -> None:
  examples = (example(record, spec) for record in records)
  shards.write(folder, shard, spec.features, examples)


def _end_with_parent(parent: int) -> None:
  """Ends this process soon after its parent was killed."""

  def watch():
    while os.getppid() == parent:
      time.sleep(0.5)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
