"""Make-An-Audio on the command line and on the page, with random weights."""

import json

import numpy as np
import pytest
import tiny_make_an_audio as tiny
from PIL import Image

from audiogen_jax.audio import io
from audiogen_jax.cli import maker
from audiogen_jax.convert import make_an_audio_parts
from audiogen_jax.core.errors import InputError
from audiogen_jax.families import load

FEW = ["--steps", "3", "--duration", "0.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Three models, one that reads, one that looks, one that fills holes."""
  path = tmp_path_factory.mktemp("models")
  for name in ("UNET", "LOOKS", "HOLES"):
    parts = tiny.parts(getattr(tiny, name))
    words = tiny.words() if parts.text else None
    make_an_audio_parts.write_orbax(path / name, parts, words)
  return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
  path = tmp_path_factory.mktemp("sounds") / "tone.wav"
  tone = 0.2 * np.sin(np.arange(7000) / 7)
  io.write(path, tone[:, None].astype(np.float32), 16_000)
  return path


@pytest.fixture
def run(audiogen):
  """Runs what must work; what it says."""

  def works(*words):
    status, output, errors = audiogen(*words)
    assert status == 0, errors
    return " ".join((output + errors).split())

  return works


@pytest.fixture
def fails(audiogen, tmp_path):
  """Runs what must fail in a line that says so, and leaves nothing."""

  def refused(said, *words):
    out = tmp_path / "none"
    status, output, errors = audiogen("generate", *words, "-o", out)
    last = errors.strip().splitlines()[-1]
    assert status == 2 and not output and "Traceback" not in errors
    assert last.startswith("error: ") and said in last, errors
    assert not any(path.is_file() for path in [out, *out.rglob("*")])

  return refused


def test_prompts_become_sounds_and_a_manifest(run, folder, tmp_path):
  prompts = tmp_path / "prompts.txt"
  prompts.write_text("a dog barks\nrain falls\nthunder\n")
  out = tmp_path / "out"
  args = ["generate", "--prompts", prompts, "--model", folder / "UNET", *FEW]
  run(*args, "-o", out)
  lines = (out / "manifest.jsonl").read_text().splitlines()
  entries = [json.loads(line) for line in lines]
  assert {e["prompt"] for e in entries} == {
    "a dog barks",
    "rain falls",
    "thunder",
  }
  assert all(e["steps"] == 3 and e["solver"] == "ddim" for e in entries)
  assert all(len(io.read(out / e["file"])[0]) == 8000 for e in entries)
  assert "3 of 3 are there already" in run(*args, "-o", out)


def test_sounds_are_varied_and_filled(run, fails, folder, recording, tmp_path):
  model = ["--model", folder / "UNET", "--steps", "3"]
  varied, filled = tmp_path / "varied.wav", tmp_path / "filled.wav"
  run(
    "generate",
    "wind",
    "--vary",
    recording,
    "--amount",
    "0.7",
    *model,
    "-o",
    varied,
  )
  hole = ["--inpaint", recording, "--from", "0.1", "--to", "0.2"]
  run("generate", "wind", *hole, *model, "--no-normalize", "-o", filled)
  own, new = (io.read(path)[0] for path in (recording, filled))
  assert len(io.read(varied)[0]) == len(own) == len(new)
  np.testing.assert_allclose(new[:1200], own[:1200], atol=2e-4)
  assert np.abs(new[1700:3000] - own[1700:3000]).max() > 1e-3
  # What fills holes alone does so without a prompt.
  alone = ["--model", folder / "HOLES", "--steps", "3"]
  run("generate", *hole, *alone, "-o", tmp_path / "alone.wav")
  fails("fills holes alone", "wind", *alone)
  fails("reads no text", "wind", *hole, *alone)


def test_pictures_become_sounds(run, fails, folder, tmp_path):
  picture, out = tmp_path / "dog.png", tmp_path / "dog.wav"
  Image.fromarray(
    np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
  ).save(picture)
  model = ["--model", folder / "LOOKS", *FEW]
  run("generate", "--image", picture, *model, "-o", out)
  assert len(io.read(out)[0]) == 8000
  fails("leave the", "wind", "--image", picture, *model)
  fails("'rain': a picture", "--image", picture, "--negative", "rain", *model)
  fails("reads no text", "wind", *model)
  text = tmp_path / "text.png"
  text.write_text("no picture")
  fails("text.png", "--image", text, *model)
  reads = ["--model", folder / "UNET", *FEW]
  fails("does not look", "--image", picture, *reads)
  nano = ["--image", picture, "--model", "nano"]
  fails("has no --image; make-an-audio has", *nano)


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (["--steps", "0"], "steps 0 must lie in [1, 1000]"),
    (["--steps", "5000"], "steps 5000 must lie in [1, 1000]"),
    (
      ["--duration", "3600"],
      "duration 3600 s must be more than 0, and at most 60",
    ),
    (["--vary", "RECORDING", "--amount", "0"], "must lie in (0, 1]"),
    (["--vary", "RECORDING", "--amount", "1.01"], "must lie in (0, 1]"),
    (["--inpaint", "RECORDING"], "is all of the sound"),
    (["--video", "README.md"], "does not look"),
    (["--top-k", "3"], "has no --top-k; its options are --steps, --guidance"),
    (["--eta", "0.5", "--solver", "plms"], "plms adds no noise"),
    (["--dtype", "int8"], "'int8' is not one of float32, bfloat16"),
    (["--stride", "1"], "makes no windows"),
  ],
)
def test_bad_input_is_said_in_a_line(given, said, fails, folder, recording):
  given = [recording if each == "RECORDING" else each for each in given]
  fails(said, "wind", "--model", folder / "UNET", *given)


def test_models_are_described_and_converted(run, folder, tmp_path):
  said = run("info", folder / "UNET")
  assert "make-an-audio" in said and "U-Net" in said and "2.048 s" in said
  assert "alone: reads no text" in run("info", folder / "HOLES")
  assert "CLIP" in run("info", folder / "LOOKS")
  theirs = tmp_path / "theirs"
  assert str(theirs) in run(
    "convert", folder / "UNET", theirs, "--to", "make-an-audio"
  ).replace(" ", "")
  assert "maa1_full.ckpt" in run("info", theirs)


def test_visitors_of_the_page_vary_and_fill_sounds(folder, recording, tmp_path):
  model = load(folder / "UNET")
  asked = dict(
    prompt="wind",
    upload=recording,
    duration_s=5.0,
    seed=1,
    sampling=model.options(steps=3),
    progress=lambda *_: None,
    note=lambda _: None,
  )
  for given in (dict(amount=0.5), dict(from_s=0.1, to_s=0.2)):
    made = maker.make(model, tmp_path, **asked, **given)
    assert len(io.read(made.sound)[0]) == 7000 and made.picture.exists()
  with pytest.raises(InputError, match="cannot continue sounds: say how much"):
    maker.make(model, tmp_path, **asked)


def test_the_page_offers_what_a_model_can(folder, tmp_path):
  page = pytest.importorskip("audiogen_jax.cli.page")
  labels = {}
  for name in ("UNET", "HOLES"):
    model = load(folder / name)
    sampling = type(model).describe(folder / name).sampling
    blocks = page.build(model, sampling, name, tmp_path, lambda: False)
    parts = blocks.get_config_file()["components"]
    labels[name] = {part["props"].get("label") for part in parts}
  wanted = {"Sound to edit", "Fill from", "Vary", "Guidance", "Steps"}
  assert wanted <= labels["UNET"]
  assert "Guidance" not in labels["HOLES"]
