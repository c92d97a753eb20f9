"""CLAP live against PyTorch: `transformers`' networks, bicubic stretching."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.convert.clap import load_clap
from audiogen_jax.embedding import htsat

pytestmark = pytest.mark.torch

TEXTS = ["a dog barks", "Thunder!", "naïve café, then rain <mask>", "", "x"]
SIZES = {
  "as deep as tiny": dict(
    heard=dict(
      depths=[2, 2, 6, 2],
      num_attention_heads=[1, 2, 4, 8],
      patch_embeds_hidden_size=16,
      hidden_size=128,
    ),
    text=dict(
      hidden_size=24,
      num_hidden_layers=3,
      num_attention_heads=2,
      intermediate_size=40,
    ),
  ),
  "odd depths, wider text": dict(
    heard=dict(
      depths=[1, 3, 1, 2],
      num_attention_heads=[2, 2, 2, 2],
      patch_embeds_hidden_size=8,
      hidden_size=64,
    ),
    text=dict(
      hidden_size=40,
      num_hidden_layers=1,
      num_attention_heads=5,
      intermediate_size=16,
      layer_norm_eps=1e-5,
    ),
  ),
}


@pytest.fixture(scope="module", autouse=True)
def torch():
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  torch.set_grad_enabled(False)
  yield torch
  torch.set_grad_enabled(True)


def tokenizer(folder):
  """Every byte a token, and a few merges."""
  from tokenizers.pre_tokenizers import ByteLevel
  from transformers import RobertaTokenizer

  marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
  merges = ["a i", "ai n", "Ġ d", "Ġd o", "Ġdo g", "r k"]
  names = marks + sorted(ByteLevel.alphabet())
  names += [merge.replace(" ", "") for merge in merges]
  ids = {name: i for i, name in enumerate(names)}
  (folder / "vocab.json").write_text(json.dumps(ids))
  (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
  made = RobertaTokenizer.from_pretrained(folder)
  return made, len(ids)


@pytest.mark.parametrize(
  "sizes",
  [
    pytest.param(name, marks=pytest.mark.slow) if "tiny" in name else name
    for name in SIZES
  ],
)
def test_clap_of_transformers(torch, tmp_path, sizes):
  from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
  )

  words, vocabulary = tokenizer(tmp_path)
  extractor = ClapFeatureExtractor(
    frequency_min=50, truncation="rand_trunc", padding="repeatpad"
  )
  config = ClapConfig(
    text_config=SIZES[sizes]["text"] | {"vocab_size": vocabulary},
    audio_config=SIZES[sizes]["heard"] | {"projection_dim": 20},
    projection_dim=20,
  )
  model = ClapModel(config).eval()
  for name, value in model.named_parameters():
    if value.ndim > 1:  # so that attention has something to choose
      value.normal_(0, 1.5 / np.sqrt(np.prod(value.shape[1:])))
    elif "bias" in name:
      value.normal_(0, 0.1)
  norm = model.audio_model.audio_encoder.batch_norm
  norm.running_mean.normal_(-40, 2)
  norm.running_var.uniform_(200, 300)
  model.save_pretrained(tmp_path)
  extractor.save_pretrained(tmp_path)
  ours = load_clap(tmp_path)

  tokens = words(TEXTS, padding=True, return_tensors="pt")
  theirs = model.get_text_features(**tokens)
  np.testing.assert_allclose(ours.embed_texts(TEXTS), unit(theirs), atol=5e-6)
  times = (480_000, 100_000, 350_000)
  clips = [noise(n, seed=n) for n in times]
  rows = extractor(
    clips, sampling_rate=48_000, padding="repeatpad", return_tensors="pt"
  )
  theirs = model.get_audio_features(**rows)
  got = [each.embeddings[0] for each in ours.embed(clips)]
  np.testing.assert_allclose(got, unit(theirs), atol=5e-6)
  assert np.ptp(got, axis=0).max() > 1e-3


def unit(found):
  """Older ones return tensors; all are of unit length, or will be."""
  rows = np.asarray(getattr(found, "pooler_output", found))
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("frames", (1001, 965, 300))
def test_stretching_is_bicubic(torch, frames):
  bands = noise(2, 1, frames, 5)
  theirs = torch.nn.functional.interpolate(
    torch.tensor(bands), (1024, 5), mode="bicubic", align_corners=True
  )
  weights = htsat.stretching(frames, 1024)
  ours = jnp.einsum("bcfm,fs->bcsm", bands, weights)
  np.testing.assert_allclose(ours, theirs, atol=1e-6)
