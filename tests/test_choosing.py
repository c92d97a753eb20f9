"""The best of several sounds: who chooses, what is chosen, what is refused."""

import json

import numpy as np
import pytest
import soundfile
from test_classes import KINDS, RATE, Model, data, sound, told_of  # noqa: F401

import audiogen_jax as ag
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate.choosing import BestOf, ClassScorer
from audiogen_jax.evaluate.clips import Clips

SEEDS = [0, 5, 2**32 - 1]
TEXTS = ["one", None, "three"]


class Loudest:
  """A scorer that likes it loud."""

  def __init__(self):
    self.heard = []

  def check(self, texts):
    if "no" in texts:
      raise InputError("it cannot judge no")

  def score(self, sounds, rate_hz, texts):
    assert rate_hz == RATE and len(texts) == len(sounds)
    score = np.abs(sounds).max(axis=(1, 2))
    self.heard.append(score)
    return score


def call(texts, *, seed, progress, gain=1.0):
  """Sounds that are as loud as a row's text and seed say."""
  progress(1, 2)
  progress(2, 2)
  made = [
    np.random.default_rng([one, len(text or "")]).uniform(size=(1, 1))
    for text, one in zip(texts, seed, strict=True)
  ]
  return gain * np.stack(made).astype(np.float32) * np.ones((1, 9, 1))


def test_the_best_is_kept():
  scorer, steps = Loudest(), []
  best = BestOf(call, scorer, 4, RATE)
  got = best(TEXTS, seed=SEEDS, progress=lambda *told: steps.append(told))
  heard = np.stack(scorer.heard)
  assert heard.shape == (4, 3) and len(np.unique(heard)) == 12
  np.testing.assert_array_equal(np.abs(got).max(axis=(1, 2)), heard.max(axis=0))
  assert steps == [(done, 8) for done in range(1, 9)]
  # Another one is best for each, or nothing was chosen.
  assert len(set(heard.argmax(axis=0))) > 1
  for row, text in enumerate(TEXTS):
    alone = best([text], seed=SEEDS[row : row + 1])
    np.testing.assert_array_equal(alone[0], got[row])
  louder = best(TEXTS, seed=SEEDS, gain=2.0)
  np.testing.assert_array_equal(louder, 2 * got)


def test_seeds_of_a_prompt():
  seen = []

  def watched(texts, *, seed, **others):
    seen.append(seed)
    return call(texts, seed=seed, **others)

  BestOf(watched, Loudest(), 3, RATE)(TEXTS, seed=SEEDS)
  assert seen[0] == SEEDS  # the first is what there would be without
  every = [one for turn in seen for one in turn]
  assert len(set(every)) == 9 and 0 <= min(every) <= max(every) < 2**32
  # Equals: the first.
  same = BestOf(watched, Loudest(), 2, RATE)
  got = same(TEXTS, seed=SEEDS, gain=0.0)
  assert not got.any()


def test_nothing_is_made_of_what_cannot_be_judged():
  def never(*_, **__):
    raise AssertionError

  with pytest.raises(InputError, match="cannot judge no"):
    BestOf(never, Loudest(), 2, RATE)(["no"], seed=[0])


# The classifier


@pytest.fixture(scope="module")
def scorer(data):  # noqa: F811
  clips = Clips.open(data, rate_hz=RATE, channels=1, split="train")
  return ClassScorer(Model(told_of), clips, 1.0)


