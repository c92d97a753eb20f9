"""The codec: what holds for any weights, and parity with the reference."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.codec import encodec, layers, rvq, seanet
from audiogen_jax.codec.encodec import Encodec, EncodecConfig
from audiogen_jax.codec.rvq import Codebooks, RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement

# Small, and unlike the default wherever the code could take one for another.
SMALL = SEANetConfig(
  width=5,
  filters=4,
  ratios=(3, 2),
  kernel=5,
  last_kernel=3,
  residual_layers=2,
  lstm_layers=0,
)
TINY = EncodecConfig(
  sample_rate_hz=600,
  seanet=dataclasses.replace(
    SMALL, filters=2, ratios=(2, 3), residual_layers=1, lstm_layers=1
  ),
  rvq=RVQConfig(codebooks=3, size=16, width=5),
)


def _random(config, seed=0):
  """Random variables; nothing keeps a 0 or 1 that would hide it."""
  numbers = np.random.default_rng(seed)

  def draw(leaf):
    bound = math.prod(leaf.shape[:-1]) ** -0.5
    values = numbers.uniform(-bound, bound, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  shapes = jax.eval_shape(lambda: encodec.init(config, jax.random.key(0)))
  variables = jax.tree.map(draw, shapes)
  embed = variables["codebooks"]["embed"]
  embed = numbers.uniform(-0.5, 0.5, embed.shape).astype(np.float32)
  variables["codebooks"]["embed"] = jnp.asarray(embed)
  return variables


def _codec(seed=0, placement=None, **changes):
  config = dataclasses.replace(TINY, **changes)
  return Encodec(config, _random(config, seed), placement)


def _noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _both(config, params, audio, length, dirt):
  """Latents, and the sound of them; what is padding is overwritten by `dirt`.

  float32 all through, as `encodec.encode` and `decode` compute.
  """

  def soil(x, length):
    real = jnp.arange(x.shape[1])[None] < length[:, None]
    return jnp.where(real[..., None], x, dirt)

  with jax.default_matmul_precision("highest"):
    encoder, decoder = seanet.Encoder(config), seanet.Decoder(config)
    audio = soil(audio, length)
    latents, frames = encoder.apply(
      {"params": params["encoder"]}, audio, length
    )
    latents = soil(latents, frames)
    sound, _ = decoder.apply({"params": params["decoder"]}, latents, frames)
    return latents, sound


# Padding


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("left", [0, 1, 4])
def test_pad_is_that_of_numpy(mode, left):
  length = np.arange(1, 9)
  right = np.array([6, 5, 4, 3, 2, 1, 0, 7])
  x = _noise(8, 9, 2)
  behind = np.arange(9)[None] >= length[:, None]
  x[behind] = np.nan
  padded = layers.pad(jnp.asarray(x), length, left, right, 8, mode)
  assert padded.shape == (8, left + 9 + 8, 2)
  for row, n, r, got in zip(x, length, right, np.asarray(padded), strict=True):
    want = row[:n]
    # EnCodec lengthens a short row by zeros until it can be mirrored.
    short = max(left, r) - n + 1 if mode == "reflect" else 0
    short = max(short, 0)
    want = np.pad(want, ((0, short), (0, 0)))
    want = np.pad(want, ((left, r), (0, 0)), mode=mode)[: left + n + r]
    np.testing.assert_array_equal(got[: left + n + r], want)
    np.testing.assert_array_equal(got[left + n + r :], 0)


@pytest.mark.parametrize(
  ("causal", "pad_mode", "norm", "ratios", "lstm"),
  [
    *itertools.product(
      [False, True], ["constant", "reflect"], ["weight_norm"], [(3, 2)], [0]
    ),
    (False, "constant", "layer_norm", (5,), 0),
    (False, "reflect", "layer_norm", (2,), 1),
    (False, "reflect", "none", (7,), 1),
    (True, "constant", "none", (3, 4), 0),
  ],
)
def test_padding_changes_nothing(causal, pad_mode, norm, ratios, lstm):
  config = dataclasses.replace(
    SMALL,
    residual_layers=1,
    causal=causal,
    pad_mode=pad_mode,
    norm=norm,
    ratios=ratios,
    lstm_layers=lstm,
  )
  whole = EncodecConfig(seanet=config, rvq=TINY.rvq)
  params = _random(whole)["params"]
  hop, longest = config.hop, 5 * config.hop + 2
  lengths = np.array([1, hop - 1, hop, hop + 1, longest])
  audio = _noise(len(lengths), 8 * hop, 1)
  latents, sound = _both(config, params, audio, lengths, jnp.nan)
  for i, n in enumerate(lengths):
    frames = -(-n // hop)
    alone = _both(config, params, audio[i : i + 1, :n], np.array([n]), 0.0)
    assert alone[0].shape == (1, frames, config.width)
    assert alone[1].shape == (1, frames * hop, 1)
    # Measured: 5e-7 and 4e-7.
    np.testing.assert_allclose(latents[i, :frames], alone[0][0], atol=2e-6)
    some = sound[i, : frames * hop]
    np.testing.assert_allclose(some, alone[1][0], atol=2e-6)


def test_layer_norm_is_never_causal():
  with pytest.raises(InputError, match="layer_norm"):
    SEANetConfig(causal=True, norm="layer_norm")


# Reach


def _left(config, total):
  """Steps that a convolution looks back, of `total` in all."""
  return total if config.causal else total - total // 2


def _through_conv(config, low, high, width, stride=1, dilation=1):
  """What `low … high` of a convolution's output looks at of its input."""
  total = (width - 1) * dilation + 1 - stride
  left = _left(config, total)
  return low * stride - left, high * stride - left + (width - 1) * dilation


