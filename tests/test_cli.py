"""`audiogen …` as a user runs it: what it writes, and how it says no."""

import json
import pickle
import shutil
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from etils import epath

from audiogen_jax.convert import export
from audiogen_jax.core import checkpoint

PROMPTS = [
  "Constant rattling noise and sharp vibrations",
  "A rocket flies by followed by a loud explosion",
  "A dog barks",
]


@pytest.fixture
def sound(tmp_path):
  """One second, stereo, at another rate than the model's."""
  path = tmp_path / "sound.wav"
  noise = np.random.default_rng(0).normal(0, 0.1, (22050, 2))
  soundfile.write(path, noise, 22050)
  return path


def test_generate(audiogen, tiny, tmp_path):
  lines = tmp_path / "prompts.txt"
  lines.write_text("\n".join(PROMPTS[1:]) + "\n\n")
  status, output, errors = audiogen(
    *("generate", PROMPTS[0], "--prompts", lines, "--model", tiny),
    *("-o", tmp_path / "out", "--duration", "1", "--spectrogram"),
  )
  assert status == 0, errors
  paths = sorted((tmp_path / "out").glob("*.wav"))
  assert sorted(output.split()) == [str(p) for p in paths] and len(paths) == 3
  for path in paths:
    audio, rate = soundfile.read(path)
    assert rate == 16000 and audio.shape == (16000,) and audio.std() > 1e-3
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_options_reach_the_sampler(audiogen, tiny, tmp_path):
  def sample(name, *options):
    path = tmp_path / f"{name}.wav"
    common = ("--model", tiny, "--duration", "0.6", "-o", path)
    status, _, errors = audiogen("generate", "rain", *common, *options)
    assert status == 0, errors
    return soundfile.read(path)[0]

  plain = sample("a")
  np.testing.assert_array_equal(plain, sample("b"))
  for name, options in {
    "seed": ("--seed", "1"),
    "guidance": ("--guidance", "1"),
    "temperature": ("--temperature", "0"),
    "top_k": ("--top-k", "2"),
    "top_p": ("--top-p", "0.2"),
    "raw": ("--no-normalize",),
  }.items():
    assert not np.array_equal(plain, sample(name, *options)), name


def test_windows_move_by_the_stride(audiogen, refused, tiny, tmp_path):
  model = tmp_path / "model"
  assert audiogen("convert", tiny, model)[0] == 0
  config = json.loads((model / "config.json").read_text())
  (model / "config.json").write_text(json.dumps(config | {"window_s": 1.0}))

  def sample(stride):
    path = tmp_path / f"{stride}.wav"
    status, _, errors = audiogen(
      *("generate", "rain", "--model", model, "--duration", "1.5"),
      *("--stride", stride, "-o", path),
    )
    assert status == 0, errors
    return soundfile.read(path)[0]

  one, other = sample("0.2"), sample("0.8")
  assert not np.array_equal(one, other) and len(one) == len(other) == 24000
  path = tmp_path / "none.wav"
  options = "--model", model, "--duration", "2", "--stride", "1", "-o", path
  told = refused("generate", "rain", *options)
  assert "stride 1.0 s must be shorter than the window" in told
  assert not path.exists()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_continue_a_sound(audiogen, tiny, tmp_path, sound, suffix):
  path = tmp_path / f"longer.{suffix}"
  status, _, errors = audiogen(
    *("generate", "--continue-from", sound, "--model", tiny),
    *("--duration", "1.5", "-o", path),
  )
  assert status == 0, errors
  assert soundfile.info(path).frames == 24000


def test_encode_and_decode(audiogen, tiny, tmp_path, sound):
  codes, again = tmp_path / "codes", tmp_path / "again.flac"
  status, output, errors = audiogen(
    "encode", sound, "--model", tiny, "-o", codes
  )
  assert status == 0, errors
  # 4 codebooks of 96 entries, 50 frames of one second: 4 log2(96) 50 bits.
  assert "1.32 kbit/s" in output
  status, _, errors = audiogen(
    "decode", codes / "sound.npz", "--model", tiny, "-o", again
  )
  assert status == 0, errors
  assert soundfile.info(again).frames == 16000


