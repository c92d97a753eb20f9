"""The tiny models on virtual pods: losses, kills and sounds as on one device.

Every process compiles for itself, which takes two cores minutes: `pytest -m
pod`.
"""

import pathlib
import shutil

import numpy as np
import published
import pytest
import recordings
import test_make_an_audio_training as training
import tiny_make_an_audio
from signals import noise
from test_pod import figures, underway
from virtual_pod import Pod

import audiogen_jax as ag
from audiogen_jax.convert import make_an_audio_parts, opening
from audiogen_jax.data.spec import SoundSpec

ROOT = pathlib.Path(__file__).parents[1]
ALL = {
  "data.batch": 16,
  "data.eval_batch": 16,
  "loop.steps": 5,
  "loop.log_every": 1,
  "loop.eval_every": 5,
  "loop.save_every": 2,
  "loop.samples": 1,
}
LM = ALL | {
  "lm.size": 10,
  "lm.transformer.width": 32,
  "lm.transformer.layers": 2,
  "lm.transformer.ff": 64,
  "lm.text_width": 32,
  "encodec.rvq.size": 10,
  "text.encoder.width": 32,
  "text.encoder.layers": 1,
  "text.encoder.ff": 64,
  "text.length": 12,
  "window_s": 0.05,
  "optim.warmup": 2,
}
CODEC = ALL | {
  "encodec.seanet.filters": 2,
  "encodec.seanet.width": 8,
  "encodec.rvq.width": 8,
  "encodec.rvq.size": 16,
  "adversary.filters": 2,
  "adversary.n_ffts": "(128,)",
  "data.duration_s": 0.1,
  "data.eval_duration_s": 0.1,
  "init_batches": 1,
}
# Parts of a Make-An-Audio.
PARTS = {kind: settings | ALL for kind, settings in training.KINDS.items()}
MESHES = [
  {"mesh.data": 2, "mesh.fsdp": 4, "mesh.tensor": 2},
  {"mesh.data": 1, "mesh.fsdp": 16},
  {"mesh.data": 4, "mesh.fsdp": 4},
]
ONE = {"mesh.data": 1, "mesh.fsdp": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A codec and sounds."""
  folder = tmp_path_factory.mktemp("made")
  opening.write_orbax(folder / "codec", published.parts_of(lm=None))
  make_an_audio_parts.write_orbax(
    folder / "model", tiny_make_an_audio.parts(), tiny_make_an_audio.words()
  )
  recordings.dataset(
    folder / "data",
    [3200] * 24,
    splits=("train", "validation"),
    spec=SoundSpec(16_000),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )
  return folder


@pytest.fixture(scope="module")
def words(made):
  """The command line of a run."""

  def of(kind, workdir, **changes):
    config, settings = "lm_300m", LM | {"codec": made / "codec"}
    if kind == "codec":
      config, settings = "codec_16khz", CODEC
    if kind in PARTS:
      config, settings = f"maa_{kind}", PARTS[kind]
    if kind == "diffusion":
      settings = settings | {"model": made / "model"}
    settings = settings | {"data.folders": made / "data"} | changes
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    files = [f"--config=configs/{config}.py:tiny", f"--workdir={workdir}"]
    return ["audiogen_jax.train", *files, *flags]

  return of


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
  """The work folder of an uninterrupted run on one device, by kind."""
  known = {}

  def of(kind):
    if kind not in known:
      folder = tmp_path_factory.mktemp(kind)
      pod = Pod(count=1, devices=1)
      pod.start(*words(kind, folder, **ONE), only=[0]).well(500)
      known[kind] = folder
    return known[kind]

  return of


# What is asked of one step and of an evaluation, where it is not the loss.
_LOSSES = {
  "codec": ("loss", "mel_distance"),
  "vocoder": ("loss", "mel_distance"),
  "autoencoder": ("mel_l1", "mel_l1"),
}


def alike(one, other, kind):
  """Losses; measured with the bounds."""
  assert one.keys() == other.keys()
  train, evaluation = _LOSSES.get(kind, ("loss", "loss"))
  losses = {f"train/{train}", f"eval/{evaluation}"}
  for step, values in one.items():
    for name in values.keys() & losses:
      assert other[step][name] == pytest.approx(values[name], rel=1e-5), step


@pytest.mark.pod
@pytest.mark.parametrize(
  "mesh", MESHES, ids=lambda mesh: " ".join(map(str, mesh.values()))
)
@pytest.mark.parametrize("kind", ["lm", "codec", *PARTS])
def test_sixteen_chips_are_one(words, whole, tmp_path, kind, mesh):
  """v5e:4x4: four hosts, whose rows are no stretches of the batch."""
  Pod("v5e:4x4").start(*words(kind, tmp_path, **mesh)).well(900)
  alike(figures(whole(kind)), figures(tmp_path), kind)
  assert (tmp_path / "export" / "config.json").exists()


@pytest.mark.pod
@pytest.mark.parametrize("count", [2, 1])
def test_killed_and_gone_on_with_fewer(words, whole, tmp_path, count):
  """One of four processes is killed; two of them, or one, go on."""
  mesh = {"mesh.data": 4, "mesh.fsdp": 4}
  pod = Pod("v5e:4x4").start(
    *words("lm", tmp_path, **mesh, **{"loop.steps": 99})
  )
  underway(pod, tmp_path, step=3, patience_s=900)
  pod.processes[2].kill()
  found = pod.ended(60)
  for index in (0, 1, 3):
    assert any("process 2 (" in line for line in found[index].lines)
  for step in (tmp_path / "checkpoints").iterdir():
    if step.name.isdigit() and int(step.name) > 4:
      shutil.rmtree(step)
  assert any((tmp_path / "checkpoints").glob("[0-9]*"))
  fewer = Pod(count=count, devices=4 // count)
  mesh = {"mesh.data": 2, "mesh.fsdp": 2}
  said = fewer.start(*words("lm", tmp_path, **mesh)).well(900)
  assert "going on from step" in said[0].errors
  alike(figures(whole("lm")), figures(tmp_path), "lm")


@pytest.mark.pod
def test_adapters_are_trained_by_two_hosts(words, whole, tmp_path):
  """They start from an export, and leave what one device leaves."""
  base = whole("lm") / "export"
  changes = {"init_from": base, "codec": "", "lora.rank": 2}
  one, two = tmp_path / "one", tmp_path / "two"
  alone = Pod(count=1, devices=1)
  alone.start(*words("lm", one, **changes, **ONE), only=[0]).well(500)
  mesh = {"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2}
  Pod("v5e:2x4").start(*words("lm", two, **changes, **mesh)).well(900)
  alike(figures(one), figures(two), "lm")
  codes = np.zeros((1, 4, 5), np.int32)
  logits = [
    ag.AudioGen.from_pretrained(base, adapters=given).logits(codes, ["rain"])[0]
    for given in ([], [one / "adapters"], [two / "adapters"])
  ]
  assert np.abs(logits[1] - logits[0]).max() > 1e-3
  np.testing.assert_allclose(logits[2], logits[1], atol=1e-4)
