"""Networks that judge: what they hear in one clip depends on nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import batching, cnn14, passt, vggish
from audiogen_jax.embedding.cnn14 import Cnn14Config
from audiogen_jax.embedding.extractor import Extractor
from audiogen_jax.embedding.passt import PaSSTConfig
from audiogen_jax.embedding.vggish import VGGishConfig

VGGISH = VGGishConfig(blocks=((4,), (5,), (6,), (7,)), widths=(9, 8))
CNN14 = Cnn14Config(channels=(4, 5, 6, 7), width=8, classes=9)
PASST = PaSSTConfig(
  width=8, layers=2, heads=2, ff=12, classes=9, stride=(40, 10), times=20
)


def spread(params, seed=0):
  """Parameters of which none is the identity: norms, biases, positions."""
  draw = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: leaf + 0.2 * draw.normal(size=leaf.shape), params
  )


def vggish_model(**options):
  params = spread(vggish.init(VGGISH, jax.random.key(0)))
  return vggish.Extractor(VGGISH, params, sha256="", **options)


def cnn14_model():
  params = spread(cnn14.init(CNN14, jax.random.key(0)))
  return cnn14.Extractor(CNN14, params, sha256="")


def passt_model(**options):
  params = spread(passt.init(PASST, jax.random.key(0)))
  return passt.Extractor(PASST, params, sha256="", **options)


MODELS = {"vggish": vggish_model, "cnn14": cnn14_model, "passt": passt_model}


def same(a, b):
  for x, y in zip(a, b, strict=True):
    if x is not None:
      scale = max(np.abs(y).max(), 1e-3)
      np.testing.assert_allclose(x / scale, y / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_neighbours_change_nothing(name):
  model = MODELS[name]()
  assert isinstance(model, Extractor) and model.name == name
  rate_hz = model.sample_rate_hz
  lengths = (1.85, 3.9, 1.9)
  sounds = [
    noise(round(s * rate_hz), scale=0.02 * 5**i, seed=i)
    for i, s in enumerate(lengths)
  ]
  together = model.embed(sounds)
  for sound, heard in zip(sounds, together, strict=True):
    (alone,) = model.embed([sound])
    same(heard, alone)
    assert np.isfinite(heard.embeddings).all()
  backwards = model.embed(sounds[::-1])[::-1]
  for heard, again in zip(together, backwards, strict=True):
    same(heard, again)
  flat = [heard.embeddings[0] for heard in together]
  assert np.abs(np.diff(flat, axis=0)).max(axis=1).min() > 1e-3
  assert model.embed([]) == []


@pytest.mark.parametrize("name", ["cnn14", "passt"])
@pytest.mark.parametrize("samples", [5_999, 23_457])
def test_padding_is_not_heard(name, samples):
  """A clip at its own length, and in a bucket with whatever behind it."""
  module, model = {"cnn14": cnn14, "passt": passt}[name], MODELS[name]()
  config, sound = model.config, noise(samples)
  whole = (
    cnn14.reflect(config.mel, sound)
    if name == "cnn14"
    else passt.emphasise(config, sound)
  )
  n = np.array([len(whole)], np.int32)
  weights = model._variables if name == "cnn14" else model.params
  alone = module._hear(
    config, weights, jnp.asarray(whole[None]), jnp.asarray(n)
  )
  # The last frame that is whole must end before what is put behind.
  behind = np.concatenate([whole, 100 * noise(20_000, seed=1)])[None]
  padded = module._hear(config, weights, jnp.asarray(behind), jnp.asarray(n))
  same(alone, padded)


@pytest.mark.parametrize("name", ["cnn14", "passt"])
def test_lengths_share_programs(name):
  module, model = {"cnn14": cnn14, "passt": passt}[name], MODELS[name]()
  rate_hz = model.sample_rate_hz
  before = module._hear._cache_size()
  model.embed([noise(round(s * rate_hz)) for s in np.linspace(1.14, 1.26, 7)])
  model.embed([noise(round(s * rate_hz)) for s in np.linspace(1.15, 1.25, 8)])
  assert module._hear._cache_size() - before == 1


def test_batches_are_bounded_and_put_back_in_order():
  seen = []

  def compute(batch, lengths):
    seen.append(batch.shape)
    return jnp.asarray(batch.sum(1)[:, None]), jnp.asarray(lengths[:, None])

  rows = [np.full(n, n, np.float32) for n in (3, 9, 4, 3, 1, 2, 4)]
  made = batching.in_batches(
    rows, compute, padded=lambda n: 4 if n < 5 else 12, most=9
  )
  assert sorted(seen) == [(1, 12), (2, 4), (2, 4), (2, 4)]
  wanted = [(len(row) ** 2, len(row)) for row in rows]
  assert [(int(a[0]), int(n[0])) for a, n in made] == wanted


# VGGish


def test_vggish_windows():
  sound = noise(16_000 * 3)
  heard = vggish_model().embed([sound])[0].embeddings
  assert heard.shape == (5, 8)  # each half second, while one is left
  patches = vggish_model(windows=vggish.PATCHES)
  assert patches.embed([sound])[0].embeddings.shape == (3, 8)
  assert patches.embed([sound[:46_319]])[0].embeddings.shape == (2, 8)
  (second,) = patches.embed([sound[15_360:30_960]])
  same(second, (patches.embed([sound])[0].embeddings[1:2], None))


def test_vggish_of_google_hears_no_level():
  sound = np.round(noise(16_000) * 32768) / np.float32(32768)
  model = vggish_model()
  loud, quiet = model.embed([sound, sound / 8])
  same(loud, quiet)
  patches = vggish_model(windows=vggish.PATCHES)
  loud, quiet = patches.embed([sound, sound / 8])
  assert np.abs(loud.embeddings - quiet.embeddings).max() > 0.1
  # Level is the largest positive sample, also where nothing else is heard.
  (plain,) = model.embed([sound])
  for peak in (-1.0, 1.0):
    changed = sound.copy()
    changed[-1] = peak  # behind the last frame of the patch
    (heard,) = model.embed([changed])
    alike = np.allclose(heard.embeddings, plain.embeddings, rtol=1e-3)
    assert alike == (peak < 0)
  for silence in (np.zeros(16_000, np.float32), -np.ones(16_000, np.float32)):
    (heard,) = model.embed([silence])
    assert np.isfinite(heard.embeddings).all()


# PaSST


@pytest.mark.parametrize(
  ("seconds", "lengths"),
  [
    (1.9, [1.9]),
    (2.0, [2.0]),
    (4.1, [2.0, 2.0]),  # a tenth of a second is too little
    (4.2, [2.0, 2.0, 0.2]),
  ],
)
def test_passt_pieces_end_to_end(seconds, lengths):
  model = passt_model()  # whose pieces have 2 s
  pieces = model._cut(noise(round(seconds * 32_000)))
  assert [len(p) for p in pieces] == [round(32_000 * s) for s in lengths]


@pytest.mark.parametrize(
  ("seconds", "lengths"),
  [
    (1.4, [1.4]),  # not filled
    (1.6, [2.0]),
    (2.0, [2.0]),
    (2.6, [2.0, 2.0]),  # the second from 1 s on
    (4.0, [2.0, 2.0, 2.0]),
  ],
)
def test_passt_pieces_in_halves(seconds, lengths):
  model = passt_model(pieces=passt.HALVES)
  sound = noise(round(seconds * 32_000))
  pieces = model._cut(sound)
  assert [len(p) for p in pieces] == [round(32_000 * s) for s in lengths]
  np.testing.assert_array_equal(pieces[-1][len(sound) :], 0.0)


def test_passt_hears_a_piece_as_if_it_were_a_clip():
  model, sound = passt_model(), noise(round(2.7 * 32_000))
  (heard,) = model.embed([sound])
  (last,) = model.embed([sound[64_000:]])
  assert heard.logits.shape == (2, 9)
  same(last, (heard.embeddings[1:], heard.logits[1:]))


def test_passt_takes_no_more_patches_than_it_has_positions():
  model = passt_model()
  model.config = dataclasses.replace(PASST, times=10)
  model.params = model.params | {"times": model.params["times"][:10]}
  sound = noise(model.config.piece)  # 99 frames, of which patches see 106
  assert model.config.piece == 32_000
  (heard,) = model.embed([sound])
  assert np.isfinite(heard.logits).all()


@pytest.mark.parametrize(
  ("name", "least"), [("vggish", 16_000), ("cnn14", 1_120), ("passt", 4_801)]
)
def test_clips_that_are_too_short(name, least):
  model = MODELS[name]()
  assert np.isfinite(model.embed([noise(least)])[0].embeddings).all()
  with pytest.raises(InputError) as caught:
    model.embed([noise(2 * least), noise(least - 1)])
  message = str(caught.value)
  assert f"needs {least} samples" in message and "\n" not in message
  assert f"got {least - 1}" in message
