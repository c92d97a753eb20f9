"""Generated sounds beside real ones: figures, protocols, going on, refusals."""

import json

import judging
import numpy as np
import pytest
import recordings
import soundfile
from judging import Judge

from audiogen_jax.core.errors import InputError
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.embedding import agreement, frechet, protocols
from audiogen_jax.evaluate import divergence, listening, sounds

pytestmark = pytest.mark.filterwarnings("ignore:sets of")


@pytest.fixture
def pair(tmp_path):
  """Two folders with the same names, of different colours."""
  generated = judging.folder(tmp_path / "made", start=100, colour=0.5)
  return generated, judging.folder(tmp_path / "real", suffix=".flac")


@pytest.fixture
def run(tmp_path):
  """Evaluates with judges that need no weights."""

  def evaluate(generated, reference, protocol="sfx", judge=None, **options):
    way = protocols.get(protocol)
    names = {hearing.judge for hearing in way.hearings.values()}
    judge = judge or Judge()
    return sounds.evaluate(
      generated,
      reference,
      protocol,
      extractors=dict.fromkeys(names, judge),
      kept=tmp_path / "kept",
      **{"replicates": 5} | options,
    )

  return evaluate


def heard(folder, judge=None):
  judge = judge or Judge()
  files = sorted(folder.iterdir())
  return judge.embed([soundfile.read(file)[0] for file in files])


def rows(folder):
  return np.concatenate([each.embeddings for each in heard(folder)])


def test_a_distance_is_that_of_all_windows(pair, run):
  report = run(*pair)
  figure = report["fad"]
  sets = [frechet.gather(rows(folder)) for folder in pair]
  np.testing.assert_allclose(figure.value, frechet.distance(*sets), rtol=1e-6)
  assert figure.clips == (12, 12) and not figure.paired
  low, high = figure.interval
  assert low < figure.value < high
  assert figure.floor > 0
  assert figure.sha256 == "ab" * 32 and figure.weights == "judge"
  assert np.isfinite(report["kid"].value)


def test_kl_and_clap_are_of_pairs_and_told_by_clip(pair, run):
  captions = {f"clip{i:02d}": "noise" * i for i in range(1, 12)}
  captions["clip00"] = "none"
  report = run(*pair, "audiogen", measures=["kl", "clap"], captions=captions)
  kl = report["kl"]
  assert list(kl.by_clip) == sorted(captions)
  assert kl.paired and kl.floor is None
  np.testing.assert_allclose(np.mean(list(kl.by_clip.values())), kl.value)
  clap = report["clap"]
  assert -1 < clap.value < 1 and -1 < clap.floor < 1
  assert any("10 s" in note for note in report.notes)


def test_kl_goes_the_way_of_the_protocol(tmp_path, run):
  """At the judge's own rate, where no protocol changes what is heard."""
  made = judging.folder(tmp_path / "a", 3, start=50, seconds=4.0)
  real = judging.folder(tmp_path / "b", 3, seconds=4.0)
  for file in [*made.iterdir(), *real.iterdir()]:
    audio, rate = soundfile.read(file, dtype="float32")
    audio = audio - audio.mean()
    audio *= 10 ** (-1 / 20) / np.abs(audio).max()
    soundfile.write(file, audio, rate, subtype="FLOAT")
  ours, theirs = (
    [each.logits for each in heard(folder)] for folder in (made, real)
  )
  means = [np.stack([clip.mean(0) for clip in s]) for s in (ours, theirs)]
  want = divergence.kl(*means).mean()
  found = run(made, real, "stable-audio")["kl"].value
  np.testing.assert_allclose(found, want, rtol=1e-4)
  want = divergence.kl(np.concatenate(theirs), np.concatenate(ours)).mean()
  found = run(made, real, "audioldm", measures=["kl"])["kl"].value
  np.testing.assert_allclose(found, want, rtol=1e-4)


def test_every_protocol_runs_whole(tmp_path, run):
  made = judging.folder(tmp_path / "a", 20, start=50)
  real = judging.folder(tmp_path / "b", 20)
  captions = {f"clip{i:02d}": "a noise" for i in range(20)}
  for name, way in protocols.PROTOCOLS.items():
    names = [m.name for m in way.measures if m.kind != "infinity"]
    report = run(
      made, real, name, measures=names, captions=captions, replicates=2
    )
    assert [f.measure.name for f in report.figures] == names
    assert all(np.isfinite(f.value) for f in report.figures)
    json.dumps(report.plain())


