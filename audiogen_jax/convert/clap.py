"""Published CLAPs -> what judges: LAION's, Hugging Face's and Microsoft's."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from audiogen_jax.convert import (
  clap_huggingface,
  engine,
  finite,
)
from audiogen_jax.embedding import word_pieces
from audiogen_jax.embedding.clap import Clap


def load_clap(
  path: str | Path, *, quantise: bool = False, window_s: float | None = None
) -> Clap:
  """A CLAP with its weights and its tokenizer, ready to judge.

  Args:
    path: A folder.
    quantise: See `Clap`.
    window_s: How much of a clip is heard, in seconds; None for what is
      published.

  Raises:
    InputError: If files are missing or damaged, with what to do.
  """
  path = Path(path)
  parts = clap_huggingface.read(path, window_s)
  words = word_pieces.load(
    parts.tokenizer,
    parts.kind,
    limit=parts.limit,
    behind=parts.behind,
    marks=parts.marks,
  )
  params = engine.realise(
    parts.tree, lambda _, lazy: jnp.asarray(lazy.read(), jnp.float32)
  )
  finite.check(params, parts.tree)
  return Clap(
    parts.config,
    params,
    words,
    name=parts.name,
    scale=parts.scale,
    sha256=_sha256(parts.weights),
    quantise=quantise,
  )


def _sha256(paths: Sequence[Path]) -> str:
  """Of a file; of several, of all their bytes in turn."""
  digest = hashlib.sha256()
  for path in paths:
    with path.open("rb") as file:
      while block := file.read(1 << 22):
        digest.update(block)
  return digest.hexdigest()
