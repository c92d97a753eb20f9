"""The codec: what holds for any weights, and parity with the reference."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest

import audiogen_jax as ag
from audiogen_jax.codec import codec as codecs
from audiogen_jax.codec import encodec, rvq, seanet
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import Codebooks, RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement

HOP = 6
TINY = EncodecConfig(
  sample_rate_hz=600,
  seanet=SEANetConfig(width=5, filters=2, ratios=(2, 3), lstm_layers=1),
  rvq=RVQConfig(codebooks=3, size=16, width=5),
)


def _random(config, seed=0):
  """Random variables that let sounds through."""
  numbers = np.random.default_rng(seed)

  def draw(path, leaf):
    gain = sharding.path_name(path).endswith("kernel_g")
    bound = math.sqrt(3 / math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.3
    low, high = (0.5, 1.3) if gain else (-bound, bound)
    return numbers.uniform(low, high, leaf.shape).astype(np.float32)

  shapes = jax.eval_shape(lambda: encodec.init(config, jax.random.key(0)))
  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  embed = numbers.normal(0, 0.3, shapes["codebooks"]["embed"].shape)
  # Finer codebooks are smaller, as in a trained codec.
  embed *= 0.5 ** np.arange(len(embed))[:, None, None]
  variables["codebooks"]["embed"] = embed.astype(np.float32)
  return jax.tree.map(jnp.asarray, variables)


def _codec(placement=None, seanet=None, **changes):
  if seanet:
    changes["seanet"] = dataclasses.replace(TINY.seanet, **seanet)
  config = dataclasses.replace(TINY, **changes)
  return Encodec(config, _random(config), placement)


def _noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


# Lengths, batches and devices, at the door


@pytest.mark.parametrize("frames", [1, 2, 65])
def test_frames_and_samples(frames):
  codec = _codec()
  for n in sorted({(frames - 1) * HOP + 1, frames * HOP - 1, frames * HOP}):
    codes = codec.encode(_noise(2, n, 1))
    assert codes.shape == (2, 3, frames) and codes.dtype == np.int32
  sound = codec.decode(codes)
  assert sound.shape == (2, frames * HOP, 1) and sound.dtype == np.float32


@pytest.mark.parametrize("scaled", [False, True])
def test_a_bucket_changes_nothing(scaled):
  """Padded to 64 frames and soiled, or neither: the same codes and sound."""
  codec = _codec(renormalise=scaled)
  audio = _noise(2, 20 * HOP + 1, 1)
  n, frames = audio.shape[1], 21
  length = jnp.full(2, n)
  codes, scale = codecs._encode(
    codec.config, codec.variables, jnp.asarray(audio), length
  )
  assert len(np.unique(codes[:, 0])) > 5  # the sound makes a difference
  dirty = np.pad(audio, ((0, 0), (0, 100), (0, 0)), constant_values=np.nan)
  again, scale_again = codecs._encode(
    codec.config, codec.variables, jnp.asarray(dirty), length
  )
  np.testing.assert_array_equal(again[:, :, :frames], codes)
  np.testing.assert_allclose(scale, scale_again, rtol=1e-6)  # measured: 6e-8
  power = np.sqrt(np.square(audio).mean((1, 2))) if scaled else np.ones(2)
  np.testing.assert_allclose(scale, power, rtol=1e-6)  # measured: 0
  through, _ = codec.encode_chunks(audio)
  np.testing.assert_array_equal(through[:, 0], codes)
  sound = codecs._decode(
    codec.config, codec.variables, codes, jnp.full(2, frames), scale
  )
  through = codec.decode_chunks(through, scale[:, None], n)
  # Measured: 4e-7.
  np.testing.assert_allclose(through, sound[:, :n], atol=2e-6)


def test_lengths_of_a_bucket_share_a_compilation():
  codec = _codec(rvq=RVQConfig(codebooks=3, size=17, width=5))
  codec.decode(codec.encode(_noise(1, 100, 1)))
  caches = codecs._encode, codecs._decode
  before = [cache._cache_size() for cache in caches]
  for n in (1, 99, 64 * HOP):
    codec.decode(codec.encode(_noise(1, n, 1)))
  assert [cache._cache_size() for cache in caches] == before
  codec.encode(_noise(1, 64 * HOP + 1, 1))
  assert codecs._encode._cache_size() == before[0] + 1


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


@pytest.mark.parametrize("rows", [8, 3])
def test_eight_devices_as_one(rows):
  one, eight = _codec(), _codec(placement=Placement.make(None))
  audio = _noise(rows, 50, 1)
  codes = one.encode(audio)
  np.testing.assert_array_equal(eight.encode(audio), codes)
  # Measured: 0.
  want = one.decode(codes)
  np.testing.assert_allclose(eight.decode(codes), want, atol=2e-6)


def test_stereo_codes_alternate():
  mono = _codec()
  stereo = Encodec(dataclasses.replace(TINY, stereo_codes=True), mono.variables)
  assert stereo.config.channels == 2 and stereo.tokens.codebooks == 6
  audio = _noise(2, 50, 2)
  codes = stereo.encode(audio)
  for channel in range(2):
    alone = mono.encode(audio[:, :, channel : channel + 1])
    np.testing.assert_array_equal(codes[:, channel::2], alone)
    sound = mono.decode(alone)[..., 0]
    both = stereo.decode(codes)[..., channel]
    np.testing.assert_allclose(both, sound, atol=1e-6)  # measured: 0.
  assert not np.array_equal(codes[:, 0::2], codes[:, 1::2])


# Quantiser


@pytest.fixture(scope="module")
def apart():
  """Codebooks whose entries lie much further apart than all later ones."""
  entries = [*np.eye(6), np.ones(6), -np.ones(6)]
  embed = np.array([1.0, 0.1, 0.01])[:, None, None] * np.stack([entries] * 3)
  empty = rvq.init(RVQConfig(codebooks=3, size=8, width=6))
  return empty._replace(embed=jnp.asarray(embed, jnp.float32))


def test_codes_of_their_own_latents(apart):
  codes = np.random.default_rng(0).integers(0, 8, (2, 3, 50), np.int32)
  latents = rvq.decode(jnp.asarray(codes), apart)
  np.testing.assert_array_equal(rvq.encode(latents, apart), codes)
  rows = sum(apart.embed[k][codes[:, k]] for k in range(3))
  np.testing.assert_allclose(latents, rows, atol=1e-6)  # measured: 0


def test_fewer_codebooks_are_a_prefix():
  codec = _codec()
  latents = jnp.asarray(_noise(2, 30, 5))
  books = Codebooks(**codec.variables["codebooks"])
  codes = rvq.encode(latents, books)
  errors = [float(jnp.mean(jnp.square(latents)))]
  for k in (1, 2, 3):
    some = Codebooks(*(x[:k] for x in books))
    np.testing.assert_array_equal(rvq.encode(latents, some), codes[:, :k])
    rest = latents - rvq.decode(codes[:, :k], books)
    errors.append(float(jnp.mean(jnp.square(rest))))
  assert errors == sorted(errors, reverse=True)
  assert codec.decode(codes[:, :1]).shape == (2, 30 * HOP, 1)


def test_each_code_is_the_nearest_entry():
  books = Codebooks(**_codec().variables["codebooks"])
  latents = _noise(1, 30, 5)
  codes = rvq.encode(jnp.asarray(latents), books)
  rest = latents[0].astype(np.float64)
  for k in range(3):
    embed = np.asarray(books.embed[k], np.float64)
    nearest = np.square(rest[:, None] - embed[None]).sum(-1).argmin(-1)
    np.testing.assert_array_equal(codes[0, k], nearest)
    rest = rest - embed[nearest]


# Chunks

CHUNKED = dict(chunk_s=0.05, overlap=0.2, renormalise=True)  # 30 samples, 24 on


@pytest.mark.parametrize(
  ("n", "chunks"),
  [(1, 1), (24, 1), (25, 2), (30, 2), (48, 2), (49, 3), (100, 5)],
)
def test_chunks_cover_every_sample(n, chunks):
  codec = _codec(**CHUNKED)
  audio = _noise(2, n, 1)
  codes, scales = codec.encode_chunks(audio)
  assert codes.shape == (2, chunks, 3, 5) and scales.shape == (2, chunks)
  sound = codec.decode_chunks(codes, scales, n)
  assert sound.shape == audio.shape and np.isfinite(sound).all()
  for i in range(chunks):
    part = audio[:, 24 * i :][:, :30]
    power = np.sqrt(np.square(part).mean((1, 2)))
    # Measured: 1e-7.
    np.testing.assert_allclose(scales[:, i], power, rtol=1e-6)


def test_overlapping_chunks_are_a_weighted_mean():
  codec = _codec(**CHUNKED)
  audio = _noise(1, 48, 1)
  codes, scales = codec.encode_chunks(audio)
  sound = codec.decode_chunks(codes, scales, 48)[0, :, 0]
  whole = dataclasses.replace(codec.config, chunk_s=None)
  whole = Encodec(whole, codec.variables)
  first = whole.decode_chunks(codes[:, :1], scales[:, :1], 30)[0, :, 0]
  # 24 samples are left for the second: 4 frames.
  second = whole.decode_chunks(codes[:, 1:, :, :4], scales[:, 1:], 24)[0, :, 0]
  rise = np.minimum(np.arange(1, 31), np.arange(30, 0, -1)) / 31
  fall, rise = rise[24:], rise[:6]
  middle = (first[24:] * fall + second[:6] * rise) / (fall + rise)
  want = np.concatenate([first[:24], middle, second[6:]])
  np.testing.assert_allclose(sound, want, atol=2e-6)  # measured: 2e-8


def test_a_short_last_chunk_is_encoded_alone():
  codec = _codec(**CHUNKED)
  audio = _noise(1, 38, 1)
  codes, scales = codec.encode_chunks(audio)
  alone, scale = codec.encode_chunks(audio[:, 24:])  # 14 samples: 3 frames
  np.testing.assert_array_equal(codes[:, 1, :, :3], alone[:, 0, :, :3])
  np.testing.assert_array_equal(codes[:, 1, :, 3:], 0)
  np.testing.assert_allclose(scales[:, 1:], scale, rtol=1e-6)  # measured: 0


def test_without_chunks_there_is_one():
  codec = _codec()
  audio = _noise(2, 50, 1)
  codes, scales = codec.encode_chunks(audio)
  np.testing.assert_array_equal(codes[:, 0], codec.encode(audio))
  np.testing.assert_array_equal(scales, 1)
  sound = codec.decode_chunks(codes, scales, 50)
  want = codec.decode(codes[:, 0])[:, :50]
  np.testing.assert_allclose(sound, want, rtol=1e-6)  # measured: 9e-8


# Parameters


@pytest.mark.parametrize("norm", ["weight_norm", "layer_norm", "none"])
@pytest.mark.parametrize("skip", [False, True])
def test_every_parameter_has_one_rule(norm, skip):
  net = dataclasses.replace(TINY.seanet, norm=norm, true_skip=skip)
  config = dataclasses.replace(TINY, seanet=net)
  tree = jax.eval_shape(lambda: encodec.init(config, jax.random.key(0)))
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  assert len(leaves) > 30
  for path, leaf in leaves:
    sharding.axes_of(sharding.path_name(path), leaf.ndim, encodec.AXES)


def test_the_default_is_that_of_audiogen_medium():
  config = EncodecConfig()
  tree = jax.eval_shape(lambda: encodec.init(config, jax.random.key(0)))
  count = {
    name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
    for name, part in tree.items()
  }
  assert count == {"params": 56_819_138, "codebooks": 2_105_348}
  audio = jax.ShapeDtypeStruct((2, 32000, 1), jnp.float32)
  length = jax.ShapeDtypeStruct((2,), jnp.int32)
  codes, scale = jax.eval_shape(
    lambda *args: encodec.encode(config, *args), tree, audio, length
  )
  assert codes.shape == (2, 4, 100)
  sound = jax.eval_shape(
    lambda *args: encodec.decode(config, *args), tree, codes, length, scale
  )
  assert sound.shape == (2, 32000, 1)
  assert config.tokens.frame_rate_hz == 50 and config.bitrate == 2200


# Bad input


@pytest.mark.parametrize(
  ("audio", "words"),
  [
    (_noise(2, 100, 2), r"\[batch, samples, 1\]; its shape is \(2, 100, 2\)"),
    (_noise(1, 0, 1), r"\(1, 0, 1\): it needs at least one sample"),
    (_noise(0, 100, 1), r"\(0, 100, 1\): it needs at least one sample"),
    (np.full((1, 7, 1), np.nan, np.float32), "holds 7 NaN or infinite"),
    (np.array([1, np.inf, 2], np.float32)[None, :, None], "holds 1 NaN"),
  ],
)
def test_bad_audio(audio, words):
  with pytest.raises(InputError, match=words):
    _codec().encode(audio)


@pytest.mark.parametrize(
  ("shape", "value", "words"),
  [
    ((1, 3, 4), 16, r"\[16, 16\]; this model's lie in \[0, 15\]"),
    ((1, 3, 4), -1, r"\[-1, -1\]; this model's lie in \[0, 15\]"),
    ((1, 3, 0), 0, r"\(1, 3, 0\) must have at least one row, one frame"),
    ((1, 4, 4), 0, r"\(1, 4, 4\) must have .* and 1 to 3 codebooks"),
    ((1, 0, 4), 0, r"\(1, 0, 4\) must have .* and 1 to 3 codebooks"),
    ((0, 3, 4), 0, r"\(0, 3, 4\) must have at least one row"),
  ],
)
def test_bad_codes(shape, value, words):
  with pytest.raises(InputError, match=words):
    _codec().decode(np.full(shape, value, np.int32))


def test_chunks_need_their_own_door():
  codec = _codec(**CHUNKED)
  with pytest.raises(InputError, match="use encode_chunks"):
    codec.encode(_noise(1, 100, 1))
  with pytest.raises(InputError, match="use decode_chunks"):
    codec.decode(np.zeros((1, 3, 4), np.int32))
  with pytest.raises(InputError, match="100 samples are 5 chunks of 5 frames"):
    codec.decode_chunks(
      np.zeros((1, 3, 3, 5), np.int32), np.ones((1, 3), np.float32), 100
    )


def test_widths_must_agree():
  with pytest.raises(InputError, match="rvq.width = 6 must equal .* 5"):
    dataclasses.replace(TINY, rvq=RVQConfig(width=6))


# Parity with the reference


def test_parity_audiogen_codec(pack):
  want = packs.arrays(pack / "expected.npz")
  codec = ag.load_codec(pack, mesh=ag.make_mesh(data=1))
  wav = want["codec_wav_in"][None, :, None]
  odd = wav[:, : int(want["codec_odd_len"])]
  for audio, name in ((wav, "codec"), (odd, "codec_odd")):
    # Bounds are those set for any pack.  Measured on the committed one: all
    # codes equal, 5e-7.
    codes = want[f"{name}_codes"]
    assert (codec.encode(audio)[0] == codes).mean() >= 0.999
    sound = codec.decode(codes[None])[0, :, 0]
    np.testing.assert_allclose(sound, want[f"{name}_wav_out"], atol=2e-4)
  encoder = seanet.Encoder(codec.config.seanet)
  params = {"params": codec.variables["params"]["encoder"]}
  latents, _ = jax.jit(encoder.apply)(
    params, jnp.asarray(wav), jnp.array([wav.shape[1]])
  )
  # Measured: 1e-6.
  np.testing.assert_allclose(latents[0].T, want["codec_latent"], atol=2e-4)
  books = Codebooks(**codec.variables["codebooks"])
  latents = rvq.decode(jnp.asarray(want["codec_codes"][None], jnp.int32), books)
  # Measured: 0.
  np.testing.assert_allclose(latents[0].T, want["codec_quantized"], atol=1e-6)
