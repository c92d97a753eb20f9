"""A Make-An-Audio as its parts, from any source; and our own format of it.

In our own format (`orbax`) the rooms are trees of nested dictionaries, named as
the modules name them:

    unet          `diffusion.unet`             kind "unet"
    autoencoder   `latent.autoencoder`         kind "kl_autoencoder"
    vocoder       `vocoder.generator`          kind "mel_vocoder"
    text          `text.clap`, and a folder `tokenizer`   kind "clap_text"
                  `text.t5_text`, and such a folder, but
                  where it reads bytes                    kind "t5_text"
    clip          `text.clip`                  kind "clip"

A model reads texts (`text`), looks at pictures (`clip`), or fills holes alone
and has neither.  `config.json` also holds `schedule`, of the noise, and
`window_s`, the duration trained on in seconds.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import building, formats, orbax
from audiogen_jax.convert.keys import RANGES
from audiogen_jax.convert.orbax import Export, Room
from audiogen_jax.core import checkpoint, config
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds, Tree
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text.clip import ClipConfig
from audiogen_jax.text.t5_text import T5TextConfig
from audiogen_jax.text.tokenizer import BYTE_ROWS, Tokenizer
from audiogen_jax.text.tower import TowerConfig
from audiogen_jax.vocoder.generator import VocoderConfig

FAMILY = "make-an-audio"
TOKENIZER = "tokenizer"
# Kinds of rooms: the room's name, and the class of its configuration.
_KINDS = {
  "unet": ("unet", UNetConfig),
  "kl_autoencoder": ("autoencoder", AutoencoderConfig),
  "mel_vocoder": ("vocoder", VocoderConfig),
  "clap_text": ("text", ClapTextConfig),
  "t5_text": ("text", T5TextConfig),
  "clip": ("clip", ClipConfig),
}
_ROOMS = tuple(dict.fromkeys(name for name, _ in _KINDS.values()))
# The least and the most of what these rooms have of their own.
_RANGES = RANGES | {
  "beside": (0, 64),
  "multipliers": (1, 64),
  "attention": (0, 31),
  "context_width": (0, 1 << 17),
  "middle": (1, 4096),
  "scale": (1e-6, 1e6),
  "n_mels": (8, 1024),
  "rate_hz": (1000, 768_000),
  "positions": (2, 1 << 16),
  "length": (2, 1 << 16),
  "first_position": (0, 1 << 16),
  "kinds": (1, 1 << 16),
  "patch": (1, 4096),
  "times": (1, 1 << 16),
  "window_length": (1, 1 << 16),
  "floor": (1e-12, 1),
  "under_root": (0, 1),
  "range_db": (-1000, 1000),
}
UNET_RANGES = _RANGES | {"heads": (0, 1024), "head_size": (0, 4096)}
_NEEDED = ("unet", "autoencoder", "vocoder")


@dataclasses.dataclass(frozen=True)
class Parts:
  """A model as its parts, before or after it is anywhere in memory.

  Trees are lazy arrays, arrays, or a `checkpoint.Folder` in our own format.

  Attributes:
    schedule: Of the noise.
    unet: Shape of the U-Net.
    unet_tree: Its parameters; so of the others.
    autoencoder: Shape of the autoencoder.
    autoencoder_tree: Its parameters.
    vocoder: Shape of the vocoder.
    vocoder_tree: Its parameters.
    text: Shape of the text tower, of a model that reads.
    text_tree: Its parameters.
    clip: Shape of CLIP, of a model that looks at pictures.
    clip_tree: Its parameters.
    tokenizer: The folder of its tokenizer; None where it reads bytes.
    window_s: The duration trained on.
    published: The published folder that it was read from, if it was.
  """

  schedule: Schedule
  unet: UNetConfig
  unet_tree: Tree
  autoencoder: AutoencoderConfig
  autoencoder_tree: Tree
  vocoder: VocoderConfig
  vocoder_tree: Tree
  text: TowerConfig | None = None
  text_tree: Tree | None = None
  clip: ClipConfig | None = None
  clip_tree: Tree | None = None
  tokenizer: str | None = None
  window_s: Seconds = 9.984
  published: Path | None = None


@dataclasses.dataclass(frozen=True)
class _Settings:
  """What `config.json` says besides the rooms."""

  schedule: Schedule
  window_s: float


def published() -> Parts:
  """The shapes of `maa1_full.ckpt` and what belongs to it, without weights."""
  return Parts(
    schedule=Schedule(),
    unet=UNetConfig(),
    unet_tree=None,
    autoencoder=AutoencoderConfig(),
    autoencoder_tree=None,
    vocoder=VocoderConfig(),
    vocoder_tree=None,
    text=ClapTextConfig(),
  )


def open_parts(source: str | Path) -> Parts:
  """The parts of a model, nothing of their values read yet.

  Args:
    source: As for `formats.locate`.

  Raises:
    InputError: For anything that is missing, damaged or of the wrong kind.
  """
  folder = formats.locate(source)
  format = formats.recognise(folder)
  own = format.family(folder)
  if own != FAMILY:
    kind = f"a model of the family {own}" if own else f"a {format.name}"
    raise InputError(f"{folder} holds {kind}, not a Make-An-Audio")
  if format.name == "orbax":
    parts = _open_orbax(folder)
  else:
    parts = format.open(folder)
  return checked(parts, str(folder))


def checked(parts: Parts, where: str) -> Parts:
  """The same parts, once they are found to fit each other.

  Raises:
    InputError: If they do not; the message names the two that differ.
  """
  unet, latent = parts.unet, parts.autoencoder
  _check_recipes(latent.mel, parts.vocoder.mel, where)
  _check_frames(latent, where)
  if unet.channels != latent.channels:
    raise InputError(
      f"{where}: the U-Net has latents of {unet.channels} channels, the"
      f" autoencoder of {latent.channels}"
    )
  if unet.beside not in (0, latent.channels + 1):
    raise InputError(
      f"{where}: the U-Net reads {unet.beside} channels beside a latent; it"
      f" should be none, or {latent.channels + 1} (of inpainting)"
    )
  widths = {
    "the text tower": parts.text and parts.text.width,
    "CLIP": parts.clip and parts.clip.width,
  }
  for name, width in widths.items():
    if width and width != unet.context_width:
      raise InputError(
        f"{where}: {name} makes states of {width}, the U-Net reads"
        f" {unet.context_width}; take the {name} that it was trained with"
      )
  if unet.context_width and not any(widths.values()):
    raise InputError(
      f"{where}: the U-Net reads states of {unet.context_width}, and there is"
      " nothing that makes them of a text or a picture"
    )
  # Our own format could not hold others.
  for name, value in (
    ("window_s", parts.window_s),
    ("times", parts.schedule.times),
    ("scale", latent.scale),
  ):
    config.check_range(name, value, *_RANGES[name], where=f"{where}: ")
  return parts


def write_orbax(
  folder: str | os.PathLike,
  parts: Parts,
  words: Tokenizer | None,
  ready: Callable[[Tree], Tree] = lambda tree: tree,
) -> None:
  """Writes our own format, one room at a time.

  Args:
    folder: Where; must not exist yet.
    parts: Configurations and trees.
    words: The tokenizer, written along with the text tower.
    ready: Makes JAX arrays of a tree of `parts` when its turn comes.

  Raises:
    InputError: If the folder exists or cannot be written.
  """
  held = {
    name: room_of(name, getattr(parts, name), getattr(parts, f"{name}_tree"))
    for name in _ROOMS
    if getattr(parts, name) is not None
  }
  settings = _Settings(parts.schedule, parts.window_s)

  def extras(work: Path) -> None:
    if words is not None:
      words.save(work / TOKENIZER)

  orbax.write(
    folder,
    Export(FAMILY, held, config.as_dict(settings)),
    ready=ready,
    extras=extras,
  )


def rooms(export: Export) -> dict[str, Any]:
  """What an export in our own format holds, by the names of `Parts`.

  Raises:
    InputError: For a room that no Make-An-Audio has, or values that cannot be.
  """
  built: dict[str, Any] = {}
  for name, room in export.rooms.items():
    own, cls = _KINDS.get(room.kind, (None, None))
    if own != name:
      known = ", ".join(f"{n} ({k})" for k, (n, _) in _KINDS.items())
      raise InputError(
        f"the room {shown(name)} is of kind {shown(room.kind)}; a"
        f" Make-An-Audio has {known}"
      )
    ranges = UNET_RANGES if cls is UNetConfig else _RANGES
    room_config = config.build(cls, room.config, where=name, ranges=ranges)
    built[name] = building.checked(room_config, name)
    built[f"{name}_tree"] = room.tree
  return built


def room_of(name: str, config_: Any, tree: Tree) -> Room:
  """A room as it is written."""
  kinds = {own: kind for kind, own in _KINDS.items()}
  return Room(kinds[name, type(config_)], config.as_dict(config_), tree)


def _open_orbax(folder: epath.Path) -> Parts:
  export = orbax.read(folder)
  try:
    built = rooms(export)
    missing = [name for name in _NEEDED if name not in built]
    if missing:
      held = ", ".join(export.rooms)
      advice = (
        f"; {held} alone is a part, which the training of a U-Net takes"
        f" (--config.sources.{held}=FOLDER)"
      )
      raise InputError(
        f"the room {missing[0]} is missing{advice if held in _NEEDED else ''}"
      )
    settings = config.build(_Settings, export.settings, ranges=_RANGES)
  except InputError as error:
    raise InputError(f"{folder / checkpoint.CONFIG}: {error}") from None
  words = folder / TOKENIZER
  reads = "text" in built
  if reads and not words.exists() and not _may_read_bytes(built["text"]):
    raise InputError(
      f"{words} is missing, the tokenizer of the text tower; copy the whole"
      " export again"
    )
  return Parts(
    **built,
    tokenizer=str(words) if reads and words.exists() else None,
    schedule=settings.schedule,
    window_s=settings.window_s,
  )


def _may_read_bytes(text: TowerConfig) -> bool:
  """Whether a text tower may have no tokenizer: T5s of few rows."""
  return isinstance(text, T5TextConfig) and text.t5.vocabulary <= BYTE_ROWS


def _check_frames(latent: AutoencoderConfig, where: str) -> None:
  """Raises InputError unless sounds that are edited fill whole columns."""
  m = latent.mel
  frames = latent.ratio * (1 + m.n_fft // (m.hop * latent.ratio))
  sound = jax.ShapeDtypeStruct((1, frames * m.hop), jnp.float32)
  made = jax.eval_shape(functools.partial(mel.log_spectrogram, m), sound)
  if made.shape[1] < frames:
    raise InputError(
      f"{where}: its mel recipe makes {made.shape[1]} frames of {frames} hops"
      f" (padding {m.padding!r}, n_fft {m.n_fft}); there must be one for each"
    )


def _check_recipes(ours: MelConfig, heard: MelConfig, where: str) -> None:
  """Raises InputError unless the vocoder hears what the autoencoder makes."""
  told = differing(ours, heard)
  if told:
    raise InputError(
      f"{where}: the autoencoder makes other mel spectrograms than the vocoder"
      f" hears ({told}); take the vocoder of the same generation"
    )


def differing(one: MelConfig, other: MelConfig) -> str:
  """In what two recipes differ, for a message; empty if in nothing."""
  one, other = (
    dataclasses.asdict(m)
    | {
      "window_length": m.window_length or m.n_fft,
      "f_max_hz": m.f_max_hz or m.rate_hz / 2,
    }
    for m in (one, other)
  )
  differ = [f"{n} {a} and {other[n]}" for n, a in one.items() if a != other[n]]
  return ", ".join(differ[:3])
