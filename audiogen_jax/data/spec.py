"""What the examples of a dataset hold: sounds, or the codes of sounds."""

import dataclasses

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
  """What all codes of a dataset have in common."""

  codebooks: int
  size: int

  def __post_init__(self) -> None:
    if self.size > 2**16:
      raise InputError(f"codes of {self.size} entries exceed 16 bits")

  @property
  def features(self) -> tfds.features.FeaturesDict:
    """The fields of an example."""
    codes = tfds.features.Tensor(
      shape=(None, self.codebooks),
      dtype=np.uint16,
      encoding=tfds.features.Encoding.BYTES,
    )
    return tfds.features.FeaturesDict(_described() | {"codes": codes})


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
