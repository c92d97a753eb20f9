"""From the data section of a configuration to loaders."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.reprogramming import ReprogramConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.train.state import Batch
from audiogen_jax.train.task import Task


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What is trained on, and what is held out.

  Attributes:
    folders: Datasets that `audiogen data build` or `tokenize` wrote, separated
      by commas; `folder@3` is drawn three times as often as `folder`.
    train_split: Trained on.
    eval_split: Held out.
    batch: Rows of a batch, over all processes.
    duration_s: Length of a row.
    min_fraction: The share of a row that is sound, at least.
    mix: Mix pairs of sounds: one row of a batch is made of two clips.
    mixing: How (AudioGen, §3.3).
    reprogram: Join events to sounds, and tell them in the captions (Make-An-
      Audio); off as long as it has no `bank`.
    workers: Processes that prepare batches.
    prefetch: Batches that wait on the device.
    eval_batch: Rows of a batch in evaluations.
    eval_duration_s: Length of a row there.
  """

  folders: str = ""
  train_split: str = "train"
  eval_split: str = "validation"
  batch: int = 64
  duration_s: float = 1.0
  min_fraction: float = 1.0
  mix: bool = False
  mixing: MixConfig = MixConfig()
  reprogram: ReprogramConfig = ReprogramConfig()
  workers: int = 0
  prefetch: int = 2
  eval_batch: int = 16
  eval_duration_s: float = 5.0

  def __post_init__(self) -> None:
    # At once, and not only where the loader is made.
    if self.reprogram.bank:
      self.reprogram.check(self.duration_s)


def train_loader(
  data: DataConfig, seed: int, placement: Placement, task: Task
) -> Loader:
  """Endless, shuffled, cropped.

  Raises:
    InputError: For folders that are no datasets, do not fit together, or hold
      something else than the task wants.
  """
  config = LoaderConfig(
    batch=data.batch,
    duration_s=data.duration_s,
    min_fraction=data.min_fraction,
    mix=data.mixing if data.mix else None,
    reprogram=data.reprogram if data.reprogram.bank else None,
    seed=seed,
    workers=data.workers,
    prefetch=data.prefetch,
  )
  return _loader(data, data.train_split, config, placement, task)


def eval_loader(data: DataConfig, placement: Placement, task: Task) -> Loader:
  """Once through what is held out, in its order.

  Raises:
    InputError: As for `train_loader`; if a dataset has no such split.
  """
  config = LoaderConfig(
    batch=data.eval_batch,
    duration_s=data.eval_duration_s,
    shuffle=False,
    epochs=1,
  )
  return _loader(data, data.eval_split, config, placement, task)


def arrays(batch: Mapping[str, Any], names: Iterable[str]) -> Batch:
  """What a step needs of a batch, by `names`; strings stay behind."""
  return {name: batch[name] for name in names}


def _loader(
  data: DataConfig,
  split: str,
  config: LoaderConfig,
  placement: Placement,
  task: Task,
) -> Loader:
  spec = task.batch_spec(1, data.duration_s)
  if "text_ids" in spec:
    # One length: another would be another compilation.
    length = spec["text_ids"].shape[1]
    config = dataclasses.replace(config, text_buckets=(length,))
  loader = Loader(
    _parts(data.folders, split),
    config,
    tokenizer=task.tokenizer(),
    placement=placement,
  )
  task.wants.check(loader.settings, data.folders)
  task.check_data(loader.settings, data.folders)
  return loader


def _parts(folders: str, split: str) -> list[Part]:
  parts = []
  for text in filter(None, map(str.strip, folders.split(","))):
    folder, _, weight = text.partition("@")
    try:
      parts.append(Part(folder, split, float(weight or 1)))
    except ValueError:
      raise InputError(
        f"data.folders: {weight!r} in {text!r} is no weight; write folder@2.5"
      ) from None
  if not parts:
    raise InputError(
      "no data: give --config.data.folders=FOLDER, a dataset that `audiogen"
      " data build` wrote"
    )
  return parts
