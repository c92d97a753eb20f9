"""Reprogramming: what a row holds, in which order, and that it is told so.

Every clip is a tone of its own, so that samples say what is heard, and when.
"""

import collections
import dataclasses
import itertools
import json
import re
import types

import numpy as np
import pytest
from recordings import SPEC, dataset
from scipy import stats

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import bank, reprogramming
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.reprogramming import ReprogramConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.train import configuration, inputs

RATE = 1000
CLIPS = 12  # of originals, and of events: tones of 20, 40 … Hz
WINDOW = 100  # 10 Hz: no tone spreads as far as to its neighbour
SPEC_ = SoundSpec(rate_hz=RATE)


def tone(number, samples):
  seconds = np.arange(samples)[:, None] / RATE
  wave = np.sin(2 * np.pi * 20 * (number + 1) * seconds)
  # Of levels of their own, some silent at their ends.
  wave[: samples * (number % 3) // 10] = 0
  return np.rint((4_000 + 800 * (number % 20)) * wave).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Originals of 0.2 to 2.4 s; a row has 1 s."""
  lengths = range(200, 2600, 200)
  path = tmp_path_factory.mktemp("data") / "tones"
  return dataset(path, lengths, spec=SPEC_, make=tone)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
  """Events of 0.1 to 0.65 s, tones above those of the originals."""
  path = tmp_path_factory.mktemp("data") / "events"
  return dataset(
    path,
    range(100, 700, 50),
    name="events",
    spec=SPEC_,
    make=lambda i, n: tone(CLIPS + i, n),
    tags=lambda i: [f"event_{CLIPS + i}"],
  )


def config_of(events, **changes):
  own = {"chances", "share", "min_event_s"} & changes.keys()
  given = dict(min_event_s=0.15) | {name: changes.pop(name) for name in own}
  anew = ReprogramConfig(bank=str(events), **given)
  # Grain takes a millisecond to shuffle twenty clips, for each row.
  config = LoaderConfig(batch=8, duration_s=1.0, reprogram=anew, shuffle=False)
  return dataclasses.replace(config, **changes)


def rows(folder, config, count):
  made = Loader([Part(folder)], config)
  for batch in itertools.islice(made.host_batches(), count):
    yield from zip(batch["audio"][..., 0], batch["caption"], strict=True)


def heard(audio):
  """By number, where a tone begins and ends; read off a batch's samples."""
  view = np.lib.stride_tricks.sliding_window_view(audio, WINDOW, axis=1)
  windows = view[:, ::20] * np.hanning(WINDOW).astype(np.float32)
  levels = np.abs(np.fft.rfft(windows))[..., 2:49:2]  # b w k
  top = levels.max(axis=1, keepdims=True)
  on = levels > 0.5 * top
  first = 20 * on.argmax(axis=1) + WINDOW // 2
  last = 20 * (on.shape[1] - 1 - on[:, ::-1].argmax(axis=1)) + WINDOW // 2
  there = top[:, 0] > 0.5 * top.max(axis=2)  # all of one RMS
  for row, numbers in enumerate(there):
    yield {
      int(number): (int(first[row, number]), int(last[row, number]))
      for number in np.flatnonzero(numbers)
    }


WORDS = r"(?:(?:hearing|noticing|listening to|appearing) )?(?:a|the|some) "
WORDS += r"(?:clear|noisy|close-up|weird|clean) (?:audio|sound|voice) of "
CLIP = r"(?:(?:sound|event) \d+)"
LAID = rf"{CLIP}(?: with {CLIP}(?: and {CLIP})? in the background)?"
# How the sentences are to be read: what comes first, second and third.
READINGS = {
  rf"before ({CLIP}), ({LAID})": (2, 1),
  rf"({CLIP}) before ({CLIP})": (1, 2),
  rf"({CLIP}) after ({CLIP})": (2, 1),
  rf"after ({CLIP}), ({LAID})": (1, 2),
  rf"({LAID}), followed by ({LAID})": (1, 2),
  rf"({CLIP}), followed by ({CLIP}), followed by ({CLIP})": (1, 2, 3),
  rf"first ({LAID}), then ({LAID})": (1, 2),
  rf"first ({CLIP}), then ({CLIP}), and last ({CLIP})": (1, 2, 3),
  rf"before ({CLIP}), ({CLIP}) after ({CLIP})": (3, 2, 1),
  rf"after ({CLIP}) and before ({CLIP}), ({CLIP})": (1, 3, 2),
  rf"({LAID})": (1,),
  rf"({CLIP} while {CLIP})": (1,),
  rf"({CLIP}, and at the same time {CLIP})": (1,),
}


def told(caption):
  """Numbers of the clips of each moment, as a caption tells them."""
  words = re.sub(WORDS, "", caption)
  (found,) = (
    [match[i] for i in order]
    for pattern, order in READINGS.items()
    if (match := re.fullmatch(pattern, words))
  )
  number = re.compile(r"(?:sound|event) (\d+)")
  return [{int(n) for n in number.findall(part)} for part in found]


def test_ten_thousand_rows_are_what_they_are_told_to_be(folder, events):
  counts, orders = collections.Counter(), collections.Counter()
  texts, sounds = [], []
  config = config_of(events, batch=100)
  made = Loader([Part(folder)], config).host_batches()
  for batch in itertools.islice(made, 100):
    texts.extend(batch["caption"])
    sounds.extend(heard(batch["audio"][..., 0]))
  for caption, found in zip(texts, sounds, strict=True):
    moments = told(caption)
    clips = set().union(*moments)
    assert clips == found.keys(), caption
    counts[len(clips) - 1] += 1
    orders[tuple(len(moment) for moment in moments)] += 1
    for one, other in itertools.pairwise(moments):
      ends = max(found[clip][1] for clip in one)
      begins = min(found[clip][0] for clip in other)
      assert ends < begins + WINDOW, caption
      # A window sees both at the join; their middles tell which is first.
      middles = [
        max(sum(found[clip]) for clip in one),
        min(sum(found[clip]) for clip in other),
      ]
      assert middles[0] < middles[1], caption
    for clip in clips - set(range(CLIPS)):
      length = 100 + 50 * (clip - CLIPS)
      length -= length * (clip % 3) // 10  # what is silent at its beginning
      least = min(length, 150) - WINDOW  # both ends fade in the window
      assert found[clip][1] - found[clip][0] >= least, caption
    for moment in moments:
      for event in moment - set(range(CLIPS)):
        for clip in moment & set(range(CLIPS)):  # laid over the original
          assert found[event][0] < found[clip][1], caption
          assert found[event][1] > found[clip][0], caption
  want = [10_000 * chance for chance in config.reprogram.chances]
  assert sum(counts.values()) == 10_000
  assert stats.chisquare([counts[n] for n in range(3)], want).pvalue > 0.01
  # All that can be: events beside and over the original.
  assert orders.keys() == {(1,), (1, 1), (2,), (1, 1, 1), (1, 2), (2, 1), (3,)}


def test_a_plan_keeps_to_its_distribution():
  config = ReprogramConfig(chances=(0.2, 0.3, 0.5))
  plans = [reprogramming.draw(7, row, 50, 10.0, config) for row in range(4_000)]
  counts = [0 if plan is None else len(plan.events) for plan in plans]
  want = [4_000 * chance for chance in config.chances]
  assert stats.chisquare(np.bincount(counts), want).pvalue > 0.01
  made = [plan for plan in plans if plan]
  clips = np.bincount([clip for plan in made for clip in plan.events])
  assert stats.chisquare(clips).pvalue > 0.01
  seconds = [s for plan in made for s in plan.seconds]
  assert 1 <= min(seconds) < 1.01 and 2.99 < max(seconds) <= 3  # 0.3 of 10 s
  used = {text for _, text in reprogramming.TEMPLATES}
  slots = {re.sub(r"\{(hearing )?(\w)\}", r"{\2}", text) for text in used}
  seen = {re.sub(WORDS, "", plan.words) for plan in made}
  assert seen == slots


def test_templates_tell_each_part_once():
  for order, text in reprogramming.TEMPLATES:
    letters = sorted(re.findall("[xef]", order))
    assert sorted(re.findall(r"\{(?:hearing )?(\w)\}", text)) == letters
    assert order.count("x") == 1
  paper = dict(map(reversed, reprogramming.TEMPLATES))
  assert paper["before {hearing e}, {x}"] == "x e"
  assert paper["{x} after {hearing e}"] == "e x"


def test_no_event_is_the_identity(folder, events):
  config = config_of(events, chances=(1.0, 0.0, 0.0))
  plain = dataclasses.replace(config, reprogram=None)
  for mix in (None, MixConfig()):
    for (audio, text), (want, wanted) in zip(
      rows(folder, dataclasses.replace(config, mix=mix), 20),
      rows(folder, dataclasses.replace(plain, mix=mix), 20),
      strict=True,
    ):
      np.testing.assert_array_equal(audio, want)
      assert text == wanted
  # And where some rows have events, the others are as they were.
  same = sum(
    text == wanted and np.array_equal(audio, want)
    for (audio, text), (want, wanted) in zip(
      rows(folder, config_of(events), 50), rows(folder, plain, 50), strict=True
    )
  )
  assert 120 < same < 200


def test_neither_shares_nor_workers_nor_a_resume_change_it(folder, events):
  for mix, workers in ((None, 0), (MixConfig(), 1)):
    config = config_of(events, mix=mix)
    made = Loader([Part(folder)], config)
    whole = list(itertools.islice(made.host_batches(), 6))
    for held in (np.array([0, 1, 6, 7]), np.array([2, 3])):
      parts = itertools.islice(made.host_batches(2, held=held), 4)
      for want, part in zip(whole[2:], parts, strict=True):
        assert part["caption"] == [want["caption"][i] for i in held]
        np.testing.assert_array_equal(part["audio"], want["audio"][held])
    batches = made.batches()
    next(batches)
    state = json.loads(json.dumps(batches.state))
    again = Loader([Part(folder)], dataclasses.replace(config, workers=workers))
    with again.batches(state) as some:
      for want, got in zip(whole[1:3], some, strict=False):
        assert got["caption"] == want["caption"]
        np.testing.assert_array_equal(got["audio"], want["audio"])


def test_a_state_knows_bank_and_chances(folder, events, tmp_path):
  plain = config_of(events, reprogram=None)
  other = dataset(tmp_path / "other", [400] * 20, spec=SPEC_, make=tone)
  configs = [plain, config_of(events), config_of(other)]
  configs.append(config_of(events, chances=(0.0, 1.0, 0.0)))
  configs.append(config_of(events, mix=MixConfig()))
  made = [Loader([Part(folder)], config) for config in configs]
  assert len({loader.digest for loader in made}) == len(configs)
  state = made[0].batches().state
  with pytest.raises(InputError, match="other datasets, another config"):
    made[1].batches(state)


def test_states_without_events_are_those_of_older_versions(tmp_path):
  """Runs that were begun before there were any go on."""
  folder = dataset(tmp_path / "tiny", [60] * 10)
  digest = Loader([Part(folder)], LoaderConfig(batch=2, duration_s=0.5)).digest
  assert digest.startswith("3c36f82bc24b76865d57e3fe")


def test_levels_match_and_no_join_clicks(folder, events):
  plan = reprogramming.Plan("e x", "", (0,), (0.5,), (0.0,))
  loud, quiet = (0.9 * np.sin(np.arange(n))[:, None] for n in (900, 2000))
  made = reprogramming.join(
    plan, loud.astype("f"), [quiet.astype("f") / 50], RATE
  )
  levels = [
    np.sqrt(np.mean(made[a:b] ** 2)) for a, b in ((50, 450), (550, 850))
  ]
  assert levels[0] == pytest.approx(levels[1], rel=0.05)
  assert abs(made[[0, 499, 500, -1]]).max() < 0.15
  silent = np.zeros((1000, 1), np.float32)
  made = reprogramming.join(plan, silent, [loud.astype("f")], RATE)
  assert np.sqrt(np.mean(made[50:450] ** 2)) == pytest.approx(0.01, rel=0.1)
  plan = plan._replace(order="x+e+f", seconds=(0.5, 0.5), where=(0.0, 0.0))
  made = reprogramming.join(plan, *([loud, [loud, loud]]), RATE)
  assert np.abs(made).max() == pytest.approx(0.99)


def test_what_has_no_caption_stays(tmp_path, events):
  plan = reprogramming.Plan("x e", "{x}, then {e}", (0,), (1.0,), (0.0,))
  assert (
    reprogramming.tell(plan, "A dog.", ["rain {x}"]) == "A dog, then rain {x}"
  )
  config = config_of(events, epochs=1, chances=(0.0, 1.0, 0.0))
  folder = dataset(tmp_path / "few", [400] * 9, spec=SPEC_, make=tone)
  last = list(rows(folder, config, 2))[-1]  # what fills the last batch
  assert last[1] == "" and not last[0].any()


def test_labels_are_single_tags_or_captions(tmp_path):
  tags = lambda i: [[], ["dog_bark"], ["dog", "rain"]][i % 3]  # noqa: E731
  folder = dataset(tmp_path / "some", [50] * 9, tags=tags)
  made = bank.Bank(f" {folder} , {folder}", "train", dataclasses.asdict(SPEC))
  labels = [made[i][1] for i in range(len(made))]
  assert labels == 2 * ["sound 0", "dog bark", *_twice(3), *_twice(6)]
  assert made[1][0].dtype == np.float32 and made[1][0].shape == (50, 1)
  assert made[1][0][7, 0] * 2**15 == 107


def _twice(number):
  return [f"sound {number}", "dog bark"]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (dict(chances=(0.5, 0.4, 0.2)), "add up to 1.1; the probabilities"),
    (dict(chances=(0.5, 0.5)), "must be 3 probabilities"),
    (dict(chances=(1.5, -0.5, 0.0)), "must be 3 probabilities"),
    (dict(share=0.5), r"share 0.5 must lie in \(0, 0.4\]"),
    (dict(min_event_s=0.0), "events of 0 to 4 s are no range"),
    (dict(min_event_s=5.0), "events of 5 to 4 s are no range"),
    (dict(min_event_s=0.5), "0.5 s or more do not fit: 0.3 of a row of 1 s is"),
  ],
)
def test_settings_that_cannot_be(changes, words):
  with pytest.raises(InputError, match=words):
    config_of("x", **changes)


