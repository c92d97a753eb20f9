"""CLAP against the published programs: LAION's, Hugging Face's, Microsoft's.

Packs are those that `AUDIOGEN_PACKS` names; whatever their sizes and clips,
these tests hold for them.
"""

import pathlib

import jax
import jax.numpy as jnp
import judged
import librosa
import numpy as np
import pytest
from judged import SETS

from audiogen_jax.audio import sinc
from audiogen_jax.convert import clap as clap_files
from audiogen_jax.convert import clap_laion, engine
from audiogen_jax.convert.keys import Keys
from audiogen_jax.embedding import clap, cnn14, htsat

YEARS = ("2022", "2023")


class Pack(judged.Pack):
  """A pack and its models, which are loaded once."""

  def __init__(self, name):
    super().__init__(name)
    self.texts = [str(text) for text in self.want["texts"]]
    self._loaded = {}

  def load(self, pattern=".", **options):
    key = (pattern, *options.items())
    if key not in self._loaded:
      (path,) = [self.folder] if pattern == "." else self.folder.glob(pattern)
      self._loaded[key] = clap_files.load_clap(path, **options)
    return self._loaded[key]

  def all_of(self, which, rate_hz, recipe=None):
    return [self.of(clip, rate_hz, recipe) for clip in self.clips(which)]

  def of(self, clip, rate_hz, recipe=None):
    audio, from_hz = self.read(clip)
    if recipe is not None:
      return sinc.resample(recipe, audio, from_hz, rate_hz).mean(axis=1)
    # librosa's: soxr, high but not very high quality.
    return librosa.resample(
      audio.mean(axis=1),
      orig_sr=from_hz,
      target_sr=rate_hz,
      res_type="soxr_hq",
    )


def pack_of(name):
  return pytest.fixture(scope="module", name=name)(lambda: Pack(name))


laion, hf = pack_of("eval_clap_laion"), pack_of("eval_clap_hf")
microsoft = pack_of("eval_msclap")


def heard(model, clips):
  return np.concatenate([each.embeddings for each in model.embed(clips)])


def cosines(a, b):
  length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  return (a * b).sum(axis=1) / length


