"""Sound files whose headers do not tell how long they are, or what they are."""

import io as streams
import os
import struct

import numpy as np
import pytest
import soundfile
from signals import noise

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError

RATE = 16_000
SOUND = noise(2 * RATE, 1, scale=0.1)


def encoded(kind, audio=SOUND, **options) -> bytes:
  buffer = streams.BytesIO()
  soundfile.write(buffer, audio, RATE, format=kind, **options)
  return buffer.getvalue()


def flac_of_unknown_length() -> bytes:
  data = bytearray(encoded("FLAC"))
  # STREAMINFO: 4 bits of the rate's block and 32 more hold the samples.
  data[21] &= 0xF0
  data[22:26] = bytes(4)
  data[26:42] = bytes(16)  # nor was a checksum known
  return bytes(data)


def wav_of_size(riff, size) -> bytes:
  data = bytearray(encoded("WAV"))
  at = data.index(b"data") + 4
  data[4:8] = struct.pack("<I", riff)
  data[at : at + 4] = struct.pack("<I", size)
  return bytes(data)


def au_of_unknown_length() -> bytes:
  data = bytearray(encoded("AU"))
  data[8:12] = b"\xff" * 4
  return bytes(data)


def mp3_without_a_count(audio=SOUND, quality=0.5, mode="VARIABLE") -> bytes:
  buffer = streams.BytesIO()
  with soundfile.SoundFile(
    buffer, "w", RATE, 1, format="MP3", compression_level=quality,
    bitrate_mode=mode,
  ) as file:  # fmt: skip
    file.write(audio)
  data = buffer.getvalue()
  at = max(data.find(b"Xing"), data.find(b"Info"))
  assert 0 < at < 100, "libsndfile writes a count no more: drop this"
  second = data.index(data[:2], at)
  return data[second:]


LENGTHLESS = {
  "pipe.flac": flac_of_unknown_length,
  "zero.wav": lambda: wav_of_size(0, 0),
  "zero_data.wav": lambda: wav_of_size(36 + 4 * RATE, 0),
  "ones.wav": lambda: wav_of_size(2**32 - 1, 2**32 - 1),
  "pipe.au": au_of_unknown_length,
  "whole.rf64": lambda: encoded("RF64"),
  "whole.w64": lambda: encoded("W64"),
  "whole.caf": lambda: encoded("CAF"),
}


