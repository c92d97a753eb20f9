"""VGGish, Cnn14 and PaSST against the published programs.

Packs are those that `AUDIOGEN_PACKS` names; whatever their sizes and clips,
these tests hold for them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soxr
from judged import SETS, Pack

from audiogen_jax.audio import mel
from audiogen_jax.convert import engine, torch_file
from audiogen_jax.convert.extractors import PUBLISHED, load_extractor
from audiogen_jax.convert.keys import Keys
from audiogen_jax.core.config import read_json
from audiogen_jax.embedding import cnn14, passt, vggish

VGGISH, PCA = "vggish-10086976", "vggish_pca_params-970ea276"
CNN14 = "Cnn14_16k_mAP=0.438"
PASST = "passt-s-f128-p16-s10-ap.476-swa.pt"
FORMATS = (".pth", ".zip_format.pth")
PEAK = np.float32(10 ** (-1 / 20))  # -1 dB


vggish_pack = pytest.fixture(scope="module")(lambda: Pack("eval_vggish"))
panns_pack = pytest.fixture(scope="module")(lambda: Pack("eval_panns"))
passt_pack = pytest.fixture(scope="module")(lambda: Pack("eval_passt"))


def embeddings(extractor, sounds):
  return np.concatenate([h.embeddings for h in extractor.embed(sounds)])


def of_audioldm_eval(pack, which, model):
  rate_hz = model.sample_rate_hz
  return [pack.of_audioldm_eval(clip, rate_hz) for clip in pack.clips(which)]


def close(got, want, atol):
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def at_full_size(name, state):
  """An extractor of the published size, its weights by the pack's rule."""
  published = PUBLISHED[name]
  config, tree = published.open(state, "by rule", Keys({}, "none"))
  params = engine.realise(tree, lambda _, lazy: jnp.asarray(lazy.read()))
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return published.build(config, params, sha256=""), count


# VGGish


def written(sound):
  """As audiocraft writes it: 16 bits, its peak at -1 dB."""
  sound = sound * (PEAK / np.abs(sound).max())
  return np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("form", FORMATS)
def test_parity_vggish_of_google(vggish_pack, form):
  pack = vggish_pack
  model = load_extractor("vggish", pack.path(VGGISH + form))
  for which in SETS:
    counts = pack.want[f"google/examples/{which}"]
    want = pack.want[f"google/embeddings/{which}"]
    wanted = np.split(want, np.cumsum(counts)[:-1])
    clips = pack.clips(which)
    # Where a sample lies just between two integers, the last digit of the
    # resampler decides which it becomes, and theirs is that of PyTorch's
    # float32 sine and of its order of sums: 40 of 32,000 are off by one. One
    # such sample, where a clip is nearly silent, is heard.
    resampled = [pack.read(clip)[1] != model.sample_rate_hz for clip in clips]
    pcm = [
      written(pack.of_audiocraft(clip, model.sample_rate_hz)) for clip in clips
    ]
    for clip, other, values in zip(clips, resampled, pcm, strict=True):
      if clip in pack.kept("google/pcm"):
        apart = np.abs(values - pack.want[f"google/pcm/{clip}"])
        assert apart.max() <= other and np.mean(apart) < 0.004  # 0.0013
    heard = model.embed([values / np.float32(32768) for values in pcm])
    for got, want, other in zip(heard, wanted, resampled, strict=True):
      close(got.embeddings, want, 2e-4 if other else 1e-4)  # 1.5e-4, 3e-5


def test_parity_vggish_log_mel(vggish_pack):
  pack = vggish_pack
  for kind, windows in (
    ("google", vggish.GOOGLE),
    ("torchvggish", vggish.PATCHES),
  ):
    for clip in pack.kept(f"{kind}/logmel"):
      model = load_extractor(
        "vggish", pack.path(f"{VGGISH}.pth"), windows=windows
      )
      sound, rate_hz = pack.read(clip)
      if kind == "google":
        sound = pack.want[f"google/pcm/{clip}"] / np.float32(32768)
      elif rate_hz != model.sample_rate_hz:
        continue  # there by another resampler
      patches = np.stack(model._cut(sound.reshape(-1)))
      got = np.asarray(vggish.log_mel(model.config, jnp.asarray(patches)))
      close(got, pack.want[f"{kind}/logmel/{clip}"], 1e-4)  # 6e-6