def test_an_evaluation_that_was_killed_goes_on(tmp_path, run):
  made = judging.folder(tmp_path / "a", 40, start=50)
  real = judging.folder(tmp_path / "b", 40)

  class Killed(Judge):
    def embed(self, clips):
      if len(self.heard) >= 48:
        raise KeyboardInterrupt
      return super().embed(clips)

  with pytest.raises(KeyboardInterrupt):
    run(made, real, judge=Killed())
  judge = Judge()
  value = run(made, real, judge=judge)["fad"].value
  assert len(judge.heard) == 80 - 56
  again = Judge()
  assert run(made, real, judge=again)["fad"].value == value
  assert again.heard == []


def test_what_was_heard_is_never_stale(pair, run):
  judge = Judge()
  value = run(*pair, judge=judge)["fad"].value
  soundfile.write(pair[0] / "clip03.wav", judging.sound(999), judging.RATE)
  other = run(*pair, judge=judge)["fad"].value
  assert other != value and len(judge.heard) == 36
  run(*pair, judge=Judge(sha256="cd" * 32))
  assert len(judge.heard) == 36


def test_a_damaged_piece_is_heard_again(pair, run, tmp_path):
  value = run(*pair)["fad"].value
  listening._cached.cache_clear()
  for file in (tmp_path / "kept").iterdir():
    file.write_bytes(file.read_bytes()[:100])
  assert run(*pair)["fad"].value == value


def test_statistics_stand_for_sounds(pair, run, tmp_path):
  path = tmp_path / "reference.npz"
  judge = Judge()
  clips = sounds.write_statistics(
    pair[1], path, "sfx", extractors={"sfx": judge}, kept=tmp_path / "kept"
  )
  assert clips == 12
  stored, whole = run(pair[0], path, measures=["fad"])["fad"], run(*pair)["fad"]
  np.testing.assert_allclose(stored.value, whole.value, rtol=1e-9)
  np.testing.assert_allclose(stored.floor, whole.floor, rtol=1e-9)
  assert stored.clips == (12, 12)
  with pytest.raises(InputError, match="of protocol sfx, not of audioldm"):
    run(pair[0], path, "audioldm", measures=["fad"])
  with pytest.raises(InputError, match="weights of hash ab.*these have cd"):
    run(pair[0], path, measures=["fad"], judge=Judge(sha256="cd" * 32))
  with pytest.raises(InputError, match="kid needs the sounds"):
    run(pair[0], path, measures=["kid"])
  with pytest.raises(InputError, match="the reference is statistics"):
    run(pair[0], path, "audioldm", measures=["kl"])


def test_a_manifest_brings_captions(tmp_path, run):
  made = judging.folder(tmp_path / "a", 3, start=50)
  real = judging.folder(tmp_path / "b", 3)
  lines = [
    json.dumps({"file": f"clip{i:02d}.wav", "prompt": f"noise {i}"})
    for i in range(3)
  ]
  (made / "manifest.jsonl").write_text("\n".join(lines) + "\n")
  for source in (made, made / "manifest.jsonl"):
    figure = run(source, real, "audiogen", measures=["clap"])["clap"]
  judge = Judge()
  texts = judge.embed_texts([f"noise {i}" for i in range(3)])
  assert figure.clips == (3, 3) and len(texts) == 3
  (made / "clip01.wav").unlink()
  with pytest.raises(
    InputError, match="1 of 3 sounds .* not beside it: clip01"
  ):
    run(made, real)


def test_datasets_are_judged(tmp_path, run):
  def make(i, length):
    audio = judging.sound(i, length / judging.RATE)
    return np.rint(audio * 32767).astype(np.int16)

  data = recordings.dataset(
    tmp_path / "data",
    [8000] * 6,
    splits=("validation", "train"),
    spec=SoundSpec(judging.RATE),
    make=make,
  )
  made = judging.folder(tmp_path / "a", 6, start=50)
  report = run(made, tmp_path / "data")
  assert report.reference.endswith("validation") and data is not None
  assert report["fad"].clips == (6, 6)
  with pytest.raises(InputError, match="no split test"):
    run(tmp_path / "data", made, split="test")


