"""Where the frozen parts of a diffusion model's training come from, and go."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from audiogen_jax.convert import (
  engine,
  make_an_audio_loading,
  make_an_audio_parts,
  make_an_audio_rooms,
  opening,
)
from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.convert.make_an_audio_rooms import Part
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes
from audiogen_jax.core.types import Tree
from audiogen_jax.diffusion import lora, unet
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import tower
from audiogen_jax.text.t5_text import T5TextConfig
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.text.tower import TowerConfig
from audiogen_jax.vocoder import generator

_ROOMS = {"autoencoder": autoencoder, "text": tower, "vocoder": generator}


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


@dataclasses.dataclass(frozen=True)
class Sources:
  """Where parts come from that are not those of one whole model.

  Attributes:
    autoencoder: A Make-An-Audio, or the export of an autoencoder's training;
      empty for that of the model, as are the others.
    vocoder: The same of a vocoder.
    text: A Make-An-Audio, an AudioGen or MAGNeT with its T5, or a T5.
  """

  autoencoder: str = ""
  vocoder: str = ""
  text: str = ""


class Frozen(NamedTuple):
  """What a training does not train, no weights read yet.

  Attributes:
    autoencoder: The autoencoder.
    vocoder: The vocoder.
    text: The text tower.
    tokenizer: The folder of its tokenizer; None where it reads bytes.
    model: The whole model, where one was named.
  """

  autoencoder: Part
  vocoder: Part
  text: Part
  tokenizer: str | None
  model: Parts | None


@functools.lru_cache(maxsize=4)
def opened(source: str, sources: Sources) -> Frozen:
  """What does not learn, from where it is.

  Args:
    source: A Make-An-Audio; empty where the others name all.
    sources: Of parts that are to be others than the model's.

  Raises:
    InputError: If something is missing, or does not fit the rest.
  """
  model = make_an_audio_parts.open_parts(source) if source else None
  parts = {
    name: _part(name, getattr(sources, name), model)
    for name in ("autoencoder", "vocoder")
  }
  told = make_an_audio_parts.differing(
    parts["autoencoder"].config.mel, parts["vocoder"].config.mel
  )
  if told:
    raise InputError(
      "the autoencoder makes other mel spectrograms than the vocoder hears"
      f" ({told}); take two of one recipe"
    )
  return Frozen(**parts, **_text(sources.text, model), model=model)


@functools.lru_cache(maxsize=4)
def tokenizer(source: str, sources: Sources) -> Tokenizer:
  """The tokenizer of the text tower, read once; arguments as of `opened`.

  Raises:
    InputError: If its files are damaged.
  """
  parts = opened(source, sources)
  return make_an_audio_loading.words(parts.text.config, parts.tokenizer)


def told(parts: Frozen, *, whole: bool) -> dict[str, Any]:
  """What a `DiffusionTask` learns from its sources, by its fields.

  Args:
    parts: What was opened.
    whole: Whether the U-Net and its schedule are the model's.

  Raises:
    InputError: If there is no model to take them of.
  """
  text = parts.text.config
  reads = "t5" if isinstance(text, T5TextConfig) else "clap"
  found = {"reads": reads, reads: text}
  for name in ("autoencoder", "vocoder"):
    found[name] = getattr(parts, name).config
  if whole:
    if parts.model is None:
      raise InputError("start=model: give --config.model=SOURCE, its U-Net")
    found |= {"unet": parts.model.unet, "schedule": parts.model.schedule}
  return found


def _part(name: str, source: str, model: Parts | None) -> Part:
  """A part by its own source, or of the model."""
  if source:
    return make_an_audio_rooms.read(source, name)
  if model is None:
    raise InputError(
      f"no {name}: give --config.model=SOURCE, a Make-An-Audio whose"
      " autoencoder, text tower and vocoder are taken, or"
      f" --config.sources.{name}=SOURCE"
    )
  return Part(getattr(model, name), getattr(model, f"{name}_tree"))


def _text(source: str, model: Parts | None) -> dict[str, Any]:
  """The text tower and its tokenizer."""
  if not source:
    part = _part("text", "", model)
    if part.config is None:
      raise InputError("the model reads no text; take one that does")
    return {"text": part, "tokenizer": model.tokenizer}
  if make_an_audio_rooms.belongs(source):
    return _text("", make_an_audio_parts.open_parts(source))
  config, tree, words = opening.open_reader(source)
  return {"text": Part(T5TextConfig(config), tree), "tokenizer": words}


def weights(parts: Frozen) -> dict[str, Tree]:
  """Weights of the frozen parts, by name, where the mesh wants them.

  Raises:
    InputError: If they are damaged.
  """
  return {
    name: read(room, getattr(parts, name)) for name, room in _ROOMS.items()
  }


def check(
  net: UNetConfig, latent: AutoencoderConfig, text: TowerConfig
) -> None:
  """Raises InputError where U-Net, autoencoder and text tower do not fit."""
  if (net.channels, net.beside) != (latent.channels, 0):
    raise InputError(
      f"unet.channels {net.channels} and unet.beside {net.beside} must be the"
      f" {latent.channels} of the autoencoder's latents, and 0"
    )
  if net.context_width != text.width:
    raise InputError(
      f"unet.context_width {net.context_width} must be the {text.width} of the"
      " text tower's states"
    )


def read(room: Any, part: Part) -> Tree:
  """Weights of a part, in float32, where the mesh wants them."""
  mesh = sharding.current()
  return make_an_audio_loading.placed(room.init, *part, room.AXES, mesh)