@pytest.mark.parametrize("to", ["orbax", "audiocraft", "transformers"])
def test_convert_and_info(audiogen, tiny, tmp_path, to):
  target = tmp_path / to
  status, output, errors = audiogen("convert", tiny, target, "--to", to)
  assert status == 0, errors
  assert str(target) in output
  status, output, errors = audiogen("info", target)
  assert status == 0, errors
  assert "4 of 96" in output and "280,128 parameters" in output


def test_convert_to_another_type(audiogen, refused, tiny, tmp_path):
  """The same values, rounded; what is not a real number stays."""
  whole, half = tmp_path / "whole", tmp_path / "half"
  assert audiogen("convert", tiny, whole)[0] == 0
  assert audiogen("convert", tiny, half, "--dtype", "bfloat16")[0] == 0
  for room in ("codec", "lm"):
    one, other = (
      jax.tree.leaves(
        export._in_memory(checkpoint.Folder(epath.Path(folder / room)))
      )
      for folder in (whole, half)
    )
    for a, b in zip(one, other, strict=True):
      real = jnp.issubdtype(a.dtype, jnp.floating)
      assert b.dtype == (jnp.bfloat16 if real else a.dtype)
      np.testing.assert_array_equal(a.astype(b.dtype), b)
  said = refused("convert", tiny, tmp_path / "c", "--dtype", "int8")
  assert "'int8' is not one of float32, bfloat16, float16" in said


def test_version_and_help(audiogen):
  assert audiogen("--version")[:2] == (0, "0.1.0\n")
  for command in ("generate", "encode", "decode", "convert", "info"):
    status, output, _ = audiogen(command, "--help")
    assert status == 0 and "Usage" in output


