"""`audiogen demo` without its page: what it makes, and how it says no."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.cli import maker
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.sampling import Sampling

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tiny):
  return AudioGen.from_pretrained(tiny)


@pytest.fixture
def make(model, tmp_path):
  """Makes a sound of 0.6 s, but for what is said."""
  folder = tmp_path / "made"
  folder.mkdir()

  def call(prompt="", **changes):
    asked = {
      "upload": None,
      "duration_s": 0.6,
      "seed": 0,
      "sampling": Sampling(),
      "progress": lambda done, total: None,
      "note": lambda line: pytest.fail(line),
    }
    return maker.make(model, folder, prompt=prompt, **(asked | changes))

  call.folder = folder
  return call


@pytest.fixture
def noise(tmp_path):
  """Half a second, stereo, at another rate than the model's."""
  path = tmp_path / "noise.wav"
  values = np.random.default_rng(0).normal(0, 0.1, (11025, 2))
  soundfile.write(path, values, 22050)
  return path


@pytest.fixture
def generate(audiogen, tiny, tmp_path):
  """What `audiogen generate` makes of the same."""

  def call(*words):
    path = tmp_path / "expected.wav"
    common = ("--model", tiny, "-o", path)
    status, _, errors = audiogen("generate", *words, *common)
    assert status == 0, errors
    return soundfile.read(path)[0]

  return call


