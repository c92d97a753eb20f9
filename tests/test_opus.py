"""`audiogen evaluate codec --opus`: its figures, and what it refuses."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import published
import pytest
import recordings
from signals import noise, sine

from audiogen_jax.audio import distances
from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core.errors import InputError
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.evaluate import opus as opus_evaluation
from audiogen_jax.evaluate import reconstruction
from audiogen_jax.evaluate.clips import Clip
from audiogen_jax.evaluate.opus import Opus

RATE = 16_000


def has_opus():
  program = shutil.which("ffmpeg")
  if program is None:
    return False
  command = [program, "-v", "error", "-encoders"]
  return b"libopus" in subprocess.run(command, capture_output=True).stdout


needs_opus = pytest.mark.skipif(
  not has_opus(), reason="ffmpeg with libopus not installed"
)


def codec_of(**changes):
  config = dataclasses.replace(published.CODEC, **changes)
  return Encodec(config, published.random_tree(encodec.init, config))


def sound(seconds=2.0, channels=1):
  """A chord that swells: nothing in it repeats within 5 ms."""
  parts = [sine(hz, RATE, seconds, -20, channels) for hz in (333, 1117, 2531)]
  swell = np.linspace(0.2, 1, len(parts[0]), dtype=np.float32)[:, None]
  return sum(parts) * swell + noise(len(swell), channels, scale=0.01)


@needs_opus
@pytest.mark.parametrize("channels", [1, 2])
def test_more_bits_lose_less(channels):
  real, lost, sizes = sound(channels=channels), [], []
  for rate in (6.0, 24.0, 96.0):
    fake, ogg = Opus(rate).code(real, RATE)
    assert fake.shape == real.shape and fake.dtype == real.dtype
    lost.append(float(distances.mel_distance(real[None], fake[None], RATE)[0]))
    sizes.append(len(ogg))
  assert lost == sorted(lost, reverse=True) and sizes == sorted(sizes)
  # 21.9 dB and 23.7 dB; one sample late would be 8 dB.
  assert float(distances.si_snr(real[None], fake[None], RATE)[0]) > 18
  again, same = Opus(rate).code(real, RATE)
  np.testing.assert_array_equal(again, fake)
  assert same == ogg


@pytest.mark.parametrize("late", [-80, -3, 0, 1, 80])
def test_delays_up_to_5_ms_are_taken_back(late):
  real = noise(RATE, 1)
  fake = np.zeros_like(real)
  fake[max(late, 0) : RATE + min(late, 0)] = real[
    max(-late, 0) : RATE - max(late, 0)
  ]
  moved = opus_evaluation._shifted(real, fake, 80)
  np.testing.assert_array_equal(moved[80:-80], real[80:-80])
  for n in (1, 5):
    moved = opus_evaluation._shifted(real[:n], real[:n], 80)
    np.testing.assert_array_equal(moved, real[:n])
  silence = np.zeros((50, 1), np.float32)
  moved = opus_evaluation._shifted(silence, real[:50], 80)
  np.testing.assert_array_equal(moved, real[:50])


@needs_opus
def test_figures_are_those_of_each_clip_alone(monkeypatch):
  monkeypatch.setattr(reconstruction, "PIECE_S", 1.0)
  # One sample, less than a packet, and two pieces.
  sounds = [sound()[:1], sound()[:200], sound(1.5)]
  clips = [Clip(f"clip {i}", audio) for i, audio in enumerate(sounds)]
  opus, calls = Opus(16.0), []
  report = opus_evaluation.evaluate(
    codec_of(), clips, opus, progress=lambda *call: calls.append(call)
  )
  assert calls[-1] == (3, 3) and sorted(calls) == calls
  assert [clip.clip for clip in report.clips] == ["clip 0", "clip 1", "clip 2"]
  half = len(sounds[2]) // 2
  pieces = [*sounds[:2], sounds[2][:half], sounds[2][half:]]
  coded = [opus.code(piece, RATE) for piece in pieces]
  want = [
    float(distances.mel_distance(real[None], fake[None], RATE)[0])
    for real, (fake, _) in zip(pieces, coded, strict=True)
  ]
  want[2:] = [np.mean(want[2:])]
  found = [clip.mel_distance for clip in report.clips]
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
  assert report.mean("mel_distance") == pytest.approx(np.mean(want), rel=1e-4)
  seconds = sum(map(len, sounds)) / RATE
  bits = 8 * sum(len(ogg) for _, ogg in coded)
  assert report.bits_per_second == pytest.approx(bits / seconds)
  assert 0 < report.bits_per_second_packets < report.bits_per_second


@needs_opus
def test_packets_are_counted_without_their_pages(tmp_path):
  _, ogg = Opus(32.0).code(sound(10.0), RATE)
  (tmp_path / "a.ogg").write_bytes(ogg)
  if shutil.which("ffprobe") is None:
    pytest.skip("ffprobe not installed")
  command = ["ffprobe", "-v", "error", "-show_entries", "packet=size"]
  run = subprocess.run(
    [*command, "-of", "csv=p=0", tmp_path / "a.ogg"],
    capture_output=True,
    check=True,
  )
  sizes = [int(line.strip(b",")) for line in run.stdout.split()]
  assert len(sizes) > 400 and opus_evaluation._in_packets(ogg) == sum(sizes)


@needs_opus
def test_a_dataset(audiogen, tiny, tmp_path):
  data = recordings.dataset(
    tmp_path / "sounds",
    [RATE, 2 * RATE],
    splits=("validation",),
    spec=SoundSpec(RATE),
    make=lambda i, n: np.int16(2**15 * sound(n / RATE)),
  )
  figures = tmp_path / "a.json"
  command = ["evaluate", "codec", tiny, data, "--json", figures]
  status, told, errors = audiogen(*command, "--opus", 6, "--opus", 24.5)
  assert status == 0 and not errors.strip(), errors
  found = json.loads(figures.read_text())["opus"]
  assert [one["kbit_per_s"] for one in found] == [6, 24.5]
  for one in found:
    assert f"Opus, {one['kbit_per_s']:g} kbit/s: " in told
    assert [clip["clip"] for clip in one["each"]] == ["0", "1"]
    for name in ("si_snr_db", "mel_distance", "log_spectral_distance_db"):
      values = [clip[name] for clip in one["each"]]
      assert one[name] == pytest.approx(np.mean(values))
      assert f"{one[name]:.3f}" in told
    used = one["bits_per_second_packets"]
    assert f"{used / 1000:.2f} kbit/s used" in told
  assert found[0]["mel_distance"] > found[1]["mel_distance"]
  assert found[0]["bits_per_second"] < found[1]["bits_per_second"]
  assert audiogen(*command)[0] == 0
  assert "opus" not in json.loads(figures.read_text())


def test_bad_input_is_one_line(refused, tiny, tmp_path, monkeypatch):
  command = ["evaluate", "codec", tiny, tmp_path / "no", "--opus"]
  for rate in (5.9, 511, float("nan")):
    assert "Opus takes 6 to 510 kbit/s" in refused(*command, rate)
  folder = tmp_path / "bin"
  folder.mkdir()
  monkeypatch.setenv("PATH", str(folder))
  assert "needs ffmpeg, and none is on PATH: install" in refused(*command, 6)
  program = folder / "ffmpeg"
  program.write_text("#!/bin/sh\necho ' A..X.. opus'\n")
  program.chmod(0o755)
  assert "needs an ffmpeg with libopus, and /" in refused(*command, 6)
  # A program that knows it and then fails.
  program.write_text(
    '#!/bin/sh\ncase "$*" in *encoders) echo libopus;;'
    " *) echo first >&2; echo no luck >&2; exit 1;; esac\n"
  )
  with pytest.raises(InputError, match="could not run Opus: no luck"):
    Opus(6.0).code(sound(0.1), RATE)
