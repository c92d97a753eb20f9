"""Spectra, loudness and sound files, against scipy, librosa and arithmetic."""

import os

import jax
import jax.numpy as jnp
import jaxtyping
import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile

from audiogen_jax.audio import dsp, io
from audiogen_jax.core.errors import InputError

loudness = jax.jit(dsp.loudness, static_argnums=1)
normalize = jax.jit(
  dsp.normalize_loudness, static_argnames=("rate_hz", "target_lufs", "compress")
)


def sine(hz, rate_hz, duration_s, level_dbfs=0.0, channels=1):
  t = np.arange(int(duration_s * rate_hz)) / rate_hz
  wave = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * t)
  return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def noise(*shape, scale=0.1, seed=0):
  values = np.random.default_rng(seed).standard_normal(shape)
  return (scale * values).astype(np.float32)


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
    assert abs(got - (standard - 0.691 + 10 * np.log10(gain))) < 1e-4
    assert abs(got - standard) < 0.08


def test_a_full_scale_sine_is_clamped():
  # The shelf lifts it beyond 1, the clamp costs 0.23 LU: -0.270 measured.
  audio = sine(997, 48000, 2.0, 0.0, 2)
  got = loudness(audio, 48000)
  assert abs(got - direct_loudness(audio, 48000)) < 1e-5
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
  assert abs(got - direct_loudness(audio, rate_hz)) < 1e-5


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
  got = loudness(normalize(batch, rate_hz=16000), 16000)
  np.testing.assert_allclose(got, -14.0, atol=1e-4)  # 1e-6 measured
  got = normalize(batch, rate_hz=16000, target_lufs=-30.0)
  np.testing.assert_allclose(loudness(got, 16000), -30.0, atol=1e-4)


def test_normalize_loudness_leaves_near_silence():
  batch = np.zeros((3, 7000, 1), np.float32)
  batch[0] = noise(7000, 1, scale=0.0019)
  # Loud by RMS, but behind the only whole block: its gain would be infinite.
  batch[1, 6900:] = 0.5
  np.testing.assert_array_equal(normalize(batch, rate_hz=16000), batch)
  audible = noise(7000, 1, scale=0.0021)
  louder = normalize(np.stack([audible] * 3), rate_hz=16000)
  assert jnp.std(louder) > 10 * np.std(audible)


def test_normalize_loudness_clamps():
  spiky = noise(16000, 1, scale=0.01)
  spiky[::4000] = 0.9
  hard = normalize(spiky, rate_hz=16000, target_lufs=-6.0)
  assert jnp.max(jnp.abs(hard)) == 1.0
  soft = normalize(spiky, rate_hz=16000, target_lufs=-6.0, compress=True)
  assert jnp.max(jnp.abs(soft)) <= 1.0
  assert jnp.max(jnp.abs(soft - hard)) > 0.01
  short = normalize(jnp.asarray([[0.5], [3.0], [-2.0]]), rate_hz=16000)
  np.testing.assert_array_equal(short, [[0.5], [1.0], [-1.0]])


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
  with pytest.raises(
    InputError, match="hop must be at most n_fft = 64, got 65"
  ):
    dsp.mel_spectrogram(jnp.zeros(99), 16000, n_fft=64, hop=65)


