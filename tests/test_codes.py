"""Tokenising a dataset: the codes are those of each clip alone."""

import json
import threading

import jax
import numpy as np
import pytest
from recordings import dataset
from virtual_pod import Pod

import audiogen_jax as ag
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import bank, codes, mixing, reading, shards, witness
from audiogen_jax.data.codes import TokenizeConfig
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.reprogramming import ReprogramConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.spec import SoundSpec

LENGTHS = [700, 16_000, 30_001, 9_000] * 5
CONFIG = TokenizeConfig(min_duration_s=0.5, batch=3)


def noise(i, samples):
  draw = np.random.default_rng(i)
  return draw.integers(-9000, 9000, (samples, 1)).astype(np.int16)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
  folder = tmp_path_factory.mktemp("sounds") / "tiny"
  return dataset(folder, LENGTHS, spec=SoundSpec(), make=noise)


@pytest.fixture(scope="module")
def codec(tiny):
  return ag.load_codec(tiny, mesh=ag.make_mesh(data=1))


def rows(folder):
  return list(reading.read(folder).as_data_source(split="train"))


def encoded(codec, audio):
  audio = np.pad(audio, ((0, max(0, 8000 - len(audio))), (0, 0)))
  return codec.encode(audio[None])[0].T


def test_codes_are_those_of_each_clip(sounds, codec, tmp_path):
  met = []
  report = codes.tokenize(
    sounds,
    codec,
    tmp_path / "codes",
    config=CONFIG,
    progress=lambda *numbers: met.append(numbers),
  )
  assert report.examples == {"train": 20} and met == [(16, 20), (20, 20)]
  got = rows(tmp_path / "codes")
  assert len(got) == 20
  for i, (row, length) in enumerate(zip(got, LENGTHS, strict=True)):
    want = encoded(codec, noise(i, length).astype(np.float32) / 2**15)
    assert row["codes"].dtype == np.uint16
    np.testing.assert_array_equal(row["codes"], want)
    assert row["caption"].decode() == f"sound {i}"
    assert row["id"].decode() == str(i) and row["source"] == b"tiny"
  settings = reading.read(tmp_path / "codes").info.metadata
  assert settings["frame_rate_hz"] == codec.tokens.frame_rate_hz
  assert settings["codebooks"] == codec.tokens.codebooks


def test_the_loader_reads_codes(sounds, codec, tmp_path):
  codes.tokenize(sounds, codec, tmp_path / "codes", config=CONFIG)
  config = LoaderConfig(batch=8, duration_s=0.4)
  batch = next(Loader([Part(tmp_path / "codes")], config).batches())
  length = round(0.4 * codec.tokens.frame_rate_hz)
  assert batch["codes"].shape == (8, codec.tokens.codebooks, length)
  assert batch["codes"].dtype == np.int32
  # Each is a stretch of what was written.
  written = rows(tmp_path / "codes")
  for made, text in zip(
    np.asarray(batch["codes"]), batch["caption"], strict=True
  ):
    whole = written[int(text.split()[1])]["codes"].T
    ends = range(length, whole.shape[1] + 1)
    assert any(np.array_equal(whole[:, e - length : e], made) for e in ends)
  mixed = LoaderConfig(batch=8, mix=MixConfig())
  with pytest.raises(InputError, match="codes cannot be mixed: mix before"):
    Loader([Part(tmp_path / "codes")], mixed)
  anew = LoaderConfig(batch=8, reprogram=ReprogramConfig(bank=str(sounds)))
  with pytest.raises(InputError, match="codes, which cannot be reprogrammed"):
    Loader([Part(tmp_path / "codes")], anew)
  with pytest.raises(InputError, match="the bank .* holds codes, and events"):
    bank.Bank(str(tmp_path / "codes"), "train", {})


def test_copies_are_mixed_with_other_clips(sounds, codec, tmp_path):
  config = TokenizeConfig(min_duration_s=0.5, copies=2)
  report = codes.tokenize(sounds, codec, tmp_path / "a", config=config)
  assert report.examples == {"train": 60}
  got = rows(tmp_path / "a")
  plain, copies = got[:20], got[20:]
  assert [row["caption"].decode() for row in plain] == [
    f"sound {i}" for i in range(20)
  ]
  partners = set()
  for i, row in enumerate(copies):
    first, second = row["caption"].decode().split("sound ")[1:]
    assert int(first) == i % 20 and int(second) != int(first)
    partners.add((int(first), int(second)))
    assert row["id"].decode() == f"{i % 20}+{1 + i // 20}"
    assert len(row["codes"]) == len(plain[i % 20]["codes"])
    assert np.any(row["codes"] != plain[i % 20]["codes"])
  assert len(partners) > 30  # two copies of a clip have other partners
  # The first copy of clip 1 is such a mix, encoded.
  draw = np.random.default_rng((0, 1, 1))
  other = (1 + int(draw.integers(1, 20))) % 20
  drawn = mixing.draw(draw, 1, 16_000, MixConfig(chance=1.0))
  second = np.zeros((16_000, 1), np.float32)
  part = noise(other, LENGTHS[other])[:16_000] / np.float32(2**15)
  second[: len(part)] = part
  audio = mixing.mix_pair(
    noise(1, 16_000) / np.float32(2**15),
    second,
    *(values[0] for values in drawn[2:]),
    config=config.mix,
  )
  np.testing.assert_array_equal(copies[1]["codes"], encoded(codec, audio))


