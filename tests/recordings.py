"""Tiny datasets for the tests of loading: each sound tells which one it is."""

import dataclasses

import numpy as np

from audiogen_jax.data import shards
from audiogen_jax.data.shards import About
from audiogen_jax.data.spec import SoundSpec

SPEC = SoundSpec(rate_hz=100)


@dataclasses.dataclass(frozen=True)
class Item:
  number: int


def sound(number, samples):
  """A ramp from `100 number` on: any crop says what it is, and where."""
  return (100 * number + np.arange(samples)[:, None]).astype(np.int16)


def dataset(
  folder,
  lengths,
  *,
  name="tiny",
  splits=("train",),
  spec=SPEC,
  make=None,
  tags=None,
  captions=None,
):
  """Writes sounds of these lengths; sound i has the caption "sound i".

  `make(i, length)` may make other sounds than ramps, `tags(i)` their tags,
  `captions(i)` other captions.
  """
  about = About(name, spec.features, "", dataclasses.asdict(spec))
  items = {split: [Item(i) for i in range(len(lengths))] for split in splits}
  with shards.Build.open(folder, about, items) as build:
    for shard in build.todo:
      examples = (
        {
          "id": str(i),
          "audio": (make or sound)(i, lengths[i]),
          "caption": captions(i) if captions else f"sound {i}",
          "tags": tags(i) if tags else [],
          "source": name,
          "licence": "",
        }
        for i in range(shard.first, shard.last)
      )
      shards.write(folder, shard, spec.features, examples)
    build.finish()
  return folder
