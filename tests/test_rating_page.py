"""Listening tests: sounds cannot be told apart, listeners who slept can."""

import json
import re
import urllib.parse

import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.audio import dsp, io
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import rating_page, ratings
from audiogen_jax.evaluate.rating_page import ANCHOR, REFERENCE
from audiogen_jax.evaluate.sound_sets import SoundSet

RATE_HZ = 16000
CAPTIONS = {"a": "a dog </script> barks", "b": "rain & wind", "c": "a clock"}


@pytest.fixture
def sets(tmp_path):
  """Three clips of two systems and of recordings, at other levels each."""
  draw = np.random.default_rng(0)
  for level, name in ((0.02, "ours"), (0.1, "theirs"), (0.5, "real")):
    folder = tmp_path / name
    folder.mkdir()
    for clip in CAPTIONS:
      noise = level * draw.uniform(-1, 1, (RATE_HZ, 1)).astype(np.float32)
      io.write(folder / f"{clip}.wav", noise, RATE_HZ)
  return {x: SoundSet.open(tmp_path / x) for x in ("ours", "theirs", "real")}


@pytest.fixture
def made(sets, tmp_path):
  """A page and its key."""
  real = sets.pop("real")
  path = rating_page.make(
    sets, tmp_path / "page", captions=CAPTIONS, reference=real
  )
  return tmp_path / "page", ratings.Key.read(path)


def shown(page) -> dict:
  text = (page / "index.html").read_text(encoding="utf-8")
  return json.loads(re.search(r"json\">(.*?)</script>", text, re.S)[1])


def answered(key, path, rate, listener="me"):
  """Writes a listener's answers: `rate` gives one for (clip, system)."""
  rows = [
    {"sound": sound, **{q: rate(clip, system) for q in key.questions}}
    for sound, (clip, system) in key.sounds.items()
  ]
  told = {"test": key.id, "listener": listener, "answers": rows}
  path.write_text(json.dumps(told))
  return path


def honest(_, system):
  return {REFERENCE: 90, "theirs": 60, "ours": 40, ANCHOR: 10}[system]


def test_nothing_tells_the_sounds_apart(made):
  page, key = made
  test = shown(page)
  assert [trial["caption"] for trial in test["trials"]] == list(
    CAPTIONS.values()
  )
  files = {path.stem for path in (page / "sounds").iterdir()}
  assert files == set(key.sounds) and len(files) == 3 * 4
  for trial in test["trials"]:
    of = [key.sounds[sound] for sound in trial["sounds"]]
    assert len({clip for clip, _ in of}) == 1
    assert {system for _, system in of} == {"ours", "theirs", REFERENCE, ANCHOR}
    assert trial["sounds"] == sorted(trial["sounds"])  # in no telling order
  text = (page / "index.html").read_text()
  assert not re.search(r"ours|theirs|real/|https?://", text)
  for sound in files:
    audio, rate_hz = io.read(page / "sounds" / f"{sound}.wav")
    assert float(dsp.loudness(jnp.asarray(audio), rate_hz)) == pytest.approx(
      -23, abs=0.1
    )


def test_the_anchor_is_dull(made):
  page, key = made
  for sound, (_, system) in key.sounds.items():
    audio, rate_hz = io.read(page / "sounds" / f"{sound}.wav")
    power = np.abs(np.fft.rfft(audio[:, 0])) ** 2
    high = power[int(len(power) * 4500 / (rate_hz / 2)) :].sum() / power.sum()
    assert (high < 1e-3) == (system == ANCHOR)


def test_means_and_who_is_dropped(made, tmp_path):
  _, key = made
  files = [
    answered(key, tmp_path / "1", honest, "one"),
    answered(key, tmp_path / "2", lambda c, s: honest(c, s) + 4, "two"),
    answered(key, tmp_path / "3", lambda c, s: 100 - honest(c, s), "asleep"),
  ]
  found = ratings.report(files, key)
  assert found.listeners == ("one", "two") and found.dropped == {"asleep": 1.0}
  means = {(x.system, x.question): x for x in found.means}
  assert means["ours", "OVL"].mean == 42 and means["ours", "REL"].ratings == 6
  low, high = means["ours", "OVL"].interval
  assert 39.5 < low < 41 and 43 < high < 44.5
  assert list(means)[:4] == [
    (x, "OVL") for x in ("ours", "theirs", REFERENCE, ANCHOR)
  ]
  json.dumps(found.plain())


def test_without_a_reference_the_systems_must_beat_the_anchor(sets, tmp_path):
  del sets["real"]
  path = rating_page.make(
    sets, tmp_path / "page", captions=CAPTIONS, trials=2, seed=1
  )
  key = ratings.Key.read(path)
  assert len(key.sounds) == 2 * 3 and not key.reference
  ratings.report([answered(key, tmp_path / "1", honest)], key)
  bad = answered(key, tmp_path / "2", lambda c, s: 80 if s == ANCHOR else 50)
  with pytest.raises(InputError, match="none of 1 listeners is left"):
    ratings.report([bad], key)