def _residuals(config, low, high):
  for j in reversed(range(config.residual_layers)):
    low, high = _through_conv(
      config, low, high, config.residual_kernel, 1, config.dilation_base**j
    )
  return low, high


def _encoder_reach(config, frame):
  low, high = _through_conv(config, frame, frame, config.last_kernel)
  for ratio in config.ratios:
    low, high = _through_conv(config, low, high, 2 * ratio, ratio)
    low, high = _residuals(config, low, high)
  return _through_conv(config, low, high, config.kernel)


def _decoder_reach(config, sample):
  low, high = _through_conv(config, sample, sample, config.last_kernel)
  for ratio in reversed(config.ratios):
    low, high = _residuals(config, low, high)
    left = 0 if config.causal else ratio - ratio // 2
    low, high = (low + left) // ratio - 1, (high + left) // ratio
  return _through_conv(config, low, high, config.kernel)


def _seen(derivative):
  """First and last input that each output depends on."""
  touched = np.abs(derivative).sum(-1) > 0
  last = touched.shape[1] - 1 - touched[:, ::-1].argmax(1)
  return list(zip(touched.argmax(1).tolist(), last.tolist(), strict=True))


@pytest.mark.parametrize("lstm", [0, 1])
@pytest.mark.parametrize("causal", [False, True])
def test_reach_measured_by_gradient(causal, lstm):
  config = dataclasses.replace(SMALL, causal=causal, lstm_layers=lstm)
  params = _random(EncodecConfig(seanet=config, rvq=TINY.rvq))["params"]
  hop, frames = config.hop, 16

  def encoder(audio):
    length = jnp.array([frames * hop])
    latents, _ = seanet.Encoder(config).apply(
      {"params": params["encoder"]}, audio[None], length
    )
    return latents[0].sum(-1)

  def decoder(latents):
    sound, _ = seanet.Decoder(config).apply(
      {"params": params["decoder"]}, latents[None], jnp.array([frames])
    )
    return sound[0].sum(-1)

  for function, shape, reach in (
    (encoder, (frames * hop, 1), _encoder_reach),
    (decoder, (frames, config.width), _decoder_reach),
  ):
    derivative = jax.jit(jax.jacrev(function))(_noise(*shape))
    for at, (first, last) in enumerate(_seen(derivative)):
      low, high = reach(config, at)
      # An LSTM remembers everything; it never looks ahead.
      assert first == (0 if lstm else max(low, 0))
      assert last == min(high, len(derivative[0]) - 1)
      if causal and function is encoder:
        assert last == (at + 1) * hop - 1
      elif causal:
        assert last == at // hop
      elif function is encoder:  # centred: as far ahead as back, but for 1
        centre = (at + 0.5) * hop
        assert abs((centre - low) - (high + 1 - centre)) <= 1 + hop


# Lengths, at the door


@pytest.mark.parametrize("frames", [1, 2, 64, 65])
def test_frames_and_samples(frames):
  codec = _codec()
  hop = codec.config.hop
  for n in sorted({(frames - 1) * hop + 1, frames * hop - 1, frames * hop}):
    audio = _noise(2, n, 1)
    codes = codec.encode(audio)
    assert codes.shape == (2, 3, frames) and codes.dtype == np.int32
    exact, _ = encodec.encode(
      codec.config, codec.variables, jnp.asarray(audio), np.full(2, n)
    )
    np.testing.assert_array_equal(codes, exact)
  sound = codec.decode(codes)
  assert sound.shape == (2, frames * hop, 1) and sound.dtype == np.float32
  assert len(np.unique(codes)) > 1


def test_lengths_of_a_bucket_share_a_compilation():
  codec = _codec(rvq=RVQConfig(codebooks=3, size=17, width=5))
  codec.decode(codec.encode(_noise(1, 100, 1)))
  before = encodec._encode._cache_size(), encodec._decode._cache_size()
  for n in (1, 99, 64 * 6):
    codec.decode(codec.encode(_noise(1, n, 1)))
  assert before == (encodec._encode._cache_size(), encodec._decode._cache_size())
  codec.encode(_noise(1, 64 * 6 + 1, 1))
  assert encodec._encode._cache_size() == before[0] + 1