def log_mel(model, clip):
  samples = model.config.samples
  fits = samples // len(clip) if model.config.fill == "whole" else samples
  filled = np.tile(clip, max(min(fits, -(-samples // len(clip))), 1))[:samples]
  filled = np.pad(filled, (0, samples - len(filled)))
  return filled, np.asarray(
    htsat.log_mel(model.config.audio.mel, jnp.asarray(filled)[None])[0]
  )


# Hugging Face


def test_parity_eval_clap_hf_text(eval_clap_hf):
  model, want = eval_clap_hf.load(), eval_clap_hf.want
  for text, ids in zip(eval_clap_hf.texts, want["text/input_ids"], strict=True):
    ours = model._words.ids(text)
    assert ours == list(ids[: len(ours)])
    assert set(ids[len(ours) :]) <= {model.config.text.padding}
  ours = model.embed_texts(eval_clap_hf.texts)
  np.testing.assert_allclose(ours, want["text/features"], atol=2e-6)  # 3e-7


def test_parity_eval_clap_hf_log_mel(eval_clap_hf):
  model, want = eval_clap_hf.load(), eval_clap_hf.want
  found = eval_clap_hf.kept("audio/logmel")
  assert found
  for clip in found:
    _, ours = log_mel(model, eval_clap_hf.of(clip, model.sample_rate_hz))
    published = want[f"audio/logmel/{clip}"]
    np.testing.assert_allclose(ours, published, atol=0.03)  # dB; 5e-3


def test_parity_eval_clap_hf_audio(eval_clap_hf):
  model, want = eval_clap_hf.load(), eval_clap_hf.want
  found = eval_clap_hf.kept("audio/features")
  assert found
  for which in found:
    ours = heard(model, eval_clap_hf.all_of(which, model.sample_rate_hz))
    published = want[f"audio/features/{which}"]
    np.testing.assert_allclose(ours, published, atol=5e-6)  # 5e-7
    scores = cosines(ours, model.embed_texts(eval_clap_hf.texts))
    for name, got in (("cosine", scores), ("score", scores.mean())):
      np.testing.assert_allclose(got, want[f"{name}/{which}"], atol=5e-6)


# LAION


def test_parity_eval_clap_laion_text(eval_clap_laion):
  pack = eval_clap_laion
  model, want = pack.load("*.pt"), pack.want
  padding = model.config.text.padding
  pairs = zip(
    pack.texts, want["text/input_ids"], want["text/attention_mask"], strict=True
  )
  for text, ids, mask in pairs:
    ours = model._words.ids(text)
    assert ours == list(ids[: mask.sum()])
    assert set(ids[len(ours) :]) <= {padding}
  network = clap.Bert(model.config.text)
  with jax.default_matmul_precision("highest"):
    _, pooled = network.apply(
      {"params": model.params["text"]}, jnp.asarray(want["text/input_ids"])
    )
  np.testing.assert_allclose(pooled, want["text/pooler_output"], atol=1e-5)
  ours = model.embed_texts(pack.texts)
  np.testing.assert_allclose(ours, want["text/embeddings"], atol=2e-6)  # 3e-7


def test_parity_eval_clap_laion_log_mel_and_image(eval_clap_laion):
  pack = eval_clap_laion
  model, want = pack.load("*.pt"), pack.want
  config, params = model.config.audio, model.params["audio"]
  for name in pack.kept("audio/logmel"):
    clip = pack.of(name, model.sample_rate_hz, sinc.JULIUS)
    _, ours = log_mel(model, clip)
    published = want[f"audio/logmel/{name}"]
    # dB; 3e-2, where sums of 1,024 float32 leave no digits, else 2e-3.
    np.testing.assert_allclose(ours, published, atol=5e-2)
    loud = published > -80
    np.testing.assert_allclose(ours[loud], published[loud], atol=1e-2)
  first = pack.of(
    f"reference/{want['names'][0]}", model.sample_rate_hz, sinc.JULIUS
  )
  filled, bands = log_mel(model, first)
  normed = cnn14.Norm(config.epsilon).apply(
    {"params": params["bands"]}, jnp.asarray(bands)[None]
  )
  image = np.asarray(htsat.to_image(config, normed))[0]
  # Stored in float16.
  np.testing.assert_allclose(image, want["audio/image_0"], atol=1e-2)


@pytest.mark.parametrize("which", SETS)
def test_parity_eval_clap_laion_audio_as_audiocraft(eval_clap_laion, which):
  pack = eval_clap_laion
  model, want = pack.load("*.pt"), pack.want
  clips = pack.all_of(which, model.sample_rate_hz, sinc.JULIUS)
  ours = heard(model, clips)
  np.testing.assert_allclose(ours, want[f"audio/embeddings/{which}"], atol=1e-5)
  scores = cosines(ours, model.embed_texts(pack.texts))
  for name, got in (("cosine", scores), ("score", scores.mean())):
    published = want[f"{name}/audiocraft/{which}"]
    np.testing.assert_allclose(got, published, atol=1e-5)


@pytest.mark.parametrize("which", SETS)
def test_parity_eval_clap_laion_audio_as_laion_clap(eval_clap_laion, which):
  pack = eval_clap_laion
  model, want = pack.load("*.pt", quantise=True), pack.want
  clips = pack.all_of(which, model.sample_rate_hz)
  ours = heard(model, clips)
  np.testing.assert_allclose(
    ours, want[f"audio/embeddings_from_file/{which}"], atol=1e-5
  )
  scores = cosines(ours, model.embed_texts(pack.texts))
  for name, got in (("cosine", scores), ("score", scores.mean())):
    published = want[f"{name}/laion_from_file/{which}"]
    np.testing.assert_allclose(got, published, atol=1e-5)


def test_16_bits_are_heard(eval_clap_laion):
  """What both tests above ask for cannot be the same."""
  pack = eval_clap_laion
  clips = pack.all_of("generated", 48_000)[:1]
  plain, rounded = (
    heard(pack.load("*.pt", quantise=each), clips) for each in (False, True)
  )
  assert np.abs(plain - rounded).max() > 1e-5


@pytest.mark.slow
def test_parity_eval_clap_laion_full_size(eval_clap_laion):
  pack = eval_clap_laion
  want = pack.full
  state = by_rule(want)
  parts = clap_laion.read(
    pathlib.Path("full.pt"), state, Keys({}, "none"), None
  )
  params = engine.realise(parts.tree, lambda _, lazy: lazy.read())
  config = parts.config
  ours = clap.read(config, params, jnp.asarray(want["input_ids"]))
  np.testing.assert_allclose(ours, want["text_embeddings"], atol=1e-5)
  clip = pack.of(str(want["clip"]), config.rate_hz, sinc.JULIUS)
  times = config.samples // len(clip)
  filled = np.tile(clip, times)
  filled = np.pad(filled, (0, config.samples - len(filled)))
  ours = clap.hear(config, params, jnp.asarray(filled)[None])
  np.testing.assert_allclose(ours, want["audio_embeddings"], atol=1e-5)


def by_rule(want):
  """The tensors of a network of published size, which no pack stores."""
  made = {}
  rows = zip(
    want["tensor_names"],
    want["tensor_shapes"],
    want["tensor_heads"],
    want["tensor_sums"],
    strict=True,
  )
  for name, shape, head, total in rows:
    name = str(name)
    shape = tuple(int(n) for n in str(shape).split(",") if n)
    if name.endswith("attn_mask"):
      continue  # a constant
    if name.startswith("logit_scale"):
      value = np.asarray(head[0])  # a constant, too
      made[name] = engine.Lazy((), value.dtype, lambda value=value: value)
      continue
    value = np.asarray(judged.ruled(int(want["seed"]), name, shape, GAINS))
    if name == "audio_branch.bn0.running_mean":
      value = value - np.float32(30)
    if name == "audio_branch.bn0.running_var":
      value = value * np.float32(300)
    flat = value.ravel()[:4]
    np.testing.assert_allclose(flat, head[: len(flat)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
      value.sum(dtype=np.float64), total, rtol=1e-6, atol=1e-4
    )
    made[name] = engine.Lazy(shape, value.dtype, lambda value=value: value)
  return made


GAINS = {"embeddings": 6, "relative_position_bias_table": 3}
GAINS |= dict.fromkeys(
  "mlp intermediate projection patch_embed qkv query key".split(), 1.5
)


# Microsoft


@pytest.mark.parametrize("year", YEARS)
def test_parity_eval_msclap_text(eval_msclap, year):
  pack = eval_msclap
  model, want = pack.load(f"*{year}.pth"), pack.want
  padding = model.config.text.padding
  for text, ids in zip(pack.texts, want[f"{year}/text/input_ids"], strict=True):
    ours = model._words.ids(text)
    assert ours == list(ids[: len(ours)])
    assert set(ids[len(ours) :]) <= {padding}
  ours = model.embed_texts(pack.texts)
  # Measured: 2e-6.
  np.testing.assert_allclose(ours, want[f"{year}/text/embeddings"], atol=2e-5)


@pytest.mark.parametrize("year", YEARS)
def test_parity_eval_msclap_log_mel(eval_msclap, year):
  pack = eval_msclap
  model, want = pack.load(f"*{year}.pth"), pack.want
  found = pack.kept(f"{year}/audio/logmel")
  assert found
  for name in found:
    clip = pack.of(f"reference/{name}", model.sample_rate_hz, sinc.HANN_MODULE)
    _, ours = log_mel(model, clip)
    published = want[f"{year}/audio/logmel/{name}"]
    np.testing.assert_allclose(ours, published, atol=5e-2)  # dB; 3e-3


@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("year", YEARS)
def test_parity_eval_msclap_audio(eval_msclap, year, which):
  pack = eval_msclap
  model, want = pack.load(f"*{year}.pth"), pack.want
  clips = pack.all_of(which, model.sample_rate_hz, sinc.HANN_MODULE)
  ours, texts = heard(model, clips), model.embed_texts(pack.texts)
  np.testing.assert_allclose(
    ours, want[f"{year}/audio/embeddings/{which}"], atol=3e-4
  )
  scores = cosines(ours, texts)
  for name, got in (("cosine", scores), ("score", scores.mean())):
    published = want[f"{year}/{name}/{which}"]
    np.testing.assert_allclose(got, published, atol=1e-5)
  unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours, texts)]
  similarity = model.scale * unit[0] @ unit[1].T
  np.testing.assert_allclose(
    similarity, want[f"{year}/similarity/{which}"], atol=1e-4
  )
