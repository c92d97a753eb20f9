"""TFDS datasets, written shard by shard: a kill costs one shard a worker.

    folder/
      .building/plan.json         what is being built, to recognise it again
      .building/<shard>.json      one for each finished shard: its tally
      <name>-<split>.array_record-00000-of-00020
      ...
      report.json                 what was left out, and why
      features.json, dataset_info.json     last: a dataset from here on

A shard takes its name only once it is whole, and TFDS refuses a folder without
`dataset_info.json`, so nothing half-written is ever read as whole.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import folders

REPORT = "report.json"
BUILDING = ".building"
_LOOK_S, _PATIENCE_S = 0.2, 600


@dataclasses.dataclass(frozen=True)
class About:
  """What a dataset says of itself.

  Attributes:
    settings: Plain values that shaped the examples, such as the rate; kept in
      the dataset's metadata, and two builds with other ones are not the same.
  """

  name: str
  features: tfds.features.FeaturesDict
  description: str
  settings: Mapping[str, Any]
  homepage: str = ""
  citation: str = ""
  licence: str = ""

  def info(self, builder: Any) -> tfds.core.DatasetInfo:
    """The description as a `DatasetInfo` of TFDS.

    Args:
      builder: The `DatasetBuilder` or `DatasetIdentity` that it describes.
    """
    return tfds.core.DatasetInfo(
      builder=builder,
      description=self.description,
      features=self.features,
      homepage=self.homepage,
      citation=self.citation,
      license=self.licence,
      metadata=tfds.core.MetadataDict(self.settings),
    )


@dataclasses.dataclass(frozen=True)
class LeftOut:
  """An item of a source that gave no example, and why."""

  what: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Shard:
  """The items `first` to `last` of a split, and the file for them."""

  file: str
  split: str
  first: int
  last: int


@dataclasses.dataclass(frozen=True)
class BuildReport:
  """What a build wrote and what it left out."""

  examples: Mapping[str, int]
  left_out: Sequence[LeftOut]


def plan(name: str, counts: Mapping[str, int]) -> list[Shard]:
  """Cuts splits of so many items into shards of 16 to 1024 of them.

  At least 64 shards if there are enough items, for many workers; it depends on
  the counts alone, so that a build can go on with another number of workers.
  """
  shards = []
  for split, count in counts.items():
    size = min(max(16, count // 64), 1024)
    total = -(-count // size)
    for i in range(total):
      file = f"{name}-{split}.array_record-{i:05d}-of-{total:05d}"
      last = min((i + 1) * size, count)
      shards.append(Shard(file, split, i * size, last))
  return shards


class Build:
  """A dataset on its way into `folder`, perhaps begun earlier.

  One process holds it, and starts workers if it likes:

      with Build.open(folder, about, items) as build:
        for shard in build.todo:
          write(folder, shard, about.features, make_examples(shard))
        report = build.finish()
  """

  def __init__(self, folder: Path, about: About, shards: list[Shard]) -> None:
    self.shards = shards
    self._folder, self._about = folder, about

  @classmethod
  @contextlib.contextmanager
  def open(
    cls,
    folder: str | os.PathLike,
    about: About,
    items: Mapping[str, Sequence[Any]],
    *,
    leads: bool = True,
  ) -> Iterator["Build"]:
    """Begins a build, or goes on with the same one.

    Args:
      items: What examples are made from, by split; dataclasses whose `repr`
        tells them apart.
      leads: Whether this process begins and finishes; one that does not waits
        for the one that does, and writes shards beside it.

    Raises:
      InputError: If the folder holds something else or another process builds
        there.
    """
    folder = Path(folder)
    if leads and (folder / "dataset_info.json").exists():
      raise InputError(
        f"{folder} already holds a dataset; delete it or choose another folder"
      )
    counts = {split: len(rows) for split, rows in items.items() if rows}
    if not counts:
      raise InputError("there is nothing to write: no source gave any record")
    shards = plan(about.name, counts)
    digest = _digest(about, {split: items[split] for split in counts})
    if not leads:
      _wait_for(folder / BUILDING / "plan.json", digest)
      yield cls(folder, about, shards)
      return
    with folders.writing(folder), contextlib.ExitStack() as stack:
      state = folder / BUILDING
      state.mkdir(parents=True, exist_ok=True)
      stack.enter_context(folders.only_one(state / "lock", folder))
      _recognise(state / "plan.json", digest, folder)
      for stale in folder.glob(".*.part"):
        stale.unlink()
      yield cls(folder, about, shards)

  @property
  def todo(self) -> list[Shard]:
    """The shards that are not written yet."""
    state = self._folder / BUILDING
    done = {path.stem for path in state.glob("*.json")}
    return [shard for shard in self.shards if shard.file not in done]

  def wait(self) -> None:
    """Returns when all shards are there, whoever writes them.

    Raises:
      InputError: If nothing has been written for ten minutes: who should have
        has died.
    """
    before, since = None, time.monotonic()
    while todo := self.todo:
      now = self._written()
      if now != before:
        before, since = now, time.monotonic()
      if time.monotonic() - since > _PATIENCE_S:
        raise InputError(
          f"{len(todo)} of {len(self.shards)} shards of {self._folder} are"
          f" missing, {todo[0].file} first, and nobody has written for"
          f" {_PATIENCE_S:g} s; end all processes and run the same command"
          " again: it goes on where it stopped"
        )
      time.sleep(_LOOK_S)

  def _written(self) -> set[tuple[str, int]]:
    """Names and sizes of the files so far, half-written ones included."""
    sizes = set()
    for entry in os.scandir(self._folder):
      with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
        sizes.add((entry.name, entry.stat().st_size))
    return sizes

  def finish(self, left_out: Iterable[LeftOut] = ()) -> BuildReport:
    """Writes report and metadata: from here on it is a dataset.

    Args:
      left_out: What was left out before there were items.

    Raises:
      InputError: If no example at all could be made.
    """
    state = self._folder / BUILDING
    tallies = [
      json.loads((state / f"{shard.file}.json").read_text())
      for shard in self.shards
    ]
    left_out = list(left_out)
    lengths, sizes = {}, {}
    digest = hashlib.sha256()
    for shard, tally in zip(self.shards, tallies, strict=True):
      lengths.setdefault(shard.split, []).append(tally["examples"])
      sizes[shard.split] = sizes.get(shard.split, 0) + tally["bytes"]
      left_out += [LeftOut(*row) for row in tally["left_out"]]
      digest.update(f"{shard.file} {tally.get('sha256')}\n".encode())
    report = BuildReport({k: sum(v) for k, v in lengths.items()}, left_out)
    with folders.writing(self._folder):
      write_report(self._folder, self._about, report, digest.hexdigest())
      if not sum(report.examples.values()):
        raise InputError(
          f"none of {len(left_out)} items could be used, such as"
          f" {left_out[0].what}: {left_out[0].reason}; {self._folder / REPORT}"
          " lists them all"
        )
      self._write_metadata(lengths, sizes)
      shutil.rmtree(state)
    return report

  def _write_metadata(
    self, lengths: Mapping[str, list[int]], sizes: Mapping[str, int]
  ) -> None:
    about = self._about
    # Into a folder beside, then moved: dataset_info.json appears last.
    beside = self._folder / BUILDING / "metadata"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    identity = tfds.core.dataset_info.DatasetIdentity(
      name=about.name,
      version=tfds.core.Version("1.0.0"),
      data_dir=str(self._folder),
      module_name="",
    )
    info = about.info(identity)
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(
      data_dir=epath.Path(self._folder),
      dataset_name=about.name,
      filetype_suffix="array_record",
    )
    splits = [
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=lengths[split],
        num_bytes=sizes[split],
        filename_template=template.replace(split=split),
      )
      for split in lengths
    ]
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(epath.Path(beside))
    names = sorted(path.name for path in beside.iterdir())
    for name in sorted(names, key=lambda name: name == "dataset_info.json"):
      os.replace(beside / name, self._folder / name)


def write_report(
  folder: Path, about: About, report: BuildReport, digest: str | None = None
) -> None:
  """Writes what is in a dataset, and what was left out of it and why.

  Args:
    digest: SHA-256 of all examples, by which another dataset of equal size is
      told from this one.
  """
  content = {
    "name": about.name,
    "settings": dict(about.settings),
    "sha256": digest,
    "examples": dict(report.examples),
    "left_out": [dataclasses.asdict(row) for row in report.left_out],
  }
  with io.whole(folder / REPORT) as part:
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False))


def write(
  folder: str | os.PathLike,
  shard: Shard,
  features: tfds.features.FeaturesDict,
  examples: Iterable[Mapping[str, Any] | LeftOut],
) -> int:
  """Writes one shard and its tally; returns how many examples it holds."""
  folder = Path(folder)
  count, size, left_out = 0, 0, []
  digest = hashlib.sha256()
  with folders.writing(folder), io.whole(folder / shard.file) as part:
    # One record a group: whoever reads at random unpacks what it asked for.
    writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")
    try:
      for example in examples:
        if isinstance(example, LeftOut):
          left_out.append([example.what, example.reason])
          continue
        record = features.serialize_example(example)
        writer.write(record)
        _add(digest, example)
        count, size = count + 1, size + len(record)
    finally:
      writer.close()
  tally = {"examples": count, "bytes": size, "left_out": left_out}
  tally["sha256"] = digest.hexdigest()
  state = folder / BUILDING
  with folders.writing(folder), io.whole(state / f"{shard.file}.json") as part:
    part.write_text(json.dumps(tally, ensure_ascii=False))
  return count


def _add(digest: Any, example: Mapping[str, Any]) -> None:
  """Adds an example, not its record: protobuf orders maps as it likes."""
  for name in sorted(example):
    value = example[name]
    if isinstance(value, np.ndarray):
      digest.update(f"{name} {value.dtype} {value.shape}".encode())
      digest.update(value.tobytes())
    else:
      digest.update(f"{name} {value!r}".encode("utf-8", "surrogateescape"))


def _digest(about: About, items: Mapping[str, Sequence[Any]]) -> str:
  """Tells one build from another."""
  digest = hashlib.sha256()
  for part in (about.name, dict(about.settings), about.features):
    digest.update(repr(part).encode())
  for split, rows in items.items():
    digest.update(split.encode())
    for row in rows:
      digest.update(repr(row).encode("utf-8", "surrogateescape"))
  return digest.hexdigest()


def _wait_for(path: Path, digest: str) -> None:
  """Waits until another process has begun just this build."""
  for _ in range(int(_PATIENCE_S / _LOOK_S)):
    # Read at once: the build may be finished, and the file gone, any time.
    with contextlib.suppress(FileNotFoundError):
      if json.loads(path.read_text())["digest"] == digest:
        return
    time.sleep(_LOOK_S)
  raise InputError(
    f"process 0 has not begun {path.parent.parent} within {_PATIENCE_S} s; is"
    " the folder the same one for all processes?"
  )


def _recognise(path: Path, digest: str, folder: Path) -> None:
  """Refuses to go on with what another command began."""
  if path.exists():
    if json.loads(path.read_text())["digest"] != digest:
      raise InputError(
        f"{folder} holds the beginnings of another dataset, or its source or"
        " settings have changed since; delete it or choose another folder"
      )
    return
  if any(path.parent.parent.glob("*.array_record*")):
    raise InputError(
      f"{folder} holds ArrayRecord files of something else; choose another"
      " folder"
    )
  with io.whole(path) as part:
    part.write_text(json.dumps({"digest": digest}))
