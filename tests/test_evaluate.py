"""`audiogen evaluate codec`: its figures, its files, and what it refuses."""

import dataclasses
import json
import os
import sys
import time

import numpy as np
import published
import pytest
import recordings
import soundfile
from signals import noise, sine

from audiogen_jax.audio import distances
from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import codes
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.evaluate import reconstruction
from audiogen_jax.evaluate.clips import Clip, Clips
from audiogen_jax.evaluate.visqol import NoMark, Visqol

RATE = 16_000
LENGTHS = [1, 900, RATE, 9000, 9001]  # one sample, and less than a window


def make(number, length):
  """Noise of 16 bits, and silence for the third clip."""
  scale = 0 if number == 2 else 0.1
  return np.int16(2**15 * noise(length, 1, scale=scale, seed=number))


@pytest.fixture
def dataset(tmp_path):
  return recordings.dataset(
    tmp_path / "sounds",
    LENGTHS,
    splits=("validation",),
    spec=SoundSpec(RATE),
    make=make,
  )


@pytest.fixture
def sounds(tmp_path):
  """Three sounds at other rates, in folders, and a file that is none."""
  folder = tmp_path / "files"
  (folder / "b").mkdir(parents=True)
  soundfile.write(folder / "z.wav", noise(8000, 2), 8000)
  soundfile.write(folder / "b" / "a [1].flac", noise(RATE, 1), RATE)
  soundfile.write(folder / "b" / "c.ogg", noise(22050, 1), 22050)
  (folder / "read.txt").write_text("no sound")
  (folder / ".hidden.wav").write_text("no sound")
  return folder


@pytest.fixture(autouse=True)
def no_visqol(monkeypatch, tmp_path):
  monkeypatch.setenv("PATH", str(tmp_path))


def codec_of(**changes):
  config = dataclasses.replace(published.CODEC, **changes)
  return Encodec(config, published.random_tree(encodec.init, config))


def clips_of(*sounds):
  return [Clip(f"clip {i}", sound) for i, sound in enumerate(sounds)]


