"""Spectra and loudness, against scipy, librosa and arithmetic."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal
from signals import noise, sine

from audiogen_jax.audio import dsp, io
from audiogen_jax.core.errors import InputError

loudness = jax.jit(dsp.loudness, static_argnums=1)
normalize = jax.jit(
  dsp.normalize_loudness, static_argnames=("rate_hz", "target_lufs")
)


# Loudness


def k_weighting(rate_hz):
  """The two filters, from their analogue prototypes."""
  a, b = 10 ** (4 / 40), 10 ** (4 / 80) * np.sqrt(2)
  shelf = [a * a, a * b, a], [1, b, a]
  high_pass = [1, 0, 0], [1, 2, 1]
  return [
    scipy.signal.bilinear(*prototype, fs=0.5 / np.tan(np.pi * hz / rate_hz))
    for prototype, hz in ((shelf, 1500), (high_pass, 38))
  ]


def direct_loudness(audio, rate_hz):
  """BS.1770-4 sample by sample and block by block, in float64."""
  weighted = audio.astype(np.float64)
  for numerator, denominator in k_weighting(rate_hz):
    weighted = scipy.signal.lfilter(numerator, denominator, weighted, axis=0)
    weighted = np.clip(weighted, -1, 1)
  block = int(round(0.4 * rate_hz))
  step = int(round(0.1 * rate_hz))
  starts = range(0, len(weighted) - block + 1, step)
  weights = np.array([1, 1, 1, 1.41, 1.41])[: audio.shape[1]]
  power = np.array(
    [np.mean(weighted[s : s + block] ** 2, axis=0) @ weights for s in starts]
  )
  level = -0.691 + 10 * np.log10(power)
  audible = level > -70
  gate = -0.691 + 10 * np.log10(power[audible].mean()) - 10
  return -0.691 + 10 * np.log10(power[audible & (level > gate)].mean())


@pytest.mark.parametrize("rate_hz", (16000, 44100, 48000))
def test_a_sine_reads_its_level(rate_hz):
  # A stereo sine at 997 Hz reads its dBFS, a mono one 3.01 LU less.  Against
  # the gain of our filters at 997 Hz: 4.1e-5 measured, the onset.  Against the
  # standard's own filters: 0.073 at 16 kHz, 0.042 above.
  gain = 1.0
  for numerator, denominator in k_weighting(rate_hz):
    response = scipy.signal.freqz(numerator, denominator, [997], fs=rate_hz)[1]
    gain *= abs(response[0]) ** 2
  for channels, level_dbfs in ((2, -23.0), (2, -40.0), (1, -23.0)):
    got = loudness(sine(997, rate_hz, 2.0, level_dbfs, channels), rate_hz)
    standard = level_dbfs + 10 * np.log10(channels / 2)
    ours = standard - 0.691 + 10 * np.log10(gain)
    np.testing.assert_allclose(got, ours, rtol=0, atol=2e-4)
    np.testing.assert_allclose(got, standard, rtol=0, atol=0.15)


def test_a_full_scale_sine_is_clamped():
  # The shelf lifts it beyond 1, the clamp costs 0.23 LU: -0.270 measured.
  audio = sine(997, 48000, 2.0, 0.0, 2)
  got = loudness(audio, 48000)
  want = direct_loudness(audio, 48000)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  assert -0.3 < got < -0.2


@pytest.mark.parametrize(
  "rate_hz,channels", [(16000, 1), (11025, 2), (44100, 2), (48000, 5)]
)
def test_loudness_against_direct_filters(rate_hz, channels):
  # Loud enough to clamp, then 16 dB less (behind the relative gate), then all
  # but silent (behind the absolute one).  1.4e-6 LU measured.
  audio = noise(3 * rate_hz, channels, scale=0.4)
  audio[rate_hz : 2 * rate_hz] *= 0.15
  audio[2 * rate_hz :] *= 1e-5
  got = loudness(audio, rate_hz)
  assert got.shape == ()
  want = direct_loudness(audio, rate_hz)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_loudness_of_a_batch_is_that_of_each():
  batch = np.stack([noise(8000, 2, seed=i, scale=0.1 * i) for i in (1, 2, 3)])
  each = np.stack([loudness(x, 16000) for x in batch])
  mapped = jax.vmap(loudness, (0, None))(jnp.asarray(batch), 16000)
  for got in (loudness(batch, 16000), mapped, loudness(batch[None], 16000)[0]):
    np.testing.assert_allclose(got, each, atol=1e-5)  # 1e-6 measured
  eager = dsp.loudness(jnp.asarray(batch[0]), 16000)
  np.testing.assert_allclose(eager, each[0], atol=1e-5)


def test_silence_is_minus_infinity():
  assert loudness(np.zeros((8000, 1), np.float32), 16000) == -np.inf
  assert loudness(noise(8000, 1, scale=1e-5), 16000) == -np.inf


@pytest.mark.parametrize(
  "shape,rate_hz,words",
  [
    ((6399, 1), 16000, r"0\.4 s = 6400 samples.*got 6399"),
    ((16000, 6), 16000, "5 channels, got 6"),
    ((16000, 1), 3000, "above 3000 Hz, got 3000"),
  ],
)
def test_loudness_refuses_what_it_cannot_measure(shape, rate_hz, words):
  with pytest.raises(InputError, match=words):
    dsp.loudness(jnp.zeros(shape), rate_hz)


def test_normalize_loudness_hits_the_target():
  # Louder noise would clip inside the meter already and miss by its error.
  batch = np.stack([noise(16000, 1, scale=s) for s in (0.01, 0.05, 0.15)])
  bent = normalize(batch, rate_hz=16000)
  # tanh of noise at this level takes about half a decibel.
  level = loudness(bent, 16000)
  np.testing.assert_allclose(level, level[0], atol=1e-4)
  assert np.all((level > -15) & (level < -14))
  straight = jnp.arctanh(bent)
  np.testing.assert_allclose(loudness(straight, 16000), -14.0, atol=1e-3)
  got = normalize(batch, rate_hz=16000, target_lufs=-40.0)
  np.testing.assert_allclose(loudness(got, 16000), -40.0, atol=1e-2)


def test_normalize_loudness_leaves_near_silence():
  batch = np.zeros((3, 7000, 1), np.float32)
  batch[0] = noise(7000, 1, scale=0.0019)
  # Loud by RMS, but behind the only whole block: its gain would be infinite.
  batch[1, 6900:] = 0.5
  np.testing.assert_array_equal(normalize(batch, rate_hz=16000), batch)
  audible = noise(7000, 1, scale=0.0021)
  louder = normalize(np.stack([audible] * 3), rate_hz=16000)
  assert jnp.std(louder) > 10 * np.std(audible)


def spiky(every, height, rate_hz=16000):
  """Quiet noise with clicks: many decibels from its level to its peaks."""
  audio = noise(rate_hz, 1, scale=0.003)
  audio[::every] = height
  return audio


@pytest.mark.parametrize("target_lufs", [-24.0, -14.0, -6.0, 0.0])
def test_normalize_loudness_never_clips(target_lufs):
  batch = np.stack(
    [
      spiky(4000, 0.9),
      spiky(8000, 0.05),
      spiky(100, 5.0),
      noise(16000, 1, scale=2.0),
      np.sign(noise(16000, 1)),
      np.zeros((16000, 1), np.float32),
    ]
  )
  got = np.asarray(normalize(batch, rate_hz=16000, target_lufs=target_lufs))
  assert np.abs(io.to_int16(got)).max() < 2**15 - 1
  assert np.all(np.sign(got) == np.sign(batch))
  short = normalize(jnp.asarray([[0.5], [3.0], [-1.5]]), rate_hz=16000)
  np.testing.assert_allclose(short, [[0.165], [0.99], [-0.495]], rtol=1e-6)


# Spectra


@pytest.mark.parametrize("n_fft,hop", [(256, 64), (64, 64), (100, 33)])
def test_stft_against_numpy(n_fft, hop):
  audio = noise(2, 1000)
  got = dsp.stft(jnp.asarray(audio), n_fft=n_fft, hop=hop)
  window = scipy.signal.get_window("hann", n_fft)
  starts = range(0, 1000 - n_fft + 1, hop)
  want = np.stack(
    [np.fft.rfft(audio[:, s : s + n_fft] * window) for s in starts], axis=1
  )
  np.testing.assert_allclose(got, want, atol=2e-6)  # 3e-7 measured
  unit = dsp.stft(jnp.asarray(audio), n_fft=n_fft, hop=hop, normalized=True)
  want = want / np.sqrt(np.sum(window**2))
  np.testing.assert_allclose(unit, want, atol=2e-6)


def test_centred_stft_with_a_short_window_against_librosa():
  audio = noise(1000)
  got = dsp.stft(
    jnp.asarray(audio), n_fft=256, hop=50, window_length=240, center=True
  )
  want = librosa.stft(
    audio, n_fft=256, hop_length=50, win_length=240, pad_mode="reflect"
  )
  np.testing.assert_allclose(got, want.T, atol=2e-6)  # 4e-7 measured


@pytest.mark.parametrize(
  "n,words,options",
  [
    (63, "n_fft = 64 .*got 63", {"hop": 16}),
    (99, "at most n_fft = 64, got 65", {"hop": 16, "window_length": 65}),
    (32, "needs 33 samples, got 32", {"hop": 16, "center": True}),
  ],
)
def test_stft_refuses_what_it_cannot_frame(n, words, options):
  with pytest.raises(InputError, match=words):
    dsp.stft(jnp.zeros(n), n_fft=64, **options)
