"""Live against `transformers`' PyTorch models, with small random weights."""

import shutil

import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import engine, export, huggingface
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.text import tokenizer
from audiogen_jax.text.encoder import TextEncoder

pytestmark = pytest.mark.torch

TEXTS = ["a dog barks", "thunder", "footsteps on gravel, then a door slams"]
SMALL = dict(num_filters=4, hidden_size=16, codebook_size=32)
CODECS = {
  "24 kHz causal": dict(
    upsampling_ratios=[8, 5, 4, 2], target_bandwidths=[1.5]
  ),
  "32 kHz": dict(
    sampling_rate=32000,
    upsampling_ratios=[8, 5, 4, 4],
    use_causal_conv=False,
    use_conv_shortcut=False,
    pad_mode="constant",
    target_bandwidths=[1.0],
  ),
  "two residual layers, reflect, not causal": dict(
    upsampling_ratios=[5, 3],
    num_residual_layers=2,
    use_causal_conv=False,
    num_lstm_layers=1,
    target_bandwidths=[16.0],
  ),
}
STEREO = dict(
  sampling_rate=48000,
  audio_channels=2,
  normalize=True,
  chunk_length_s=0.1,
  overlap=0.01,
  norm_type="time_group_norm",
  use_causal_conv=False,
  upsampling_ratios=[8, 5, 4, 2],
  target_bandwidths=[3.0],
)
T5 = dict(
  vocab_size=600, d_model=24, d_kv=8, d_ff=40, num_layers=3, num_heads=2
)


@pytest.fixture
def torch():
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  torch.set_grad_enabled(False)
  yield torch
  torch.set_grad_enabled(True)


def _codec(torch, **options):
  """An EnCodec whose codebooks are spread over its latents."""
  from transformers import EncodecConfig, EncodecModel

  codec = EncodecModel(EncodecConfig(**SMALL, **options)).eval()
  for layer in codec.quantizer.layers:
    # Latents of random weights lie close together, and so must the entries.
    layer.codebook.embed.normal_(0, 0.05)
  return codec


def _audio(codec, seconds, channels=1):
  n = int(seconds * codec.config.sampling_rate)
  noise = np.random.default_rng(0).normal(0, 0.3, (2, n, channels))
  return noise.astype(np.float32)


def _theirs(torch, audio):
  return torch.from_numpy(audio.transpose(0, 2, 1).copy())


@pytest.mark.parametrize("name", CODECS)
def test_encodec(torch, tmp_path, name):
  codec = _codec(torch, **CODECS[name])
  codec.save_pretrained(tmp_path)
  ours = ag.load_codec(tmp_path, mesh=ag.make_mesh(data=1))
  audio = _audio(codec, 0.3)
  theirs = codec.encode(_theirs(torch, audio), bandwidth=None)
  codes = theirs.audio_codes[0].numpy()
  assert len(np.unique(codes)) > 2
  np.testing.assert_array_equal(ours.encode(audio), codes)
  sound = codec.decode(theirs.audio_codes, theirs.audio_scales)[0]
  # Measured: 3e-7.
  np.testing.assert_allclose(
    ours.decode(codes)[..., 0], sound[:, 0].numpy(), atol=2e-6
  )


def test_encodec_in_stereo_chunks(torch, tmp_path):
  codec = _codec(torch, **STEREO)
  codec.save_pretrained(tmp_path)
  ours = ag.load_codec(tmp_path, mesh=ag.make_mesh(data=1))
  n = 3 * 4752 + 2000  # chunks of 4800 samples, 4752 apart
  audio = _audio(codec, (n + 0.5) / 48000, channels=2)
  theirs = codec.encode(_theirs(torch, audio))
  codes, scales = ours.encode_chunks(audio)
  expected = theirs.audio_codes.numpy()
  np.testing.assert_array_equal(codes.transpose(1, 0, 2, 3), expected)
  for ours_scale, scale in zip(scales.T, theirs.audio_scales, strict=True):
    np.testing.assert_allclose(ours_scale, scale[:, 0], rtol=1e-6)
  sound = codec.decode(theirs.audio_codes, theirs.audio_scales)[0].numpy()
  again = ours.decode_chunks(codes, scales, n)
  # The last chunk is short: transformers fills its codes with zeros and decodes
  # those too, which its convolutions see; we decode what there is.
  same = 3 * 4752
  # Measured: 3e-7.
  np.testing.assert_allclose(
    again.transpose(0, 2, 1)[..., :same], sound[..., :same], atol=2e-6
  )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("decoder", [False, True])
def test_t5(torch, tmp_path, tiny, gated, decoder):
  from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

  kind = "gated-gelu" if gated else "relu"
  config = T5Config(**T5, feed_forward_proj=kind)
  if decoder:
    config.decoder_start_token_id = 0
    whole = T5ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    model = T5EncoderModel.from_pretrained(tmp_path).eval()
  else:
    model = T5EncoderModel(config).eval()
    model.save_pretrained(tmp_path)
  for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(tiny / "t5" / name, tmp_path)
  config, lazy = huggingface.read_t5(tmp_path)
  params = engine.realise(lazy, lambda _, leaf: leaf.read())
  words = tokenizer.load(tmp_path)
  placement = Placement.make(make_mesh(data=1))
  states, _ = TextEncoder(config, params, words, placement)(TEXTS)
  ids, mask = tokenizer.pad(words, TEXTS)
  states = np.asarray(states)[: mask.shape[0], : mask.shape[1]]
  expected = model(
    torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
  ).last_hidden_state.numpy()
  # Measured: 2e-6.
  np.testing.assert_allclose(states[mask], expected[mask], atol=1e-5)