@pytest.mark.parametrize("n", (511, 512, 513, 4000, 4096, 4097))
def test_mel_has_a_frame_for_each_started_hop(n):
  shape = jax.eval_shape(
    lambda x: dsp.log_mel(x, 16000), jax.ShapeDtypeStruct((3, n), jnp.float32)
  )
  assert shape.shape == (3, -(-n // 256), 64)


@pytest.mark.parametrize("normalized", (False, True))
@pytest.mark.parametrize("n_fft", (64, 1024))  # 64: more filters than bins
def test_log_mel_against_librosa(n_fft, normalized):
  audio, hop = noise(2, 5000), n_fft // 4
  pad = (n_fft - hop) // 2
  got = dsp.log_mel(
    jnp.asarray(audio), 16000, n_fft=n_fft, hop=hop, normalized=normalized
  )
  padded = np.pad(audio, ((0, 0), (pad, pad)), "reflect")
  padded = np.pad(padded, ((0, 0), (0, -len(audio[0]) % hop)))
  scale = np.sum(scipy.signal.get_window("hann", n_fft) ** 2)
  power = np.abs(
    librosa.stft(padded, n_fft=n_fft, hop_length=hop, center=False)
  ) ** 2 / (scale if normalized else 1.0)
  want = np.log10(1e-5 + dsp.mel_filters(16000, n_fft, 64, 64.0).T @ power)
  np.testing.assert_allclose(got, want.swapaxes(1, 2), atol=1e-5)  # 3e-6


def test_mel_filters_are_triangles_on_the_htk_scale():
  filters = dsp.mel_filters(16000, 1024, 64, 64.0)
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


def test_log_mel_of_silence_has_a_gradient():
  # Without the floor under the logarithm it would be NaN.
  gradient = jax.grad(lambda x: dsp.log_mel(x, 16000).sum())(jnp.zeros(2000))
  np.testing.assert_array_equal(gradient, 0.0)


# Files


@pytest.mark.parametrize("channels", (1, 2))
@pytest.mark.parametrize("suffix", (".wav", ".FLAC", ".ogg"))
def test_round_trip(tmp_path, suffix, channels):
  audio = sine(440, 16000, 2.5, -6.0, channels) + noise(
    40000, channels, scale=0.001
  )
  path = tmp_path / f"sound{suffix}"
  path.write_bytes(b"an older file")
  io.write(path, jnp.asarray(audio), 16000)
  got, rate_hz = io.read(path)
  assert os.listdir(tmp_path) == [path.name]
  assert rate_hz == 16000
  assert got.dtype == np.float32
  assert got.shape == audio.shape
  # Half a 16-bit step; Vorbis is lossy: 0.017 measured.
  bound = 0.03 if suffix == ".ogg" else 0.5001 / 2**15
  assert np.abs(got - audio).max() < bound


def test_write_clamps(tmp_path):
  audio = np.array([[-3.0], [-1.0], [0.0], [1.0], [3.0]], np.float32)
  io.write(tmp_path / "loud.wav", audio, 16000)
  got, _ = io.read(tmp_path / "loud.wav")
  top = 1 - 2**-15
  np.testing.assert_array_equal(got[:, 0], [-1.0, -1.0, 0.0, top, top])


@pytest.mark.parametrize("to_hz", (16000, 48000))
def test_resampling_keeps_pitch_and_level(to_hz):
  got = io.resample(sine(1000, 44100, 1.0, -6.0, 2), 44100, to_hz)
  assert got.shape == (to_hz, 2)
  assert got.dtype == np.float32
  want = sine(1000, to_hz, 1.0, -6.0, 2)
  inside = slice(to_hz // 20, -to_hz // 20)  # the ends ring
  assert np.abs(got[inside] - want[inside]).max() < 2e-7  # 6e-8 measured
  if to_hz < 20000:  # no place for 10 kHz
    gone = io.resample(sine(10000, 44100, 1.0), 44100, to_hz)
    assert np.abs(gone[inside]).max() < 1e-7  # 2e-8 measured


def test_read_converts(tmp_path):
  path = tmp_path / "stereo.wav"
  left, right = sine(500, 32000, 0.5, -6.0), sine(900, 32000, 0.5, -12.0)
  io.write(path, np.concatenate([left, right], axis=1), 32000)
  got, rate_hz = io.read(path, rate_hz=16000, channels=1)
  assert (rate_hz, got.shape) == (16000, (8000, 1))
  want = (left[::2] + right[::2]) / 2
  assert np.abs(got - want)[400:-400].max() < 2e-5  # 8e-6 measured


def test_convert_channels():
  audio = noise(50, 3)
  assert io.convert_channels(audio, 3) is audio
  np.testing.assert_array_equal(
    io.convert_channels(audio, 1)[:, 0], audio.mean(axis=1)
  )
  np.testing.assert_array_equal(io.convert_channels(audio, 2), audio[:, :2])
  mono = audio[:, :1]
  np.testing.assert_array_equal(
    io.convert_channels(mono, 4), np.tile(mono, (1, 4))
  )
  with pytest.raises(InputError, match="cannot make 4 channels of 3"):
    io.convert_channels(audio, 4)
  with pytest.raises(InputError, match="1 or more, got 0"):
    io.convert_channels(audio, 0)


def test_read_refuses_with_the_reason(tmp_path):
  with pytest.raises(InputError, match=r"no sound file at .*absent\.wav"):
    io.read(tmp_path / "absent.wav")
  with pytest.raises(InputError, match="is a folder"):
    io.read(tmp_path)

  noisy = noise(16000, 1)
  soundfile.write(tmp_path / "whole.flac", noisy, 16000)
  half = (tmp_path / "whole.flac").read_bytes()[:10000]
  for name, content in {
    "empty.wav": b"",
    "text.wav": b"these are words" * 99,
    "half.flac": half,
    "bare.raw": bytes(100),
  }.items():
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"cannot read .*{name} as sound"):
      io.read(tmp_path / name)

  soundfile.write(tmp_path / "short.wav", noisy[:0], 16000)
  with pytest.raises(InputError, match=r"short\.wav is empty"):
    io.read(tmp_path / "short.wav")
  noisy[[3, 5, 7], 0] = np.nan, np.inf, -np.inf
  soundfile.write(tmp_path / "nan.wav", noisy, 16000, subtype="FLOAT")
  with pytest.raises(InputError, match="holds 3 NaN or infinite .* of 16000"):
    io.read(tmp_path / "nan.wav")

  io.write(tmp_path / "click.wav", np.ones((1, 1), np.float32), 16000)
  with pytest.raises(InputError, match="1 samples at 16000 Hz"):
    io.read(tmp_path / "click.wav", rate_hz=1000)
  with pytest.raises(InputError, match="1 Hz or more, got 0"):
    io.read(tmp_path / "click.wav", rate_hz=0)


@pytest.mark.parametrize("draw", (False, True))
def test_outputs_refuse_with_the_reason(tmp_path, monkeypatch, draw):
  output = io.draw_spectrogram if draw else io.write
  end = ".png" if draw else ".wav"
  (tmp_path / "file").touch()
  (tmp_path / f"folder{end}").mkdir()
  good = noise(16000, 1)
  broken = np.where(np.arange(16000)[:, None] < 2, np.float32(np.nan), good)
  # The last two: with the shape checker on, it speaks before we do.
  for name, audio, rate_hz, words in (
    ("a.mp3", good, 16000, r"end in (\.png|\.wav, \.flac, \.ogg)"),
    (f"absent/a{end}", good, 16000, "no folder .*absent, create it"),
    (f"file/a{end}", good, 16000, "no folder .*file, create it"),
    (f"folder{end}", good, 16000, "it is a folder"),
    (f"a{end}", good, 0, "1 Hz or more, got 0"),
    (f"a{end}", good[:0], 16000, r"is empty, shape \(0, 1\)"),
    (f"a{end}", broken, 16000, "holds 2 NaN or infinite"),
    (f"a{end}", good[:, 0], 16000, "two axes|ype-check"),
    (f"a{end}", np.ones((9, 1), np.int16), 16000, "divide integers|ype-check"),
  ):
    with pytest.raises((InputError, jaxtyping.TypeCheckError), match=words):
      output(tmp_path / name, audio, rate_hz)
  monkeypatch.setattr(os, "access", lambda *_: False)
  with pytest.raises(InputError, match="no permission"):
    output(tmp_path / f"a{end}", good, 16000)
  assert sorted(os.listdir(tmp_path)) == ["file", f"folder{end}"]


def test_write_names_what_the_format_cannot_hold(tmp_path):
  with pytest.raises(InputError, match="with 9 channels at 16000 Hz"):
    io.write(tmp_path / "a.flac", noise(100, 9), 16000)
  assert not os.listdir(tmp_path)


def test_nothing_half_written(tmp_path, monkeypatch):
  path = tmp_path / "sound.ogg"
  path.write_bytes(b"an older file")
  real, calls = soundfile.SoundFile.write, []

  def fail_later(self, block):
    calls.append(len(block))
    if len(calls) == 3:
      assert len(os.listdir(tmp_path)) == 2  # the old file and the new part
      raise soundfile.LibsndfileError(2)
    real(self, block)

  monkeypatch.setattr(soundfile.SoundFile, "write", fail_later)
  with pytest.raises(InputError, match="cannot write .*check the folder"):
    io.write(path, noise(40000, 1), 8000)
  assert calls == [8000] * 3  # a second at a time, as Vorbis needs it
  assert os.listdir(tmp_path) == ["sound.ogg"]
  assert path.read_bytes() == b"an older file"


def test_drawing(tmp_path, monkeypatch):
  # A stereo sweep, a click shorter than a window, and silence.
  t = np.arange(16000) / 16000
  sweep = scipy.signal.chirp(t, 100, 1.0, 7000)[:, None] * [0.5, -0.5]
  for name, audio, title in (
    ("sweep", sweep.astype(np.float32), r"a whistle for $\5$, 鳥 " * 9),
    ("click", np.ones((1, 1), np.float32), ""),
    ("silence", np.zeros((8000, 1), np.float32), "silence"),
  ):
    path = tmp_path / f"{name}.png"
    io.draw_spectrogram(path, audio, 16000, title=title)
    assert path.read_bytes().startswith(b"\x89PNG")
    path.unlink()

  def fail(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(OSError, match="disk full"):
    io.draw_spectrogram(tmp_path / "a.png", noise(8000, 1), 16000)
  assert not os.listdir(tmp_path)
