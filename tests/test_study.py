"""`audiogen study`: points, a stop in between, trainings, refusals."""

import json
import pathlib
import shutil

import judging
import numpy as np
import published
import pytest
import recordings
from signals import noise

from audiogen_jax.cli import points
from audiogen_jax.convert import judges, opening
from audiogen_jax.core.errors import InputError
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.evaluate import sounds
from audiogen_jax.evaluate.study import Study

pytestmark = pytest.mark.filterwarnings("ignore:sets of")

ROOT = pathlib.Path(__file__).parents[1]
RATE = 16_000
LENGTH = round(0.6 * RATE)  # the judge hears half a second


@pytest.fixture(autouse=True)
def judged(tmp_path, monkeypatch):
  """A judge that needs no weights; the generated folders it was given."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(judges, "check", lambda name, weights: None)
  monkeypatch.setattr(judges, "load", lambda name, weights: judging.Judge())
  seen, evaluate = [], sounds.evaluate

  def noted(made, *rest, **options):
    seen.append(pathlib.Path(made.place).parent.name)
    return evaluate(made, *rest, **options)

  monkeypatch.setattr(sounds, "evaluate", noted)
  return seen


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return recordings.dataset(
    tmp_path_factory.mktemp("made") / "data",
    [LENGTH] * 8,
    splits=("train", "validation"),
    spec=SoundSpec(RATE),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )


@pytest.fixture
def planned(monkeypatch):
  """What commands would do, in place of doing it."""
  seen = []
  monkeypatch.setattr(points, "run", lambda *asked: seen.append(asked))
  return seen


def study(name, data, out, *words):
  judged = "--protocol", "audioldm", "--measure", "fad", "--measure", "kl"
  return "study", name, "--data", data, "--out", out, *judged, *words


def test_a_study_goes_on_where_it_was_stopped(
  audiogen, refused, tiny, data, judged, tmp_path, monkeypatch
):
  out = tmp_path / "out"
  words = study("guidance", data, out, "--model", tiny, "--clips", 4)
  words = (*words, "--guidance", 1, "--guidance", 2)
  evaluate = sounds.evaluate

  def stopped(*given, **options):
    if len(judged) == 1:
      raise InputError("stopped")
    return evaluate(*given, **options)

  monkeypatch.setattr(sounds, "evaluate", stopped)
  status, _, errors = audiogen(*words)
  assert status == 2 and "stopped" in errors
  monkeypatch.setattr(sounds, "evaluate", evaluate)
  status, told, errors = audiogen(*words)
  assert status == 0, errors
  assert "1 of 2 points are there already" in told
  assert "4 of 4 are there already" in told
  assert judged == ["guidance-1", "guidance-2"]

  held = json.loads((out / "study.json").read_text())
  assert held["asked"]["clips"] == 4
  for number, (name, point) in enumerate(held["points"].items(), 1):
    assert point["asked"] == {"guidance": number, "model": str(tiny)}
    figures = point["report"]["figures"]
    assert [figure["measure"] for figure in figures] == ["fad", "kl"]
    assert f"{figures[0]['value']:.4g}" in told
    lines = (out / name / "sounds" / "manifest.jsonl").read_text()
    made = [json.loads(line) for line in lines.splitlines()]
    assert [each["guidance"] for each in made] == [number] * 4
  assert (out / "study.png").read_bytes().startswith(b"\x89PNG")

  # Another point is one more; one whose folder is gone is made again.
  shutil.rmtree(out / "guidance-1")
  status, told, errors = audiogen(*words, "--guidance", 3)
  assert status == 0, errors
  assert judged[2:] == ["guidance-1", "guidance-3"]
  again = json.loads((out / "study.json").read_text())["points"]
  assert list(again) == ["guidance-1", "guidance-2", "guidance-3"]
  assert again["guidance-1"] == held["points"]["guidance-1"]

  line = refused(*words, "--seed", 1, "--measure", "is")
  assert "seed is 0 there and 1 here" in line
  assert "measures is ['fad', 'kl'] there" in line
  line = refused(*words, "--top-k", 5)
  assert "guidance-1: top_k is not set there and 5 here" in line
  (out / "study.json").write_text('{"asked": {}}')
  assert "study.json is no record of a study" in refused(*words)


def test_steps_are_shares_of_those_that_suit_the_model(
  audiogen, data, planned, tmp_path
):
  assert audiogen(*study("steps", data, tmp_path / "out"))[0] == 0
  name, across, plans, setting = planned[0]
  assert across == "decoding-steps"
  assert [(plan.point.label, plan.point.place) for plan in plans] == [
    ("5,2,2,2", 11),
    ("10,5,5,5", 25),
    ("20,10,10,10", 50),
    ("40,20,20,20", 100),
  ]
  asked = [plan.point for plan in plans]
  for _ in range(2):  # what JSON gives back is the same, though no tuples
    held = Study(tmp_path / "out", name, setting.asked, asked)
    assert held.left(asked) == [point.name for point in asked]


def test_what_is_trained_differs_in_what_is_studied(
  audiogen, tiny, data, planned, tmp_path
):
  config = ROOT / "configs" / "nano_lm.py"
  words = "--config", f"{config}:tiny", "--config.codec=nano", "--with", tiny
  status, _, errors = audiogen(*study("mixing", data, tmp_path, *words))
  assert status == 0, errors
  without, with_ = planned[0][2]
  (training,) = without.trainings
  assert training.values.data.mix is False
  assert training.values.data.folders == str(data)
  assert without.model == str(tmp_path / "without-mixing" / "run" / "export")
  assert without.point.asked["config.codec"] == "nano"
  assert with_.model == str(tiny) and not with_.trainings

  words = (
    *("--config", ROOT / "configs" / "paper_lm.py:tiny"),
    *("--codec-config", ROOT / "configs" / "paper_codec.py:tiny"),
    *("--config.loop.steps=3", "--codec-config.loop.steps=2"),
    *("--streams", 2, "--streams", f"4={tiny}"),
  )
  status, _, errors = audiogen(*study("streams", data, tmp_path, *words))
  assert status == 0, errors
  two, four = planned[1][2]
  codec, lm = (training.values for training in two.trainings)
  assert codec.encodec.rvq.codebooks == lm.lm.codebooks == 2
  assert lm.codec == str(tmp_path / "streams-2" / "codec" / "export")
  assert (codec.loop.steps, lm.loop.steps) == (2, 3)
  assert two.point.asked["codec-config.loop.steps"] == 2
  assert four.model == str(tiny)


def test_bad_input_is_one_line(refused, tiny, data, tmp_path):
  lm, codec = (ROOT / "configs" / f"paper_{x}.py:tiny" for x in ("lm", "codec"))
  model = "--model", tiny
  for name, words, line in (
    ("steps", model, "has no steps of sampling .* its options are --guidance"),
    ("guidance", ("--model", "x"), "x"),
    ("guidance", (*model, "--top-k", 1, "--top-k", 2), "--top-k was given 2"),
    ("guidance", (*model, "--top-p", 2), "top-p 2.0 must lie in"),
    ("guidance", (*model, "--duration", 0), "duration 0.0 s must be more"),
    ("guidance", (*model, "--split", "x"), "x"),
    ("guidance", (*model, "--protocol", "x"), "no protocol x"),
    ("mixing", ("--with", tiny), "name a model .--without MODEL., or what"),
    ("mixing", ("--config", codec), "trains a codec, which makes no sounds"),
    ("mixing", ("--config", lm, "--top-k", -1), "top-k -1 must be 0 or more"),
    ("mixing", ("--config", lm, "--config.x=1"), "has no key 'x'"),
    ("mixing", ("--config", lm, "--x=1"), "'--x=1' is no option here"),
    ("mixing", ("--with", tiny, "--without", tiny, "--x"), "--x is not used"),
    ("streams", ("--streams", "two"), "'two' must be NUMBER=MODEL or NUMBER"),
    ("streams", ("--config", lm), "or what to train .* .--codec-config"),
    ("streams", ("--config", lm, "--codec-config", lm), "lm, and no codec"),
    ("streams", ("--config", f"{lm}+9"), "variants are"),
  ):
    with pytest.raises(InputError, match=line):
      raise InputError(refused(*study(name, data, tmp_path / "out", *words)))
  assert not (tmp_path / "out").exists()
  line = refused(*study("guidance", data, data / "out", *model))
  assert "among the recordings" in line


@pytest.mark.slow
def test_what_no_model_is_named_for_is_trained(
  audiogen, data, judged, tmp_path, monkeypatch
):
  """Killed after the first training; only what is left is done again."""
  opening.write_orbax(tmp_path / "codec", published.parts_of(lm=None))
  changes = {
    **{"codec": tmp_path / "codec", "lm.size": 10, "encodec.rvq.size": 10},
    **{"lm.transformer.width": 16, "lm.transformer.layers": 2},
    **{"lm.transformer.ff": 32, "lm.text_width": 8, "text.encoder.width": 8},
    **{"text.encoder.layers": 1, "text.encoder.ff": 16, "text.length": 12},
    **{"window_s": 0.05, "data.batch": 8, "loop.steps": 3, "mesh.fsdp": 1},
    **{"loop.eval_every": 0},
  }
  out = tmp_path / "out"
  words = study(
    "mixing", data, out, "--clips", 2, "--duration", 0.05, "--config"
  )
  words = (*words, ROOT / "configs" / "lm_300m.py:tiny")
  words = (*words, *(f"--config.{k}={v}" for k, v in changes.items()))
  evaluate = sounds.evaluate
  monkeypatch.setattr(sounds, "evaluate", lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    audiogen(*words)
  assert [path.name for path in out.iterdir() if path.is_dir()] == [
    "without-mixing"
  ]
  monkeypatch.setattr(sounds, "evaluate", evaluate)
  status, told, errors = audiogen(*words)
  assert status == 0, errors
  assert judged == ["without-mixing", "with-mixing"]
  assert "2 of 2 are there already" in told
  for name, mixed in (("without", False), ("with", True)):
    run = json.loads((out / f"{name}-mixing/run/config.json").read_text())
    assert run["data"]["mix"] is mixed
  status, told, errors = audiogen(*words)
  assert status == 0 and "2 of 2 points are there already" in told
  status, _, errors = audiogen(*words, "--config.optim.lr=1")
  assert status == 2 and "config.optim.lr is 0.002 there and 1" in errors
