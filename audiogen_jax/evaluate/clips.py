"""What is evaluated on: clips of a dataset, or of sound files."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import reading, spec

_SUFFIXES = (".wav", ".flac", ".ogg")
_SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class Clip:
  """One sound, what it is called, and its tags in a dataset."""

  name: str
  audio: Float[np.ndarray, "n c"]
  tags: tuple[str, ...] = ()


class Clips:
  """Sounds at one rate, read one after another: one at a time is in memory.

  Attributes:
    title: Where they are from.
  """

  def __init__(
    self, title: str, source: Any, picked: np.ndarray, read: Any
  ) -> None:
    self.title = title
    self._source, self._picked, self._read = source, picked, read

  @classmethod
  def open(
    cls,
    data: str | os.PathLike,
    *,
    rate_hz: int,
    channels: int,
    split: str | None = None,
    most: int | None = None,
  ) -> "Clips":
    """Finds the clips, and reads none yet.

    Args:
      data: A dataset that `audiogen data build` wrote, which must have this
        rate and these channels; a sound file, or a folder that holds some at
        any depth: those are converted.
      split: Of a dataset; None for the one to validate with.
      most: Take so many of them, evenly spread; None for all.

    Raises:
      InputError: If there are none, or the dataset does not fit.
    """
    if most is not None and most < 1:
      raise InputError(f"clips {most} must be 1 or more")
    data = Path(data)
    files = _files(data)
    if files:
      if split is not None:
        raise InputError(
          f"{data} holds sound files, which have no split {split}; leave"
          " --split away"
        )

      def read(file: Path) -> Clip:
        audio, _ = io.read(file, rate_hz=rate_hz, channels=channels)
        name = file.name if file == data else str(file.relative_to(data))
        return Clip(name, audio)

      title, source = str(data), files
    else:
      split = split or _SPLIT
      wanted = {"rate_hz": rate_hz, "channels": channels}
      source = _source(data, split, wanted)
      title = f"{data}, {split}"
      read = _read_example
    # Neighbours are often alike, so what is left out is left out everywhere.
    count = len(source)
    picked = np.linspace(
      0, count, min(count, most or count), endpoint=False, dtype=int
    )
    return cls(title, source, picked, read)

  def __len__(self) -> int:
    return len(self._picked)

  def __iter__(self) -> Iterator[Clip]:
    for number in self._picked:
      clip = self._read(self._source[int(number)])
      if not clip.audio.size:
        raise InputError(f"clip {clip.name} holds no samples; leave it out")
      yield clip


def _files(data: Path) -> list[Path]:
  """The sound files of a folder, or the file; none if it is a dataset."""
  if data.is_file():
    return [data]
  if not data.is_dir():
    raise InputError(f"there is nothing at {data}: check the path")
  if (data / "dataset_info.json").exists():
    return []
  files = sorted(
    file
    for file in data.rglob("*")
    if file.suffix.lower() in _SUFFIXES
    and not file.name.startswith(".")
    and file.is_file()
  )
  if not files and not any(data.glob(".building")):
    raise InputError(
      f"{data} holds neither a dataset nor {', '.join(_SUFFIXES)} files"
    )
  return files


def _source(data: Path, split: str, wanted: dict[str, int]) -> reading.Examples:
  """A split of a dataset of sounds, by number."""
  builder = reading.read(data)
  settings = dict(builder.info.metadata)
  kind = spec.kind_of(settings)
  if kind != "sounds":
    raise InputError(
      f"{data} holds {kind}, not sounds; name the dataset they were made of"
    )
  if settings != wanted:
    raise InputError(
      f"{data} holds {settings}, the model takes {wanted}; build it with"
      f" --rate {wanted['rate_hz']} --channels {wanted['channels']}"
    )
  return reading.Examples(builder, split)


def _read_example(example: Mapping[str, Any]) -> Clip:
  audio = example["audio"] * np.float32(2**-15)
  tags = tuple(tag.decode() for tag in example["tags"])
  return Clip(example["id"].decode(), audio, tags)
