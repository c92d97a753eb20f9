"""`audiogen evaluate classes`: who hears what, and what is refused."""

import json
import types

import numpy as np
import pytest
import recordings
from signals import noise, sine

from audiogen_jax.core.errors import InputError
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.evaluate import classes as evaluation
from audiogen_jax.evaluate import classifier
from audiogen_jax.evaluate.classifier import Classifier
from audiogen_jax.evaluate.clips import Clips
from audiogen_jax.families import TextToAudio
from audiogen_jax.lm.sampling import Sampling

RATE = 16_000
KINDS = ["click_track", "hiss", "hum", "whistle"]


def sound(kind, seed, samples=RATE):
  """A recording of a kind, different for each seed, at any level."""
  rng, seconds = np.random.default_rng(seed), samples / RATE
  if kind == "hiss":
    made = noise(samples, 1, seed=seed)
  elif kind == "click_track":
    made = np.zeros((samples, 1), np.float32)
    made[int(rng.integers(800)) :: int(rng.integers(1500, 2500))] = 1.0
  else:
    low = 80 if kind == "hum" else 2000
    made = sine(rng.uniform(low, 1.5 * low), RATE, seconds, -10)
  made = made + noise(samples, 1, scale=1e-3, seed=seed + 1)
  return (0.5 * rng.uniform(0.05, 1) * made).astype(np.float32)


class Codec:
  """A codec that adds a little noise."""

  config = types.SimpleNamespace(sample_rate_hz=RATE, channels=1)

  def encode(self, audio):
    return audio

  def decode(self, codes):
    return np.float32(codes + noise(*codes.shape, scale=1e-3, seed=7))


class Model(TextToAudio):
  """Makes what `hears` says of a prompt: a list of kinds, mixed."""

  codec, sample_rate_hz = Codec(), RATE

  def __init__(self, makes):
    self.makes, self.calls = makes, []

  def generate(self, texts, *, duration_s, sampling, seed, progress):
    if isinstance(seed, int):
      seed = range(seed, seed + len(texts))
    self.calls += [(text, seed[i], sampling) for i, text in enumerate(texts)]
    progress(1, 1)
    made = []
    for i, text in enumerate(texts):
      kinds = self.makes(text, seed[i], sampling.guidance)
      audio = np.zeros((round(duration_s * RATE), 1), np.float32)
      for kind in kinds:
        one = sound(kind, 9000 + seed[i], len(audio))
        audio += 0.1 * one / np.sqrt(np.mean(np.square(one)))
      made.append(audio)
    return np.stack(made)


