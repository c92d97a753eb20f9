"""Mel spectrograms of every recipe, against librosa."""

import dataclasses

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy
from signals import noise

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.errors import InputError

PLAIN = MelConfig(16_000, f_min_hz=64.0)


@pytest.mark.parametrize("n", (511, 512, 513, 4000, 4096, 4097))
def test_mel_has_a_frame_for_each_started_hop(n):
  shape = jax.eval_shape(
    lambda x: mel.log_spectrogram(PLAIN, x),
    jax.ShapeDtypeStruct((3, n), jnp.float32),
  )
  assert shape.shape == (3, -(-n // 256), 64)


@pytest.mark.parametrize("normalized", (False, True))
@pytest.mark.parametrize("n_fft", (64, 1024))  # 64: more filters than bins
def test_log_mel_against_librosa(n_fft, normalized):
  audio, hop = noise(2, 5000), n_fft // 4
  pad = (n_fft - hop) // 2
  config = dataclasses.replace(
    PLAIN, n_fft=n_fft, hop=hop, normalized=normalized
  )
  got = mel.log_spectrogram(config, jnp.asarray(audio))
  padded = np.pad(audio, ((0, 0), (pad, pad)), "reflect")
  padded = np.pad(padded, ((0, 0), (0, -len(audio[0]) % hop)))
  scale = np.sum(scipy.signal.get_window("hann", n_fft) ** 2)
  power = np.abs(
    librosa.stft(padded, n_fft=n_fft, hop_length=hop, center=False)
  ) ** 2 / (scale if normalized else 1.0)
  want = np.log10(1e-5 + mel.filters(config).T @ power)
  np.testing.assert_allclose(got, want.swapaxes(1, 2), atol=1e-5)  # 3e-6


def test_mel_filters_are_triangles_on_the_htk_scale():
  filters = mel.filters(PLAIN)
  edges_mel = np.linspace(
    *(2595 * np.log10(1 + hz / 700) for hz in (64, 8000)), 66
  )
  edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
  bins_hz = np.arange(513) * 16000 / 1024
  for m, (left, peak, right) in enumerate(
    zip(edges_hz[:-2], edges_hz[1:-1], edges_hz[2:], strict=True)
  ):
    want = np.interp(bins_hz, [left, peak, right], [0, 1, 0])
    np.testing.assert_allclose(filters[:, m], want, atol=1e-6)


def test_triangles_straight_in_mel():
  config = MelConfig(
    16_000,
    n_fft=512,
    n_mels=20,
    f_min_hz=125.0,
    f_max_hz=7500.0,
    straight="mel",
  )

  def mels(hz):
    return 1127 * np.log(1 + hz / 700)

  edges = np.linspace(mels(125), mels(7500), 22)
  bins = mels(np.arange(257) * 16000 / 512)
  for m in range(20):
    want = np.interp(bins, edges[m : m + 3], [0, 1, 0])
    np.testing.assert_allclose(mel.filters(config)[:, m], want, atol=1e-6)
  with pytest.raises(InputError, match="got slaney and area_norm = False"):
    dataclasses.replace(config, scale="slaney")


def test_whole_windows_and_zeros_around_them():
  config = MelConfig(
    16_000, n_fft=512, hop=160, window_length=400, padding="window"
  )
  audio = noise(400 + 2 * 160)
  got = mel.spectrogram(config, jnp.asarray(audio))
  assert got.shape == (3, 64)
  for t in range(3):
    frame = audio[160 * t :][:400] * scipy.signal.get_window("hann", 400)
    power = np.abs(np.fft.rfft(frame, 512)) ** 2
    np.testing.assert_allclose(got[t], power @ mel.filters(config), rtol=1e-4)
  with pytest.raises(InputError, match="window of 400 .* got 399"):
    mel.spectrogram(config, jnp.zeros(399))


def test_a_symmetric_window():
  config = MelConfig(16_000, n_fft=512, symmetric=True, padding="none")
  audio = noise(512)
  power = np.abs(np.fft.rfft(audio * np.hanning(512))) ** 2
  got = mel.spectrogram(config, jnp.asarray(audio))
  np.testing.assert_allclose(got[0], power @ mel.filters(config), rtol=1e-4)


def test_log_mel_of_silence_has_a_gradient():
  # Without the floor under the logarithm it would be NaN.
  gradient = jax.grad(lambda x: mel.log_spectrogram(PLAIN, x).sum())(
    jnp.zeros(2000)
  )
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("magnitude", (False, True))
@pytest.mark.parametrize("scale", ("htk", "slaney"))
@pytest.mark.parametrize("area_norm", (False, True))
def test_centred_recipes_against_librosa(magnitude, scale, area_norm):
  config = MelConfig(
    32_000,
    n_fft=512,
    hop=160,
    window_length=400,
    n_mels=40,
    f_min_hz=50.0,
    f_max_hz=14_000.0,
    scale=scale,
    area_norm=area_norm,
    magnitude=magnitude,
    padding="center",
  )
  audio = noise(2, 5000)
  want = librosa.feature.melspectrogram(
    y=audio,
    sr=32_000,
    n_fft=512,
    hop_length=160,
    win_length=400,
    n_mels=40,
    fmin=50.0,
    fmax=14_000.0,
    htk=scale == "htk",
    norm="slaney" if area_norm else None,
    power=1.0 if magnitude else 2.0,
    pad_mode="reflect",
  )
  got = mel.spectrogram(config, jnp.asarray(audio))
  np.testing.assert_allclose(got, want.swapaxes(1, 2), rtol=1e-4, atol=1e-7)


def test_logarithms_by_hand():
  values = jnp.array([[0.0, 0.09]])
  for config, want in (
    (PLAIN, [-5.0, np.log10(0.09001)]),
    (dataclasses.replace(PLAIN, floor=0.01, log="ln"), np.log([0.01, 0.1])),
    (dataclasses.replace(PLAIN, floor=0.01, clamp=True), [-2, np.log10(0.09)]),
  ):
    got = mel.logarithm(config, values)
    np.testing.assert_allclose(got, [want], rtol=1e-5)


def test_levels_of_a_range_and_samples_beyond_full_scale():
  config = dataclasses.replace(mel.MAKE_AN_AUDIO_OLDER, range_db=(-40.0, 20.0))
  got = mel.logarithm(config, jnp.array([[1e-3, 0.01, 1.0, 10.0, 20.0]]))
  np.testing.assert_allclose(got, [[0, 0, 2 / 3, 1, 1]], atol=1e-6)
  with pytest.raises(InputError, match="levels in dB are of log10, got ln"):
    dataclasses.replace(config, log="ln")
  audio = jnp.asarray(3 * noise(1000))
  for n in (1000, 512):  # 3 whole hops, and 2
    got = mel.log_spectrogram(mel.MAKE_AN_AUDIO, audio[:n])
    assert got.shape == (n // 256, 80)
    want = mel.log_spectrogram(mel.MAKE_AN_AUDIO, jnp.clip(audio[:n], -1, 1))
    np.testing.assert_array_equal(got, want)


def test_without_padding_whole_frames_alone():
  config = MelConfig(16_000, n_fft=512, hop=160, padding="none")
  assert mel.spectrogram(config, jnp.zeros(15_600)).shape == (95, 64)
  with pytest.raises(InputError, match="n_fft = 512 needs that many .* 511"):
    mel.spectrogram(config, jnp.zeros(511))


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({"n_fft": 64, "hop": 65}, "hop must be at most n_fft = 64, got 65"),
    ({"f_max_hz": 8001.0}, "from 0 to 8001 Hz do not lie in 0 to 8000 Hz"),
    ({"f_min_hz": 900.0, "f_max_hz": 800.0}, "from 900 to 800 Hz do not lie"),
  ],
)
def test_what_cannot_be(given, said):
  with pytest.raises(InputError, match=said):
    MelConfig(16_000, **given)
