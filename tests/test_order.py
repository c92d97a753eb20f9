"""`audiogen evaluate order`: what comes first is heard first."""

import json

import numpy as np
import pytest
import test_classes
from test_classes import KINDS, RATE, dataset, parts, sound, told_of

from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import order as evaluation
from audiogen_jax.lm.sampling import Sampling


class Model(test_classes.Model):
  """Makes the kinds that a prompt names, one after the other."""

  def generate(self, texts, *, duration_s, sampling, seed, progress):
    self.calls += list(zip(texts, seed, strict=True))
    made = []
    for text, one in zip(texts, seed, strict=True):
      kinds = self.makes(text)
      size = round(duration_s * RATE / len(kinds))
      made.append(np.concatenate([sound(k, 9000 + one, size) for k in kinds]))
    progress(1, 1)
    return np.stack(made)


def in_order(text):
  return sorted(told_of(text), key=lambda k: text.index(k.replace("_", " ")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return dataset(tmp_path_factory.mktemp("sounds") / "a")


def ask(makes, data, **options):
  model = Model(makes)
  report = evaluation.evaluate(
    model, *parts(data), [Sampling()], pairs=6, duration_s=4.0, **options
  )
  return model, report, report.generated[0][1]


def test_who_obeys_is_right(data):
  model, report, found = ask(in_order, data, seed=3)
  assert found.right == 1.0 and found.both == 1.0 and len(found.pairs) == 6
  assert report.real.right == 1.0 and min(report.accuracy) > 0.9
  texts, seeds = zip(*model.calls, strict=True)
  assert list(seeds) == [3 + i // 2 for i in range(12)]
  first, second = texts[:2]
  assert first.split(", then ") == second.split(", then ")[::-1]
  assert json.loads(json.dumps(report.plain()))["generated"][0]["both"] == 1.0


def test_who_reverses_is_wrong(data):
  _, _, found = ask(lambda text: in_order(text)[::-1], data)
  assert found.right == 0.0 and found.both == 0.0


def test_who_does_not_listen_is_right_by_half(data):
  """The same order whatever was asked for: every pair is right once."""
  _, _, found = ask(told_of, data)
  assert found.right == 0.5 and found.both == 0.0
  assert all(a != b for a, b in zip(found.forward, found.reversed, strict=True))


def test_silence_is_no_order(data):
  class Silent(Model):
    def generate(self, texts, **options):
      return np.zeros_like(super().generate(texts, **options))

  report = evaluation.evaluate(
    Silent(in_order), *parts(data), [Sampling()], pairs=1, duration_s=2.0
  )
  assert report.generated[0][1].right == 0.0


def test_a_margin_that_falls():
  times = np.arange(4.0)
  assert evaluation.falls(np.array([3.0, 1.0, 1.0, -2.0]), times)
  assert not evaluation.falls(np.array([-3.0, 1.0, 1.0, 2.0]), times)
  assert not evaluation.falls(np.ones(4), times)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"pairs": 0}, "pairs 0 must be 1 or more"),
    ({"duration_s": 1.5}, "duration 1.5 must be 2 or more"),
    ({"prompt": "{first}"}, "must hold {first} and {second}"),
    ({"prompt": "{first} {second} {x}"}, "no other braces"),
    ({"prompt": "{first} {second"}, "no other braces"),
  ],
)
def test_bad_input(data, options, words):
  asked = {"pairs": 1, "duration_s": 2.0, **options}
  with pytest.raises(InputError, match=words.replace("{", r"\{")):
    evaluation.evaluate(Model(in_order), *parts(data), [Sampling()], **asked)


def test_three_classes_are_too_few(tmp_path):
  data = dataset(tmp_path / "a", kinds=KINDS[:3])
  with pytest.raises(InputError, match="3 classes are too few"):
    ask(in_order, data)
