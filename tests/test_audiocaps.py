"""`audiogen evaluate audiocaps`: lists, recordings, figures, refusals."""

import csv
import json
import pathlib
import textwrap

import judging
import numpy as np
import pytest
import recordings
import sfx_weights
import soundfile
from virtual_pod import Pod

from audiogen_jax.convert import judges
from audiogen_jax.core.errors import InputError
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.embedding import protocols
from audiogen_jax.evaluate import audiocaps, published

pytestmark = pytest.mark.filterwarnings("ignore:sets of")

ESC10 = pathlib.Path(__file__).parents[2] / "shared" / "data" / "esc10"
RATE = 16_000
SECONDS = 1.5  # the network of sfx hears none below 1.16
# As the first list's authors leave them out.
NOT_AUDIOLDM = (
  "1oOYqBroWoA 2GehEKSOgc8 ITP7tMt1BDg Lh0UmwRgA7s XP1L5k-Zxro baThGFuiYys"
  " dvY_HUaRgW8 g0l8ArPOTvA hhSqQN1Ou68 jPayI-MTnag jso1tv-zG-E"
)


@pytest.fixture
def weights(tmp_path, monkeypatch):
  return sfx_weights.passing(tmp_path, monkeypatch)


@pytest.fixture
def judged(tmp_path, monkeypatch):
  """Judges that need no weights, for every protocol."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(judges, "check", lambda name, weights: None)
  monkeypatch.setattr(judges, "load", lambda name, weights: judging.Judge())


@pytest.fixture
def root(tmp_path):
  """Six recordings of Tango's list, called in every way that is known."""
  folder = tmp_path / "recordings"
  (folder / "deep").mkdir(parents=True)
  clips = audiocaps.read("tango")[:6]
  ways = "{}", "Y{}", "{}_{}", "Y{}_{}", "deep/{}_{}000", "deep/Y{}_{}.000_99"
  for i, (clip, way) in enumerate(zip(clips, ways, strict=True)):
    name = way.format(clip.youtube_id, clip.start_s)
    audio = judging.sound(i, SECONDS, RATE)
    soundfile.write(folder / f"{name}.wav", audio, RATE)
  return folder


def command(out, *words):
  return (
    *("evaluate", "audiocaps", "--out", out, "--duration", SECONDS),
    *words,
  )


def test_lists_have_the_clips_that_are_published():
  lists = {name: audiocaps.read(name) for name in audiocaps.LISTS}
  counts = {name: len(clips) for name, clips in lists.items()}
  assert counts == {
    **{"all": 975, "audioldm": 964, "tango": 886},
    **{"make-an-audio": 900, "stable-audio": 881},
  }
  ids = {name: {c.youtube_id for c in lists[name]} for name in lists}
  assert ids["all"] - ids["audioldm"] == set(NOT_AUDIOLDM.split())
  assert set(lists["tango"]) < set(lists["audioldm"])
  for name in ("make-an-audio", "stable-audio"):
    assert set(lists[name]) < set(lists["all"])
  # That list takes the first caption of 19 clips.
  assert len(set(lists["audioldm"]) & set(lists["all"])) == 19
  assert all(len(c.youtube_id) == 11 and c.caption for c in lists["all"])
  assert {audiocaps.usual_list(name) for name in protocols.PROTOCOLS} == {
    *("all", "audioldm", "make-an-audio", "stable-audio")
  }


def test_published_figures_are_of_measures_that_there_are():
  for row in published.PUBLISHED:
    for name in row.protocols:
      have = {measure.name for measure in protocols.get(name).measures}
      assert row.figures.keys() <= have
  assert not published.of("sfx", ["fad", "kid"])
  only = published.of("audiogen", ["clap"])
  assert [row.model for row in only] == ["audiogen-medium"]