def test_generated_clips_are_cut_and_levelled(tmp_path, run):
  made = judging.folder(tmp_path / "a", 3, start=50, seconds=2.0)
  real = judging.folder(tmp_path / "b", 3, seconds=1.5)
  judge = Judge()
  run(made, real, "audiogen", measures=["kl"], judge=judge)
  assert judge.heard == [12_000] * 6
  made = judging.folder(tmp_path / "a", 3, start=50, seconds=5.0)
  with pytest.raises(InputError, match="clip00 is heard in 10 .* in 8"):
    run(made, real, "audioldm", measures=["kl"])


def test_only_some_are_taken(pair, run):
  report = run(*pair, only=["clip05", "clip03", "clip07"])
  assert report["fad"].clips == (3, 3)
  with pytest.raises(InputError, match="lacks 1 of 3 clips .*: other"):
    run(*pair, only=["clip05", "clip03", "other"])


def _silence(made, real):
  soundfile.write(made / "clip04.wav", np.zeros(8000), judging.RATE)


def _short(made, real):
  soundfile.write(made / "clip04.wav", judging.sound(1, 0.1), judging.RATE)


def _nan(made, real):
  holed = judging.sound(1)
  holed[7] = np.nan
  soundfile.write(made / "clip04.wav", holed, judging.RATE, subtype="FLOAT")


def _one(made, real):
  for file in sorted(made.iterdir())[1:]:
    file.unlink()


def _none(made, real):
  for file in made.iterdir():
    file.unlink()


def _twice(made, real):
  soundfile.write(made / "clip04.flac", judging.sound(1), judging.RATE)


def _broken(made, real):
  (made / "clip04.wav").write_text("no sound")


@pytest.mark.parametrize(
  ("spoil", "words"),
  [
    (_silence, "clip04 of .* is silent; leave it out"),
    (_short, "clip clip04: judge needs 4000 samples, got 800"),
    (_nan, "clip04.wav holds 1 NaN"),
    (_one, "holds 1 clip; a set takes two"),
    (_none, "holds 0 clips"),
    (_twice, "have one name"),
    (_broken, "clip04.wav"),
  ],
)
def test_bad_sets_are_refused(pair, run, spoil, words):
  spoil(*pair)
  with pytest.raises(InputError, match=words):
    run(*pair)


def test_what_does_not_go_together_is_refused(pair, run, tmp_path):
  made, real = pair
  with pytest.raises(InputError, match="is the generated set itself"):
    run(made, tmp_path / "real" / ".." / "made")
  (made / "clip02.wav").rename(made / "a.wav")
  words = "1 of 12 clips of .*made have no reference of their name: a; 1 of 12"
  with pytest.raises(InputError, match=words):
    run(made, real, "audioldm", measures=["kl"])
  assert run(made, real)["fad"].value > 0
  with pytest.raises(InputError, match="12 of 12 clips have none: a, clip00"):
    run(made, real, "audiogen", measures=["clap"])
  with pytest.raises(InputError, match="no measure beauty; it has fad, kid"):
    run(made, real, measures=["beauty"])
  with pytest.raises(InputError, match="no protocol x; take sfx"):
    sounds.evaluate(made, real, "x")
  with pytest.raises(InputError, match="nothing at .*nowhere"):
    run(made, tmp_path / "nowhere")


def test_first_names_of_many_are_told(tmp_path, run):
  made = judging.folder(tmp_path / "a", 9, start=50)
  real = judging.folder(tmp_path / "b", 2)
  with pytest.raises(InputError, match="clip05, clip06, …"):
    run(made, real, "audioldm", measures=["kl"])


def test_the_mean_of_whole_groups_is_make_an_audio_s(tmp_path, run):
  made = judging.folder(tmp_path / "a", 21, start=50, seconds=4.0)
  real = judging.folder(tmp_path / "b", 21, seconds=4.0)
  captions = {f"clip{i:02d}": "x" * (i + 1) for i in range(21)}
  figure = run(
    made, real, "make-an-audio", measures=["clap"], captions=captions
  )["clap"]
  means = np.stack([each.embeddings.mean(0) for each in heard(made)])
  texts = Judge().embed_texts([captions[name] for name in sorted(captions)])
  want = agreement.cosines(means, texts)[:20].mean()
  np.testing.assert_allclose(figure.value, want, rtol=1e-4)
  assert len(figure.by_clip) == 20