@pytest.mark.parametrize("form", FORMATS)
def test_parity_vggish_patches(vggish_pack, form):
  pack = vggish_pack
  model = load_extractor(
    "vggish", pack.path(VGGISH + form), windows=vggish.PATCHES
  )
  for which in SETS:
    sounds = of_audioldm_eval(pack, which, model)
    got = embeddings(model, sounds)
    close(got, pack.want[f"audioldm_eval/embeddings/{which}"], 1e-4)  # 2e-5
    # Others take resampy, so here the clips that need none.
    rows = np.cumsum(pack.want[f"torchvggish/examples/{which}"])[:-1]
    wanted = np.split(pack.want[f"torchvggish/embeddings/{which}"], rows)
    for clip, want in zip(pack.clips(which), wanted, strict=True):
      sound, rate_hz = pack.read(clip)
      if rate_hz == model.sample_rate_hz:
        close(embeddings(model, [sound[:, 0]]), want, 1e-4)  # 1.4e-5


@pytest.mark.parametrize("form", FORMATS)
def test_parity_vggish_principal_components(vggish_pack, form):
  # No figure uses them; the file holds arrays of numpy.
  pack = vggish_pack
  saved = torch_file.read(pack.path(PCA + form))
  vectors, means = (
    saved[name].read() for name in ("pca_eigen_vectors", "pca_means")
  )
  for which in SETS:
    x = pack.want[f"torchvggish_relu/embeddings/{which}"] - means.reshape(1, -1)
    quantised = np.round((np.clip(x @ vectors.T, -2, 2) + 2) * 63.75)
    want = pack.want[f"torchvggish_pca_uint8/embeddings/{which}"]
    apart = np.abs(quantised - want)
    assert apart.max() <= 1 and np.mean(apart > 0) < 0.01


@pytest.mark.slow
def test_parity_vggish_at_full_size(vggish_pack):
  pack = vggish_pack
  state = pack.by_rule({"features": 1.4, "embeddings": 1.4})
  model, count = at_full_size("vggish", state)
  assert count == 72_141_184 and model.config == vggish.VGGishConfig()
  model.windows = vggish.PATCHES
  sound, rate_hz = pack.read(str(pack.full["clip"]))
  assert rate_hz == model.sample_rate_hz
  close(embeddings(model, [sound[:, 0]]), pack.full["embeddings"], 1e-4)  # 2e-5


# Cnn14


def panns_model(pack, form, kind):
  """16k: as the file says; 32k: its weights behind the other front end."""
  model = load_extractor("cnn14", pack.path(CNN14 + form))
  if kind == "16k":
    return model
  config = dataclasses.replace(model.config, mel=cnn14.RATE_32K)
  return cnn14.Extractor(config, model.params, sha256=model.sha256)


@pytest.mark.parametrize("kind", ["16k", "32k"])
@pytest.mark.parametrize("form", FORMATS)
def test_parity_panns_embeddings_and_logits(panns_pack, form, kind):
  pack = panns_pack
  model = panns_model(pack, form, kind)
  for which in SETS:
    sounds = of_audioldm_eval(pack, which, model)
    for clip, wave in zip(pack.clips(which), sounds, strict=True):
      if clip in pack.kept(f"{kind}/wave"):
        close(wave, pack.want[f"{kind}/wave/{clip}"], 1e-5)  # 2e-6
    heard = model.embed(sounds)
    got = np.concatenate([h.embeddings for h in heard])
    close(got, pack.want[f"{kind}/embeddings/{which}"], 2e-4)  # 9e-6
    got = np.concatenate([h.logits for h in heard])
    close(got, pack.want[f"{kind}/logits/{which}"], 2e-4)  # 2e-5
    tags = 1 / (1 + np.exp(-got))
    close(tags, pack.want[f"{kind}/clipwise/{which}"], 1e-4)


@pytest.mark.parametrize("kind", ["16k", "32k"])
def test_parity_panns_log_mel(panns_pack, kind):
  pack = panns_pack
  config = {"16k": cnn14.RATE_16K, "32k": cnn14.RATE_32K}[kind]
  for clip in pack.kept(f"{kind}/logmel"):
    wave, atol = pack.of_audioldm_eval(clip, config.rate_hz), 2e-2
    if f"{kind}/wave/{clip}" in pack.want:  # so that no resampler is heard
      wave, atol = pack.want[f"{kind}/wave/{clip}"], 2e-2  # 4e-3
    reflected = jnp.asarray(cnn14.reflect(config, wave))
    got = cnn14.log_mel(config, reflected[None])[0]
    want = pack.want[f"{kind}/logmel/{clip}"]
    close(np.asarray(got), want, atol)  # dB, and near the floor