def test_sounds_of_a_class_score_best(scorer):
  made = np.stack([sound(kind, 700 + i) for i, kind in enumerate(KINDS)])
  texts = {
    "click_track": "The Track of a clicking thing",
    "hiss": "it hisses",
    "hum": "a humming fridge",
    "whistle": "someone whistles",
  }
  for i, kind in enumerate(KINDS):
    score = scorer.score(made, RATE, [texts[kind]] * 4)
    assert score.argmax() == i and np.all(score <= 0)
    both = scorer.score(made, RATE, [f"{texts[kind]} and hiss"] * 4)
    hiss = scorer.score(made, RATE, ["hiss"] * 4)
    np.testing.assert_allclose(both, (score + hiss) / 2, rtol=1e-6)
  # Another length, another level; silence is nothing.
  short = scorer.score(0.1 * made[:, : RATE // 2], RATE, ["hiss"] * 4)
  assert short.argmax() == 1
  assert scorer.score(0 * made[:1], RATE, ["hiss"]) == -np.inf


def test_the_best_of_a_model(scorer):
  """A model that makes what it was asked for with one seed of three."""

  def makes(text, seed, guidance):
    return [KINDS[seed % 3]]

  model, kind = Model(makes), ag.Sampling()
  options = dict(duration_s=1.0, sampling=kind)
  best = BestOf(
    lambda seed, **rest: one_by_one(model, seed, **rest), scorer, 3, RATE
  )
  seeds = [6, 9]
  made = best(["hum", "click track"], seed=seeds, **options)
  score = scorer.score(made, RATE, ["hum", "click track"])
  assert np.all(score > np.log(0.3))
  for text in ("hum", "click track"):
    first = one_by_one(model, [7], texts=[text], progress=print, **options)
    assert scorer.score(first, RATE, [text]) < score.min()


def one_by_one(model, seed, *, texts, **rest):
  made = [
    model.generate([text], seed=one, **rest)[0]
    for text, one in zip(texts, seed, strict=True)
  ]
  return np.stack(made)


def test_what_cannot_be_judged(scorer, data):  # noqa: F811
  for text in ("a dog barks", "a click", None, ""):
    with pytest.raises(
      InputError, match="names none of the classes .* hum, wh"
    ):
      scorer.check(["a hum", text])
  with pytest.raises(InputError, match="at 8000 Hz cannot be judged"):
    scorer.score(np.zeros((1, 8000, 1), np.float32), 8000, ["hum"])
  clips = Clips.open(data, rate_hz=RATE, channels=1, split="train")
  with pytest.raises(InputError, match="0.4 s are too short to be judged"):
    ClassScorer(Model(told_of), clips, 0.4)


@pytest.mark.slow
def test_the_command_line(audiogen, refused, tiny, data, tmp_path):  # noqa: F811
  (tmp_path / "p.txt").write_text("a hum\nhiss\n")
  words = ("generate", "--prompts", tmp_path / "p.txt", "--model", tiny)
  words += ("--duration", 0.6, "--no-normalize", "-o", tmp_path / "out")
  choice = ("--best-of", 3, "--scorer", data)
  status, _, errors = audiogen(*words, *choice)
  assert status == 0, errors
  lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
  told = [json.loads(line) for line in lines]
  assert {one["best_of"] for one in told} == {3}
  assert {one["scorer"] for one in told} == {str(data)}
  model = ag.load(tiny)
  clips = Clips.open(data, rate_hz=RATE, channels=1, split="train")
  judge = ClassScorer(model, clips, 0.6)
  for one in told:
    made, _ = soundfile.read(tmp_path / "out" / one["file"])
    third = 2**32 // 3
    seeds = [one["seed"], one["seed"] + third, one["seed"] + 2 * third]
    texts = [one["prompt"]] * 3
    tried = model.generate(texts, seed=seeds, duration_s=0.6)
    best = tried[judge.score(tried, RATE, texts).argmax()][:, 0]
    np.testing.assert_allclose(made, best.clip(-1, 1), atol=2**-14)
  for given, words_of in (
    (("--scorer", data), "without --best-of: say of how many"),
    (("--best-of", 2, "--scorer", tmp_path / "none"), "there is nothing at"),
    ((*choice, "--duration", 0.4), "0.4 s are too short to be judged"),
  ):
    assert words_of in refused(*words, *given)
  alone = ("generate", "a dog barks", "--model", tiny, "-o", tmp_path / "x.wav")
  assert "'a dog barks' names none" in refused(*alone, *choice)
