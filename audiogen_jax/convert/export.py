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
  huggingface_export,
  opening,
)
from audiogen_jax.convert.adapters import merge, open_all
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import checkpoint, writing
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.text import tokenizer

FORMATS = ("orbax", "audiocraft", "transformers")
DTYPES = ("float32", "bfloat16", "float16")


def convert(
  source: str | Path,
  folder: str | Path,
  *,
  to: str = "orbax",
  text_encoder: str | Path | None = None,
  dtype: str | None = None,
  adapters: Sequence[str | Path] = (),
) -> Parts:
  """Writes `source` into `folder` in another format.

  The text encoder comes along if it is at hand; otherwise the result names it,
  as published checkpoints do.

  Args:
    source: As for `AudioGen.from_pretrained`.
    folder: Where to; must not exist yet.
    to: `orbax` (ours), `audiocraft` (the published format) or `transformers`
      (a MusicGen folder, which always holds a text encoder).
    text_encoder: Hub id or folder of the text encoder to take along.
    dtype: Of the weights as they are written, one of `DTYPES`; None for the
      type that each is stored in.
    adapters: Folders of adapters (`FOLDER` or `FOLDER@STRENGTH`), which are
      merged into the language model.

  Returns:
    What was written.

  Raises:
    InputError: For anything that is missing, damaged, or that the format cannot
      hold.
  """
  if to not in FORMATS:
    raise InputError(f"format {to!r} is not one of {', '.join(FORMATS)}")
  if dtype is not None and dtype not in DTYPES:
    raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")

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
    return parts
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
  return parts


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
