"""What `audiogen info` says of an AudioGen or a MAGNeT."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from audiogen_jax.codec import encodec
from audiogen_jax.convert import engine
from audiogen_jax.convert.adapters import Adapters
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import checkpoint
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import model as language_model
from audiogen_jax.text import t5


def rows(
  parts: Parts, adapters: Sequence[Adapters] = ()
) -> list[tuple[str, str]]:
  """Names and values: sound, codes, sizes of the rooms, text, adapters."""
  codec, tokens = parts.codec, parts.codec.tokens
  result = [
    ("sound", f"{codec.sample_rate_hz} Hz, {codec.channels} channel(s)"),
    ("frames", f"{tokens.frame_rate_hz} Hz, {codec.hop} samples each"),
    ("codebooks", f"{tokens.codebooks} of {tokens.size}"),
    ("bit rate", f"{codec.bitrate / 1000:.2f} kbit/s"),
    ("codec", size(encodec.init, codec, parts.codec_tree, "params")),
  ]
  if parts.lm is not None:
    lm, t = parts.lm, parts.lm.transformer
    ways = {"prepended": lm.prepend_text, "cross-attention": t.cross_attention}
    result += [
      ("language model", size(language_model.init, lm, parts.lm_tree)),
      ("", f"{t.layers} layers, {t.width} wide, {t.heads} heads"),
      *_decoding(parts),
      ("window", f"{parts.window_s:g} s"),
      ("text", " and ".join(name for name, used in ways.items() if used)),
    ]
    text = f"{parts.text_name} (outside)"
    if parts.text is not None:
      told = size(t5.init, parts.text, parts.text_tree)
      text = f"{parts.text_name or ''} {told}".strip()
    result.append(("text encoder", text))
  for each in adapters:
    rank, alpha = each.config.rank, each.config.alpha
    result.append(("adapters", f"{each.folder}, rank {rank}, alpha {alpha:g}"))
  return result


def _decoding(parts: Parts) -> list[tuple[str, str]]:
  """How codes are laid out or hidden, and the guidance that suits the model."""
  if parts.masking is None:
    pattern = parts.lm.pattern
    return [
      ("pattern", f"{pattern.kind} {list(pattern.delays)}"),
      ("guidance", f"{parts.guidance:g}"),
    ]
  masking, own = parts.masking, parts.masking.sampling
  sees = "all" if masking.context < 0 else f"±{masking.context}"
  return [
    ("masked", f"spans of {masking.span}; finer codebooks see {sees} frames"),
    ("passes", " + ".join(map(str, own.decoding_steps))),
    ("guidance", f"{own.guidance:g} to {own.min_guidance:g}"),
  ]


def size(
  init: Callable[[Any, jax.Array], Tree],
  config: Any,
  tree: Tree,
  part: str | None = None,
) -> str:
  """Parameters of a room, and bytes as they are stored."""
  shapes = engine.abstract(init, config)
  counted = shapes[part] if part else shapes
  count = sum(leaf.size for leaf in jax.tree.leaves(counted))
  if isinstance(tree, checkpoint.Folder):
    tree = tree.abstract()
  stored = sum(
    math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(
      tree, is_leaf=lambda x: isinstance(x, engine.Lazy)
    )
  )
  return f"{count:,} parameters, {stored / 1e6:,.1f} MB"
