"""Captions for sounds without any: experts propose, CLAP chooses."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import soundfile
from recordings import dataset
from test_clap import heard as embedded
from test_clap import model_of
from virtual_pod import Pod

from audiogen_jax.convert import judges
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.data import enhance, experts, reading, shards, sources
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.enhance import EnhanceConfig
from audiogen_jax.data.experts import Proposals
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.shards import About
from audiogen_jax.data.spec import CodeSpec, SoundSpec
from audiogen_jax.evaluate.clap_scorer import ClapScorer

RATE = 4_000
CLIPS = 320
BANK = "a dog barks", "rain on the roof", "wind in trees", "cat and dog"


def noise(number, samples):
  """Of a colour of its own, so that CLAPs tell it from others."""
  numbers = np.random.default_rng(number)
  spectrum = np.fft.rfft(numbers.normal(size=samples))
  spectrum *= np.exp(numbers.normal(size=5).repeat(1 + len(spectrum) // 5))[
    : len(spectrum)
  ]
  wave = np.fft.irfft(spectrum, samples)
  return np.rint(9_000 * wave / np.abs(wave).max()).astype(np.int16)[:, None]


def sounds(path, count, **options):
  spec = SoundSpec(rate_hz=RATE)
  given = dict(spec=spec, make=noise, captions=lambda i: "") | options
  return dataset(path, [2_000] * count, **given)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
  """320 sounds with neither captions nor tags."""
  return sounds(tmp_path_factory.mktemp("data") / "bare", CLIPS)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
  """40 sounds: every fourth has a caption, a tag, its tags for one, nothing."""
  return sounds(
    tmp_path_factory.mktemp("data") / "few",
    40,
    tags=lambda i: [[], ["Dog"], ["dog_bark", "rain", "wind"], []][i % 4],
    captions=lambda i: ["own", "", "dog bark rain wind", ""][i % 4],
  )


@pytest.fixture(scope="module")
def clap():
  return model_of()


@pytest.fixture
def scorer(clap):
  return ClapScorer("audiogen", extractor=clap)


class Planted:
  """Reads "clip 12" as what it hears in clip 12."""

  identity = "planted"

  def __init__(self, scorer, path):
    self.hear, self.heard = scorer.hear, 0
    source = reading.Examples(reading.read(path), "train")
    audio = [source[i]["audio"] * np.float32(2**-15) for i in range(CLIPS)]
    self._vectors = scorer.hear(audio, RATE)

  def read(self, texts):
    return self._vectors[[int(text.split()[1]) for text in texts]]


def rows(path, split="train"):
  source = reading.read(path).as_data_source(split=split)
  return [source[i] for i in range(len(source))]


def test_a_planted_bank_is_found_by_all(bare, scorer, tmp_path):
  order = np.random.default_rng(0).permutation(CLIPS)
  bank = tuple(f"clip {i}" for i in order)
  listener = Planted(scorer, bare)
  report = enhance.enhance(bare, tmp_path / "out", listener, Proposals(bank))
  assert report.chosen == {"bank": CLIPS} and not report.left_out
  found = rows(tmp_path / "out")
  right = sum(
    row["caption"].decode() == f"clip {row['id'].decode()}" for row in found
  )
  assert (right, len(found)) == (CLIPS, CLIPS)
  assert all(row[enhance.ORIGIN] == b"bank" for row in found)
  np.testing.assert_allclose(
    [row[enhance.SCORE] for row in found], 1, atol=1e-5
  )
  np.testing.assert_array_equal(found[7]["audio"], noise(7, 2_000))


def test_by_the_command_with_a_random_clap(
  audiogen, bare, clap, tmp_path, monkeypatch
):
  """All 320 clips, over eight devices; what is written, trainers read."""
  monkeypatch.setattr(judges, "load", lambda name, weights: clap)
  bank, out = tmp_path / "bank.csv", tmp_path / "out"
  bank.write_text(
    "id,caption\n1,a dog barks\n2,rain on the roof\n3,a dog barks\n"
  )
  told = tmp_path / "told.jsonl"
  lines = [{"path": f"x/{i}.wav", "caption": f"wind {i}"} for i in range(CLIPS)]
  told.write_text("\n".join(map(json.dumps, lines)))
  words = "data", "enhance", bare, "--out", out, "--bank", bank
  status, said, _ = audiogen(*words, "--captions", told)
  assert status == 0 and "320 in train" in said
  report = json.loads((out / enhance.REPORT).read_text())
  assert report["bank"] == 2 and sum(report["chosen"].values()) == CLIPS
  assert {k: len(v) for k, v in report["scores"].items()} == {
    "bank": CLIPS,
    "captions": CLIPS,
  }
  assert (out / enhance.PICTURE).read_bytes().startswith(b"\x89PNG")
  loader = Loader([Part(out)], LoaderConfig(batch=8, duration_s=0.5))
  captions = next(loader.host_batches())["caption"]
  assert all(
    re.match(r"a dog barks$|rain on|wind \d", text) for text in captions
  )


def test_eight_devices_hear_what_one_does(clap):
  audio = [noise(i, 900)[:, 0] * np.float32(2**-15) for i in range(13)]
  spread = clap.spread(Placement.make(make_mesh(data=8)))
  np.testing.assert_allclose(
    embedded(spread, *audio), embedded(clap, *audio), atol=2e-6
  )
  (rows,) = spread._hear(np.zeros((8, 4_000), "f"), np.zeros(8, np.int32))
  shapes = {(s.device, s.data.shape[0]) for s in rows.addressable_shards}
  assert shapes == {(device, 1) for device in jax.devices()}
  np.testing.assert_allclose(
    spread.embed_texts(BANK), clap.embed_texts(BANK), atol=2e-6
  )


def test_what_experts_say_of_which_clips(few, scorer, tmp_path):
  outside = {"3": ("wind in trees", "cat")}
  proposals = Proposals(BANK, outside)
  report = enhance.enhance(few, tmp_path / "a", scorer, proposals)
  assert report.examples == {"train": 40} and report.chosen["kept"] == 10
  sizes = {origin: len(values) for origin, values in report.scores.items()}
  assert sizes == {"bank": 30, "tags": 20, "captions": 1}
  for number, row in enumerate(rows(tmp_path / "a")):
    origin, score = row[enhance.ORIGIN].decode(), float(row[enhance.SCORE])
    if number % 4 == 0:
      assert (origin, row["caption"]) == ("kept", b"own") and np.isnan(score)
      continue
    # The best of all that any expert says, by the scorer itself.
    named = [None, "dog", "dog bark, rain and wind", None][number % 4]
    texts = [*BANK, *outside.get(str(number), ())]
    texts += [text.format(named) for text in experts.TAG_SENTENCES if named]
    audio = np.stack([row["audio"] * np.float32(2**-15)] * len(texts))
    want = scorer.score(audio, RATE, texts)
    assert score == pytest.approx(want.max(), abs=1e-5)
    assert row["caption"].decode() == texts[int(want.argmax())]
  every = EnhanceConfig(every=True)
  report = enhance.enhance(few, tmp_path / "b", scorer, proposals, config=every)
  sizes = {origin: len(values) for origin, values in report.scores.items()}
  assert sizes == {"bank": 40, "tags": 20, "captions": 1, "own": 20}


def test_too_low_a_score_and_no_expert_leave_out(few, scorer, tmp_path):
  report = enhance.enhance(few, tmp_path / "a", scorer, Proposals())
  assert report.examples == {"train": 30} and len(report.left_out) == 10
  assert "no expert has a caption" in report.left_out[0].reason
  middle = float(np.median(report.scores["tags"]))
  report = enhance.enhance(
    *(few, tmp_path / "b", scorer, Proposals()),
    config=EnhanceConfig(min_score=middle),
  )
  assert report.chosen["tags"] == 10 and len(report.left_out) == 20
  reasons = [row.reason for row in report.left_out]
  assert sum("has the score" in reason for reason in reasons) == 10
  silent = sounds(tmp_path / "c", 2, make=lambda i, n: i * noise(i, n))
  report = enhance.enhance(silent, tmp_path / "d", scorer, Proposals(BANK))
  assert report.left_out == [
    shards.LeftOut("0", "is silent: every sample is 0")
  ]


def test_sounds_without_captions_can_be_built(tmp_path):
  for name in "ab":
    soundfile.write(tmp_path / f"{name}.wav", noise(1, 2_000) / 2**15, RATE)
  (tmp_path / "a.jsonl").write_text(
    '{"path": "a.wav"}\n{"path": "b.wav", "caption": "rain"}'
  )
  told = [row.caption for row in sources.read("jsonl", tmp_path).records]
  assert told == ["rain"]
  rules = CaptionRules(bare=True, lower=True)
  found = sources.read("jsonl", tmp_path, rules=rules)
  assert [row.caption for row in found.records] == ["", "rain"]


class Dying:
  """A listener that dies after so many batches, and counts them."""

  identity = "dying"

  def __init__(self, scorer, most=None):
    self._scorer, self._most, self.heard, self.texts = scorer, most, 0, 0

  def hear(self, sounds, rate_hz):
    if self.heard == self._most:
      raise RuntimeError("killed")
    self.heard += 1
    return self._scorer.hear(sounds, rate_hz)

  def read(self, texts):
    self.texts += len(texts)
    return self._scorer.read(texts)


def test_a_kill_costs_a_batch(few, scorer, tmp_path):
  config = EnhanceConfig(every=True, batch=4)
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  proposals = Proposals(BANK)
  given = dict(config=config)
  want = enhance.enhance(few, whole, Dying(scorer), proposals, **given)
  for most in (3, 2):  # inside shards of 16 clips
    with pytest.raises(RuntimeError, match="killed"):
      enhance.enhance(few, parts, Dying(scorer, most), proposals, **given)
    with pytest.raises(InputError, match="holds an unfinished dataset"):
      reading.read(parts)
  last = Dying(scorer)
  with pytest.raises(InputError, match="beginnings of another dataset"):
    enhance.enhance(few, parts, last, Proposals(BANK[1:]), **given)
  seen = []
  given["progress"] = lambda *now: seen.append(now)
  got = enhance.enhance(few, parts, last, proposals, **given)
  assert seen[0][0].startswith("sentences") and seen[-1] == ("clips", 20, 24)
  assert last.heard == 10 - 5 and last.texts < len(BANK) + 40
  assert got == want
  for ours, theirs in zip(rows(parts), rows(whole), strict=True):
    assert ours["caption"] == theirs["caption"]
  hashes = [
    json.loads((path / shards.REPORT).read_text())["sha256"]
    for path in (whole, parts)
  ]
  assert hashes[0] == hashes[1]
  assert not (parts / shards.BUILDING).exists()


def test_banks_of_all_kinds(few, tmp_path):
  text, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
  text.write_text("rain\n\n a  dog \n")
  lines.write_text('{"caption": "wind"}\n{"prompt": "rain"}\n')
  table = tmp_path / "a.csv"
  table.write_text('caption,x\n"a dog, far",1\n')
  want = ("rain", "a dog", "wind", "a dog, far", "own", "dog bark rain wind")
  assert experts.bank([text, lines, table, few]) == want


def test_lines_find_their_clips(tmp_path):
  path = tmp_path / "a.jsonl"
  rows = [
    {"path": "/x/rain.wav", "caption": "one"},
    {"id": "b/dog.ogg", "caption": "two"},
    {"path": "c/dog.ogg", "caption": "of the first dog"},
    {"id": "none", "caption": "three"},
    {"path": "rain.flac", "caption": "four"},
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  found = experts.outside(path, ["a/dog.ogg", "b/dog.ogg", "rain"])
  assert found == {
    "rain": ("one", "four"),
    "b/dog.ogg": ("two",),
    "a/dog.ogg": ("of the first dog",),
  }


def test_bad_input_is_one_line(
  few, clap, refused, audiogen, tmp_path, monkeypatch
):
  bank, bad = tmp_path / "bank.txt", tmp_path / "bad.csv"
  bank.write_text("rain\n")
  bad.write_text("name\nx\n")
  (tmp_path / "empty.txt").write_text("\n")
  (tmp_path / "other.jsonl").write_text('{"id": "z", "caption": "x"}\n')
  (tmp_path / "bad.jsonl").write_text('{"id": "1"}\n')
  spec = CodeSpec(codebooks=2, size=8, frame_rate_hz=50)
  codes = tmp_path / "codes"
  about = About("codes", spec.features, "", dataclasses.asdict(spec))
  example = {"id": "0", "caption": "", "tags": [], "source": "", "licence": ""}
  example |= {"codes": np.zeros((5, 2), np.uint16)}
  with shards.Build.open(codes, about, {"train": [example]}) as build:
    shards.write(codes, build.todo[0], spec.features, [example])
    build.finish()
  words = ["data", "enhance", few, "--out", tmp_path / "out"]
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  said = refused(*words, "--bank", bank)
  assert re.search("weights of .* are missing: download", said)
  monkeypatch.setattr(judges, "load", lambda name, weights: clap)
  for more, told in (
    (["--bank", tmp_path / "no"], "there is no bank at"),
    (["--bank", bad], "lacks the column caption"),
    (["--bank", tmp_path / "empty.txt"], "holds no captions"),
    (["--bank", tmp_path / "bad.jsonl"], "a line lacks its caption"),
    (["--captions", tmp_path / "no"], "no captions at"),
    (["--captions", tmp_path / "other.jsonl"], "none of the 1 lines of"),
    (["--captions", tmp_path / "bad.jsonl"], "a line lacks its caption"),
    (["--min-score", 2], "min_score 2.0 must lie in"),
    (["--batch", 0], "batch 0 must be 1 or more"),
    (["--scorer", "x"], "'x' is no CLAP"),
    (["--min-score", 1, "--bank", bank, "--all"], "none of 40 items could be"),
  ):
    assert told in refused(*words, *more), more
  said = refused("data", "enhance", codes, "--out", tmp_path / "new")
  assert "holds codes, which nobody hears" in said
  said = refused("data", "enhance", few, "--out", few, "--bank", bank)
  assert "already holds a dataset" in said


PROGRAM = """
from test_clap import model_of
from audiogen_jax import cli
from audiogen_jax.convert import judges
judges.load = lambda name, weights: model_of()
cli.main()
"""


@pytest.mark.slow
def test_two_processes_share_the_work(few, scorer, tmp_path):
  """By the command; where one refuses, both do, with the same words."""
  program, bank = tmp_path / "program.py", tmp_path / "bank.txt"
  program.write_text(PROGRAM)
  bank.write_text("\n".join(BANK))
  words = [program, "data", "enhance", few, "--distributed", "--bank", bank]
  pod = Pod(count=2, devices=1).start(*words, "--out", tmp_path / "two")
  first, second = pod.well()
  assert "40 in train" in first.output and "train" not in second.output
  one = tmp_path / "one"
  want = enhance.enhance(few, one, scorer, Proposals(BANK))
  for ours, theirs in zip(rows(tmp_path / "two"), rows(one), strict=True):
    assert ours["caption"] == theirs["caption"]
  report = json.loads((tmp_path / "two" / enhance.REPORT).read_text())
  assert report["chosen"] == dict(want.chosen)
  words += ["--out", tmp_path / "no", "--all", "--min-score", "0.9999"]
  ended = Pod(count=2, devices=1).start(*words).ended()
  assert [one.status for one in ended] == [2, 2]
  assert all("of 40 items could be used" in one.errors for one in ended)