@pytest.mark.parametrize("name", LENGTHLESS)
def test_files_of_unknown_length_are_read_whole(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(LENGTHLESS[name]())
  audio, rate_hz = io.read(path)
  assert rate_hz == RATE
  np.testing.assert_allclose(audio, SOUND, atol=2**-15)
  assert io.length_s(path) == 2.0
  part, _ = io.read(path, start_s=0.5, end_s=0.75)
  np.testing.assert_array_equal(part, audio[8000:12000])
  end, _ = io.read(path, start_s=1.5)
  np.testing.assert_array_equal(end, audio[24000:])
  with pytest.raises(InputError, match=r"ends at 2\.000 s, before 3 s"):
    io.read(path, start_s=3.0)


@pytest.mark.parametrize("order", ["loud first", "quiet first"])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_that_nobody_counted(tmp_path, order, mode):
  """Its first frame tells nothing of the bit rate of the others."""
  audio = np.concatenate([noise(5 * RATE, 1), np.zeros((5 * RATE, 1))])
  if order == "quiet first":
    audio = audio[::-1]
  path = tmp_path / "a.mp3"
  data = mp3_without_a_count(audio.astype(np.float32), mode=mode)
  for tag in (b"", b"ID3\4\0\0\0\0\1\0" + bytes(128)):
    path.write_bytes(tag + data)
    got, rate_hz = io.read(path)
    assert len(got) == pytest.approx(10 * rate_hz, abs=4 * 1152)
    assert io.length_s(path) == pytest.approx(10, abs=0.3)
    loud = np.abs(got).max(axis=1) > 0.05
    halves = loud[: len(got) // 2].mean(), loud[len(got) // 2 :].mean()
    assert (halves[0] > halves[1]) == (order == "loud first")
    tail, _ = io.read(path, start_s=9.0)
    assert len(tail) == pytest.approx(rate_hz, abs=4 * 1152)


def test_two_streams_in_one_file(tmp_path):
  ogg = encoded("OGG")
  (tmp_path / "one.ogg").write_bytes(ogg)
  assert len(io.read(tmp_path / "one.ogg")[0]) == 2 * RATE
  (tmp_path / "two.ogg").write_bytes(ogg + encoded("OGG", noise(RATE, 1)))
  with pytest.raises(InputError, match="holds several streams"):
    io.read(tmp_path / "two.ogg")


def test_a_telephone_recording(tmp_path):
  path = tmp_path / "gsm.wav"
  path.write_bytes(encoded("WAV", subtype="GSM610"))
  whole, _ = io.read(path)
  assert len(whole) == pytest.approx(2 * RATE, abs=320)
  np.testing.assert_array_equal(io.read(path, start_s=1.0)[0], whole[RATE:])


@pytest.mark.parametrize(
  ("name", "data", "words"),
  [
    ("a.mp3", b"<!DOCTYPE html><html>", "it is a web page"),
    ("a.wav", b"  <html><body>", "it is a web page"),
    ("a.mp3", b"", "it is empty"),
    ("a.wav", b"", "it is empty"),
    ("a.mp3", bytes(5000), "no MP3 is in it"),
    ("a.mp3", b"ID3", "no MP3 is in it"),
    ("a.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" * 9, "no MP3 is in it"),
    ("a.xyz", b"words" * 99, "no sound of a known format|not recogni"),
  ],
)
def test_the_reason_is_true(tmp_path, name, data, words, capfd):
  path = tmp_path / name
  path.write_bytes(data)
  with pytest.raises(InputError, match=words):
    io.read(path)
  with pytest.raises(InputError):
    io.length_s(path)
  assert len(capfd.readouterr().err) < 400  # of the decoder's own words


def test_what_is_no_file(tmp_path):
  path = tmp_path / "pipe.wav"
  os.mkfifo(path)
  for one in (path, "/dev/zero", "/dev/null"):
    for call in (io.read, io.length_s):
      with pytest.raises(InputError, match="is a pipe or device"):
        call(one)


def test_lengths_and_rates_have_bounds(tmp_path):
  path = tmp_path / "slow.wav"
  soundfile.write(path, SOUND[:16000], 1)
  with pytest.raises(InputError, match="has 1 samples a second"):
    io.read(path, rate_hz=16000)
  soundfile.write(path, np.zeros((4 * 3600 * 200 + 1, 1), np.int16), 200)
  with pytest.raises(InputError, match="lasts 14,400 s or more"):
    io.read(path)
  assert len(io.read(path, start_s=14_000.0)[0]) == 80_001
  # A FLAC of silence, a few kB, that says to be a day long.
  data = bytearray(encoded("FLAC", np.zeros((RATE, 1), np.float32)))
  data[22:26] = struct.pack(">I", 2**32 - 1)
  (tmp_path / "day.flac").write_bytes(data)
  with pytest.raises(InputError, match="are read at once"):
    io.read(tmp_path / "day.flac")


def test_integers_called_floats_are_refused(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, 32767 * SOUND, RATE, subtype="FLOAT")
  with pytest.raises(InputError, match="where full scale is 1: divide"):
    io.read(path)
  soundfile.write(path, 20 * SOUND, RATE, subtype="FLOAT")  # loud, and floats
  np.testing.assert_array_equal(io.read(path)[0], 20 * SOUND)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF"])
def test_damage_costs_one_line(tmp_path, kind):
  rng, whole = np.random.default_rng(0), encoded(kind)
  path = tmp_path / f"a.{kind.lower()}"
  for _ in range(40):
    data = bytearray(whole)
    for at in rng.integers(0, 200, 4):
      data[at] = rng.integers(0, 256)
    path.write_bytes(data[: rng.integers(1, len(data) + 1)])
    try:
      audio, _ = io.read(path)
      assert audio.size and np.isfinite(audio).all()
    except InputError as error:
      assert len(str(error)) < 500
