"""Convolutions that pad at each row's own end: padding, weight norm."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.codec import layers, seanet
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core import sharding, weight_norm
from audiogen_jax.core.errors import InputError

# Small, and unlike the default wherever the code could take one for another.
SMALL = SEANetConfig(
  width=5,
  filters=4,
  ratios=(3, 2),
  kernel=5,
  last_kernel=3,
  residual_layers=2,
  lstm_layers=0,
  norm="none",
)


def _init(config):
  """Encoder and decoder with parameters as training draws them."""
  key, one = jax.random.key(0), jnp.ones((1,), jnp.int32)
  audio = jnp.zeros((1, config.hop, config.channels))
  latents = jnp.zeros((1, 1, config.width))
  return {
    "encoder": seanet.Encoder(config).init(key, audio, one)["params"],
    "decoder": seanet.Decoder(config).init(key, latents, one)["params"],
  }


def _random(config):
  """Random parameters; nothing keeps a 0 or 1 that would hide it."""
  numbers = np.random.default_rng(0)

  def draw(path, leaf):
    if leaf.ndim > 1:  # such that signals neither vanish nor grow
      bound = math.sqrt(3 / math.prod(leaf.shape[:-1]))
      values = numbers.uniform(-bound, bound, leaf.shape)
    elif sharding.path_name(path).endswith(("kernel_g", "scale")):
      values = numbers.uniform(0.5, 1.3, leaf.shape)
    else:
      values = numbers.uniform(-0.3, 0.3, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  shapes = jax.eval_shape(lambda: _init(config))
  return jax.tree_util.tree_map_with_path(draw, shapes)


def _noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _both(config, params, audio, length):
  """Latents, and the sound of them; NaN beyond each row's end."""

  def soil(x, length):
    real = jnp.arange(x.shape[1])[None] < length[:, None]
    return jnp.where(real[..., None], x, jnp.nan)

  with jax.default_matmul_precision("highest"):
    latents, frames = seanet.Encoder(config).apply(
      {"params": params["encoder"]}, soil(audio, length), length
    )
    sound, samples = seanet.Decoder(config).apply(
      {"params": params["decoder"]}, soil(latents, frames), frames
    )
  return latents, frames, sound, samples


class Plain:
  """SEANet in numpy, one row of exact length at a time, in float64."""

  def __init__(self, config, params):
    self.config = config
    plain = weight_norm.fold(params)
    self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), plain)

  def pad(self, x, left, right):
    if self.config.pad_mode == "constant":
      return np.pad(x, ((left, right), (0, 0)))
    # EnCodec lengthens a short row by zeros until it can be mirrored.
    short = max(max(left, right) - len(x) + 1, 0)
    x = np.pad(x, ((0, short), (0, 0)))
    x = np.pad(x, ((left, right), (0, 0)), mode="reflect")
    return x[: len(x) - short]

  def norm(self, x, params):
    if "norm" not in params:
      return x
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return x * params["norm"]["scale"] + params["norm"]["bias"]

  def conv(self, x, params, stride=1, dilation=1):
    kernel = params["kernel"]
    total = (len(kernel) - 1) * dilation + 1 - stride
    right = 0 if self.config.causal else total // 2
    x = self.pad(x, total - right, right + -len(x) % stride)
    steps = range(0, len(x) - (len(kernel) - 1) * dilation, stride)
    taps = np.arange(len(kernel)) * dilation
    out = np.stack([np.einsum("wi,wio->o", x[s + taps], kernel) for s in steps])
    return self.norm(out + params["bias"], params)

  def transposed(self, x, params, ratio):
    out = np.zeros(((len(x) + 1) * ratio, len(params["bias"])))
    for i, row in enumerate(x):
      out[i * ratio :][: 2 * ratio] += row @ params["kernel"]
    out = self.norm(out + params["bias"], params)
    right = ratio if self.config.causal else ratio // 2
    return out[ratio - right : len(out) - right]

  def residuals(self, x, params, name):
    for j in range(self.config.residual_layers):
      p = params[f"{name}_residual_{j}"]
      dilation = self.config.dilation_base**j
      y = self.conv(_elu(x), p["narrow"], dilation=dilation)
      y = self.conv(_elu(y), p["widen"])
      x = (self.conv(x, p["shortcut"]) if "shortcut" in p else x) + y
    return x

  def lstm(self, x, params):
    out = x
    for i in range(self.config.lstm_layers):
      p = {k: params["lstm"][f"layer_{i}_{k}"] for k in _LSTM}
      hidden, cell, steps = np.zeros(x.shape[1]), np.zeros(x.shape[1]), []
      for row in out:
        gates = row @ p["input_kernel"] + p["input_bias"]
        gates = gates + hidden @ p["hidden_kernel"] + p["hidden_bias"]
        i_, f, g, o = np.split(gates, 4)
        cell = _sigmoid(f) * cell + _sigmoid(i_) * np.tanh(g)
        hidden = _sigmoid(o) * np.tanh(cell)
        steps.append(hidden)
      out = np.stack(steps)
    return x + out if self.config.lstm_layers else x

  def encode(self, x):
    p = self.params["encoder"]
    x = self.conv(x, p["conv_in"])
    for i, ratio in enumerate(reversed(self.config.ratios)):
      x = self.residuals(x, p, f"down_{i}")
      x = self.conv(_elu(x), p[f"down_{i}"], stride=ratio)
    return self.conv(_elu(self.lstm(x, p)), p["conv_out"])

  def decode(self, x):
    p = self.params["decoder"]
    x = self.lstm(self.conv(x, p["conv_in"]), p)
    for i, ratio in enumerate(self.config.ratios):
      x = self.transposed(_elu(x), p[f"up_{i}_transposed"], ratio)
      x = self.residuals(x, p, f"up_{i}")
    return self.conv(_elu(x), p["conv_out"])


