"""Sound files and pictures of sound: kept, converted, refused."""

import os
import shutil
import subprocess

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.signal
import soundfile
from signals import noise, sine

from audiogen_jax.audio import drawing, io
from audiogen_jax.core.errors import InputError


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
  if suffix == ".ogg":  # Vorbis is lossy: 0.017 measured
    np.testing.assert_allclose(got, audio, rtol=0, atol=0.06)
  else:  # half a 16-bit step
    assert np.abs(got - audio).max() < 0.5001 / 2**15


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
  # Measured: 6e-8.
  np.testing.assert_allclose(got[inside], want[inside], rtol=0, atol=2e-7)
  if to_hz < 20000:  # no place for 10 kHz
    gone = io.resample(sine(10000, 44100, 1.0), 44100, to_hz)
    np.testing.assert_allclose(gone[inside], 0, atol=1e-7)  # 2e-8 measured


def test_read_converts(tmp_path):
  path = tmp_path / "stereo.wav"
  left, right = sine(500, 32000, 0.5, -6.0), sine(900, 32000, 0.5, -12.0)
  io.write(path, np.concatenate([left, right], axis=1), 32000)
  got, rate_hz = io.read(path, rate_hz=16000, channels=1)
  assert (rate_hz, got.shape) == (16000, (8000, 1))
  want = (left[::2] + right[::2]) / 2
  # Measured: 8e-6.
  np.testing.assert_allclose(got[400:-400], want[400:-400], rtol=0, atol=3e-5)


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
  output = drawing.spectrogram if draw else io.write
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
    drawing.spectrogram(path, audio, 16000, title=title)
    assert path.read_bytes().startswith(b"\x89PNG")
    path.unlink()

  def fail(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(OSError, match="disk full"):
    drawing.spectrogram(tmp_path / "a.png", noise(8000, 1), 16000)
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".flac", ".ogg", ".mp3"])
def test_files_that_are_cut_short(tmp_path, suffix):
  path = tmp_path / f"a{suffix}"
  soundfile.write(path, noise(80_000, 1), 16_000)
  assert len(io.read(path)[0]) == pytest.approx(80_000, abs=2304)
  whole = path.read_bytes()
  for share in (0.3, 0.9):
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="is cut short|cannot read"):
      io.read(path)


def test_a_stream_of_unknown_length(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, noise(8000, 1), 16_000)
  data = path.read_bytes()
  at = data.index(b"data") + 4
  path.write_bytes(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
  assert len(io.read(path)[0]) == 8000


def test_a_stretch_of_a_file(tmp_path):
  audio = noise(16000, 2)
  io.write(tmp_path / "a.flac", audio, 16000)
  whole, _ = io.read(tmp_path / "a.flac")
  for start_s, end_s, want in (
    (0.25, 0.5, whole[4000:8000]),
    (0.25, None, whole[4000:]),
    (0.9, 7.0, whole[14400:]),  # beyond the end
  ):
    got, _ = io.read(tmp_path / "a.flac", start_s=start_s, end_s=end_s)
    np.testing.assert_array_equal(got, want)
  with pytest.raises(InputError, match=r"ends at 1\.000 s, before 1\.5 s"):
    io.read(tmp_path / "a.flac", start_s=1.5)
  for start_s, end_s in ((-1.0, None), (0.5, 0.5), (float("nan"), 1.0)):
    with pytest.raises(InputError, match="is no stretch of it"):
      io.read(tmp_path / "a.flac", start_s=start_s, end_s=end_s)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg not installed")
def test_ffmpeg_reads_what_libsndfile_cannot(tmp_path):
  audio = sine(440, 44100, 1.0, -6.0, 2)
  io.write(tmp_path / "a.wav", audio, 44100)
  path = tmp_path / "a: 鳥.m4a"
  command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", f"file:{path}"]
  subprocess.run(command, check=True)
  got, rate_hz = io.read(path)
  assert (rate_hz, got.shape[1]) == (44100, 2)
  inside = slice(4410, 39690)
  # AAC is lossy: 0.020 measured.
  np.testing.assert_allclose(got[inside], audio[inside], rtol=0, atol=0.08)
  half, _ = io.read(path, start_s=0.5, end_s=0.75)
  np.testing.assert_array_equal(half, got[22050:33075])
  path.write_bytes(path.read_bytes()[:3000])
  with pytest.raises(InputError, match="as sound .*convert it to WAV or FLAC"):
    io.read(path)


def test_without_ffmpeg_there_is_a_remedy(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A " + bytes(100))
  with pytest.raises(InputError, match="convert it to WAV or FLAC"):
    io.read(tmp_path / "a.m4a")