def test_a_dataset_from_captions_to_figures(audiogen, tiny, weights, tmp_path):
  def make(i, length):
    audio = judging.sound(i, length / RATE, RATE)
    return np.rint(audio * 32767).astype(np.int16)

  data = recordings.dataset(
    tmp_path / "data",
    [round(SECONDS * RATE)] * 12,
    splits=("validation", "train"),
    spec=SoundSpec(RATE),
    make=make,
  )
  out, figures = tmp_path / "made", tmp_path / "a.json"
  words = (
    *("evaluate", "audiocaps", "--data", data, "--model", tiny, "--out", out),
    *("--weights", weights, "--json", figures, "--clips", 6, "--seed", 3),
  )
  status, told, errors = audiogen(*words)
  assert status == 0, errors
  found = json.loads(figures.read_text())
  assert found["protocol"] == "sfx" and found["published"] == []
  assert found["duration_s"] == SECONDS and found["list"] is None
  assert [f["clips"] for f in found["figures"]] == [[6, 6], [6, 6]]
  assert "another dataset" in told
  # A long path is broken over lines.
  assert f"{data}, validation".replace(" ", "") in "".join(told.split())
  lines = (out / "manifest.jsonl").read_text().splitlines()
  entries = [json.loads(line) for line in lines]
  for entry in entries:
    assert entry["prompt"] == f"sound {entry['file'][: -len('.wav')]}"
    audio, rate_hz = soundfile.read(out / entry["file"])
    assert (len(audio), rate_hz) == (SECONDS * RATE, RATE)
  assert sorted(entry["seed"] for entry in entries) == [*range(3, 9)]

  status, told, errors = audiogen(*words)
  assert status == 0 and "6 of 6 are there already" in told
  assert json.loads(figures.read_text()) == found


def test_a_list_beside_what_is_published(
  audiogen, tiny, judged, root, tmp_path
):
  figures = tmp_path / "a.json"
  words = "--root", root, "--list", "tango", "--protocol", "audioldm"
  words = command(tmp_path / "made", *words, "--measure", "fad")
  words = (*words, "--measure", "kl", "--model", tiny, "--json", figures)
  status, told, errors = audiogen(*words, "--only-found")
  assert status == 0, errors
  found = json.loads(figures.read_text())
  clips = audiocaps.read("tango")
  assert found["missing"] == [clip.youtube_id for clip in clips[6:]]
  values = [f"{figure['value']:.4g}" for figure in found["figures"]]
  for part in (
    *("6 of 886", *values, "Tango 2", "2.69", "1.12", "this evaluation"),
    *("880 of 886 are missing", clips[6].youtube_id, "6 pairs"),
  ):
    assert part in told
  assert {row["model"] for row in found["published"]} >= {"Tango", "Tango 2"}
  lines = (tmp_path / "made" / "manifest.jsonl").read_text().splitlines()
  made = {e["file"]: e["prompt"] for e in map(json.loads, lines)}
  assert made == {f"{c.youtube_id}.wav": c.caption for c in clips[:6]}


def test_another_part_of_a_video_is_another_clip(root):
  clips = audiocaps.read("tango")
  name = f"{clips[7].youtube_id}_{clips[7].start_s + 1}.wav"
  soundfile.write(root / name, judging.sound(1), judging.RATE)
  assert list(audiocaps.find(root, clips)) != []
  assert clips[7].youtube_id not in audiocaps.find(root, clips)
  twice = root / "deep" / f"{clips[0].youtube_id}.flac"
  soundfile.write(twice, judging.sound(1), judging.RATE)
  with pytest.raises(InputError, match="are both called after"):
    audiocaps.find(root, clips)


