"""Tiny random models in the published format, for the tests of conversion."""

import dataclasses

import jax
import numpy as np
import yaml

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert import (
  audiocraft,
  engine,
  opening,
  torch_file,
)
from audiogen_jax.convert.opening import Parts
from audiogen_jax.lm import model
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.transformer import TransformerConfig

CODEC = EncodecConfig(
  seanet=SEANetConfig(width=6, filters=2, ratios=(3, 2), lstm_layers=1),
  rvq=RVQConfig(codebooks=4, size=10, width=6),
)
LM = LMConfig(
  size=10,
  transformer=TransformerConfig(width=8, layers=2, heads=2, ff=24),
  text_width=5,
)
LM_FILE, CODEC_FILE = audiocraft.LM_FILE, audiocraft.CODEC_FILE


def random_tree(init, config, dtype=np.float32):
  """A tree of random arrays."""
  numbers = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: numbers.normal(size=leaf.shape).astype(dtype),
    engine.abstract(init, config),
  )


def parts_of(codec=CODEC, lm=LM, dtype=np.float32, **options):
  return Parts(
    codec=codec,
    codec_tree=random_tree(encodec.init, codec, dtype),
    lm=lm,
    lm_tree=random_tree(model.init, lm, dtype) if lm else None,
    **dict(text_name="some-t5", window_s=7.5) | options,
  )


def lm_of(transformer=None, **changes):
  changes["transformer"] = dataclasses.replace(
    LM.transformer, **transformer or {}
  )
  return dataclasses.replace(LM, **changes)


def codec_of(net=None, **changes):
  changes["seanet"] = dataclasses.replace(CODEC.seanet, **net or {})
  return dataclasses.replace(CODEC, **changes)


def values(tree):
  """What lazy arrays hold."""
  return jax.tree.map(
    lambda leaf: np.asarray(leaf.read()),
    tree,
    is_leaf=lambda leaf: hasattr(leaf, "read"),
  )


def same(ours, theirs):
  def one(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)

  jax.tree.map(one, ours, theirs)


def opened(folder):
  return opening.open_parts(folder, need_text=False)


def edit_file(path, edit):
  """Reads a file, lets `edit` change its tensors and YAML, writes it again."""
  saved = torch_file.read(path)
  state = {k: np.array(v.read()) for k, v in saved["best_state"].items()}
  cfg = yaml.safe_load(saved["xp.cfg"])
  edit(state, cfg)
  text = yaml.safe_dump(cfg)
  torch_file.write(path, saved | {"best_state": state, "xp.cfg": text})


def put(cfg, name, value):
  """Sets `a.b` of nested dictionaries."""
  *folders, last = name.split(".")
  for part in folders:
    cfg = cfg[part]
  cfg[last] = value