class TestBadInput:
  def test_of_the_page(self, sets, tmp_path):
    del sets["real"]
    out = tmp_path / "page"
    for options, words in (
      ({"captions": {"a": "x"}}, "2 of 3 clips have no caption: b, c"),
      ({"questions": "mos"}, "'mos' are none of audiogen, make-an-audio"),
      ({"trials": 7}, "7 trials cannot be drawn of 3 clips: take 2 to 3"),
    ):
      with pytest.raises(InputError, match=re.escape(words)):
        rating_page.make(sets, out, **{"captions": CAPTIONS, **options})
      assert not out.exists()
    with pytest.raises(InputError, match="cannot be called anchor"):
      rating_page.make({ANCHOR: sets["ours"]}, out, captions=CAPTIONS)
    io.write(
      tmp_path / "ours" / "b.wav", np.zeros((RATE_HZ, 1), np.float32), RATE_HZ
    )
    with pytest.raises(InputError, match="b of ours is silent"):
      rating_page.make(sets, out, captions=CAPTIONS)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(InputError, match="is there already"):
      rating_page.make(sets, out, captions=CAPTIONS)

  def test_of_the_report(self, made, tmp_path, refused):
    page, key = made
    key_path = page.with_name("page.key.json")
    good = answered(key, tmp_path / "good", honest)
    told = json.loads(good.read_text())
    for name, change, words in (
      ("other", {"test": "x"}, "holds no answers to this test"),
      ("empty", {"answers": []}, "holds no answers; ask"),
      ("much", {"answers": [told["answers"][0] | {"OVL": 101}]}, "is damaged"),
      ("odd", {"answers": [{"sound": "zz"}]}, "is damaged"),
      ("list", {"answers": 5}, "is damaged"),
    ):
      path = tmp_path / name
      path.write_text(json.dumps(told | change))
      asked = ("evaluate", "listen-report", path, "--key", key_path)
      assert words in refused(*asked)
    words = refused("evaluate", "listen-report", good, good, "--key", key_path)
    assert "is of me, and so is another file" in words
    assert "no key of a listening test" in refused(
      "evaluate", "listen-report", good, "--key", good
    )
    assert "write NAME=FOLDER" in refused("evaluate", "listen", "x")


def test_commands(audiogen, sets, tmp_path):
  table = tmp_path / "captions.csv"
  table.write_text("name,caption\na,a dog\nb,rain\nc,a clock\n")
  status, output, errors = audiogen(
    *("evaluate", "listen", "--systems", f"A={tmp_path / 'ours'}"),
    *(f"B={tmp_path / 'theirs'}", "--captions", table),
    *("--questions", "make-an-audio", "--out", tmp_path / "page"),
  )
  assert status == 0, errors
  key_path = tmp_path / "page.key.json"
  key = ratings.Key.read(key_path)
  assert key.systems == ("A", "B") and key.questions == ("MOS-Q", "MOS-F")
  answers = answered(
    key, tmp_path / "1", lambda _, s: {"A": 50, "B": 70, ANCHOR: 5}[s]
  )
  figures = tmp_path / "figures.json"
  status, output, errors = audiogen(
    *("evaluate", "listen-report", answers, "--key", key_path),
    *("--json", figures),
  )
  assert status == 0, errors
  assert "70.0" in output and "MOS-F" in output
  assert json.loads(figures.read_text())["clips"] == 3


@pytest.mark.slow
def test_in_a_real_browser(made, browser, tmp_path):
  """A whole test by mouse, of a file, with a break in the middle."""
  page, key = made
  address = urllib.parse.urljoin("file:", str(page / "index.html"))
  browser.get(address)
  browser.find_element("id", "listener").send_keys("Zoë")
  browser.find_element("id", "begin").click()
  for number in range(3):
    caption = browser.find_element("id", "caption").text
    assert caption in CAPTIONS.values()
    players = browser.find_elements("css selector", "audio")
    assert len(players) == 4
    following = browser.find_element("id", "next")
    for player in players:
      name = player.get_attribute("src").rpartition("/")[2].removesuffix(".wav")
      wait = "arguments[0].dispatchEvent(new Event('ended'))"
      assert browser.execute_async_script(
        "const [p, done] = arguments;"
        "if (p.readyState) done(p.duration);"
        "else p.onloadedmetadata = () => done(p.duration);",
        player,
      ) == pytest.approx(1.0)
      assert not following.is_enabled()
      browser.execute_script(wait, player)
      for question in key.questions:
        browser.execute_script(
          "const s = document.getElementById(arguments[0]);"
          "s.value = arguments[1]; s.dispatchEvent(new Event('input'))",
          f"{name}-{question}",
          honest(*key.sounds[name]),
        )
    assert following.is_enabled()
    following.click()
    if number == 0:
      browser.get(address)  # goes on where it was
  text = browser.execute_async_script(
    "const done = arguments[0];"
    "fetch(document.getElementById('answers').href)"
    ".then((r) => r.text()).then(done)"
  )
  path = tmp_path / "answers.json"
  path.write_text(text, encoding="utf-8")
  found = ratings.report([path], key)
  assert found.listeners == ("Zoë",) and not found.dropped
  assert {x.system: x.mean for x in found.means if x.question == "OVL"} == {
    "ours": 40,
    "theirs": 60,
    REFERENCE: 90,
    ANCHOR: 10,
  }
