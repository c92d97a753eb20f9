"""Judging on the way of a run: its figures, and what it keeps by them."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import published
import pytest
import sfx_weights
import speaking
import test_masked_task
import test_samples
import toy
from signals import noise
from speaking import Fading, Speaking
from test_lm_training import SMALL
from virtual_pod import Pod

from audiogen_jax.convert import judges, opening
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.embedding import protocols
from audiogen_jax.train import configuration, judging
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.programs import Programs

TESTS = pathlib.Path(__file__).parent
QUIET = {"eval_every": 0, "save_every": 100}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy.data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def ear(monkeypatch):
  monkeypatch.setattr(judges, "load", speaking.load)
  known = dict(protocols.PROTOCOLS) | {"plain": speaking.PLAIN}
  monkeypatch.setattr(protocols, "PROTOCOLS", known)


def train(folder, data, task=None, **options):
  options = {"judge_every": 5, "judge_clips": 20} | options
  return toy.train(folder, data, task or Speaking(), **options)


def judged(folder):
  """Figures by step."""
  lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
  return {
    x["step"]: {k: v for k, v in x.items() if k.startswith("judge/")}
    for x in lines
    if any(k.startswith("judge/") for k in x)
  }


def saved(folder):
  names = os.listdir(folder / "checkpoints")
  return sorted(int(name) for name in names if name.isdigit())


def test_figures_at_every_so_many_steps_and_at_the_end(
  ear, data, tmp_path, capsys
):
  train(tmp_path, data, judge_protocol="plain")
  found = judged(tmp_path)
  assert list(found) == [5, 10, 12]
  assert all(set(x) == {"judge/fad", "judge/clap"} for x in found.values())
  fads = [x["judge/fad"] for x in found.values()]
  assert 0 <= fads[2] < fads[1] < fads[0]  # it learns to be as loud
  said = capsys.readouterr().err
  assert "judged by 20 sounds, protocol plain: FAD, ear, CLAP, ear" in said
  assert f"judged at step 10: judge/fad {fads[1]:.4g}  judge/clap" in said


def test_resumed_is_uninterrupted(ear, data, tmp_path):
  """And without evaluations, and with other prompts it is something else."""
  train(tmp_path / "whole", data, **QUIET)
  train(tmp_path / "part", data, steps=5, **QUIET)
  train(tmp_path / "part", data, **QUIET)
  assert judged(tmp_path / "part") == judged(tmp_path / "whole")
  train(tmp_path / "other", data, judge_clips=19, **QUIET)
  assert judged(tmp_path / "other") != judged(tmp_path / "whole")


def test_mesh_and_batch_change_nothing(ear, data, tmp_path):
  """20 clips: on one device in parts of eight, on four at once."""
  run = toy.run_of(data, judge_every=5, judge_clips=20, **QUIET)
  for name, devices in (("one", 1), ("four", 4)):
    other = dataclasses.replace(run, mesh={"data": devices})
    toy.loop.train(other, Speaking(), str(tmp_path / name))
  one, four = judged(tmp_path / "one"), judged(tmp_path / "four")
  for step, figures in one.items():
    assert four[step] == pytest.approx(figures, rel=1e-3)


@pytest.mark.parametrize(
  ("best", "kept"),
  [
    ("judge/fad", [2, 19, 20]),
    ("judge/clap", [2, 19, 20]),
    ("", [16, 19, 20]),  # the task's own, of two evaluations
  ],
)
def test_the_best_is_kept_by_it(ear, data, tmp_path, best, kept):
  options = dict(best=best, judge_every=2, save_every=19, eval_every=16)
  options |= dict(steps=20, judge_protocol="plain")
  train(tmp_path, data, Fading(), **options)
  assert saved(tmp_path) == kept
  ranking = toy.run_of(data, **options).loop.ranking(Fading())
  with Checkpoints(tmp_path / "checkpoints", **ranking) as checkpoints:
    assert checkpoints.best() == kept[0]


def test_another_metric_may_keep_the_best_of_a_run_that_goes_on(
  ear, data, tmp_path
):
  """Checkpoints of before have none of its figures."""
  train(tmp_path, data, Fading(), judge_every=0, steps=8)
  options = dict(best="judge/fad", judge_every=2)
  train(tmp_path, data, Fading(), steps=20, **options)
  assert saved(tmp_path) == [10, 18, 20]


def test_what_cannot_be_judged(data, tmp_path, monkeypatch):
  run = tmp_path / "run"
  with pytest.raises(InputError, match="judge_every is 5, but Toy makes no"):
    train(run, data, toy.Toy())
  with pytest.raises(InputError, match="judge_every is 1, but CodecTask"):
    judging.check(1, CodecTask())
  for options, said in (
    ({"judge_protocol": "mine"}, "no protocol mine"),
    ({"judge_protocol": "stable-audio"}, "neither a Fréchet distance nor CLAP"),
    ({"judge_clips": 1}, "judge_clips 1 must be 2"),
    ({"judge_every": -1}, "judge_every -1 must not"),
    ({"best": "judge/clap"}, "no figure of the judge; there is judge/fad"),
    ({"best": "judge/fad", "judge_every": 0}, "loop.judge_every is 0"),
  ):
    with pytest.raises(InputError, match=said):
      train(run, data, **options)
  assert not run.exists()


def test_missing_weights_end_a_run_before_it_begins(
  data, tmp_path, monkeypatch
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  with pytest.raises(InputError, match="weights of vggish are missing: downl"):
    train(tmp_path / "run", data, judge_protocol="audiogen")
  assert saved(tmp_path / "run") == []


def test_clips_that_do_not_do(ear, data, tmp_path, monkeypatch):
  nameless = toy.dataset(
    tmp_path / "nameless", [200] * 16, splits=("train", "validation")
  )
  first = judging._first

  def blank(loader, count):
    return first(loader, count) | {"caption": ["a", " ", ""]}

  monkeypatch.setattr(judging, "_first", blank)
  with pytest.raises(InputError, match="2 of the first 3 clips"):
    train(tmp_path / "run", nameless, judge_protocol="plain")
  monkeypatch.setattr(judging, "_first", first)

  def short(self, sounds):
    raise InputError(f"{len(sounds[0])} samples are too short")

  monkeypatch.setattr(speaking.Ear, "embed", short)
  with pytest.raises(InputError, match="200 samples are too short"):
    train(tmp_path / "run", nameless)
  assert saved(tmp_path / "run") == []


def test_the_network_of_sound_effects(data, tmp_path, monkeypatch, capsys):
  """With tiny weights; more clips are asked for than there are."""
  path = tmp_path / "audiogen_jax" / "weights" / judges.WEIGHTS["sfx"].file
  sfx_weights.write(path)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  changed = dataclasses.replace(
    judges.WEIGHTS["sfx"], sha256=judges.find("sfx").sha256
  )
  monkeypatch.setattr(
    judges, "WEIGHTS", dict(judges.WEIGHTS) | {"sfx": changed}
  )
  train(tmp_path / "run", data, judge_clips=64, best="judge/fad")
  assert "judged by 40 sounds, protocol sfx" in capsys.readouterr().err
  found = judged(tmp_path / "run")
  assert list(found) == [5, 10, 12]
  assert found[12]["judge/fad"] < found[5]["judge/fad"]


MASKED_TASK = test_masked_task.small()


def spoken(task, seeds, **mesh):
  """Sounds of the first rows with these seeds."""
  sizes = {"data": 1, "fsdp": 1, "tensor": 1} | mesh
  placement = Placement.make(make_mesh(**sizes), test_samples.RULES)
  programs = Programs(task, placement, 0, 2)
  state = test_samples.filled(programs.like)
  # Less sure of itself: of what is drawn, seeds shall decide.
  less = jax.tree.map(lambda x: np.float32(0.1) * x, state.average)
  state = state._replace(average=less)
  state = jax.device_put(state, programs.places)
  if task is MASKED_TASK:
    (batch,) = test_masked_task.batches(1, len(seeds))
  else:
    batch = {k: x[: len(seeds)] for k, x in test_samples.batch_of(task).items()}
  batch = jax.device_put(batch, placement.sharding("batch"))
  seeds = placement.put(np.int32(seeds), "batch")
  made = programs.generated(state, batch, seeds)
  return programs, state, batch, jax.device_get(made)


@pytest.mark.parametrize(
  "task", [test_samples.LM_TASK, MASKED_TASK], ids=["lm", "masked"]
)
def test_sounds_are_those_of_text_and_seed(task):
  """Wherever a row lies, and as `samples` makes them."""
  programs, state, batch, found = spoken(task, [0, 1, 2, 3])
  heard = programs.samples(state, batch)["generated"]
  np.testing.assert_allclose(heard, found[:2], atol=2e-6)
  *_, others = spoken(task, [0, 7, 2, 3], data=2, fsdp=2)
  np.testing.assert_allclose(others[::2], found[::2], atol=2e-6)
  assert np.abs(others[1] - found[1]).max() > 1e-3


def test_codes_are_heard_through_the_codec():
  """Up to where a row has ended."""
  programs, state, batch, _ = spoken(MASKED_TASK, [0, 1])
  codes = np.array(batch["codes"])
  codes[1, :, 5:] = -1
  sound = programs.recorded(state, batch | {"codes": codes})
  hop = MASKED_TASK.encodec.hop
  whole = programs.recorded(state, batch)
  np.testing.assert_array_equal(sound[0], whole[0])
  assert np.abs(sound[1, : 5 * hop]).max() > 0
  assert np.abs(sound[1, 5 * hop :]).max() == 0


@pytest.mark.slow
def test_two_processes_hear_one_verdict(data, tmp_path):
  """Figures and kept checkpoints are those of one."""
  script = TESTS / "speaking.py"
  for name, pod in (
    ("one", Pod(count=1, devices=1)),
    ("two", Pod(count=2, devices=2)),
  ):
    words = [script, f"--config={script}", f"--workdir={tmp_path / name}"]
    changes = {"data.folders": data, "loop.judge_every": 4}
    changes |= {"loop.judge_clips": 20, "loop.best": "judge/fad"}
    words += [f"--config.{key}={value}" for key, value in changes.items()]
    pod.start(*words, **({"only": [0]} if name == "one" else {})).well()
  one, two = judged(tmp_path / "one"), judged(tmp_path / "two")
  assert list(two) == [4, 8, 12]
  for step, figures in one.items():
    assert two[step] == pytest.approx(figures, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lm_300m", "magnet_300m"])
def test_models_of_both_kinds(ear, tmp_path, monkeypatch, name):
  """By their configurations, and as if nothing had happened after a stop."""
  monkeypatch.setattr(speaking.Ear, "sample_rate_hz", 16_000)
  opening.write_orbax(tmp_path / "codec", published.parts_of(lm=None))
  toy.dataset(
    tmp_path / "data",
    [1600] * 24,
    splits=("train", "validation"),
    spec=SoundSpec(16_000),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )
  changes = {"codec": tmp_path / "codec", "data.folders": tmp_path / "data"}
  changes |= SMALL | {"loop.eval_every": 0, "loop.judge_every": 2}
  changes |= {"loop.judge_clips": 5, "loop.judge_protocol": "plain"}
  changes |= {"loop.best": "judge/clap", "optim.schedule": "constant"}
  words = [f"--config.{key}={value}" for key, value in changes.items()]

  def trained(folder, *more):
    path = f"{TESTS.parent}/configs/{name}.py:tiny"
    run, task = configuration.parse(
      configuration.changed(path, words + [*more])
    )
    toy.loop.train(run, task.opened(), str(tmp_path / folder))
    return judged(tmp_path / folder)

  whole = trained("whole")
  assert list(whole) == [2, 4, 6]
  for figures in whole.values():
    assert figures["judge/fad"] >= 0 and abs(figures["judge/clap"]) <= 1
  assert len({x["judge/fad"] for x in whole.values()}) == 3
  trained("part", "--config.loop.steps=4")
  assert trained("part") == whole
