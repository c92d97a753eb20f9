"""Reading TFDS datasets: what is missing or damaged is said in one line."""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from audiogen_jax.core import checkpoint
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import shards


def read(folder: str | os.PathLike) -> tfds.core.DatasetBuilder:
  """Opens a dataset; `as_data_source(split=...)` of what returns reads it.

  Raises:
    InputError: If there is none, or one that is not finished or damaged, or its
      bucket cannot be reached: the message names what is wrong.
  """
  bucket = "://" in str(folder)
  folder = checkpoint.path_of(folder) if bucket else epath.Path(folder)
  if not (folder / "dataset_info.json").exists():
    if (folder / shards.BUILDING).exists():
      raise InputError(
        f"{folder} holds an unfinished dataset; run the command that began it"
        " again: it goes on where it stopped"
      )
    raise InputError(
      f"{folder} holds no dataset: dataset_info.json is missing; make one with"
      " audiogen data build"
    )
  try:
    builder = tfds.builder_from_directory(folder)
    _check_files(folder, builder)
    return builder
  except InputError:
    raise
  # Of damaged files TFDS, protobuf and JSON raise what they like.
  except Exception as error:
    raise _damaged(folder, error) from error


class Examples:
  """A split of a dataset, by number; what is damaged is named."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
    """Opens it.

    Raises:
      InputError: If there is no such split, or it is empty or damaged.
    """
    self._folder = builder.data_path
    splits = builder.info.splits
    if split not in splits:
      raise InputError(
        f"{self._folder} has no split {split}, but {', '.join(splits)}"
      )
    if not splits[split].num_examples:
      raise InputError(f"split {split} of {self._folder} is empty")
    try:
      self._source = builder.as_data_source(split=split)
    except Exception as error:
      raise _damaged(self._folder, error) from error

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, number: int) -> Mapping[str, Any]:
    """Raises InputError where a record cannot be read."""
    try:
      return self._source[number]
    except Exception as error:
      raise _damaged(self._folder, error, f"example {number} of ") from error


def _check_files(folder: epath.Path, builder: tfds.core.DatasetBuilder) -> None:
  """Refuses a dataset whose shards are not those that it was written with."""
  settings = builder.info.metadata
  kinds = ({"rate_hz", "channels"}, {"frame_rate_hz"}, {"column_rate_hz"})
  numbers = all(
    isinstance(settings.get(name), int | float) and settings[name] > 0
    for kind in kinds
    for name in kind & set(settings or ())
  )
  if not settings or not numbers or not any(k <= set(settings) for k in kinds):
    raise InputError(
      f"{folder} is no dataset of audiogen data build: its metadata.json lacks"
      " the rate"
    )
  features = dict(builder.info.features.items())
  if "audio" in features:
    noted, stored = settings.get("channels"), features["audio"].shape[1]
    if noted != stored:
      raise InputError(
        f"{folder} says {noted or 'no'} channels in metadata.json and {stored}"
        " in features.json; copy it again, or build it again"
      )
  for split in builder.info.splits.values():
    for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
      path = epath.Path(path)
      if not path.exists():
        raise InputError(f"{path} is missing; copy or build the dataset again")
      if count and not path.stat().length:
        raise InputError(f"{path} is empty; copy or build the dataset again")


def _damaged(folder: Any, error: Exception, what: str = "") -> InputError:
  words = " ".join(str(error).split()) or type(error).__name__
  return InputError(
    f"{what}{folder} cannot be read ({words[:200]}): it is damaged; copy it"
    " again, or build it again"
  )


def digest(builder: tfds.core.DatasetBuilder) -> str | None:
  """SHA-256 of a dataset's examples as its report has it.

  None where Beam wrote it, or an earlier version of this package.
  """
  with contextlib.suppress(OSError, ValueError, AttributeError):
    report = json.loads((builder.data_path / shards.REPORT).read_text())
    return report.get("sha256")
  return None


def licence(builder: tfds.core.DatasetBuilder) -> str:
  """The licence of a dataset, for which TFDS has a place but no name."""
  return builder.info.as_proto.redistribution_info.license
