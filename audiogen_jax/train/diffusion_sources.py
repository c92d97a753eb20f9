"""Where the frozen parts of a diffusion model's training come from, and go."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from audiogen_jax.convert import (
  engine,
  make_an_audio_loading,
  make_an_audio_parts,
)
from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes
from audiogen_jax.core.types import Tree
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.diffusion import lora, unet
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.vocoder import generator

_ROOMS = {"autoencoder": autoencoder, "text": clap, "vocoder": generator}


def _axes() -> dict[str, Axes]:
  tables = {f"extra/{name}/": room.AXES for name, room in _ROOMS.items()}
  tables["(params|extra)/unet/"] = unet.AXES
  tables["params/adapters/"] = lora.AXES
  made: dict[str, Axes] = {"extra/(averaged|scale)": ()}
  for prefix, table in tables.items():
    made |= {f"{prefix}({rule})": axes for rule, axes in table.items()}
  return made


# Meanings of the axes of everything in the task's `TrainState`, by path.
AXES: dict[str, Axes] = _axes()


def zeros(configs: Mapping[str, Any]) -> dict[str, Tree]:
  """Zeros of the shapes of the frozen parts, by name, to be read over."""
  return {
    name: jax.tree.map(
      lambda x: jnp.zeros(x.shape, jnp.float32),
      engine.abstract(_ROOMS[name].init, config),
    )
    for name, config in configs.items()
  }


def frozen(source: str, configs: Mapping[str, Any]) -> dict[str, Tree]:
  """Weights of the frozen parts, by name, where the mesh wants them.

  Args:
    source: A Make-An-Audio.
    configs: Shapes of the parts, by name.

  Raises:
    InputError: If they are damaged.
  """
  parts = opened(source)
  return {
    name: _read(_ROOMS[name], config, getattr(parts, f"{name}_tree"))
    for name, config in configs.items()
  }


@functools.lru_cache(maxsize=4)
def opened(source: str) -> Parts:
  """A Make-An-Audio, no weights read yet.

  Raises:
    InputError: If there is none, or it does not read texts.
  """
  if not source:
    raise InputError(
      "no model: give --config.model=SOURCE, a Make-An-Audio whose autoencoder,"
      " text tower and vocoder are taken"
    )
  parts = make_an_audio_parts.open_parts(source)
  if parts.text is None:
    raise InputError(f"{source} reads no text; take one that does")
  return parts


@functools.lru_cache(maxsize=4)
def tokenizer(source: str) -> WordPieces:
  """Its tokenizer.

  Raises:
    InputError: If its files are damaged.
  """
  return make_an_audio_loading.tokenizer(opened(source))


def unet_weights(source: str, config: UNetConfig) -> Tree:
  """The weights of its U-Net, in float32."""
  return _read(unet, config, opened(source).unet_tree)


def check(
  net: UNetConfig, latent: AutoencoderConfig, tower: ClapTextConfig
) -> None:
  """Raises InputError where U-Net, autoencoder and text tower do not fit."""
  if (net.channels, net.beside) != (latent.channels, 0):
    raise InputError(
      f"unet.channels {net.channels} and unet.beside {net.beside} must be the"
      f" {latent.channels} of the autoencoder's latents, and 0"
    )
  if net.context_width != tower.width:
    raise InputError(
      f"unet.context_width {net.context_width} must be the {tower.width} of the"
      " text tower's states"
    )


def _read(room: Any, config: Any, tree: Tree) -> Tree:
  """Weights of a room, in float32."""
  mesh = sharding.current()
  return make_an_audio_loading.placed(room.init, config, tree, room.AXES, mesh)
