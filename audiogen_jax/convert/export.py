"""From any source to any format: what `audiogen convert` does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from audiogen_jax.convert import (
  audiocraft,
  engine,
  finite,
  formats,
  huggingface_export,
  make_an_audio_folder,
  make_an_audio_loading,
  make_an_audio_parts,
  opening,
)
from audiogen_jax.convert.adapters import merge, open_all
from audiogen_jax.core import checkpoint, writing
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.text import tokenizer
from audiogen_jax.text.clap import ClapTextConfig

FORMATS = ("orbax", "audiocraft", "transformers", make_an_audio_folder.NAME)
DTYPES = ("float32", "bfloat16", "float16")


def convert(
  source: str | Path,
  folder: str | Path,
  *,
  to: str = "orbax",
  text_encoder: str | Path | None = None,
  dtype: str | None = None,
  adapters: Sequence[str | Path] = (),
) -> str | None:
  """Writes `source` into `folder` in another format.

  The text encoder comes along if it is at hand; otherwise the result names it,
  as published checkpoints do.

  Args:
    source: As for `AudioGen.from_pretrained`.
    folder: Where to; must not exist yet.
    to: `orbax` (ours); of an AudioGen or a MAGNeT also `audiocraft` (the
      published format) or `transformers` (a MusicGen folder, which always holds
      a text encoder), of a Make-An-Audio its published `make-an-audio`.
    text_encoder: Hub id or folder of the text encoder to take along.
    dtype: Of the weights as they are written, one of `DTYPES`; None for the
      type that each is stored in.
    adapters: Folders of adapters (`FOLDER` or `FOLDER@STRENGTH`), which are
      merged into the language model.

  Returns:
    The name of the text encoder, if it stays outside.

  Raises:
    InputError: For anything that is missing, damaged, or that the format cannot
      hold.
  """
  if to not in FORMATS:
    raise InputError(f"format {to!r} is not one of {', '.join(FORMATS)}")
  if dtype is not None and dtype not in DTYPES:
    raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")

  folder_of = formats.locate(source)
  if formats.recognise(folder_of).family(folder_of) == (
    make_an_audio_parts.FAMILY
  ):
    if text_encoder is not None or adapters:
      raise InputError(
        f"{source} is a Make-An-Audio, which has its own text tower and no"
        " adapters; leave them out"
      )
    return _convert_latent(source, Path(folder), to, dtype)
  if to == make_an_audio_folder.NAME:
    raise InputError(
      f"{source} is no Make-An-Audio; convert it to one of"
      f" {', '.join(FORMATS[:-1])}"
    )
  need_text = to == "transformers"
  parts = opening.open_parts(
    source, family=None, text_encoder=text_encoder, need_text=need_text
  )
  lm, lm_tree = parts.lm, parts.lm_tree
  opened = open_all(adapters, lm)

  def ready(tree: Tree) -> Tree:
    made = _in_memory(tree)
    if opened and tree is lm_tree:
      made = merge(made, lm, opened)
    made = _cast(made, dtype)
    finite.check(made, tree)
    return made

  words = None
  if parts.text is not None:
    words = tokenizer.load(parts.tokenizer, rows=parts.text.vocabulary)
  if to == "audiocraft":  # it names a text encoder, and has no place for one
    if isinstance(words, tokenizer.ByteTokenizer):
      raise InputError(
        f"{source} has a text encoder of its own, which reads bytes; the"
        " published format has no place for it: convert to orbax or"
        " transformers"
      )
    parts = dataclasses.replace(parts, text=None, text_tree=None)
  if to == "orbax":
    opening.write_orbax(folder, parts, words, ready=ready)
    return _outside(parts)
  parts = dataclasses.replace(
    parts,
    codec_tree=ready(parts.codec_tree),
    lm_tree=ready(parts.lm_tree),
    text_tree=ready(parts.text_tree),
  )
  with writing.local_folder(Path(folder)) as work:
    if to == "audiocraft":
      audiocraft.write(work, parts)
    else:
      huggingface_export.write_musicgen(work, parts)
      words.save(work)
      if isinstance(words, tokenizer.ByteTokenizer):
        huggingface_export.write_bytes(work)
  return _outside(parts)


def _outside(parts: opening.Parts) -> str | None:
  outside = parts.lm is not None and parts.text is None
  return parts.text_name if outside else None


def _convert_latent(
  source: str | Path, folder: Path, to: str, dtype: str | None
) -> None:
  """`convert` of a Make-An-Audio."""
  if to not in ("orbax", make_an_audio_folder.NAME):
    raise InputError(
      f"{source} is a Make-An-Audio, which the format {to} cannot hold; convert"
      f" it to orbax or {make_an_audio_folder.NAME}"
    )
  parts = make_an_audio_parts.open_parts(source)
  make_an_audio_loading.check_stored(parts)
  if to != "orbax" and parts.text is None:
    raise InputError(
      f"{source} reads no text, and the published layout of such models is"
      " another, which is not written; convert it to orbax"
    )
  if to != "orbax" and not isinstance(parts.text, ClapTextConfig):
    raise InputError(
      f"{source} reads with a T5, which the published layout does not hold;"
      " convert it to orbax"
    )
  words = parts.text and make_an_audio_loading.tokenizer(parts)

  def ready(tree: Tree) -> Tree:
    made = _cast(_in_memory(tree), dtype)
    finite.check(made, tree)
    return made

  if to == "orbax":
    make_an_audio_parts.write_orbax(folder, parts, words, ready)
    return
  trees = {
    field.name: ready(getattr(parts, field.name))
    for field in dataclasses.fields(parts)
    if field.name.endswith("_tree")
  }
  make_an_audio_folder.write(folder, dataclasses.replace(parts, **trees), words)


def _in_memory(tree: Tree) -> Tree:
  """Arrays on the host, in the types they are stored in."""
  if tree is None:
    return None
  host = jax.local_devices(backend="cpu")[0]
  if isinstance(tree, checkpoint.Folder):
    here = jax.sharding.SingleDeviceSharding(host)
    wanted = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
      tree.abstract(),
    )
    return tree.restore(wanted)
  return engine.realise(tree, lambda _, leaf: jax.device_put(leaf.read(), host))


def _cast(tree: Tree, dtype: str | None) -> Tree:
  """Real numbers as `dtype`; what counts or is true or false stays."""

  def one(leaf):
    real = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(dtype) if real else leaf

  return tree if dtype is None else jax.tree.map(one, tree)