def _assert_near(got, want):
  """Within 1e-5 of the signal; measured beside each call."""
  atol = 1e-5 * np.asarray(want).std()
  np.testing.assert_allclose(got, want, rtol=0, atol=atol)


_LSTM = "input_kernel", "input_bias", "hidden_kernel", "hidden_bias"


def _elu(x):
  return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


# Padding


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("left", [0, 1, 4])
def test_pad_is_that_of_numpy(mode, left):
  length = np.arange(1, 9)
  right = np.array([6, 5, 4, 3, 2, 1, 0, 7])
  x = _noise(8, 9, 2)
  x[np.arange(9)[None] >= length[:, None]] = np.nan
  padded = layers.pad(
    jnp.asarray(x), jnp.asarray(length), left, jnp.asarray(right), 8, mode
  )
  assert padded.shape == (8, left + 9 + 8, 2)
  plain = Plain(dataclasses.replace(SMALL, pad_mode=mode), {})
  for row, n, r, got in zip(x, length, right, np.asarray(padded), strict=True):
    want = plain.pad(row[:n], left, r)
    np.testing.assert_array_equal(got[: left + n + r], want)
    np.testing.assert_array_equal(got[left + n + r :], 0)


@pytest.mark.parametrize(
  ("causal", "pad_mode", "norm", "ratios", "lstm"),
  [
    *itertools.product(
      [False, True], ["constant", "reflect"], ["weight_norm"], [(3, 2)], [0]
    ),
    (False, "constant", "layer_norm", (5,), 0),
    (False, "reflect", "layer_norm", (2, 3), 2),
    (False, "reflect", "none", (7,), 1),
    (True, "constant", "none", (3, 4), 0),
  ],
)
def test_padding_changes_nothing(causal, pad_mode, norm, ratios, lstm):
  """Each row of a padded batch is as its exact length alone, in numpy."""
  config = dataclasses.replace(
    SMALL,
    causal=causal,
    pad_mode=pad_mode,
    norm=norm,
    ratios=ratios,
    lstm_layers=lstm,
    true_skip=causal,
    channels=2,
  )
  params = _random(config)
  plain, hop = Plain(config, params), config.hop
  lengths = 1, hop - 1, hop, hop + 1, 9 * hop - 2
  audio = _noise(len(lengths), 11 * hop, 2)
  latents, frames, sound, samples = _both(
    config, params, audio, jnp.array(lengths)
  )
  assert list(frames) == [1, 1, 1, 2, 9]
  assert list(samples) == [f * hop for f in frames]
  for i, (n, f) in enumerate(zip(lengths, frames, strict=True)):
    want = plain.encode(audio[i, :n].astype(np.float64))
    _assert_near(latents[i, :f], want)  # measured: 1.4e-6
    want = plain.decode(np.asarray(latents[i, :f], np.float64))
    _assert_near(sound[i, : f * hop], want)  # measured: 2.7e-6


def test_layer_norm_is_never_causal():
  with pytest.raises(InputError, match="layer_norm"):
    SEANetConfig(causal=True, norm="layer_norm")


# Weight norm


@pytest.mark.parametrize("unnormed", [0, 1, 4])
def test_folded_weight_norm_is_the_same_network(unnormed):
  config = dataclasses.replace(
    SMALL, norm="weight_norm", unnormed_outer_blocks=unnormed
  )
  params = _random(config)
  plain = dataclasses.replace(config, norm="none")
  folded = weight_norm.fold(params)
  shapes = jax.tree.map(jnp.shape, jax.eval_shape(lambda: _init(plain)))
  assert jax.tree.map(jnp.shape, folded) == shapes
  audio, length = _noise(1, 40, 1), jnp.array([40])
  latents, frames, sound, samples = _both(config, params, audio, length)
  again, _, sound_again, _ = _both(plain, folded, audio, length)
  f, n = int(frames[0]), int(samples[0])
  _assert_near(again[:, :f], latents[:, :f])  # measured: 5e-7
  _assert_near(sound_again[:, :n], sound[:, :n])  # measured: 1e-6


def test_weight_norm_is_over_all_axes_but_one():
  config = dataclasses.replace(SMALL, norm="weight_norm")
  params = _random(config)["decoder"]
  plain = weight_norm.fold(params)
  for name, axes in (("conv_in", (0, 1)), ("up_0_transposed", (0, 2))):
    size = np.sqrt(np.square(plain[name]["kernel"]).sum(axes))
    # Measured: 1e-7.
    np.testing.assert_allclose(size, params[name]["kernel_g"], rtol=1e-6)


def test_fresh_weight_norm_is_the_kernel_itself():
  conv = layers.ConvTranspose(3, 2, norm="weight_norm")
  x, length = jnp.asarray(_noise(1, 4, 6)), jnp.array([4])
  params = conv.init(jax.random.key(0), x, length)["params"]
  folded = weight_norm.fold({"up_transposed": params})
  kernel = folded["up_transposed"]["kernel"]
  np.testing.assert_allclose(kernel, params["kernel_v"], rtol=1e-6)
  # Drawn from U(±1/√(taps x outputs)), as PyTorch counts a transposed kernel.
  assert 0.9 * 12**-0.5 < np.abs(kernel).max() <= 12**-0.5