def test_a_dataset(audiogen, tiny, dataset, tmp_path):
  plot, figures = tmp_path / "a.png", tmp_path / "a.json"
  status, told, errors = audiogen(
    *("evaluate", "codec", tiny, dataset, "--plot", plot),
    *("--json", figures, "--save", tmp_path / "pairs"),
  )
  assert status == 0 and not errors.strip(), errors
  for words in ("SI-SNR", "mel distance", "log-spectral", "5 clips", "kbit/s"):
    assert words in told
  assert "ViSQOL: skipped" in told
  assert plot.read_bytes().startswith(b"\x89PNG")
  found = json.loads(figures.read_text())
  assert found["clips"] == 5 and found["visqol_mos_lqo"] is None
  assert found["seconds"] == pytest.approx(sum(LENGTHS) / RATE)
  assert [row["clip"] for row in found["each"]] == list("01234")
  for name in ("si_snr_db", "mel_distance", "log_spectral_distance_db"):
    values = [row[name] for row in found["each"]]
    assert found[name] == pytest.approx(np.mean(values), rel=1e-6)
    assert f"{found[name]:.3f}" in told and np.isfinite(values).all()
  books = found["codebooks"]
  hop = published_hop(tiny)
  assert books["frames"] == sum(-(-length // hop) for length in LENGTHS)
  assert len(books["usage"]) == len(books["entropy_bits"]) == 4
  frame_rate_hz = RATE / hop
  assert found["bits_per_second"] == pytest.approx(
    sum(books["entropy_bits"]) * frame_rate_hz, rel=1e-5
  )
  assert 0 < found["bits_per_second"] < found["bits_per_second_available"]
  assert found["encode_speed"] > 0 and found["decode_speed"] > 0
  pairs = sorted(os.listdir(tmp_path / "pairs"))
  assert len(pairs) == 10 and pairs[:2] == [
    "0-0-decoded.wav",
    "0-0-original.wav",
  ]
  original, _ = soundfile.read(tmp_path / "pairs" / "3-3-original.wav")
  np.testing.assert_allclose(original, make(3, 9000)[:, 0] / 2**15, atol=1e-9)
  assert len(soundfile.read(tmp_path / "pairs" / "3-3-decoded.wav")[0]) == 9000


def published_hop(folder):
  from audiogen_jax.convert.loading import load_codec

  return load_codec(folder).config.hop


def test_sound_files(audiogen, tiny, sounds, tmp_path):
  out = tmp_path / "a.json"
  command = ["evaluate", "codec", tiny, sounds, "--json", out]
  status, told, _ = audiogen(*command)
  assert status == 0 and "3 clips" in told
  found = json.loads(out.read_text())
  names = ["b/a [1].flac", "b/c.ogg", "z.wav"]
  assert [row["clip"] for row in found["each"]] == names
  assert [row["seconds"] for row in found["each"]] == [1, 1, 1]
  status, told, _ = audiogen(*command, "--clips", 2)
  assert status == 0 and "2 clips" in told
  assert len(json.loads(out.read_text())["each"]) == 2
  odd = sounds / "[red]z[" / "]"
  odd.mkdir(parents=True)
  (sounds / "z.wav").rename(odd / "z.wav")
  status, told, _ = audiogen("evaluate", "codec", tiny, odd / "z.wav")
  assert status == 0 and "1 clips" in told and "[red]z[/]" in told
  assert "the entropies come out too low" in told


def test_figures_are_those_of_each_clip_alone():
  codec = codec_of()
  lengths = np.array([50, 700, 701, 400])
  sounds = [noise(n, 1, seed=n) for n in lengths]
  real, fake = np.zeros((2, 4, 701, 1), np.float32)

  def keep(piece, decoded):
    real[piece.clip, : len(decoded)] = piece.audio
    fake[piece.clip, : len(decoded)] = decoded

  report = reconstruction.evaluate(codec, clips_of(*sounds), keep=keep)
  frames = 0
  for i, sound in enumerate(sounds):
    n = len(sound)
    np.testing.assert_array_equal(real[i, :n], sound)
    codes = codec.encode(sound[None])
    frames += codes.shape[-1]
    alone = codec.decode(codes)[0, :n]
    np.testing.assert_allclose(fake[i, :n], alone, atol=2e-6)  # 2e-7 measured
  assert report.frames == frames
  # SI-SNR sums 80,000 samples, nearly all of them padding that adds less than
  # the last digit of the sum: how much of it is lost depends on how many sums
  # run side by side.  Measured: 6e-3 dB with AVX2, 3e-4 with AVX-512; a single
  # sum, simulated: 0.017.  The others differ by 1e-6.
  for name, want, atol in (
    ("si_snr_db", distances.si_snr(real, fake, RATE, length=lengths), 0.04),
    (
      "mel_distance",
      distances.mel_distance(real, fake, RATE, length=lengths),
      1e-5,
    ),
    (
      "log_spectral_distance_db",
      distances.log_spectral_distance(real, fake, length=lengths),
      1e-5,
    ),
  ):
    np.testing.assert_allclose(report.values(name), want, rtol=0, atol=atol)


def test_long_clips_are_cut_evenly(monkeypatch):
  monkeypatch.setattr(reconstruction, "PIECE_S", 0.01)
  codec, sound = codec_of(), noise(401, 1)
  kept = []
  report = reconstruction.evaluate(
    codec, clips_of(sound, sound[:160]), keep=lambda *pair: kept.append(pair)
  )
  assert {(p.clip, p.start, len(p.audio)) for p, _ in kept} == {
    (0, 0, 134),
    (0, 134, 134),
    (0, 268, 133),
    (1, 0, 160),
  }
  parts = [sound[:134], sound[134:268], sound[268:]]
  alone = [reconstruction.evaluate(codec, clips_of(part)) for part in parts]
  values = [one.clips[0].mel_distance for one in alone]
  want = np.average(values, weights=[134, 134, 133])
  assert report.clips[0].mel_distance == pytest.approx(want, rel=1e-4)
  assert report.seconds == pytest.approx(561 / RATE)


def test_saved_pieces_are_joined(monkeypatch, audiogen, tiny, tmp_path):
  monkeypatch.setattr(reconstruction, "PIECE_S", 0.25)
  soundfile.write(tmp_path / "a.wav", noise(RATE, 1), RATE)
  status, _, _ = audiogen(
    *("evaluate", "codec", tiny, tmp_path / "a.wav"),
    *("--save", tmp_path / "pairs"),
  )
  assert status == 0
  original, _ = soundfile.read(tmp_path / "pairs" / "0-a-original.wav")
  np.testing.assert_array_equal(original, soundfile.read(tmp_path / "a.wav")[0])
  decoded, _ = soundfile.read(tmp_path / "pairs" / "0-a-decoded.wav")
  assert len(decoded) == RATE and decoded[-2000:].std() > 0


@pytest.mark.parametrize("chunk_s", [None, 0.01])
def test_codecs_that_scale_chunks(chunk_s):
  codec = codec_of(renormalise=True, chunk_s=chunk_s, overlap=0.05)
  sounds = [noise(n, 1, seed=n) for n in (400, 150)]
  report = reconstruction.evaluate(codec, clips_of(*sounds))
  frames = 0
  for sound, found in zip(sounds, report.clips, strict=True):
    codes, scales = codec.encode_chunks(sound[None])
    fake = codec.decode_chunks(codes, scales, len(sound))
    want = distances.mel_distance(sound[None], fake, RATE)[0]
    assert found.mel_distance == pytest.approx(float(want), rel=1e-4)
    chunk, starts = codec.chunks(len(sound))
    frames += sum(-(-min(chunk, len(sound) - s) // 6) for s in starts)
  assert report.frames == frames


def test_compilation_is_not_counted(monkeypatch):
  codec = codec_of()
  encode, slow = codec.encode, [0.5]  # the first call takes this long

  def slowly(*args, **kwargs):
    time.sleep(slow.pop() if slow else 0)
    return encode(*args, **kwargs)

  monkeypatch.setattr(codec, "encode", slowly)
  report = reconstruction.evaluate(codec, clips_of(noise(3200, 1)))
  assert not slow and report.encode_speed > 0.2 / 0.5


def test_progress_reaches_the_end():
  calls = []
  sounds = [noise(n, 1) for n in (700, 50, 600, 40)]
  reconstruction.evaluate(
    codec_of(), clips_of(*sounds), progress=lambda *c: calls.append(c)
  )
  assert calls[-1] == (4, 4) and sorted(calls) == calls


VISQOL = """#!{python}
import sys, wave
assert sys.argv[1::2] == ["--reference_file", "--degraded_file"], sys.argv
frames = []
for path in sys.argv[2::2]:
  with wave.open(path) as file:
    told = file.getframerate(), file.getnchannels(), file.getsampwidth()
    assert told == (48000, 1, 2), told
    frames.append(file.getnframes())
assert frames[0] == frames[1]
open("model/seen")
if frames[0] < 4800:
  sys.stderr.write("first\\n[x.cc : 1] Error executing ViSQOL: too short.\\n")
else:
  print("ViSQOL conformance version: 310")
  print("Audio mode")
  print("MOS-LQO:\\t\\t4.5")
"""


@pytest.fixture
def visqol(tmp_path):
  """A program that looks like ViSQOL's, and finds its model as that does."""
  program = tmp_path / "visqol-main" / "bazel-bin" / "visqol"
  program.parent.mkdir(parents=True)
  program.write_text(VISQOL.format(python=sys.executable))
  program.chmod(0o755)
  (tmp_path / "visqol-main" / "model").mkdir()
  (tmp_path / "visqol-main" / "model" / "seen").touch()
  return program


def test_visqol(audiogen, tiny, dataset, visqol, monkeypatch, tmp_path):
  out = tmp_path / "a.json"
  command = ["evaluate", "codec", tiny, dataset, "--json", out]
  status, told, _ = audiogen(*command, "--visqol", visqol)
  assert status == 0 and "ViSQOL, MOS-LQO" in told and "4.500" in told
  assert "no mark for 2 pieces, such as: [x.cc : 1] Error exec" in told
  found = json.loads(out.read_text())
  marks = [row["visqol_mos_lqo"] for row in found["each"]]
  assert marks == [None, None, 4.5, 4.5, 4.5] and found["visqol_unmarked"] == 2
  assert found["visqol_mos_lqo"] == 4.5
  monkeypatch.setenv("PATH", str(visqol.parent))
  assert "4.500" in audiogen(*command)[1]


def test_visqol_that_breaks_gives_no_mark(tmp_path):
  program = tmp_path / "visqol"
  program.write_text("#!/nowhere/sh\n")
  program.chmod(0o755)
  pair = noise(RATE, 2), noise(RATE, 2)
  with pytest.raises(NoMark):
    Visqol(program).mark(*pair, RATE)
  program.write_text("#!/bin/sh\nexit 3\n")
  with pytest.raises(NoMark, match="exit status 3"):
    Visqol(program).mark(*pair, RATE)


def test_bad_input_is_one_line(
  refused, tiny, dataset, sounds, tmp_path, monkeypatch
):
  other = recordings.dataset(tmp_path / "other", [5], splits=("validation",))
  (tmp_path / "empty").mkdir()
  (tmp_path / "bad").mkdir()
  (tmp_path / "bad" / "x.wav").write_text("no sound")
  (tmp_path / "file").touch()
  before = {path for path in tmp_path.rglob("*")}
  new = tmp_path / "new"
  for command, words in (
    ([tiny, dataset, "--split", "test"], "has no split test, but validation"),
    ([tiny, dataset, "--clips", 0], "clips 0 must be 1 or more"),
    ([tiny, other], "build it with --rate 16000 --channels 1"),
    ([tiny, sounds, "--split", "train"], "which have no split train"),
    ([tiny, tmp_path / "no"], "there is nothing at"),
    ([tiny, tmp_path / "empty"], "holds neither a dataset nor .wav"),
    ([tiny, tmp_path / "bad", "--save", new], "cannot read"),
    ([tiny, tmp_path / "bad", "--plot", tmp_path / "a.png"], "cannot read"),
    ([tmp_path / "empty", dataset], "holds no model"),
    ([tiny, dataset, "--plot", "a.jpg"], "must end in .png"),
    ([tiny, dataset, "--plot", new / "a.png"], "no folder"),
    ([tiny, dataset, "--json", new / "a.json"], "no folder"),
    ([tiny, dataset, "--json", tmp_path], "it is a folder"),
    ([tiny, dataset, "--save", tmp_path / "file"], "cannot write into"),
    ([tiny, dataset, "--visqol", new], "is not a program that can be run"),
    ([tiny, dataset, "--visqol", tmp_path], "is not a program"),
  ):
    assert words in refused("evaluate", "codec", *command)
  assert {path for path in tmp_path.rglob("*")} == before


def test_datasets_of_codes_and_without_clips(tmp_path):
  given = {"rate_hz": RATE, "channels": 1}
  data = recordings.dataset(tmp_path / "sounds", [2], spec=SoundSpec(RATE))
  with pytest.raises(InputError, match="no split validation, but train"):
    Clips.open(data, **given)
  info = data / "metadata.json"
  info.write_text(json.dumps({"frame_rate_hz": 50}))
  with pytest.raises(InputError, match="says no channels in metadata.json"):
    Clips.open(data, **given)
  info.write_text(json.dumps({"rate_hz": RATE, "channels": 1}))
  codes.tokenize(data, codec_of(), tmp_path / "codes")
  with pytest.raises(InputError, match="holds codes, not sounds"):
    Clips.open(tmp_path / "codes", **given)
  with pytest.raises(InputError, match="no clip to evaluate on"):
    reconstruction.evaluate(codec_of(), [])


def test_damaged_weights_are_told():
  codec = codec_of()
  codec.variables["codebooks"]["embed"][:] = np.nan
  with pytest.raises(InputError, match="turns clip 0 into NaN"):
    reconstruction.evaluate(codec, clips_of(sine(440, RATE, 0.1)))
