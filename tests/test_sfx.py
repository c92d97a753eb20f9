"""The sound effects network: by hand, its windows, its file."""

import importlib.metadata

import numpy as np
import pytest
import sfx_weights
import signals

from audiogen_jax.convert import sfx
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding.extractor import Extractor

HOP, FRAME = 1024, 2048
LEAST = 50 * HOP + 1  # samples


@pytest.fixture(scope="module")
def network(tmp_path_factory):
  path = tmp_path_factory.mktemp("sfx") / "checkpoint.pth"
  return sfx.load_sfx(sfx_weights.write(path))


def sound(samples, seed=0):
  return signals.noise(samples, seed=seed)


def log_mel_by_hand(audio):
  """Essentia's: triangles in mel of unit sum, a frame every 1,024th sample."""
  edges = np.linspace(0, np.log(1 + 22050 / 700), 98)
  bins = np.log(1 + np.arange(1025) * 44100 / 2048 / 700)
  rising = (bins - edges[:-2, None]) / (edges[1] - edges[0])
  weights = np.maximum(np.minimum(rising, 2 - rising), 0)
  weights /= weights.sum(axis=1, keepdims=True)
  window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / (FRAME - 1))
  padded = np.pad(audio.astype(np.float64), (HOP, FRAME))
  starts = range(0, len(audio), HOP)
  frames = np.array([padded[s : s + FRAME] for s in starts])
  power = np.abs(np.fft.rfft(frames * window)) ** 2
  return np.log10(1e4 * power @ weights.T + 1) / 9.457798957824707


def by_hand(state, bands):
  """Convolution, batch norm, ReLU, twice a block; max pools between."""
  x = np.pad(bands, ((0, max(100 - len(bands), 0)), (0, 0)))[None]
  for block in range(1, 5):
    for layer in (1, 2):
      start = f"embedding_net.conv_block{block}."
      padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
      near = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
      y = np.einsum(
        "ctfij,ocij->otf", near, state[f"{start}conv{layer}.weight"]
      )
      weight, bias, mean, variance = (
        state[f"{start}bn{layer}.{name}"][:, None, None]
        for name in ("weight", "bias", "running_mean", "running_var")
      )
      y = (y - mean) / np.sqrt(variance + 1e-5) * weight + bias
      x = np.maximum(y, 0)
    if block < 4:
      c, t, f = x.shape
      x = x[:, : t // 2 * 2, : f // 2 * 2]
      x = x.reshape(c, t // 2, 2, f // 2, 2).max(axis=(2, 4))
  return x.mean(axis=2).max(axis=1)


def test_what_is_heard_is_what_comes_out_by_hand(network):
  audio = sound(170 * HOP - 3)
  (heard,) = network.embed([audio])
  bands = log_mel_by_hand(audio)
  assert len(bands) == 170
  want = [
    by_hand(sfx_weights.state(), bands[start : start + 100])
    for start in (0, 50)
  ]
  # Measured 2e-6.
  np.testing.assert_allclose(heard.embeddings, want, rtol=0, atol=1e-5)
  assert heard.logits is None


def test_a_short_clip_is_filled_with_silence(network):
  audio = sound(60 * HOP)
  (heard,) = network.embed([audio])
  want = by_hand(sfx_weights.state(), log_mel_by_hand(audio))
  np.testing.assert_allclose(heard.embeddings, [want], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("samples", "windows"),
  [(LEAST, 1), (100 * HOP, 1), (149 * HOP, 1), (149 * HOP + 1, 2)],
)
def test_windows_that_a_clip_does_not_fill_are_dropped(
  network, samples, windows
):
  (heard,) = network.embed([sound(samples)])
  assert heard.embeddings.shape == (windows, 6)


def test_a_clip_does_not_depend_on_its_neighbours(network):
  clips = [sound(LEAST, 1), sound(200 * HOP, 2), sound(120 * HOP, 3)]
  together = network.embed(clips)
  for clip, heard in zip(clips, together, strict=True):
    (alone,) = network.embed([clip])
    np.testing.assert_allclose(
      heard.embeddings, alone.embeddings, rtol=0, atol=1e-5
    )
  assert isinstance(network, Extractor)


def test_too_short_a_clip_is_refused(network):
  with pytest.raises(InputError, match="51,200 samples .* 51,201.*1.16 s"):
    network.embed([sound(LEAST - 1)])


def test_the_package_is_asked_for(monkeypatch, tmp_path):
  def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "distribution", absent)
  with pytest.raises(InputError, match="pip install --no-deps aisfx==0.1.2"):
    sfx.locate()
  (tmp_path / "aisfx-0.1.2.dist-info").mkdir()
  found = importlib.metadata.PathDistribution(
    tmp_path / "aisfx-0.1.2.dist-info"
  )
  monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
  with pytest.raises(InputError, match=r"checkpoint\.pth is missing; install"):
    sfx.locate()
  path = sfx_weights.write(tmp_path / "aisfx" / "models" / "checkpoint.pth")
  assert sfx.locate() == path


def broken(change):
  tensors = sfx_weights.state()
  change(tensors, "embedding_net.conv_block2.")
  return tensors


def _drop(tensors, start):
  del tensors[f"{start}conv1.weight"]


def _widen(tensors, start):
  tensors[f"{start}conv1.weight"] = np.zeros((4, 9, 3, 3), np.float32)


def _nan(tensors, start):
  tensors[f"{start}bn1.bias"][1] = np.nan


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (_drop, "conv_block2.conv1.weight is missing"),
    (_widen, r"has shape \(4, 9, 3, 3\), not \(4, 3, 3, 3\)"),
    (_nan, "bn1.bias holds 1 values that are not finite"),
  ],
)
def test_another_file_is_refused(tmp_path, change, words):
  path = sfx_weights.write(tmp_path / "a.pth", broken(change))
  with pytest.raises(InputError, match=words):
    sfx.load_sfx(path)


def test_a_file_of_something_else_is_refused(tmp_path):
  path = tmp_path / "a.pth"
  sfx.torch_file.write(path, {"a": 1})
  with pytest.raises(InputError, match="where a network and its libraries"):
    sfx.load_sfx(path)