def test_two_processes_share_the_work(sounds, codec, tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  config = TokenizeConfig(min_duration_s=0.5, copies=3)
  codes.tokenize(sounds, codec, one, config=config)
  reports = {}

  def run(index):
    reports[index] = codes.tokenize(
      sounds, codec, two, config=config, process=(index, 2)
    )

  # Each waits for the other, whichever comes first.
  threads = [threading.Thread(target=run, args=(i,)) for i in (1, 0)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=60)
  assert reports[1] is None and reports[0].examples == {"train": 80}
  for ours, theirs in zip(rows(one), rows(two), strict=True):
    np.testing.assert_array_equal(ours["codes"], theirs["codes"])
    assert ours["id"] == theirs["id"]


@pytest.mark.slow
def test_distributed(sounds, codec, tiny, tmp_path):
  """By the command, in two processes that three variables name."""
  (tmp_path / "audiogen.py").write_text(
    "from audiogen_jax.cli import main\nmain()\n"
  )
  pod = Pod(count=2, devices=1)
  first, second = pod.start(
    *(tmp_path / "audiogen.py", "data", "tokenize", sounds),
    *("--model", tiny, "--out", tmp_path / "two", "--min-duration", "0.5"),
    *("--copies", "1", "--distributed"),
  ).well()
  assert "train" in first.output and "train" not in second.output
  config = TokenizeConfig(min_duration_s=0.5, copies=1)
  codes.tokenize(sounds, codec, tmp_path / "one", config=config)
  both = zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True)
  for ours, theirs in both:
    np.testing.assert_array_equal(ours["codes"], theirs["codes"])


def test_it_goes_on_where_it_stopped(sounds, codec, tmp_path, monkeypatch):
  real, calls = shards.write, []

  def killed(*args):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return real(*args)

  monkeypatch.setattr(shards, "write", killed)
  with pytest.raises(KeyboardInterrupt):
    codes.tokenize(sounds, codec, tmp_path / "a", config=CONFIG)
  report = codes.tokenize(sounds, codec, tmp_path / "a", config=CONFIG)
  assert len(calls) == 3 and report.examples == {"train": 20}
  # Another codec would continue with other codes.
  folder = tmp_path / "b"
  calls.clear()
  with pytest.raises(KeyboardInterrupt):
    codes.tokenize(sounds, codec, folder, config=CONFIG)
  embed = codec.variables["codebooks"]["embed"] + 1
  variables = codec.variables | {
    "codebooks": codec.variables["codebooks"] | {"embed": embed}
  }
  other = ag.Encodec(codec.config, variables)
  with pytest.raises(InputError, match="beginnings of another dataset"):
    codes.tokenize(sounds, other, folder, config=CONFIG)
  other = TokenizeConfig(min_duration_s=1.0)
  with pytest.raises(InputError, match="beginnings of another dataset"):
    codes.tokenize(sounds, codec, folder, config=other)


def test_what_cannot_be_tokenised(sounds, codec, tmp_path):
  other = dataset(tmp_path / "a", [500], spec=SoundSpec(rate_hz=24_000))
  with pytest.raises(InputError, match="24000.*encoder takes.*--rate 16000"):
    codes.tokenize(other, codec, tmp_path / "b")
  codes.tokenize(sounds, codec, tmp_path / "c", config=CONFIG)
  with pytest.raises(InputError, match="holds .*codebooks.*encoder takes"):
    codes.tokenize(tmp_path / "c", codec, tmp_path / "b")
  for values, words in (
    (dict(min_duration_s=-1.0), "duration -1.0 s must be 0 or more"),
    (dict(copies=-1), "copies -1 must be 0 or more"),
    (dict(batch=0), "batch 0 must be 1 or more"),
  ):
    with pytest.raises(InputError, match=words):
      TokenizeConfig(**values)
  report = json.loads((tmp_path / "c" / shards.REPORT).read_text())
  assert report["left_out"] == []


def test_codes_tell_their_codec(sounds, codec, tmp_path):
  """The very codec is recognised; one with another encoder is not."""
  codes.tokenize(sounds, codec, tmp_path / "a", config=CONFIG)
  settings = dict(reading.read(tmp_path / "a").info.metadata)
  witness.check(codec, settings, "a")
  rounded = jax.tree.map(
    lambda x: x.astype(np.float16).astype(np.float32), codec.variables
  )
  witness.check(ag.Encodec(codec.config, rounded), settings, "a")
  encoder = jax.tree.map(lambda x: -x, codec.variables["params"]["encoder"])
  params = codec.variables["params"] | {"encoder": encoder}
  other = ag.Encodec(codec.config, codec.variables | {"params": params})
  with pytest.raises(InputError, match="by another codec: .* agree"):
    witness.check(other, settings, "a")
  with pytest.raises(InputError, match="does not say by which codec"):
    witness.check(codec, settings | {"codec": "0123456789abcdef"}, "a")


def test_what_a_row_lacks_is_no_code(sounds, codec, tmp_path):
  """Clips shorter than a row: the rest is -1, and not token 0."""
  config = TokenizeConfig(min_duration_s=0.1)
  codes.tokenize(sounds, codec, tmp_path / "a", config=config)
  loader = Loader(
    [Part(str(tmp_path / "a"))],
    LoaderConfig(batch=8, duration_s=5.0, epochs=1, shuffle=False),
  )
  with loader.batches() as batches:
    rows = np.asarray(next(batches)["codes"])
  lengths = (rows >= 0).sum(axis=2)
  assert (lengths == lengths[:, :1]).all() and lengths.max() < rows.shape[2]
  for row, length in zip(rows, lengths[:, 0], strict=True):
    assert (row[:, length:] == -1).all()
