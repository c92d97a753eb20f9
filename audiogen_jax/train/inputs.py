"""From the data section of a configuration to loaders."""

import dataclasses

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.rows import LoaderConfig


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
    mix: Mix pairs of sounds.
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
  workers: int = 0
  prefetch: int = 2
  eval_batch: int = 16
  eval_duration_s: float = 5.0


def train_loader(data: DataConfig, seed: int, placement: Placement) -> Loader:
  """Endless, shuffled, cropped.

  Raises:
    InputError: For folders that are no datasets, or do not fit together.
  """
  config = LoaderConfig(
    batch=data.batch,
    duration_s=data.duration_s,
    min_fraction=data.min_fraction,
    mix=MixConfig() if data.mix else None,
    seed=seed,
    workers=data.workers,
    prefetch=data.prefetch,
  )
  parts = _parts(data.folders, data.train_split)
  return Loader(parts, config, placement=placement)


def eval_loader(data: DataConfig, placement: Placement) -> Loader:
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
  parts = _parts(data.folders, data.eval_split)
  return Loader(parts, config, placement=placement)


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