def dataset(folder, *, each=6, splits=("train", "validation"), kinds=KINDS):
  """The recordings of the second split are others, and of another length."""
  lengths = [RATE, RATE // 2 + 5, RATE + 999] * (each * len(kinds) // 3 or 1)
  lengths = lengths[: each * len(kinds)]
  return recordings.dataset(
    folder,
    lengths,
    splits=splits,
    spec=SoundSpec(RATE),
    make=lambda i, n: np.int16(2**15 * sound(kinds[i // each], i, n)),
    tags=lambda i: [kinds[i // each], "another tag"] if kinds[0] else [],
  )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return dataset(tmp_path_factory.mktemp("sounds") / "a")


def parts(folder, held="validation"):
  options = {"rate_hz": RATE, "channels": 1}
  return [Clips.open(folder, split=name, **options) for name in ("train", held)]


def told_of(text, *_):
  """The kinds that a prompt names."""
  return [kind for kind in KINDS if kind.replace("_", " ") in text]


def features_of(kinds, seeds):
  audio = np.stack([sound(k, s) for k, s in zip(kinds, seeds, strict=True)])
  return classifier.features(audio, RATE)


def test_synthetic_classes_are_told_apart():
  labels = np.repeat(np.arange(4), 6)
  kinds = [KINDS[i] for i in labels]
  found = features_of(kinds, range(24))
  told = Classifier(found, found, labels)
  assert min(told.accuracy) >= 22 / 24 and told.classes == 4
  ranked = told.rank(features_of(kinds, range(500, 524)))
  assert (ranked[:, 0] == labels).mean() >= 22 / 24
  assert (np.sort(ranked, axis=1) == np.arange(4)).all()
  again = Classifier(found, found, labels)
  assert again.name == told.name and again.accuracy == told.accuracy


@pytest.mark.parametrize("classes", [2, 3])
def test_every_kind_ranks_few_classes(classes):
  labels = np.repeat(np.arange(classes), 4)
  found = features_of([KINDS[i] for i in labels], range(len(labels)))
  for kind in classifier._candidates(0).values():
    classifier._train(kind, np.stack([found, found]), labels)
    ranked = classifier._rank(kind, found)
    assert ranked.shape == (len(labels), classes)
    assert (ranked[:, 0] == labels).all()


def test_folds_do_not_leak():
  """What the codec made of a recording is not seen where that is unseen."""
  rng = np.random.default_rng(0)
  found = rng.normal(size=(60, 30)).astype(np.float32)
  labels = rng.permutation(np.repeat(np.arange(3), 20))
  told = Classifier(found, found + np.float32(1e-3), labels)
  assert max(told.accuracy) < 0.6  # 1.0 where it is


def test_level_channels_and_silence_tell_nothing():
  audio = np.stack([sound("whistle", 3), sound("click_track", 4)])
  want = classifier.features(audio, RATE)
  for other in (30 * audio, audio / 30, np.repeat(audio, 2, axis=2)):
    found = classifier.features(other, RATE)
    np.testing.assert_allclose(found, want, atol=2e-3)
  silence = classifier.features(np.zeros_like(audio), RATE)
  assert np.isfinite(silence).all()
  # Zeros behind a sound are as good as noise at -60 dB.
  ended = sound("hum", 1)[None]
  ended[:, RATE // 2 :] = 0
  hissing = ended + 1e-3 * np.std(ended) * noise(*ended.shape, scale=1)
  np.testing.assert_allclose(
    classifier.features(hissing, RATE),
    classifier.features(ended, RATE),
    atol=0.5,
  )


def test_shares_are_counted(data):
  def makes(text, seed, guidance):
    kinds = told_of(text)
    if kinds == ["hiss"]:
      return ["hum"]
    if kinds == ["hum"]:  # two of four are silent
      return kinds if seed % 2 else []
    if len(kinds) == 2:  # at guidance 1, only the first
      return kinds if guidance > 1 else kinds[:1] * 2
    return kinds

  model, calls = Model(makes), []
  ways = [Sampling(guidance=3.0), Sampling(guidance=1.0)]
  report = evaluation.evaluate(
    model,
    *parts(data),
    ways,
    clips=4,
    pairs=9,
    duration_s=1.0,
    seed=10,
    batch=5,
    progress=lambda *call: calls.append(call),
  )
  assert report.classes == KINDS and report.trained_on == 24
  assert report.real.share >= 0.9 and report.coded.share >= 0.9
  assert report.real.confusion.sum() == 24
  assert report.chance == (1 / 4, 1 / 2)
  (_, first), (_, second) = report.generated
  want = [
    [4, 0, 0, 0, 0],
    [0, 0, 4, 0, 0],
    [0, 0, 2, 0, 2],
    [0, 0, 0, 4, 0],
  ]
  for heard in (first, second):
    np.testing.assert_array_equal(heard.confusion, want)
    assert heard.shares == [1, 0, 0.5, 1] and heard.share == 10 / 16
  assert len(first.pairs) == 9 and first.pairs == second.pairs
  every = {tuple(sorted(pair)) for pair in first.pairs}
  assert len(every) == 6 and all(a != b for a, b in every)
  assert first.share_both >= 8 / 9 > second.share_both
  assert report.real.share_both >= 8 / 9 and len(report.real.pairs) == 9
  # The same prompts and seeds for each way, whatever the batch.
  half = len(model.calls) // 2
  assert [call[:2] for call in model.calls[:half]] == [
    call[:2] for call in model.calls[half:]
  ]
  assert [seed for _, seed, _ in model.calls[:half]] == list(range(10, 35))
  assert {way for *_, way in model.calls[half:]} == {ways[1]}
  texts = [text for text, *_ in model.calls[:half]]
  assert texts[:5] == ["click track"] * 4 + ["hiss"]
  a, b = (KINDS[i].replace("_", " ") for i in first.pairs[0])
  assert texts[16] == f"{a} and {b}"
  assert {what for what, *_ in calls} >= {"recordings", "held out", "mixes"}
  assert all(0 <= done <= total for _, done, total in calls)
  plain = report.plain()
  assert json.loads(json.dumps(plain)) == plain
  again = evaluation.evaluate(
    model, *parts(data), ways[:1], clips=4, pairs=9, duration_s=1.0, seed=10
  )
  assert again.plain()["generated"] == plain["generated"][:1]
  assert again.plain()["coded"] == plain["coded"]


def test_mixes_are_trained_on_with_both_classes(data, monkeypatch):
  given = []

  class Spy(classifier.MixClassifier):
    def __init__(self, found, inside):
      given.append(inside)
      super().__init__(found, inside)

  monkeypatch.setattr(evaluation, "MixClassifier", Spy)
  options = {"clips": 1, "pairs": 1, "duration_s": 0.5}
  evaluation.evaluate(Model(told_of), *parts(data), [Sampling()], **options)
  (inside,) = given
  # 24 recordings, 48 mixes, and all of them through the codec.
  assert inside.shape == (2 * 72, 4)
  np.testing.assert_array_equal(inside[:72], inside[72:])
  np.testing.assert_array_equal(inside[:24].argmax(1), np.repeat(range(4), 6))
  assert inside[:72].sum(axis=1).tolist() == [1] * 24 + [2] * 48


def test_prompts_of_classes(data):
  model = Model(told_of)
  report = evaluation.evaluate(
    model,
    *parts(data),
    [Sampling()],
    clips=3,
    pairs=6,
    duration_s=0.5,
    prompts={"hum": ["a deep hum", "mains hum"]},
  )
  texts = [text for text, *_ in model.calls]
  assert texts[6:9] == ["a deep hum", "mains hum", "a deep hum"]
  assert sum("a deep hum" in text for text in texts[12:]) == 3
  assert report.generated[0][1].share >= 0.9


def test_pairs_come_once_before_any_comes_again():
  every = [tuple(sorted(p)) for p in evaluation.draw_pairs(5, 10, 0)]
  assert len(set(every)) == 10
  twice = [tuple(sorted(p)) for p in evaluation.draw_pairs(5, 17, 0)]
  assert len(set(twice)) == 10 and len(twice) == 17
  assert len(set(evaluation.draw_pairs(5, 7, 0))) == 7
  assert evaluation.draw_pairs(5, 7, 1) != evaluation.draw_pairs(5, 7, 0)
  assert evaluation.draw_pairs(3, 7, 0) == []


@pytest.mark.slow
def test_the_command(audiogen, tiny, data, tmp_path):
  plot, figures = tmp_path / "a.png", tmp_path / "a.json"
  prompts = tmp_path / "prompts.csv"
  prompts.write_text("hum,a deep hum\nhum,mains\n")
  status, told, errors = audiogen(
    *("evaluate", "classes", tiny, data, "--clips", 2, "--pairs", 3),
    *("--duration", 0.5, "--guidance", 1, "--guidance", 3),
    *("--plot", plot, "--json", figures, "--prompts", prompts),
  )
  assert status == 0 and not errors.strip(), errors
  for words in (*KINDS, "guidance", "in cross-validation", "by chance: 25.0%"):
    assert words in told
  assert "2 clips of each class, 3 of two" in told
  assert plot.read_bytes().startswith(b"\x89PNG")
  found = json.loads(figures.read_text())
  assert found["confusion_columns"] == [*KINDS, "silence"]
  assert found["classes"] == KINDS and found["duration_s"] == 0.5
  ways = [one["sampling"]["guidance"] for one in found["generated"]]
  assert ways == [1, 3]
  for one in found["generated"]:
    assert np.sum(one["confusion"]) == 8 and len(one["pairs"]) == 3
    assert f"{one['share']:.1%}" in told
  assert np.sum(found["coded"]["confusion"]) == 24


def test_three_classes_have_no_pairs(audiogen, tiny, tmp_path):
  three = dataset(tmp_path / "three", each=2, kinds=KINDS[:3])
  status, told, _ = audiogen(
    *("evaluate", "classes", tiny, three, "--clips", 1, "--duration", 0.5)
  )
  assert status == 0 and "0 of two: 3 classes are all in the first 3" in told
  assert "both" not in told


def test_bad_input_is_one_line(refused, tiny, data, tmp_path):
  files = {}
  for name, text in {
    "empty.json": '{"hum": [" "]}',
    "list.json": "[1]",
    "number.json": '{"hum": 3}',
    "broken.json": "{",
    "wide.csv": "hum,a hum,more\n",
  }.items():
    files[name] = tmp_path / name
    files[name].write_text(text)
  for command, words in (
    ([tiny, data, "--split", "test"], "has no split test"),
    ([tiny, data, "--clips", 0], "clips 0 must be 1 or more"),
    ([tiny, data, "--top-k", 999], "above the codebook size"),
    ([tiny, data, "--guidance", "nan"], "guidance nan must lie in"),
    ([tiny, data, "--prompts", files["empty.json"]], "that says nothing"),
    ([tiny, data, "--prompts", files["list.json"]], "must hold an object"),
    ([tiny, data, "--prompts", files["number.json"]], "must hold an object"),
    ([tiny, data, "--prompts", files["broken.json"]], "must hold an object"),
    ([tiny, data, "--prompts", files["wide.csv"]], "rows of class,prompt"),
    ([tiny, data, "--prompts", tmp_path / "no.json"], "no.json"),
    ([tiny, data, "--plot", "a.jpg"], "must end in .png"),
    ([tiny, data, "--json", tmp_path / "new" / "a"], "no folder"),
    ([tmp_path, data], "holds no model"),
  ):
    assert words in refused("evaluate", "classes", *command)


def test_arguments_and_recordings_that_do_not_fit(data, tmp_path):
  def told(folder, **options):
    with pytest.raises(InputError) as error:
      evaluation.evaluate(
        Model(told_of), *parts(folder), [Sampling()], **options
      )
    return str(error.value)

  for options, words in (
    ({"pairs": -1}, "pairs -1 must be 0 or more"),
    ({"batch": 0}, "batch 0 must be 1 or more"),
    ({"duration_s": 0.1}, "duration 0.1 must be 0.5 or more"),
    ({"prompts": {"dog": ["a dog"]}}, "for dog, which is not one of click_"),
  ):
    assert words in told(data, **options)
  for name, options, words in (
    ("bare", {"kinds": [""] * 2}, "clip 0 of"),
    ("one", {"kinds": KINDS[:1]}, "one class, click_track; two are the least"),
    ("few", {"each": 1}, "holds one clip of click_track"),
  ):
    assert words in told(dataset(tmp_path / name, **options))
  only = dataset(tmp_path / "only", splits=("train",))
  with pytest.raises(InputError, match="has no split validation, but train"):
    parts(only)


def test_classes_that_nobody_trained_on(data, tmp_path):
  train, _ = parts(data)
  _, held = parts(dataset(tmp_path / "other", kinds=["rain", "hum"]))
  with pytest.raises(InputError, match="holds rain, of which"):
    evaluation.classes_of(train, held)


def test_damaged_models_are_told(data):
  model = Model(told_of)
  model.generate = lambda texts, **_: np.full((len(texts), RATE, 1), np.nan)
  with pytest.raises(InputError, match="NaN or infinite"):
    evaluation.evaluate(
      model, *parts(data), [Sampling()], clips=1, pairs=0, duration_s=0.5
    )