def test_banks_that_cannot_be(folder, events, tmp_path):
  def refuse(bank, words, data=folder):
    with pytest.raises(InputError, match=words):
      Loader([Part(data)], config_of(bank))

  refuse("", "no bank: reprogramming takes events from")
  refuse(tmp_path, "holds no dataset")
  several = dataset(
    tmp_path / "several", [90] * 3, spec=SPEC_, tags=lambda i: ["a", "b"]
  )
  refuse(several, "no clip in train of the bank .* has one label: 3 have")
  other = dataset(tmp_path / "other", [90] * 3)
  refuse(other, "'rate_hz': 100.*'rate_hz': 1000.*; build it with --rate 1000")


@pytest.mark.parametrize(
  "name", ["lm_300m.py:tiny", "nano_magnet.py", "maa_diffusion.py:tiny"]
)
def test_every_family_can_be_trained_so(name, monkeypatch):
  words = ["bank=esc50", "chances=0.5,0.3,0.2", "min_event_s=0.2"]
  values = configuration.changed(
    f"configs/{name}", [f"--config.data.reprogram.{word}" for word in words]
  )
  run, _ = configuration.parse(values)
  configuration.change(values, "data.reprogram.min_event_s", "20.0")
  configuration.change(values, "data.reprogram.max_event_s", "20.0")
  with pytest.raises(InputError, match="events of 20 s or more do not fit"):
    configuration.parse(values)
  want = ReprogramConfig("esc50", chances=(0.5, 0.3, 0.2), min_event_s=0.2)
  made = []

  class Loaders:
    settings = None

    def __init__(self, parts, config, **_):
      made.append(config.reprogram)

  monkeypatch.setattr(inputs, "Loader", Loaders)
  task = types.SimpleNamespace(
    batch_spec=lambda *_: {},
    tokenizer=lambda: None,
    wants=types.SimpleNamespace(check=lambda *_: None),
    check_data=lambda *_: None,
  )
  data = dataclasses.replace(run.data, folders="x")
  inputs.train_loader(data, 0, None, task)
  inputs.eval_loader(data, None, task)  # what is held out stays
  plain = dataclasses.replace(data, reprogram=ReprogramConfig())
  inputs.train_loader(plain, 0, None, task)
  assert made == [want, None, None]