def test_bad_input_is_one_line(refused, tiny, weights, root, tmp_path):
  out = tmp_path / "made"
  rest = "--model", tiny, "--weights", weights
  first = ", ".join(c.youtube_id for c in audiocaps.read("tango")[6:11])
  empty = tmp_path / "empty"
  empty.mkdir()
  for words, line in (
    (("--root", tmp_path / "no"), "no is not a folder"),
    (("--root", root, "--list", "tango"), f"880 of the 886 .* {first}, …;"),
    (("--root", empty), "holds 0 of the 975 clips of list all"),
    (("--root", root, "--list", "x"), "no list x; take all, audioldm, tango"),
    ((), "give --root, .* or --data"),
    (("--root", root, "--data", root), "give --root, .* or --data"),
    (("--root", root, "--split", "test"), "--split test is for --data"),
    (("--data", root, "--only-found"), "are for --root"),
    (("--data", tmp_path / "no"), "there is nothing at"),
    (("--root", root, "--protocol", "x"), "no protocol x"),
    (("--root", root, "--protocol", "audiogen"), "vggish are missing"),
    (("--root", root, "--measure", "kl"), "sfx has no measure kl"),
  ):
    with pytest.raises(InputError, match=line):
      raise InputError(refused(*command(out, *rest, *words)))
  assert not out.exists()
  given = "--root", root, "--weights", weights, "--only-found"
  assert "among the recordings" in refused(
    *command(root / "made", *given, "--model", tiny)
  )
  line = refused(*command(out, *given, "--model", tmp_path / "model"))
  assert str(tmp_path / "model") in line
  line = refused(
    *("evaluate", "audiocaps", "--out", out, *given, "--model", tiny),
    *("--duration", "-1"),
  )
  assert "duration -1.0 s must be more than 0" in line


_JUDGED = textwrap.dedent("""
  import sys

  sys.path.insert(0, sys.argv.pop(1))
  import judging
  from audiogen_jax.cli import main
  from audiogen_jax.convert import judges

  judges.check = lambda name, weights: None
  judges.load = lambda name, weights: judging.Judge()
  main()
""")


@pytest.mark.pod
def test_processes_share_the_captions_and_one_judges(tiny, root, tmp_path):
  script = tmp_path / "judged.py"
  script.write_text(_JUDGED)

  def run(count, name, **how):
    words = command(tmp_path / name, "--root", root, "--only-found")
    words = (*words, "--model", tiny, "--json", tmp_path / f"{name}.json")
    words = (*words, "--protocol", "audioldm", "--batch", 2)
    pod = Pod(count=count, devices=2)
    started = pod.start(script, pathlib.Path(__file__).parent, *words, **how)
    return started.well()

  run(1, "one", only=[0])
  first, second = run(2, "two")
  assert "958 of 964 are missing" in first.output
  assert "of 964" not in second.output
  want, found = (
    {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.wav")}
    for name in ("one", "two")
  )
  assert found == want and len(want) == 6
  one, two = (
    json.loads((tmp_path / f"{name}.json").read_text())["figures"]
    for name in ("one", "two")
  )
  assert [each["value"] for each in one] == [each["value"] for each in two]


@pytest.mark.slow
@pytest.mark.skipif(not ESC10.exists(), reason="no ../shared/data/esc10")
def test_forty_clips_of_esc10(audiogen, tiny, weights, tmp_path):
  """Recordings of five seconds, built, and generated sounds of one."""
  with (ESC10 / "metadata.csv").open() as file:
    rows = list(csv.DictReader(file))[:40]
  table = tmp_path / "source" / "table.csv"
  table.parent.mkdir()
  lines = [
    f"{ESC10 / 'audio' / row['file']},{row['label']},test" for row in rows
  ]
  table.write_text("\n".join(["path,caption,split", *lines]) + "\n")
  data, figures = tmp_path / "data", tmp_path / "a.json"
  status, _, errors = audiogen(
    *("data", "build", "--source", "csv", "--root", table.parent),
    *("--out", data, "--workers", 1),
  )
  assert status == 0, errors
  status, told, errors = audiogen(
    *command(tmp_path / "made", "--data", data, "--model", tiny),
    *("--weights", weights, "--json", figures),
  )
  assert status == 0, errors
  found = json.loads(figures.read_text())
  assert "40 + 40" in told
  assert [f["clips"] for f in found["figures"]] == [[40, 40], [40, 40]]
  assert all(np.isfinite(f["value"]) for f in found["figures"])