class TestBadInput:
  @pytest.mark.parametrize(
    ("options", "words"),
    [
      ([], "no prompt"),
      ([""], "prompt 1 is empty"),
      (["rain", "  "], "prompt 2 is empty"),
      (["rain " * 2000], "at most 512 are allowed"),
      (["rain", "--duration", "0"], "duration 0.0 s"),
      (["rain", "--duration", "-3"], "duration -3.0 s"),
      (["rain", "--duration", "nan"], "duration nan s"),
      (["rain", "--top-k", "97"], "top-k 97 is above the codebook size 96"),
      (["rain", "--top-k", "-1"], "top-k -1"),
      (["rain", "--top-p", "2"], "top-p 2.0"),
      (["rain", "--temperature", "-1"], "temperature -1.0"),
      (["rain", "--seed", "-1"], "seeds -1"),
      (["rain", "--dtype", "float12"], "'float12' is not one of"),
      (["rain", "-o", "sound.mp3"], "sound.mp3"),
      (["rain", "thunder", "-o", "one.wav"], "name a folder"),
      (["rain", "--prompts", "nowhere.txt"], "nowhere.txt is not a file"),
      (["rain", "--continue-from", "nowhere.wav"], "nowhere.wav"),
      (["rain", "--text-encoder", "nowhere/at/all"], "nowhere/at/all"),
    ],
  )
  def test_generate(self, refused, tiny, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    error = refused("generate", *options, "--model", tiny)
    assert words in error
    assert not list(tmp_path.rglob("*.*"))

  def test_duration_shorter_than_the_sound(self, refused, tiny, sound):
    error = refused(
      *("generate", "rain", "--model", tiny, "--duration", "0.5"),
      *("--continue-from", sound, "-o", sound.parent / "out.wav"),
    )
    assert "duration 0.5 s is not longer than the sound to continue" in error
    assert not (sound.parent / "out.wav").exists()

  def test_output_that_cannot_be_written(self, refused, tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    error = refused(
      "generate", "rain", "--model", tiny, "-o", tmp_path / "file" / "deeper"
    )
    assert "cannot write into" in error

  @pytest.mark.parametrize("kind", ["empty", "corrupt", "nan"])
  def test_sounds(self, refused, tiny, tmp_path, kind):
    path = tmp_path / f"{kind}.wav"
    if kind == "empty":
      soundfile.write(path, np.zeros((0, 1)), 16000)
    elif kind == "corrupt":
      path.write_bytes(b"RIFF and then nothing of the sort")
    else:
      values = np.full((1600, 1), np.nan, np.float32)
      soundfile.write(path, values, 16000, subtype="FLOAT")
    for words in (
      ("encode", path),
      ("generate", "rain", "--continue-from", path),
    ):
      error = refused(*words, "--model", tiny, "-o", tmp_path / "out")
      assert path.name in error
    assert not list((tmp_path / "out").iterdir())

  def test_codes(self, refused, tiny, tmp_path):
    path = tmp_path / "codes.npz"
    for make in (
      lambda: path.write_bytes(b"not a zip"),
      lambda: np.savez(path, other=np.zeros(3)),
      lambda: np.savez(path, codes=np.array([object()]), length=3),
    ):
      make()
      error = refused("decode", path, "--model", tiny, "-o", tmp_path)
      assert "holds no codes" in error
    assert "does not exist" in refused("decode", "no.npz", "--model", tiny)

  @pytest.mark.parametrize(
    ("spoil", "words"),
    [
      (lambda f: shutil.rmtree(f), "does not exist"),
      (lambda f: (f / "state_dict.bin").unlink(), "without a language model"),
      (lambda f: [p.unlink() for p in f.glob("*.bin")], "holds no model"),
      (lambda f: _cut(f / "state_dict.bin"), "cut short"),
      (lambda f: _cut(f / "compression_state_dict.bin"), "cut short"),
      (lambda f: _cut(f / "t5/model.safetensors"), "truncated or damaged"),
      (lambda f: (f / "t5/config.json").write_text("{"), "is not JSON"),
      (lambda f: (f / "t5/tokenizer.json").unlink(), "no tokenizer"),
      (lambda f: _evil(f / "state_dict.bin"), "asks for code"),
    ],
  )
  def test_checkpoints(self, refused, tiny, tmp_path, spoil, words):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    spoil(folder)
    error = refused(
      "generate", "rain", "--model", folder, "-o", tmp_path / "out"
    )
    assert words in error and "model" in error
    assert not list((tmp_path / "out").iterdir())

  def test_wrong_kind_of_folder(self, refused, tiny):
    assert "holds a t5, which makes no sounds" in refused("info", tiny / "t5")

  def test_a_hub_id_without_network(self, refused):
    error = refused("info", "facebook/audiogen-medium")
    assert "--local-dir" in error and "facebook/audiogen-medium" in error

  def test_convert_never_overwrites(self, refused, tiny, tmp_path):
    assert "exists already" in refused("convert", tiny, tmp_path)
    assert "not one of" in refused(
      "convert", tiny, tmp_path / "new", "--to", "onnx"
    )
    assert not (tmp_path / "new").exists()


def _cut(path):
  path.write_bytes(path.read_bytes()[:5000])


def _evil(path):
  """A checkpoint whose pickle would run a command."""

  class Evil:
    def __reduce__(self):
      import os

      return os.system, ("touch pwned",)

  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", pickle.dumps(Evil(), protocol=2))
    file.writestr("archive/version", "3\n")


def test_the_flags_of_training_are_not_ours():
  """absl's flags are one set a process: who imports us keeps all names."""
  code = (
    "import audiogen_jax.cli\nfrom absl import flags\n"
    "print({'config', 'workdir', 'print'} & set(flags.FLAGS))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
  )
  assert done.stdout == "set()\n", done.stderr
