"""The loader: what rows hold, and that their order depends on nothing else."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from recordings import dataset, sound

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.data import mixing
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.text.tokenizer import ByteTokenizer

ALWAYS = MixConfig(chance=1.0)
CONFIG = LoaderConfig(batch=8, duration_s=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """40 sounds of 30 to 69 samples; a crop has 50."""
  return dataset(tmp_path_factory.mktemp("data") / "tiny", range(30, 70))


def loader(folder, config=CONFIG, **options):
  return Loader([Part(folder)], config, **options)


def number(caption):
  return int(caption.split()[1])


def same(one, other):
  assert one.keys() == other.keys()
  for name, values in one.items():
    np.testing.assert_array_equal(values, other[name])


def take(batches, count):
  return list(itertools.islice(batches, count))


def test_a_row_is_a_stretch_of_its_sound(folder):
  starts = {}
  for batch in take(loader(folder).host_batches(), 100):
    assert batch["audio"].shape == (8, 50, 1)
    assert batch["audio"].dtype == np.float32 and batch["valid"].all()
    for audio, caption in zip(batch["audio"], batch["caption"], strict=True):
      i = number(caption)
      samples = np.rint(audio[:, 0] * 2**15).astype(int)
      length = min(50, 30 + i)
      start = samples[0] - 100 * i
      want = 100 * i + start + np.arange(length)
      np.testing.assert_array_equal(samples[:length], want)
      assert not samples[length:].any()  # only what is too short is padded
      assert 0 <= start <= max(0, 30 + i - 50)
      starts.setdefault(i, set()).add(start)
  assert starts.keys() == set(range(40))
  assert len(starts[39]) > 10
  assert any(0 in starts[i] for i in range(30, 40))
  assert any(i - 20 in starts[i] for i in range(30, 40))


def test_min_fraction_lets_crops_end_in_silence(folder):
  config = dataclasses.replace(CONFIG, min_fraction=0.4)
  sounds = set()
  for batch in take(loader(folder, config).host_batches(), 100):
    filled = np.count_nonzero(batch["audio"][:, :, 0], axis=1)
    own = np.minimum(50, [30 + number(text) for text in batch["caption"]])
    # Sample 0 of sound 0 is a zero.
    assert np.all(filled + 1 >= np.minimum(own, 20))
    sounds |= set(filled)
  assert min(sounds) in (19, 20) and max(sounds) == 50


def test_an_epoch_holds_each_sound_once(folder):
  config = dataclasses.replace(CONFIG, batch=16, epochs=1)
  made = loader(folder, config)
  batches = list(made.host_batches())
  assert len(batches) == len(made) == 3  # 40 sounds, and 8 rows that fill
  valid = np.concatenate([batch["valid"] for batch in batches])
  texts = list(itertools.chain(*(batch["caption"] for batch in batches)))
  assert valid.tolist() == [True] * 40 + [False] * 8
  assert sorted(map(number, texts[:40])) == list(range(40))
  assert texts[40:] == [""] * 8 and not batches[-1]["audio"][8:].any()
  assert texts[:40] != [f"sound {i}" for i in range(40)]  # shuffled
  unshuffled = loader(folder, dataclasses.replace(config, shuffle=False))
  texts = itertools.chain(*(b["caption"] for b in unshuffled.host_batches()))
  assert list(texts)[:40] == [f"sound {i}" for i in range(40)]


def test_epochs_differ(folder):
  batches = take(loader(folder).host_batches(), 10)
  texts = list(itertools.chain(*(batch["caption"] for batch in batches)))
  assert sorted(texts[:40]) == sorted(texts[40:])
  assert texts[:40] != texts[40:]
  other = loader(folder, dataclasses.replace(CONFIG, seed=1))
  assert next(other.host_batches())["caption"] != batches[0]["caption"]


def test_crops_depend_on_the_seed(folder):
  config = dataclasses.replace(CONFIG, shuffle=False)
  one, other = (
    take(loader(folder, dataclasses.replace(config, seed=s)).host_batches(), 5)
    for s in (0, 1)
  )
  assert [b["caption"] for b in one] == [b["caption"] for b in other]
  assert any(
    not np.array_equal(a["audio"], b["audio"])
    for a, b in zip(one, other, strict=True)
  )


def test_datasets_are_shuffled_apart(folder):
  made = Loader([Part(folder), Part(folder)], CONFIG)
  batches = take(made.host_batches(), 5)
  texts = list(itertools.chain(*(batch["caption"] for batch in batches)))
  assert texts[0::2] != texts[1::2]


def test_a_state_knows_the_weights(folder):
  digests = {
    Loader([Part(folder, weight=w), Part(folder)], CONFIG).digest
    for w in (1.0, 2.0)
  }
  assert len(digests) == 2


@pytest.mark.parametrize("mix", [None, MixConfig()])
def test_the_number_of_processes_changes_nothing(folder, mix):
  made = loader(folder, dataclasses.replace(CONFIG, mix=mix))
  whole = take(made.host_batches(), 6)
  # Halves, and what the hosts of a torus may hold.
  for shares in ([range(4), range(4, 8)], [[0, 1, 6, 7], [2, 3], [4, 5]]):
    shares = [np.array(held) for held in shares]
    parts = [take(made.host_batches(2, held=held), 4) for held in shares]
    for step in range(4):
      for held, part in zip(shares, parts, strict=True):
        want = whole[2 + step]
        assert part[step]["caption"] == [want["caption"][i] for i in held]
        np.testing.assert_array_equal(part[step]["audio"], want["audio"][held])


@pytest.mark.parametrize("mix", [None, MixConfig()])
def test_resumed_is_uninterrupted(folder, mix):
  config = dataclasses.replace(CONFIG, mix=mix)
  batches = loader(folder, config).batches()
  seen = take(batches, 7)
  state = json.loads(json.dumps(batches.state))
  want = take(batches, 5)
  # As after a kill: nothing is left but the state; other workers, too.
  config = dataclasses.replace(config, prefetch=0)
  got = take(loader(folder, config).batches(state), 5)
  for one, other in zip(got, want, strict=True):
    same(one, other)
  assert seen[0]["caption"] != want[0]["caption"]


def test_workers_give_the_same_batches(folder):
  config = dataclasses.replace(CONFIG, mix=MixConfig())
  want = take(loader(folder, config).host_batches(), 5)
  with loader(folder, dataclasses.replace(config, workers=2)).batches() as some:
    for one, other in zip(take(some, 5), want, strict=True):
      same(one, other)
  assert not multiprocessing.active_children()


def test_a_state_of_something_else(folder):
  state = loader(folder).batches().state
  for changes in (dict(seed=1), dict(batch=16), dict(mix=ALWAYS)):
    other = loader(folder, dataclasses.replace(CONFIG, **changes))
    with pytest.raises(InputError, match="other datasets, another config"):
      other.batches(state)


def test_a_state_of_other_sounds(tmp_path):
  """A dataset that was built again, as long and as large: said, not trained."""
  lengths = [300] * 20
  state = loader(dataset(tmp_path / "a", lengths)).batches().state
  loader(dataset(tmp_path / "b", lengths)).batches(state)  # the same sounds
  other = dataset(tmp_path / "c", lengths, make=lambda i, n: -sound(i, n))
  with pytest.raises(InputError, match="other datasets"):
    loader(other).batches(state)


def test_pairs_are_mixed(folder):
  made = loader(folder, dataclasses.replace(CONFIG, mix=MixConfig()))
  plain = loader(folder, dataclasses.replace(CONFIG, batch=16))
  joined = 0
  sounds = plain.host_batches()
  for i, batch in enumerate(take(made.host_batches(), 5)):
    examples = next(sounds)
    want, drawn = mixing.mix(
      examples["audio"], mixing.generator(0, i), MixConfig()
    )
    np.testing.assert_array_equal(batch["audio"], want)
    for row, text in enumerate(batch["caption"]):
      first, second = (
        examples["caption"][x[row]] for x in (drawn.first, drawn.second)
      )
      mixed = drawn.mixed[row]
      assert text == (mixing.join(first, second) if mixed else first)
      joined += text.count("sound") == 2
  assert 10 < joined < 30


def test_weights(folder, tmp_path):
  dataset(tmp_path / "other", [50] * 20, name="other")
  parts = [Part(folder, weight=3.0), Part(tmp_path / "other")]
  batches = take(Loader(parts, CONFIG).host_batches(), 100)
  audio = np.concatenate([batch["audio"] for batch in batches])
  texts = list(itertools.chain(*(batch["caption"] for batch in batches)))
  assert audio.shape == (800, 50, 1)
  assert sum(number(text) >= 20 for text in texts) == pytest.approx(300, abs=30)


def test_texts_fall_into_buckets(folder):
  made = loader(
    folder,
    dataclasses.replace(CONFIG, text_buckets=(4, 9, 10)),
    tokenizer=ByteTokenizer(),
  )
  lengths = set()
  for batch in take(made.host_batches(), 30):
    ids, mask = batch["text_ids"], batch["text_mask"]
    for row, shown, text in zip(ids, mask, batch["caption"], strict=True):
      want = [3 + byte for byte in text.encode()] + [1]
      assert row[shown].tolist() == want and not row[~shown].any()
    lengths.add(ids.shape[1])
  assert lengths == {9, 10} or lengths == {9}
  # Longer than the last: cut, with the end mark kept.
  made = loader(
    folder,
    dataclasses.replace(CONFIG, text_buckets=(4,)),
    tokenizer=ByteTokenizer(),
  )
  batch = next(made.host_batches())
  assert batch["text_ids"].tolist() == [[118, 114, 120, 1]] * 8
  # Several processes cannot know each other's texts: one length for all.
  made = loader(folder, tokenizer=ByteTokenizer())
  shapes = {
    part["text_ids"].shape
    for held in (np.arange(4), np.arange(4, 8))
    for part in take(made.host_batches(held=held), 3)
  }
  assert shapes == {(4, 128)}


def test_batches_lie_on_the_mesh(folder):
  mesh = make_mesh(data=4, tensor=2)
  made = loader(
    folder, tokenizer=ByteTokenizer(), placement=Placement.make(mesh)
  )
  want = next(made.host_batches())
  got = next(made.batches())
  same(got, want)
  audio = got["audio"]
  assert isinstance(audio, jax.Array)
  shapes = {shard.data.shape for shard in audio.addressable_shards}
  assert shapes == {(2, 50, 1)}
  assert isinstance(got["caption"], list)


@pytest.mark.parametrize(
  ("values", "words"),
  [
    (dict(batch=0), "batch 0 must be 1 or more"),
    (dict(duration_s=0.0), "duration 0.0 s must be more than 0"),
    (dict(duration_s=float("nan")), "duration nan s must be"),
    (dict(min_fraction=0.0), r"min_fraction 0.0 must lie in \(0, 1\]"),
    (dict(epochs=0), "epochs 0 must be 1 or more"),
    (dict(text_buckets=()), r"text_buckets \(\) must"),
    (dict(text_buckets=(8, 4)), r"text_buckets \(8, 4\) must"),
    (dict(seed=-1), "seed -1 must lie"),
    (dict(workers=-1), "workers -1 must lie"),
  ],
)
def test_configurations_that_cannot_be(values, words):
  with pytest.raises(InputError, match=words):
    dataclasses.replace(CONFIG, **values)


def test_datasets_that_cannot_be_loaded(folder, tmp_path):
  with pytest.raises(InputError, match="no dataset: dataset_info.json is miss"):
    loader(tmp_path)
  (tmp_path / ".building").mkdir()
  with pytest.raises(InputError, match="unfinished dataset; run the command"):
    loader(tmp_path)
  with pytest.raises(InputError, match="has no split test, but train"):
    Loader([Part(folder, split="test")], CONFIG)
  with pytest.raises(InputError, match="weight 0.0 of .* more than 0"):
    Loader([Part(folder, weight=0.0)], CONFIG)
  with pytest.raises(InputError, match="one dataset at least"):
    Loader([], CONFIG)
  few = dataclasses.replace(CONFIG, batch=32, epochs=1, mix=ALWAYS)
  with pytest.raises(InputError, match="40 examples are too few .* 32: .* 64"):
    loader(folder, few)
  other = dataset(tmp_path / "a", [50] * 4, spec=SoundSpec(rate_hz=200))
  with pytest.raises(InputError, match="'rate_hz': 100.*'rate_hz': 200.*alike"):
    Loader([Part(folder), Part(other)], CONFIG)
  mesh = Placement.make(make_mesh(data=8))
  few = dataclasses.replace(CONFIG, batch=12)
  with pytest.raises(InputError, match="batch 12 does not .* do: 8 or 16"):
    loader(folder, few, placement=mesh).batches()


_TRAIN = textwrap.dedent("""
  import json, os, pathlib, sys, time
  from audiogen_jax.data.loader import Loader, Part
  from audiogen_jax.data.mixing import MixConfig
  from audiogen_jax.data.rows import LoaderConfig

  if __name__ == "__main__":
    folder, log, workers = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    config = LoaderConfig(
      batch=8, duration_s=0.5, epochs=12, mix=MixConfig(), workers=int(workers)
    )
    done = json.loads(log.read_text()) if log.exists() else None
    texts, state = (done["texts"], done["state"]) if done else ([], None)
    with Loader([Part(folder)], config).batches(state) as batches:
      for batch in batches:
        texts.append([*batch["caption"], float(batch["audio"].sum())])
        part = log.with_suffix(".part")
        part.write_text(json.dumps({"texts": texts, "state": batches.state}))
        os.replace(part, log)  # what a checkpoint does
        time.sleep(0.02)
    print("done")