@pytest.mark.slow
def test_parity_panns_at_full_size(panns_pack):
  pack = panns_pack

  def edit(state):
    state["bn0.running_mean"] -= 30
    state["bn0.running_var"] *= 300

  gains = {"conv_block": 1.3, "fc1": 1.4, "fc_audioset": 0.8}
  state = pack.by_rule(gains, edit)
  bands = mel.filters(cnn14.RATE_16K)
  front = engine.Lazy(bands.shape, bands.dtype, lambda: bands)
  model, count = at_full_size("cnn14", state | {"logmel_extractor.melW": front})
  assert count == 80_769_871 and model.config == cnn14.Cnn14Config()
  clip, rate_hz = str(pack.full["clip"]), model.sample_rate_hz
  (heard,) = model.embed([pack.of_audioldm_eval(clip, rate_hz)])
  close(heard.embeddings, pack.full["embeddings"], 2e-4)  # 2e-5
  close(heard.logits, pack.full["logits"], 2e-4)  # 1e-5


# PaSST


def test_parity_passt_features_and_logits(passt_pack):
  pack = passt_pack
  model = load_extractor("passt", pack.path(PASST))
  for which in SETS:
    sounds = [
      pack.of_audiocraft(clip, model.sample_rate_hz)
      for clip in pack.clips(which)
    ]
    heard = model.embed(sounds)
    counts = [len(h.logits) for h in heard]
    assert counts == pack.want[f"segments/{which}"].tolist()
    got = np.concatenate([h.embeddings for h in heard])
    close(got, pack.want[f"features/{which}"], 2e-4)  # 1.2e-5
    got = np.concatenate([h.logits for h in heard])
    close(got, pack.want[f"logits/{which}"], 2e-4)  # 4e-5


def test_parity_passt_log_mel(passt_pack):
  pack = passt_pack
  config = load_extractor("passt", pack.path(PASST)).config
  for clip in pack.kept("mel"):
    wave = pack.want[f"wave32k/{clip}"]
    close(pack.of_audiocraft(clip, config.mel.rate_hz), wave, 4e-5)  # 9e-6
    lifted = jnp.asarray(passt.emphasise(config, wave))
    got = passt.log_mel(config, lifted[None])[0].T
    close(np.asarray(got), pack.want[f"mel/{clip}"], 1e-3)  # 1.3e-4, if quiet


def test_parity_passt_of_stable_audio_metrics(passt_pack):
  pack = passt_pack
  model = load_extractor("passt", pack.path(PASST), pieces=passt.HALVES)
  for which in SETS:
    sounds = []
    for clip in pack.clips(which):
      audio, from_hz = pack.read(clip)
      wave = soxr.resample(
        audio[:, 0], from_hz, model.sample_rate_hz, quality="HQ"
      )
      sounds.append(wave * (PEAK / np.abs(wave).max()))
    means = np.stack([h.logits.mean(0) for h in model.embed(sounds)])
    got = np.asarray(jax.nn.softmax(means))
    want = pack.want[f"stable_audio_metrics/probabilities/{which}"]
    close(got, want, 2e-5)  # 1e-6


def test_parity_passt_of_20_seconds(passt_pack):
  pack = passt_pack
  state = torch_file.read(pack.path(PASST))
  state |= torch_file.read(pack.path("passt_20sec_time_new_pos_embed.pt"))
  beside = pack.path("config.json")
  published = PUBLISHED["passt"]
  said = Keys(read_json(beside), str(beside))
  config, tree = published.open(state, "20 s", said)
  params = engine.realise(tree, lambda _, lazy: jnp.asarray(lazy.read()))
  model = published.build(config, params, sha256="")
  assert config.piece == 20 * model.sample_rate_hz
  clip = f"generated/{pack.names[-1]}"
  wave = pack.of_audiocraft(clip, model.sample_rate_hz)
  (heard,) = model.embed([wave])
  want = pack.want["passt_20sec/logits_of_last_generated"]
  close(heard.logits, want[None], 2e-4)  # 2e-5


@pytest.mark.slow
def test_parity_passt_at_full_size(passt_pack):
  pack = passt_pack
  gains = {"patch_embed": 2, "qkv": 2, "mlp": 1.5, "head.1": 2}
  gains |= {"pos_embed": 8, "token": 8}
  state = pack.by_rule(gains)
  model, count = at_full_size("passt", state)
  unused = sum(
    np.prod(tensor.shape) for n, tensor in state.items() if "head_dist" in n
  )
  assert count + unused == 86_153_758
  assert model.config == passt.PaSSTConfig()
  clip = str(pack.full["clip"])
  wave = pack.of_audiocraft(clip, model.sample_rate_hz)
  (heard,) = model.embed([wave])
  close(heard.embeddings[0], pack.full["features"], 2e-4)  # 4e-5
  close(heard.logits[0], pack.full["logits"], 2e-4)  # 6e-5
