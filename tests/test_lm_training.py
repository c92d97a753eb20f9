"""Training a language model by its command, as users do; a very small one."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import published
import pytest
import recordings
from signals import noise
from virtual_pod import Pod, keeping

import audiogen_jax
from audiogen_jax.audiogen import AudioGen
from audiogen_jax.convert import opening
from audiogen_jax.core import checkpoint
from audiogen_jax.data.spec import SoundSpec

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
  "lm.size": 10,
  "lm.transformer.width": 16,
  "lm.transformer.layers": 2,
  "lm.transformer.ff": 32,
  "lm.text_width": 8,
  "encodec.rvq.size": 10,
  "text.encoder.width": 8,
  "text.encoder.layers": 1,
  "text.encoder.ff": 16,
  "text.length": 12,
  "window_s": 0.05,
  "data.batch": 8,
  "data.eval_batch": 8,
  "optim.warmup": 2,
  "loop.steps": 6,
  "loop.log_every": 1,
  "loop.eval_every": 6,
  "loop.save_every": 3,
  "loop.samples": 1,
  "mesh.fsdp": 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A codec, a whole model, and sounds."""
  folder = tmp_path_factory.mktemp("made")
  opening.write_orbax(folder / "codec", published.parts_of(lm=None))
  recordings.dataset(
    folder / "data",
    [1600] * 24,
    splits=("train", "validation"),
    spec=SoundSpec(16_000),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )
  return folder


@pytest.fixture(scope="module")
def start(made, tmp_path_factory):
  """Starts a run; returns the process."""
  cache = tmp_path_factory.mktemp("cache")

  def words(workdir, config="lm_300m", **changes):
    settings = {"codec": made / "codec", "data.folders": made / "data"}
    settings |= SMALL | changes
    flags = [f"--config.{k}={v}" for k, v in settings.items()]
    return [
      f"--config=configs/{config}.py:tiny",
      f"--workdir={workdir}",
      *flags,
    ]

  def run(workdir, *, env=(), **changes):
    return subprocess.Popen(
      [sys.executable, "-m", "audiogen_jax.train", *words(workdir, **changes)],
      cwd=ROOT,
      env=os.environ | keeping(cache) | dict(env),
      stderr=subprocess.PIPE,
      text=True,
    )

  run.words = words
  return run


def finished(*processes):
  """What they said, once all have ended well."""
  said = [process.communicate(timeout=300)[1] for process in processes]
  for process, errors in zip(processes, said, strict=True):
    assert process.returncode == 0, errors
  return said


def figures(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [
    {k: v for k, v in json.loads(x).items() if k != "time" and "speed" not in k}
    for x in lines
  ]


def alike(one, other, rel=1e-5):
  for a, b in zip(one, other, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      assert b[name] == pytest.approx(a[name], rel=rel, abs=1e-6), name


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  finished(start(folder))
  return folder


@pytest.mark.slow
def test_it_leaves_a_model_that_speaks(whole):
  model = AudioGen.from_pretrained(whole / "export")
  audio = model.generate(["a dog"], duration_s=0.05)
  assert audio.shape == (1, 798, 1) and np.isfinite(audio).all()
  assert model.window_s == 0.05
  names = set().union(*figures(whole))
  assert {"train/ce_3", "train/lr", "eval/unigram_0", "eval/loss"} <= names


@pytest.mark.slow
def test_a_masked_model_by_the_same_command(start, tmp_path):
  """It goes on after a stop, and leaves what `ag.load` opens."""
  finished(start(tmp_path / "whole", config="magnet_300m"))
  finished(start(tmp_path / "run", config="magnet_300m", **{"loop.steps": 3}))
  (said,) = finished(start(tmp_path / "run", config="magnet_300m"))
  assert "going on from step 3" in said
  ours, theirs = (
    [x for x in figures(tmp_path / name) if "train/loss" in x]
    for name in ("run", "whole")
  )
  assert ours == theirs
  model = audiogen_jax.load(tmp_path / "run" / "export")
  assert isinstance(model, audiogen_jax.MAGNeT)
  audio = model.generate(["a dog"], duration_s=0.05)
  assert audio.shape == (1, 798, 1) and np.isfinite(audio).all()


@pytest.mark.slow
def test_another_mesh_goes_on(start, whole, tmp_path):
  """Three steps on one device, three on eight."""
  finished(start(tmp_path, **{"loop.steps": 3, "loop.eval_every": 6}))
  mesh = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
  (said,) = finished(start(tmp_path, **mesh))
  assert "going on from step 3" in said
  alike(
    [x for x in figures(whole) if "train/loss" in x],
    [x for x in figures(tmp_path) if "train/loss" in x],
  )


@pytest.mark.slow
def test_codes_in_place_of_sounds(start, made, audiogen, tmp_path):
  """Cached codes and codes made in the step train alike; kinds are told."""
  status, _, errors = audiogen(
    *("data", "tokenize", made / "data"),
    *("--model", made / "codec", "--out", tmp_path / "codes"),
  )
  assert status == 0, errors
  changes = {"data.folders": tmp_path / "codes", "loop.samples": 0}
  refused = start(tmp_path / "a", **changes)
  said = refused.communicate(timeout=300)[1]
  assert refused.returncode == 2 and "--config.cached_codes=True" in said
  finished(start(tmp_path / "a", **changes, cached_codes=True))
  assert (tmp_path / "a" / "export" / "codec").exists()


@pytest.mark.slow
def test_adapters(start, whole, tmp_path):
  """Fine-tuning a model that training left: merged, and alone."""
  base = whole / "export"
  changes = {"init_from": base, "codec": "", "lora.rank": 2}
  changes |= {"optim.schedule": "constant", "optim.lr": 0.05}
  (said,) = finished(start(tmp_path, **changes))
  adapters = checkpoint.read_config(tmp_path / "adapters")
  assert adapters["rank"] == 2 and adapters["base"] == str(base)
  assert (tmp_path / "adapters" / "adapters").exists()
  first, last = figures(tmp_path)[0], figures(whole)[-1]
  # Adapters add nothing at first: it starts where the other stopped.
  assert first["eval/loss"] == pytest.approx(last["eval/loss"], rel=1e-5)
  one, other = (
    AudioGen.from_pretrained(f).lm.params for f in (base, tmp_path / "export")
  )
  same = np.array_equal
  layer = "layer_1"
  assert same(one[layer]["up"]["kernel"], other[layer]["up"]["kernel"])
  attn = one[layer]["self_attn"], other[layer]["self_attn"]
  assert not same(*(a["qkv"]["kernel"] for a in attn))
  wrong = start(tmp_path / "b", **changes, **{"lm.transformer.ff": 48})
  said = wrong.communicate(timeout=300)[1]
  assert wrong.returncode == 2
  assert "lm.transformer.ff is 32 there and 48 here" in said


@pytest.mark.pod
def test_two_hosts(start, whole, tmp_path):
  """Two of a pod's, with four chips each and on loopback: as on one device."""
  words = start.words(tmp_path, **{"mesh.data": 2, "mesh.fsdp": 2})
  words += ["--config.mesh.tensor=2"]
  Pod("v5e:2x4").start("audiogen_jax.train", *words).well(500)
  alike(
    [x for x in figures(whole) if "train/loss" in x],
    [x for x in figures(tmp_path) if "train/loss" in x],
  )
  assert audiogen_jax.AudioGen.from_pretrained(tmp_path / "export")
