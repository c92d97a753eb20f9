"""Sounds in pieces are what they are in one piece."""

import dataclasses

import numpy as np
import published
import pytest

from audiogen_jax.codec import codec as codecs
from audiogen_jax.codec import encodec, pieces
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig

TINY = EncodecConfig(
  seanet=SEANetConfig(width=16, filters=4, ratios=(5, 4, 2), lstm_layers=2),
  rvq=RVQConfig(codebooks=3, size=32, width=16),
)
HOP = 40
SHAPES = {
  "as published": {},
  "mirrored": {"pad_mode": "reflect"},
  "causal": {"causal": True, "pad_mode": "reflect"},
  "deep": {"residual_layers": 3, "dilation_base": 3, "true_skip": False},
  "even kernels": {"kernel": 8, "last_kernel": 4, "residual_kernel": 4},
  "without memory": {"lstm_layers": 0},
  "two channels": {"channels": 2},
}


def _codec(seanet=None, **changes):
  seanet = dataclasses.replace(TINY.seanet, **(seanet or {}))
  config = dataclasses.replace(TINY, seanet=seanet, **changes)
  return Encodec(config, published.random_tree(encodec.init, config))


def _sound(codec, n, rows=2):
  rng = np.random.default_rng(0)
  shape = rows, n, codec.config.channels
  return rng.normal(0, 0.5, shape).astype(np.float32)


def _codes(codec, t, rows=2):
  k = codec.tokens.codebooks
  rng = np.random.default_rng(1)
  return rng.integers(0, 32, (rows, k, t)).astype(np.int32)


@pytest.fixture
def small_pieces(monkeypatch):
  """Pieces of 8 frames of two rows."""
  monkeypatch.setattr(codecs, "_PIECE", 8 * 2 * HOP)
  monkeypatch.setattr(codecs, "_LEAST_FRAMES", 8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [37 * HOP, 40 * HOP + 1, 33 * HOP - 7])
def test_pieces_make_the_whole(shape, n, request):
  codec = _codec(SHAPES[shape])
  sound = _sound(codec, n)
  codes = codec.encode(sound)
  whole = codec.decode(codes)
  request.getfixturevalue("small_pieces")
  np.testing.assert_array_equal(codec.encode(sound), codes)
  # Rounding, of sounds of about 1: 2e-6 measured.
  np.testing.assert_allclose(codec.decode(codes), whole, atol=1e-5)


def test_left_and_right_apart(request):
  codec = _codec(stereo_codes=True)
  sound = _sound(codec, 30 * HOP)
  codes = codec.encode(sound)
  whole = codec.decode(codes)
  request.getfixturevalue("small_pieces")
  np.testing.assert_array_equal(codec.encode(sound), codes)
  np.testing.assert_allclose(codec.decode(codes), whole, atol=1e-5)


def test_rows_may_end_earlier(request):
  codec = _codec()
  sound, lengths = _sound(codec, 40 * HOP, rows=3), np.array([1600, 501, 40])
  codes = codec.encode(sound, lengths=lengths)
  frames = -(-lengths // HOP)
  whole = codec.decode(codes, lengths=frames)
  request.getfixturevalue("small_pieces")
  again = codec.encode(sound, lengths=lengths)
  found = codec.decode(codes, lengths=frames)
  for i, t in enumerate(frames):
    np.testing.assert_array_equal(again[i, :, :t], codes[i, :, :t])
    part = slice(0, t * HOP)
    np.testing.assert_allclose(found[i, part], whole[i, part], atol=1e-5)


@pytest.mark.parametrize("sizes", [[1] * 30, [25, 3, 2], [2, 20, 8]])
def test_whatever_the_sizes_are(sizes):
  codec = _codec()
  codes = _codes(codec, 30)
  ends = np.cumsum(sizes)
  so_far = (codes[:, :, :end] for end in ends)
  parts = [*codec.decode_stream(so_far, rows=2, frames=30, most=max(sizes))]
  found = np.concatenate(parts, axis=1)
  np.testing.assert_allclose(found, codec.decode(codes), atol=1e-5)
  # What comes later than it could: what the decoder looks ahead.
  before, _, after = pieces.receptive_fields(codec.config.seanet, "decoder")
  late = before.context()[1] + after.context()[1]
  certain = max(0, sizes[0] - late) * HOP
  assert len(sizes) == 1 or certain == 0 or parts[0].shape[1] == certain


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 30, [2, 20, 8], [25, 5]])
def test_a_mirrored_start_waits_for_its_mirror(sizes, causal):
  codec = _codec({"causal": causal, "pad_mode": "reflect"})
  codes = _codes(codec, 30)
  so_far = (codes[:, :, :end] for end in np.cumsum(sizes))
  parts = [*codec.decode_stream(so_far, rows=2, frames=30, most=max(sizes))]
  together = np.concatenate(parts, axis=1)
  # Rounding, of sounds of about 1: 2e-6 measured.
  np.testing.assert_allclose(together, codec.decode(codes), atol=1e-5)


def test_equal_pieces_compile_once(small_pieces):
  codec = _codec()
  codec.decode(_codes(codec, 64))
  before = pieces._after._cache_size()
  codec.decode(_codes(codec, 100))
  assert pieces._after._cache_size() == before


def test_a_norm_over_time_needs_the_whole(small_pieces):
  codec = _codec({"norm": "layer_norm"})
  codes = _codes(codec, 9)
  so_far = iter([codes[:, :, :3], codes])
  (found,) = codec.decode_stream(so_far, rows=2, frames=9, most=3)
  np.testing.assert_array_equal(found, codec.decode(codes))
  assert codec.decode(_codes(codec, 60)).shape == (2, 60 * HOP, 1)