""")


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch(folder, tmp_path):
  """Killed three times, gone on with other workers: the same sequence."""
  script, log = tmp_path / "train.py", tmp_path / "log.json"
  script.write_text(_TRAIN)
  env = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}

  def run(log, workers):
    command = [sys.executable, script, folder, log, str(workers)]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)

  for kill, workers in enumerate((0, 1, 2)):
    with run(log, workers) as process:
      while not (log.exists() and _seen(log) > 7 * (kill + 1)):
        assert process.poll() is None
        time.sleep(0.005)
      process.kill()
  assert _seen(log) < 30
  whole = tmp_path / "whole.json"
  for path in (log, whole):
    with run(path, 0) as process:
      assert process.wait() == 0
  assert log.read_text() == whole.read_text() and _seen(whole) == 30


def _seen(log):
  return len(json.loads(log.read_text())["texts"])


@pytest.mark.parametrize("ending", ["close", "break", "drop"])
def test_programs_end_quietly(folder, tmp_path, ending):
  script = textwrap.dedent(f"""
    import sys
    from audiogen_jax.data.loader import Loader, Part
    from audiogen_jax.data.rows import LoaderConfig

    if __name__ == "__main__":
      config = LoaderConfig(batch=8, duration_s=0.5, workers=1)
      batches = Loader([Part(sys.argv[1])], config).batches()
      next(batches)
      if {ending!r} == "close":
        batches.close()
        assert not list(batches)
      elif {ending!r} == "drop":
        del batches
  """)
  (tmp_path / "a.py").write_text(script)
  env = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
  command = [sys.executable, tmp_path / "a.py", folder]
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, "")
