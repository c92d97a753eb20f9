"""What the examples of a dataset hold: sounds, or codes or latents of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from audiogen_jax.core.errors import InputError

Kind = Literal["codes", "latents", "sounds"]

# The setting by which a dataset tells what it holds, and how much of it is a
# second.
_KEYS: dict[Kind, str] = {
  "codes": "frame_rate_hz",
  "latents": "column_rate_hz",
  "sounds": "rate_hz",
}


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
    _check_kind("sounds", settings, folders)
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
    _check_kind("codes", settings, folders)
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


@dataclasses.dataclass(frozen=True)
class LatentSpec:
  """What all latents of a dataset have in common.

  Attributes:
    latent_rows: Rows of a column.
    latent_channels: Of a value; its mean and its log-variance are stored.
    column_rate_hz: Columns a second.
  """

  latent_rows: int
  latent_channels: int
  column_rate_hz: float

  def check(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError unless datasets hold such latents.

    Args:
      settings: What the datasets say of themselves.
      folders: Where they are, for the message.
    """
    _check_kind("latents", settings, folders)
    _check_equal(self, settings, folders)

  @property
  def features(self) -> tfds.features.FeaturesDict:
    """The fields of an example."""
    latents = tfds.features.Tensor(
      shape=(None, self.latent_rows, 2 * self.latent_channels),
      dtype=np.float16,
      encoding=tfds.features.Encoding.BYTES,
    )
    return tfds.features.FeaturesDict(_described() | {"latents": latents})


def kind_of(settings: Mapping[str, Any]) -> Kind:
  """What a dataset holds, by its settings."""
  for kind, key in _KEYS.items():
    if key in settings:
      return kind
  raise InputError(f"a dataset of neither {', nor '.join(_KEYS)}")


def rate_hz(settings: Mapping[str, Any]) -> float:
  """Samples, frames or columns a second of what a dataset holds."""
  return settings[_KEYS[kind_of(settings)]]


def _check_kind(
  wanted: Kind, settings: Mapping[str, Any], folders: str
) -> None:
  """Raises InputError where datasets hold something else."""
  held = kind_of(settings)
  if held == wanted:
    return
  flag, value = held, "True"
  if held == "sounds":
    flag, value = wanted, "False"
  raise InputError(
    f"{folders} holds {held} and the configuration wants {wanted}: set"
    f" --config.cached_{flag}={value}, or name another dataset"
  )


def _check_equal(
  spec: "SoundSpec | CodeSpec | LatentSpec",
  settings: Mapping[str, Any],
  folders: str,
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