def test_sounds_in_a_batch_as_if_alone():
  codec = _codec()
  audio = _noise(3, 77, 1) * np.array([0.1, 1, 3], np.float32)[:, None, None]
  codes = codec.encode(audio)
  sound = codec.decode(codes)
  assert not np.array_equal(codes[0], codes[1])
  for i in range(3):
    np.testing.assert_array_equal(codec.encode(audio[i : i + 1])[0], codes[i])
    # Measured: 0.
    alone = codec.decode(codes[i : i + 1])[0]
    np.testing.assert_allclose(alone, sound[i], atol=1e-6)


def test_eight_devices_as_one():
  one, eight = _codec(), _codec(placement=Placement.make(None))
  for rows in (8, 3):
    audio = _noise(rows, 50, 1)
    codes = one.encode(audio)
    np.testing.assert_array_equal(eight.encode(audio), codes)
    # Measured: 2e-7.
    want = one.decode(codes)
    np.testing.assert_allclose(eight.decode(codes), want, atol=1e-6)


# Weight norm


@pytest.mark.parametrize("unnormed", [0, 1])
def test_folded_weight_norm_is_the_same_codec(unnormed):
  net = dataclasses.replace(TINY.seanet, unnormed_outer_blocks=unnormed)
  config = dataclasses.replace(TINY, seanet=net)
  variables = _random(config)
  audio, length = _noise(1, 40, 1), np.array([40])
  plain = encodec.fold(variables)
  before = _both(config.seanet, variables["params"], audio, length, 0.0)
  after = _both(
    encodec.folded(config).seanet, plain["params"], audio, length, 0.0
  )
  for one, other in zip(before, after, strict=True):
    # Measured: 1e-7.
    np.testing.assert_allclose(one, other, atol=1e-6)
  names = [sharding.path_name(p) for p, _ in _leaves(plain["params"])]
  assert not [name for name in names if name.endswith(("_g", "_v"))]


def test_weight_norm_is_over_all_axes_but_one():
  params = _random(TINY)["params"]["decoder"]
  plain = layers.fold_weight_norm(params)
  for name, axes in (("conv_in", (0, 1)), ("up_0_transposed", (0, 2))):
    size = np.sqrt(np.square(plain[name]["kernel"]).sum(axes))
    g = np.abs(params[name]["kernel_g"])
    np.testing.assert_allclose(size, g, rtol=1e-6)  # measured: 2e-7


# Quantiser


@pytest.fixture(scope="module")
def apart():
  """Codebooks whose entries lie much further apart than all later ones."""
  embed = np.stack([np.eye(8, 6) * 2 - 1 for _ in range(3)])
  embed[:, 6:] = [[[1] * 6, [-2] * 6]]
  embed *= np.array([1.0, 0.1, 0.01])[:, None, None]
  empty = rvq.init(RVQConfig(codebooks=3, size=8, width=6))
  return empty._replace(embed=jnp.asarray(embed, jnp.float32))


def test_codes_of_their_own_latents(apart):
  codes = np.random.default_rng(0).integers(0, 8, (2, 3, 50)).astype(np.int32)
  latents = rvq.decode(codes, apart)
  np.testing.assert_array_equal(rvq.encode(latents, apart), codes)
  rows = [apart.embed[k][codes[:, k]] for k in range(3)]
  np.testing.assert_allclose(latents, sum(rows), atol=1e-6)  # measured: 0


def test_fewer_codebooks_are_a_prefix():
  codec = _codec()
  latents = jnp.asarray(_noise(2, 30, 5))
  books = Codebooks(**codec.variables["codebooks"])
  codes = rvq.encode(latents, books)
  errors = [jnp.mean(jnp.square(latents))]
  for k in (1, 2, 3):
    some = Codebooks(*(x[:k] for x in books))
    np.testing.assert_array_equal(rvq.encode(latents, some), codes[:, :k])
    rest = latents - rvq.decode(codes[:, :k], books)
    errors.append(jnp.mean(jnp.square(rest)))
  assert errors == sorted(errors, reverse=True)
  assert codec.decode(codes[:, :1]).shape == (2, 30 * 6, 1)


def test_each_code_is_the_nearest_entry():
  codec = _codec()
  latents = _noise(1, 30, 5).astype(np.float64)
  books = Codebooks(**codec.variables["codebooks"])
  codes = rvq.encode(jnp.asarray(latents, jnp.float32), books)
  rest = latents[0]
  for k in range(3):
    embed = np.asarray(books.embed[k], np.float64)
    nearest = np.square(rest[:, None] - embed[None]).sum(-1).argmin(-1)
    np.testing.assert_array_equal(codes[0, k], nearest)
    rest = rest - embed[nearest]


def _leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)
