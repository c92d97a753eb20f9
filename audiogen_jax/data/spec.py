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

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise InputError(f"{name} {value} must be 1 or more")

  @property
  def features(self) -> tfds.features.FeaturesDict:
    """The fields of an example."""
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
      {
        "id": text,
        # As bytes a second of sound is read in microseconds; as a list of
        # integers, TFDS's own default, in a hundred times that.
        "audio": tfds.features.Tensor(
          shape=(None, self.channels),
          dtype=np.int16,
          encoding=tfds.features.Encoding.BYTES,
        ),
        "caption": text,
        "tags": tfds.features.Sequence(tfds.features.Text()),
        "source": text,
        "licence": text,
      }
    )
