"""The language model's parameters: how many, where they lie, how they start."""

import itertools
import math
import re

import jax
import numpy as np
import pytest

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.lm import model
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.transformer import TransformerConfig


def abstract(config):
  return jax.eval_shape(lambda: model.init(config, jax.random.key(0)))


def tiny(*, cross, bias):
  # More than ten layers: layer_10 must not come before layer_2.
  return LMConfig(
    codebooks=3,
    size=24,
    transformer=TransformerConfig(
      width=32,
      layers=12,
      heads=2,
      ff=48,
      cross_attention=cross,
      attention_bias=bias,
      ff_bias=bias,
    ),
    text_width=8,
    head_bias=bias,
  )


FLAGS = True, False
VARIANTS = [
  tiny(cross=cross, bias=bias)
  for cross, bias in itertools.product(FLAGS, FLAGS)
]


@pytest.mark.parametrize(
  "shape,count",
  [
    ({}, 1_839_131_136),
    (dict(width=1024, layers=24, heads=16, ff=4096), 420_633_600),
    (dict(width=2048, layers=48, heads=32, ff=8192), 3_257_481_216),
  ],
)
def test_published_sizes(shape, count):
  tree = abstract(LMConfig(transformer=TransformerConfig(**shape)))
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) == count


def test_each_parameter_has_one_rule_and_each_rule_a_parameter():
  placement = Placement.make(make_mesh(data=4, tensor=2))
  met = set()
  for config in VARIANTS:
    stacked = abstract(config)
    split = jax.eval_shape(lambda p: model.unstack(dict(p)), stacked)
    for tree in (stacked, split):
      # Raises for a parameter with another number of rules than one.
      made = sharding.shardings(tree, model.AXES, placement)
      for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        name = sharding.path_name(path)
        met |= {rule for rule in model.AXES if re.fullmatch(rule, name)}
        split_ways = "tensor" in leaf.spec
        assert split_ways == bool(re.search(SPLIT, name)), name
  assert met == set(model.AXES)


# What a mesh axis called `tensor` splits: heads, feed-forward, vocabulary.
SPLIT = r"/(qkv|kv|q|k|v|up)/|/(out|down)/kernel|heads/"


@pytest.mark.parametrize("config", VARIANTS)
def test_stacked_and_apart_hold_the_same(config):
  draw = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: draw.standard_normal(x.shape, np.float32), abstract(config)
  )
  taken = dict(params)
  split = model.unstack(taken)
  assert "layers" not in taken and "layers" not in split
  assert sum(name.startswith("layer_") for name in split) == 12
  up = params["layers"]["up"]["kernel"]
  np.testing.assert_array_equal(split["layer_10"]["up"]["kernel"], up[10])
  names = set(split)
  back = model.stack(split)
  assert set(split) == names  # left as it was
  assert jax.tree.structure(back) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, back, params)


def test_initial_scales():
  t = TransformerConfig(
    width=128, layers=3, heads=4, ff=256, attention_bias=True, ff_bias=True
  )
  config = LMConfig(size=128, transformer=t, text_width=64, head_bias=True)
  params = jax.jit(model.init, static_argnums=0)(config, jax.random.key(4))

  def normal(leaf, sigma):
    # Cut at three sigma and not corrected for it: 0.98658 of sigma is left.
    assert 2.9 * sigma < np.abs(leaf).max() <= 3 * sigma * (1 + 1e-6)
    return np.std(leaf) / (0.98658 * sigma)

  def even(leaf, bound):
    assert 0.9 * bound < np.abs(leaf).max() <= bound
    return np.std(leaf) / (bound / 3**0.5)

  ratios = [
    normal(params["embed"], 128**-0.5),
    normal(params["heads"]["kernel"], 128**-0.5),
    even(params["text_proj"]["kernel"], 64**-0.5),
  ]
  layers = params["layers"]
  for i in range(3):
    at = jax.tree.map(lambda leaf, i=i: leaf[i], layers)
    depth = (2 * (i + 1)) ** -0.5
    ratios += [
      normal(at["self_attn"]["out"]["kernel"], 128**-0.5 * depth),
      normal(at["cross_attn"]["out"]["kernel"], 128**-0.5 * depth),
      normal(at["up"]["kernel"], 128**-0.5 * depth),
      normal(at["down"]["kernel"], 256**-0.5 * depth),
      even(at["self_attn"]["qkv"]["kernel"], 128**-0.5),
      even(at["cross_attn"]["q"]["kernel"], 128**-0.5),
      even(at["cross_attn"]["kv"]["kernel"], 128**-0.5),
    ]
  # 0.010 measured, in the text's projection; 8192 numbers and more each.
  np.testing.assert_allclose(ratios, 1, atol=0.03)
  # 0.025 measured; 128 numbers.
  ratio = even(params["text_proj"]["bias"], 64**-0.5)
  np.testing.assert_allclose(ratio, 1, atol=0.05)

  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = sharding.path_name(path)
    if name.endswith("scale"):
      assert np.all(leaf == 1), name
    elif name.endswith("bias") and name != "text_proj/bias":
      assert np.all(leaf == 0), name
  # No two layers start alike.
  first, second = layers["self_attn"]["qkv"]["kernel"][:2]
  assert np.abs(first - second).max() > 0.1
