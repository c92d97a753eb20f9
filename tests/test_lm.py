"""The language model: what it looks at, and that all ways to run it agree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.core.types import Cond
from audiogen_jax.lm import language_model, masks, model, transformer
from audiogen_jax.lm.model import LM, LMConfig
from audiogen_jax.lm.transformer import TransformerConfig

TEXT = {  # how the model is told of text
  "cross": dict(cross=True, prepend=False),
  "prepended": dict(cross=False, prepend=True),
  "both": dict(cross=True, prepend=True),
  "neither": dict(cross=False, prepend=False),
}
ways = pytest.mark.parametrize("way", TEXT)


def tiny(way="cross", *, bias=True):
  return LMConfig(
    codebooks=3,
    size=24,
    transformer=TransformerConfig(
      width=32,
      layers=2,
      heads=2,
      ff=48,
      cross_attention=TEXT[way]["cross"],
      attention_bias=bias,
      ff_bias=bias,
    ),
    text_width=8,
    prepend_text=TEXT[way]["prepend"],
    head_bias=bias,
  )


def drawn(config):
  """Stacked parameters; norms and biases are drawn too, not ones and zeros."""
  draw = np.random.default_rng(1)

  def one(path, leaf):
    values = 0.2 * draw.standard_normal(leaf.shape)
    values += sharding.path_name(path).endswith("scale")
    return jnp.asarray(values, jnp.float32)

  abstract = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
  return jax.tree_util.tree_map_with_path(one, abstract)


def apart(config):
  return model.unstack(drawn(config))


def inputs(config, *, b=3, s=12, lengths=(6, 3, 1), room=6, seed=0):
  """Steps, and text of several lengths with zeros under the mask."""
  draw = np.random.default_rng(seed)
  steps = draw.integers(0, config.size + 1, (b, config.codebooks, s))
  states = draw.standard_normal((b, room, config.transformer.width))
  mask = np.arange(room)[None] < np.asarray(lengths)[:, None]
  states = (states * mask[..., None]).astype(np.float32)
  return jnp.asarray(steps, jnp.int32), Cond(*map(jnp.asarray, (states, mask)))


@functools.partial(jax.jit, static_argnames=("config", "stacked", "dtype"))
def whole(
  params, steps, cond, config, mask=None, stacked=False, dtype=jnp.float32
):
  lm = LM(config, jnp.dtype(dtype), stacked=stacked)
  mask = masks.causal(steps.shape[2]) if mask is None else mask
  return lm.apply({"params": params}, steps, cond, mask)


@functools.partial(jax.jit, static_argnames=("config", "capacity", "dtype"))
def prefill(params, steps, cond, config, capacity, dtype=jnp.float32):
  lm = LM(config, jnp.dtype(dtype), stacked=False)
  return lm.apply({"params": params}, steps, cond, capacity, method="prefill")


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def step(params, tokens, place, seen, texts, caches, config, dtype=jnp.float32):
  lm = LM(config, jnp.dtype(dtype), stacked=False)
  args = tokens, place, seen, texts, caches
  return lm.apply({"params": params}, *args, method="step")


# Against arithmetic written out


def by_hand(p, config, steps, text, mask=None):
  """Logits of one row without padding, in float64, from the equations."""
  t, s = config.transformer, steps.shape[1]
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)

  def norm(x, at):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * at["scale"] + at["bias"]

  def project(x, at, i):
    return np.einsum("sd,dhe->hse", x, at["kernel"][:, i]) + (
      at["bias"][i][:, None] if "bias" in at else 0
    )

  def attend(q, k, v, at, mask):
    scores = q @ k.swapaxes(1, 2) / np.sqrt(t.head_size)
    weights = scipy.special.softmax(np.where(mask, scores, -np.inf), axis=-1)
    y = np.einsum("hse,hed->sd", weights @ v, at["kernel"])
    return y + at.get("bias", 0)

  def dense(x, at):
    return x @ at["kernel"] + at.get("bias", 0)

  x = sum(p["embed"][k][steps[k]] for k in range(config.codebooks))
  if config.prepend_text:
    x = np.concatenate([text, x])
  i = np.arange(t.width // 2)
  phase = np.arange(len(x))[:, None] / 10000 ** (i / (t.width // 2 - 1))
  x = x + np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
  n = len(x) - s
  attended = np.tri(len(x), dtype=bool)
  if mask is not None:
    attended[n:, n:] = mask
  for n in range(t.layers):
    at = p[f"layer_{n}"]
    y, qkv = norm(x, at["self_norm"]), at["self_attn"]["qkv"]
    q, k, v = (project(y, qkv, i) for i in range(3))
    x = x + attend(q, k, v, at["self_attn"]["out"], attended)
    if t.cross_attention:
      cross = at["cross_attn"]
      query = {name: value[None] for name, value in cross["q"].items()}
      query["kernel"] = query["kernel"].swapaxes(0, 1)
      q = project(norm(x, at["cross_norm"]), query, 0)
      k, v = (project(text, cross["kv"], i) for i in range(2))
      x = x + attend(q, k, v, cross["out"], True)
    y = dense(norm(x, at["ff_norm"]), at["up"])
    y = y * 0.5 * (1 + scipy.special.erf(y / np.sqrt(2)))
    x = x + dense(y, at["down"])
  y = norm(x[-s:], p["out_norm"])
  logits = np.einsum("sd,kdv->ksv", y, p["heads"]["kernel"])
  if config.head_bias:
    logits += p["heads"]["bias"][:, None]
  return logits


@pytest.mark.parametrize("bias", [True, False])
@ways
def test_the_model_is_its_equations(way, bias):
  config = tiny(way, bias=bias)
  params = apart(config)
  steps, cond = inputs(config)
  got = whole(params, steps, cond, config)
  assert got.shape == (3, 3, 12, 24) and got.dtype == jnp.float32
  for row, length in enumerate((6, 3, 1)):
    text = np.asarray(cond.states[row, :length], np.float64)
    want = by_hand(params, config, np.asarray(steps[row]), text)
    # 2.1e-6 measured, 1.7e-6 with AVX-512; logits reach 4.
    np.testing.assert_allclose(got[row], want, atol=8e-6)


@pytest.mark.parametrize("kind", ["everything", "band", "one a row"])
@ways
def test_any_mask_is_followed(way, kind):
  config, s = tiny(way), 12
  params = apart(config)
  steps, cond = inputs(config, s=s)
  distance = np.abs(np.subtract.outer(np.arange(s), np.arange(s)))
  mask = {  # the first two are MAGNeT's
    "everything": np.ones((1, s, s), bool),
    "band": distance[None] <= 5,
    "one a row": distance[None] <= np.asarray([0, 3, 20])[:, None, None],
  }[kind]
  got = whole(params, steps, cond, config, mask)
  for row, length in enumerate((6, 3, 1)):
    text = np.asarray(cond.states[row, :length], np.float64)
    own = mask[row if len(mask) > 1 else 0]
    want = by_hand(params, config, np.asarray(steps[row]), text, own)
    # 2.1e-6 measured of the causal one; logits reach 4.
    np.testing.assert_allclose(got[row], want, atol=8e-6)
  stacked = whole(drawn(config), steps, cond, config, mask, stacked=True)
  np.testing.assert_allclose(stacked, got, atol=3e-6)


def test_positions_are_the_published_ones():
  got = transformer.sinusoids(jnp.asarray([[3]]), 8)
  want = [-0.989992, 0.990321, 0.999979, 1, 0.14112, 0.138798, 0.006463, 0.0003]
  np.testing.assert_allclose(got[0, 0], want, atol=1.2e-6)  # six digits: 5e-7
  assert got.dtype == jnp.float32
  # Far out: 8.2e-5 measured, as the rates are rounded to float32, by powers
  # that each processor takes in its own way.
  i = np.arange(768)
  phase = 1500 / 10000 ** (i / 767)
  far = transformer.sinusoids(jnp.asarray([[1500]]), 1536)[0, 0]
  want = np.concatenate([np.cos(phase), np.sin(phase)])
  np.testing.assert_allclose(far, want, atol=3.3e-4)


# What may be looked at


@ways
def test_no_step_looks_ahead(way):
  config = tiny(way)
  params = apart(config)
  s = 8
  _, cond = inputs(config, s=s)
  # Each step has a token of its own, so its embedding's gradient is the step's.
  steps = jnp.broadcast_to(jnp.arange(s), (3, config.codebooks, s))

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(None, 0))
  @jax.grad
  def reach(embed, at):
    logits = whole(params | {"embed": embed}, steps, cond, config)
    return jnp.sum(jnp.sin(logits[:, :, at]))

  grads = reach(params["embed"], jnp.arange(s))  # place asked, k, v, d
  size = np.abs(np.asarray(grads)).max(axis=(1, 3))
  assert np.all(size[:, s:] == 0)
  for at in range(s):
    assert np.all(size[at, at + 1 : s] == 0)
    assert np.all(size[at, : at + 1] > 1e-4)


@ways
def test_text_is_looked_at_where_it_is_shown(way):
  config = tiny(way)
  params = apart(config)
  steps, cond = inputs(config)

  @jax.jit
  @jax.grad
  def reach(states):
    logits = whole(params, steps, Cond(states, cond.mask), config)
    return jnp.sum(jnp.sin(logits))

  size = np.abs(np.asarray(reach(cond.states))).max(axis=2)
  told = way != "neither"
  np.testing.assert_array_equal(size > 0, np.asarray(cond.mask) & told)


@ways
def test_text_under_the_mask_does_not_matter(way):
  config = tiny(way)
  params = apart(config)
  steps, cond = inputs(config)
  junk = jnp.where(cond.mask[..., None], cond.states, 1e3)
  got = whole(params, steps, Cond(junk, cond.mask), config)
  want = whole(params, steps, cond, config)
  np.testing.assert_array_equal(got, want)


def test_nan_under_the_mask_ends_at_condition():
  config = tiny()
  params = apart(config)
  placement = Placement.make(make_mesh(data=1))
  options = dict(
    config=config,
    dtype=jnp.dtype(jnp.float32),
    placement=placement,
    rows=4,
    mask_padding=True,
  )
  _, (_, mask) = inputs(config)
  states = jax.random.normal(jax.random.key(3), (3, 6, 8))
  want = language_model.condition(params, states, mask, **options)
  bad = jnp.where(mask[..., None], states, jnp.nan)
  got = language_model.condition(params, bad, mask, **options)
  np.testing.assert_array_equal(got.states, want.states)
  assert np.all(np.asarray(got.states)[:3][~np.asarray(mask)] == 0)
  assert np.all(np.asarray(got.states)[:3][np.asarray(mask)] != 0)
  # A further row has no text, and one vector of zeros to attend to.
  assert np.all(np.asarray(got.states)[3] == 0)
  np.testing.assert_array_equal(got.mask[:3], mask)
  np.testing.assert_array_equal(got.mask[3], np.arange(6) == 0)


@ways
def test_padding_of_text_does_not_matter(way):
  # Positions count the text that is there, masks hide the rest.
  config = tiny(way)
  params = apart(config)
  steps, cond = inputs(config, lengths=(3, 2, 1), room=3)
  want = whole(params, steps, cond, config)
  for more in (1, 5):
    rest = ((0, 0), (0, more))
    padded = Cond(
      jnp.pad(cond.states, (*rest, (0, 0))), jnp.pad(cond.mask, rest)
    )
    got = whole(params, steps, padded, config)
    np.testing.assert_allclose(got, want, atol=8e-6)  # 2.0e-6 measured


def test_no_text_adds_nothing():
  config = tiny("cross", bias=False)
  params = apart(config)
  steps, cond = inputs(config)
  nothing = Cond(jnp.zeros_like(cond.states), cond.mask)
  got = whole(params, steps, nothing, config)
  deaf = dataclasses.replace(config.transformer, cross_attention=False)
  deaf = dataclasses.replace(config, transformer=deaf)
  mute = {
    name: {k: v for k, v in part.items() if not k.startswith("cross")}
    if name.startswith("layer_")
    else part
    for name, part in params.items()
  }
  want = whole(mute, steps, nothing, deaf)
  np.testing.assert_array_equal(got, want)
  told = whole(params, steps, cond, config)
  assert np.abs(np.asarray(told - want)).max() > 0.1


# All ways of running it agree


@ways
def test_prefill_and_steps_are_the_whole(way):
  config, s, room = tiny(way), 12, 16
  params = apart(config)
  steps, cond = inputs(config, s=s)
  want = whole(params, steps, cond, config)
  for known in (0, 1, 5, 8):
    read = 8 if known else 0
    # What follows the prompt may hold anything.
    junk = (steps + 7) % config.size
    head = jnp.where(jnp.arange(s) < known, steps, junk)[:, :, :read]
    texts, caches = prefill(params, head, cond, config, room)
    for place in range(known, s):
      got, caches = step(
        params,
        steps[:, :, place],
        jnp.asarray(place),
        cond.mask,
        texts,
        caches,
        config,
      )
      # 2.1e-6 measured.
      np.testing.assert_allclose(got, want[:, :, place], atol=8e-6)


def test_stacked_layers_are_layers_apart():
  config = tiny("both")
  stacked, split = drawn(config), apart(config)
  steps, cond = inputs(config)
  got = whole(stacked, steps, cond, config, stacked=True)
  want = whole(split, steps, cond, config)
  np.testing.assert_allclose(got, want, atol=3e-6)  # 7.2e-7 measured


def test_bfloat16_stays_near():
  config = tiny("both")
  params = apart(config)
  steps, cond = inputs(config)
  exact = whole(params, steps, cond, config)
  half = functools.partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16))
  cond = Cond(half(cond.states), cond.mask)
  options = dict(config=config, dtype=jnp.bfloat16)
  rough = whole(half(params), steps, cond, **options)
  assert rough.dtype == jnp.float32
  # 0.048 measured; logits reach 4.
  assert np.abs(np.asarray(rough - exact)).max() > 1e-3
  np.testing.assert_allclose(rough, exact, rtol=0, atol=0.1)
  texts, caches = prefill(
    half(params), steps[:, :, :8], cond, capacity=16, **options
  )
  assert caches[0].k.dtype == jnp.bfloat16
  got, _ = step(
    half(params),
    steps[:, :, 8],
    jnp.asarray(8),
    cond.mask,
    texts,
    caches,
    **options,
  )
  np.testing.assert_allclose(got, rough[:, :, 8], atol=0.03)  # 0.011 measured
