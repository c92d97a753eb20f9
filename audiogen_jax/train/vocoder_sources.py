"""Where a vocoder's training begins, where it does not begin at random."""

import functools
from pathlib import Path

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import (
  make_an_audio_loading,
  make_an_audio_parts,
  make_an_audio_rooms,
  vocoders,
)
from audiogen_jax.convert.make_an_audio_rooms import Part
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.gan import discriminators
from audiogen_jax.vocoder import generator

# Meanings of the axes of everything in the task's `TrainState`, by path.
AXES = {"extra/averaged": ()} | {
  f"params/{name}/({rule})": axes
  for name, room in (("vocoder", generator), ("adversary", discriminators))
  for rule, axes in room.AXES.items()
}


@functools.lru_cache(maxsize=4)
def opened(source: str, recipe: MelConfig) -> Part:
  """A vocoder, no weights read yet.

  Args:
    source: A Make-An-Audio, the export of a vocoder's training, or a folder or
      file of a published BigVGAN or HiFi-GAN.
    recipe: The mel recipe that is to be trained with.

  Raises:
    InputError: If there is none, or it reads other mel spectrograms.
  """
  if not source:
    raise InputError(
      "no model: give --config.model=SOURCE, whose vocoder is trained on, or"
      " --config.start=random"
    )
  path = Path(source)
  if path.is_file() or (path.is_dir() and vocoders.holds(path)):
    part = Part(*vocoders.read(path, recipe))
  else:
    part = make_an_audio_rooms.read(source, "vocoder")
  told = make_an_audio_parts.differing(recipe, part.config.mel)
  if told:
    raise InputError(
      f"{source}: vocoder.mel of the configuration is another recipe than the"
      f" vocoder's ({told}); set --config.vocoder.mel to its, or start=random"
    )
  return part


def weights(source: str, recipe: MelConfig) -> Tree:
  """Its parameters, where the mesh wants them.

  Raises:
    InputError: If they are damaged.
  """
  config, tree = opened(source, recipe)
  return make_an_audio_loading.placed(
    generator.init, config, tree, generator.AXES, sharding.current()
  )
