"""What the examples of a dataset hold: sounds, or the codes of sounds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from audiogen_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class SoundSpec:
  """What all sounds of a dataset have in common."""

  rate_hz: int = 16_000
  channels: int = 1

  def __post_init__(self) -> None:
    most = {"rate_hz": 384_000, "channels": 64}
    for name, value in dataclasses.asdict(self).items():
      if not 1 <= value <= most[name]:
        raise InputError(
          f"{name} {value} must lie in [1, {most[name]}]; 16000 Hz and one"
          " channel are AudioGen's"
        )

  def check(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError unless datasets hold such sounds.

    Args:
      settings: What the datasets say of themselves.
      folders: Where they are, for the message.
    """
    if "codebooks" in settings:
      raise InputError(
        f"{folders} holds codes and the configuration wants sounds: set"
        " --config.cached_codes=True, or name another dataset"
      )
    _check_equal(self, settings, folders)

  @property
  def features(self) -> tfds.features.FeaturesDict:
    """The fields of an example."""
    # As bytes a clip is read in microseconds; as a list of integers, TFDS's own
    # default, it takes milliseconds.
    audio = tfds.features.Tensor(
      shape=(None, self.channels),
      dtype=np.int16,
      encoding=tfds.features.Encoding.BYTES,
    )
    return tfds.features.FeaturesDict(_described() | {"audio": audio})


@dataclasses.dataclass(frozen=True)
class CodeSpec:
  """What all codes of a dataset have in common.

  Attributes:
    codebooks: Integers a frame.
    size: Entries of a codebook.
    frame_rate_hz: Frames a second.
  """

  codebooks: int
  size: int
  frame_rate_hz: int

  def __post_init__(self) -> None:
    if self.size > 2**16:
      raise InputError(f"codes of {self.size} entries exceed 16 bits")

  def check(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError unless datasets hold such codes.

    Args:
      settings: What the datasets say of themselves.
      folders: Where they are, for the message.
    """
    if "codebooks" not in settings:
      raise InputError(
        f"{folders} holds sounds and the configuration wants codes: set"
        " --config.cached_codes=False, or name another dataset"
      )
    _check_equal(self, settings, folders)

  @property
  def features(self) -> tfds.features.FeaturesDict:
    """The fields of an example."""
    codes = tfds.features.Tensor(
      shape=(None, self.codebooks),
      dtype=np.uint16,
      encoding=tfds.features.Encoding.BYTES,
    )
    return tfds.features.FeaturesDict(_described() | {"codes": codes})


def _check_equal(
  spec: "SoundSpec | CodeSpec", settings: Mapping[str, Any], folders: str
) -> None:
  for name, value in dataclasses.asdict(spec).items():
    if settings[name] != value:
      raise InputError(
        f"{folders} has {name} {settings[name]}; the configuration wants"
        f" {value}"
      )


def _described() -> dict[str, tfds.features.FeatureConnector]:
  """What is known of every clip."""
  text = tfds.features.Text()
  return {
    "id": text,
    "caption": text,
    "tags": tfds.features.Sequence(tfds.features.Text()),
    "source": text,
    "licence": text,
  }
