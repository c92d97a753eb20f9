"""The parts of a Make-An-Audio -> what runs, and what people are told of it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from audiogen_jax.convert import (
  description,
  engine,
  make_an_audio_folder,
  make_an_audio_rooms,
  placing,
)
from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.core import checkpoint, sharding, word_pieces
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.diffusion import unet
from audiogen_jax.diffusion.denoiser import Denoiser
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.latent.mel_autoencoder import MelAutoencoder
from audiogen_jax.text import clip, tower
from audiogen_jax.text import tokenizer as tokenizers
from audiogen_jax.text.clip_embedder import ClipEmbedder
from audiogen_jax.text.t5_text import T5TextConfig
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.text.tower import TextTower, TowerConfig
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.vocoder import Vocoder

# Rooms: their names for people, and what tells the shapes of their arrays.
_ROOMS: dict[str, tuple[str, Callable[[Any, jax.Array], Tree]]] = {
  "unet": ("U-Net", unet.init),
  "autoencoder": ("autoencoder", autoencoder.init),
  "vocoder": ("vocoder", generator.init),
  "text": ("text tower", tower.init),
  "clip": ("CLIP", clip.init),
}


def denoiser(
  parts: Parts, placement: Placement, dtype: jnp.dtype = jnp.float32
) -> Denoiser:
  """The U-Net with its schedule, weights in `dtype`.

  Raises:
    InputError: If weights are damaged, or not finite in `dtype`; so the others.
  """
  params = placed(
    unet.init, parts.unet, parts.unet_tree, unet.AXES, placement, dtype
  )
  return Denoiser(parts.unet, parts.schedule, params, placement, dtype)


def mels(
  parts: Parts, placement: Placement, dtype: jnp.dtype = jnp.float32
) -> MelAutoencoder:
  """The autoencoder, weights in `dtype`."""
  return of_autoencoder(
    parts.autoencoder, parts.autoencoder_tree, placement, dtype
  )


def of_autoencoder(
  config: AutoencoderConfig,
  tree: Tree,
  placement: Placement,
  dtype: jnp.dtype = autoencoder.Decoder.dtype,
) -> MelAutoencoder:
  """An autoencoder of its shape and its tree, weights in `dtype`."""
  init, axes = autoencoder.init, autoencoder.AXES
  params = placed(init, config, tree, axes, placement, dtype)
  return MelAutoencoder(config, params, placement, dtype)


def load_autoencoder(source: str | Path) -> MelAutoencoder:
  """That of a Make-An-Audio, or one alone, on this process's own devices.

  Raises:
    InputError: If there is none, or it is damaged.
  """
  part = make_an_audio_rooms.read(source, "autoencoder")
  return of_autoencoder(*part, Placement.make(None))


def vocoder(parts: Parts, placement: Placement) -> Vocoder:
  """The vocoder, in float32."""
  params = placed(
    generator.init,
    parts.vocoder,
    parts.vocoder_tree,
    generator.AXES,
    placement,
  )
  return Vocoder(parts.vocoder, params, placement)


def text(parts: Parts, placement: Placement) -> TextTower | None:
  """The text tower with its tokenizer, in float32; None without one."""
  if parts.text is None:
    return None
  rules = tokenizer(parts)
  params = placed(
    tower.init, parts.text, parts.text_tree, tower.AXES, placement
  )
  return TextTower(parts.text, params, rules, placement)


def embedder(parts: Parts, placement: Placement) -> ClipEmbedder | None:
  """CLIP, in float32; None of a model that does not look at pictures."""
  if parts.clip is None:
    return None
  # It runs once a picture: every device has all of it.
  axes = {
    re.escape(sharding.path_name(path)): (None,) * leaf.ndim
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      engine.abstract(clip.init, parts.clip)
    )
  }
  params = placed(clip.init, parts.clip, parts.clip_tree, axes, placement)
  return ClipEmbedder(parts.clip, params, placement)


def tokenizer(parts: Parts) -> Tokenizer:
  """The tokenizer of the text tower; `words` says what it raises."""
  return words(parts.text, parts.tokenizer)


def words(text: TowerConfig, place: str | None) -> Tokenizer:
  """The tokenizer of a text tower.

  Args:
    text: The tower.
    place: The folder with its files; None where it reads bytes.

  Raises:
    InputError: If its files are damaged, or it has more words than the tower.
  """
  if isinstance(text, T5TextConfig):
    return tokenizers.load(place, rows=text.t5.vocabulary)
  folder = Path(place)
  found = word_pieces.load(folder, "bert", limit=text.length)
  rows = text.bert.vocabulary
  if found.vocabulary > rows:
    raise InputError(
      f"{folder} has {found.vocabulary} words, the text tower {rows} rows;"
      " take the tokenizer that it was trained with"
    )
  return found


def check_stored(parts: Parts) -> None:
  """Holds what lies in our own format against its configuration.

  Loading does so, too; whoever only describes or copies a model has to ask.

  Raises:
    InputError: For the first array that is missing, unknown or of another
      shape, or if a room is damaged.
  """
  for room, (_, init) in _ROOMS.items():
    tree = getattr(parts, f"{room}_tree")
    if not isinstance(tree, checkpoint.Folder):
      continue
    wanted = engine.abstract(init, getattr(parts, room))
    want, have = (
      {
        sharding.path_name(path): list(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(each)
      }
      for each in (wanted, tree.abstract())
    )
    for name in sorted(want | have):
      if want.get(name) != have.get(name):
        raise InputError(
          f"{tree.path}: {name} has shape {have.get(name)}, and config.json"
          f" asks for {want.get(name)}; copy the whole export again"
        )


def rows(parts: Parts) -> list[tuple[str, str]]:
  """Names and values for people: sound, latents, sizes of the rooms, text."""
  m, latent, net = parts.autoencoder.mel, parts.autoencoder, parts.unet
  columns_hz = m.rate_hz / m.hop / latent.ratio
  check_stored(parts)
  told = [
    ("sound", f"{m.rate_hz} Hz, 1 channel(s)"),
    ("mel", f"{m.n_mels} bands, a frame every {m.hop} samples"),
    (
      "latent",
      f"{latent.channels} channels, {latent.rows} rows, {columns_hz:g} columns"
      " a second",
    ),
    ("window", f"{parts.window_s:g} s"),
    ("schedule", f"{parts.schedule.times} times"),
  ]
  for room, (name, init) in _ROOMS.items():
    config = getattr(parts, room)
    if config is not None:
      tree = getattr(parts, f"{room}_tree")
      told.append((name, description.size(init, config, tree)))
  if net.beside:
    told.append(("fills holes", "alone: reads no text"))
  if parts.published is not None:
    told += make_an_audio_folder.notes(parts)
  return told


def placed(
  init: Callable[[Any, jax.Array], Tree],
  config: Any,
  tree: Tree,
  axes: Mapping[str, Axes],
  placement: Placement,
  dtype: jnp.dtype = jnp.float32,
) -> Tree:
  """Parameters on the devices, in `dtype`.

  Args:
    init: Of the room.
    config: Its shape.
    tree: Lazy arrays, or a `checkpoint.Folder`.
    axes: The room's `AXES`.
    placement: The devices.
    dtype: Of the parameters.

  Raises:
    InputError: If weights are damaged, or not finite in `dtype`.
  """
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
    engine.abstract(init, config),
  )
  return placing.realise(tree, abstract, axes, placement)