def _musicgen(torch, folder, tiny, *, stereo=False, width=32):
  """A small MusicGen, saved with a tokenizer."""
  from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
  )

  codec = EncodecConfig(**SMALL, **CODECS["32 kHz"])
  decoder = MusicgenDecoderConfig(
    vocab_size=SMALL["codebook_size"],
    hidden_size=width,
    num_hidden_layers=2,
    ffn_dim=48,
    num_attention_heads=2,
    num_codebooks=8 if stereo else 4,
    audio_channels=2 if stereo else 1,
    pad_token_id=SMALL["codebook_size"],
    bos_token_id=SMALL["codebook_size"],
    initializer_factor=0.3,
  )
  config = MusicgenConfig(
    text_encoder=T5Config(**T5).to_dict(),
    audio_encoder=codec.to_dict(),
    decoder=decoder.to_dict(),
  )
  model = MusicgenForConditionalGeneration(config).eval()
  for layer in model.audio_encoder.quantizer.layers:
    layer.codebook.embed.normal_(0, 0.05)
  for weight in model.decoder.parameters():
    if weight.ndim == 1:  # norms must not be trivial
      weight.add_(torch.randn_like(weight) * 0.1)
  generation = model.generation_config
  generation.decoder_start_token_id = SMALL["codebook_size"]
  generation.pad_token_id = SMALL["codebook_size"]
  generation.bos_token_id = SMALL["codebook_size"]
  model.save_pretrained(folder)
  for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(tiny / "t5" / name, folder)
  return model


def _inputs(torch, folder, texts):
  ids, mask = tokenizer.pad(tokenizer.load(folder), texts)
  return dict(
    input_ids=torch.from_numpy(ids).long(),
    attention_mask=torch.from_numpy(mask).long(),
  )


@pytest.mark.parametrize(
  ("stereo", "width"), [(False, 32), (True, 32), (False, 24)]
)
def test_musicgen(torch, tmp_path, tiny, stereo, width):
  """Teacher-forced logits and greedy sound; equal widths have no projection."""
  model = _musicgen(torch, tmp_path / "in", tiny, stereo=stereo, width=width)
  one = ag.make_mesh(data=1)
  ours = ag.AudioGen.from_pretrained(tmp_path / "in", dtype="float32", mesh=one)
  books = ours.codec.tokens.codebooks
  codes = np.random.default_rng(0).integers(0, 32, (len(TEXTS), books, 12))
  delays = ours.lm.config.pattern.delays
  steps = np.full((len(TEXTS), books, 13), 32)
  for k, delay in enumerate(delays):
    steps[:, k, 1 + delay :] = codes[:, k, : 12 - delay]
  theirs = model(
    **_inputs(torch, tmp_path / "in", TEXTS),
    decoder_input_ids=torch.from_numpy(steps.reshape(-1, 13)),
  ).logits.numpy()
  theirs = theirs.reshape(len(TEXTS), books, 13, 32)
  logits, valid = ours.logits(codes, TEXTS)
  for k, delay in enumerate(delays):
    assert valid[k].sum() == 12 - delay
    # Measured: 5e-6.
    np.testing.assert_allclose(
      logits[:, k, : 12 - delay], theirs[:, k, delay:12], atol=3e-5
    )

  sound = model.generate(
    **_inputs(torch, tmp_path / "in", TEXTS),
    do_sample=False,
    guidance_scale=3.0,
    max_length=20 + 1 + max(delays),
  ).numpy()
  greedy = ag.Sampling(greedy=True, guidance=3.0)
  mine = ours.codec.decode(
    ours.generate_codes(TEXTS, frames=20, sampling=greedy)
  )
  frames = min(sound.shape[2], mine.shape[1])
  assert abs(sound.shape[2] - mine.shape[1]) <= ours.codec.config.hop
  hop = ours.codec.config.hop
  np.testing.assert_allclose(
    mine.transpose(0, 2, 1)[..., : frames - 4 * hop],
    sound[..., : frames - 4 * hop],
    atol=2e-6,
  )

  export.convert(tmp_path / "in", tmp_path / "out", to="transformers")
  from transformers import MusicgenForConditionalGeneration

  again, report = MusicgenForConditionalGeneration.from_pretrained(
    tmp_path / "out", output_loading_info=True
  )
  # Computed, not stored: nothing may be missing but the shared embedding.
  assert not report["unexpected_keys"] and not report["mismatched_keys"]
  assert all("embed_tokens" in key for key in report["missing_keys"])
  state = again.state_dict()
  for key, value in model.state_dict().items():
    np.testing.assert_array_equal(value.numpy(), state[key].numpy(), key)


def test_published_files_open_in_torch(torch, tmp_path, tiny):
  export.convert(tiny, tmp_path / "out", to="audiocraft")
  for name in ("state_dict.bin", "compression_state_dict.bin"):
    read = [
      torch.load(folder / name, weights_only=True)["best_state"]
      for folder in (tiny, tmp_path / "out")
    ]
    assert list(read[0]) == list(read[1]) or set(read[0]) == set(read[1])
    for key, value in read[0].items():
      assert torch.equal(value, read[1][key]), key


def test_codec_without_a_language_model(torch, tmp_path):
  codec = _codec(torch, **CODECS["24 kHz causal"])
  codec.save_pretrained(tmp_path / "in")
  export.convert(tmp_path / "in", tmp_path / "out")
  one = ag.make_mesh(data=1)
  first = ag.load_codec(tmp_path / "in", mesh=one)
  second = ag.load_codec(tmp_path / "out", mesh=one)
  assert isinstance(first, Encodec) and first.config == second.config
  audio = _audio(codec, 0.2)
  np.testing.assert_array_equal(first.encode(audio), second.encode(audio))