class TestMaker:
  def test_as_the_command_line_does(self, make, generate):
    steps = []
    made = make(
      " rain ",
      seed=3,
      sampling=Sampling(top_k=20, guidance=2.0),
      progress=lambda *counts: steps.append(counts),
    )
    audio, rate = soundfile.read(made.sound)
    assert rate == 16000 and audio.std() > 1e-3
    options = ("--top-k", 20, "--guidance", 2, "--seed", 3, "--duration", 0.6)
    np.testing.assert_array_equal(audio, generate("rain", *options))
    assert made.picture.read_bytes().startswith(b"\x89PNG")
    assert made.sound.name == "rain_seed3.wav"
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]

  def test_what_is_not_wanted(self, make, generate):
    made = make("rain", negative=" music ")
    audio, _ = soundfile.read(made.sound)
    words = ("rain", "--negative", "music", "--duration", 0.6)
    np.testing.assert_array_equal(audio, generate(*words))
    plain, _ = soundfile.read(make("rain").sound)
    assert np.any(plain != audio)
    with pytest.raises(InputError, match="guidance 1 reads no negative"):
      make("rain", negative="music", sampling=Sampling(guidance=1.0))

  def test_the_best_of_two(self, make):
    class Second:
      """Likes each sound better than the last."""

      def __init__(self):
        self.heard = []

      def check(self, texts):
        assert texts == ["rain"]

      def score(self, sounds, rate_hz, texts):
        self.heard.append((sounds.shape, rate_hz, texts))
        return np.array([len(self.heard)])

    scorer, steps = Second(), []
    made = make(
      "rain",
      seed=3,
      best_of=2,
      scorer=scorer,
      progress=lambda *counts: steps.append(counts),
    )
    assert scorer.heard == 2 * [((1, 9600, 1), 16000, ["rain"])]
    other = make("rain", seed=3 + 2**31)
    assert made.sound.read_bytes() == other.sound.read_bytes()
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1]

  @pytest.mark.parametrize("prompt", ["", "rain"])
  def test_an_upload_is_continued(self, make, generate, noise, prompt):
    made = make(prompt, upload=noise, duration_s=1.0)
    words = [prompt] if prompt else []
    np.testing.assert_array_equal(
      soundfile.read(made.sound)[0],
      generate(*words, "--continue-from", noise, "--duration", 1),
    )

  def test_the_end_of_an_hour_is_continued(
    self, make, generate, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(maker, "CONTINUED_S", 1.0)
    rate = end = 8000
    hour = np.zeros((3600 * rate, 1), np.int16)
    hour[-end:] = np.random.default_rng(0).normal(0, 3000, (end, 1))
    soundfile.write(tmp_path / "hour.wav", hour, rate)
    soundfile.write(tmp_path / "end.wav", hour[-end:], rate)
    read = soundfile.SoundFile.read

    def sparing(self, frames, **options):
      assert frames == end  # all of it would take the machine's memory
      return read(self, frames, **options)

    notes = []
    with monkeypatch.context() as patch:
      patch.setattr(soundfile.SoundFile, "read", sparing)
      made = make(
        upload=tmp_path / "hour.wav", duration_s=1.5, note=notes.append
      )
    assert notes == ["hour.wav lasts 3,600 s: its last 1 s are continued"]
    np.testing.assert_array_equal(
      soundfile.read(made.sound)[0],
      generate("--continue-from", tmp_path / "end.wav", "--duration", 1.5),
    )

  @pytest.mark.parametrize(
    "prompt",
    [
      "собака лает под дождём",
      "狗在雨中叫",
      "🐶🌧️",
      pytest.param("𐌰" * 70, id="Gothic"),
      "نباح",
    ],
  )
  def test_other_alphabets(self, make, prompt):
    made = make(prompt, seed=2**32 - 1)
    assert soundfile.info(made.sound).duration == pytest.approx(0.6)
    assert len(made.sound.name.encode()) < 255

  @pytest.mark.parametrize(
    ("prompt", "changes", "words"),
    [
      ("", {}, "the prompt is empty"),
      (" \n", {}, "the prompt is empty"),
      ("a" * 5000, {}, "at most 512 are allowed"),
      ("rain", {"seed": None}, "the seed is empty"),
      ("rain", {"seed": -1}, "seeds -1"),
      ("rain", {"duration_s": 0}, "duration 0"),
      ("rain", {"duration_s": 31}, "ask for 30 s at most"),
      ("rain", {"duration_s": float("nan")}, "duration nan s"),
      ("rain", {"sampling": Sampling(top_k=97)}, "codebook size 96"),
    ],
  )
  def test_what_it_refuses(self, make, prompt, changes, words):
    with pytest.raises(InputError, match=words):
      make(prompt, **changes)
    assert not list(make.folder.iterdir())

  @pytest.mark.parametrize(
    ("data", "words"),
    [
      (b"", "notes.wav as sound"),
      (b"not a sound", "notes.wav as sound .*convert it to WAV"),
      (b"RIFF and then nothing of the sort", "notes.wav as sound"),
    ],
  )
  def test_an_upload_that_is_not_sound(self, make, tmp_path, data, words):
    path = tmp_path / "notes.wav"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
      make("rain", upload=path)
    assert str(tmp_path) not in str(error.value)
    assert not list(make.folder.iterdir())

  def test_an_upload_as_long_as_the_result(self, make, noise):
    with pytest.raises(InputError, match="is not longer than the sound"):
      make(upload=noise, duration_s=0.5)


class TestCommand:
  @pytest.fixture
  def temporary(self, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir())

  def test_port_in_use(self, refused, tiny, temporary):
    with socket.create_server(("127.0.0.1", 0)) as taken:
      port = taken.getsockname()[1]
      error = refused("demo", "--model", tiny, "--port", port)
    assert f"port {port} of 127.0.0.1 is in use" in error
    assert f"--port {port + 1}" in error

  def test_host_that_is_not_here(self, refused, tiny, temporary):
    error = refused("demo", "--model", tiny, "--host", "203.0.113.1")
    assert "cannot listen at port 7860 of 203.0.113.1" in error

  def test_without_gradio(self, refused, tiny, temporary, monkeypatch):
    from audiogen_jax import cli

    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "audiogen_jax.cli.page", raising=False)
    monkeypatch.delattr(cli, "page", raising=False)
    error = refused("demo", "--model", tiny, "--port", 0)
    assert "pip install 'audiogen_jax[demo]'" in error

  def test_no_model(self, refused, temporary):
    pytest.importorskip("gradio")
    error = refused("demo", "--model", "nowhere/at/all", "--port", 0)
    assert "nowhere/at/all" in error

  def test_no_scorer(self, refused, tiny, temporary):
    pytest.importorskip("gradio")
    words = "demo", "--model", tiny, "--port", 0
    assert "'esc10' is no CLAP" in refused(*words, "--scorer", "esc10")

  def test_other_commands_do_not_import_gradio(self):
    code = "import sys, audiogen_jax.cli; print('gradio' in sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)
    assert out.strip() == b"False"
