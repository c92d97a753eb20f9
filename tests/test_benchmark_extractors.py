"""`audiogen benchmark extractors`: what it adds up, says and refuses."""

import json

import pytest
from judging import Judge

from audiogen_jax.benchmark import extractor_rivals, extractors
from audiogen_jax.benchmark.extractors import ExtractorFigures, Run


class Deaf:
  """An original that hears nothing, and remembers what it was given."""

  name = "deaf 1.0"

  def __init__(self):
    self.given = []

  def hear(self, sounds):
    self.given.append(len(sounds))


def compare(open_rival, clips=3):
  judge = Judge()
  found = extractors.compare(
    *("vggish", judge, open_rival), clips=clips, duration_s=1.0, runs=2
  )
  return found, judge


def test_ours_and_the_original_hear_the_same_clips_in_turn():
  rival = Deaf()
  found, judge = compare(lambda name: rival)
  # After each run of ours the original's, one by one and all at once.
  assert judge.heard == [judge.sample_rate_hz] * 9
  assert rival.given == [1, 1, 1, 3] * 3
  assert {n: len(runs) for n, runs in found.rival_runs.items()} == {1: 2, 3: 2}
  assert len(found.runs) == 2 and found.rival == "deaf 1.0"


def test_figures_are_medians_of_the_processors_time():
  def runs(*core_s):
    return [Run(each, 50.0) for each in core_s]

  figures = ExtractorFigures(
    *("x", 2, 10.0, runs(1.0, 4.0, 2.0)),
    compile_s=3.0,
    rival="y",
    rival_runs={1: runs(8.0, 9.0, 2.0), 2: runs(3.0, 6.0, 9.0)},
  )
  assert (figures.clip_s, figures.rival_clip_s) == (1.0, 3.0)
  assert (figures.rival_at_once, figures.ratio) == (2, 3.0)
  told = json.loads(json.dumps(figures.plain()))
  assert told["ratio"] == 3.0
  assert told["runs"][1] == {"core_s": 4.0, "clock_s": 50.0}


def test_a_missing_original_is_named_in_its_row(audiogen, monkeypatch):
  monkeypatch.setattr(extractor_rivals, "_installed", lambda name: False)
  found, _ = compare(extractor_rivals.open_rival)
  assert found.missing == "not installed: pip install --no-deps torch"
  assert (found.rival, found.ratio, found.rival_at_once) == ("", None, None)
  monkeypatch.setattr(extractors, "measure", lambda *_, **__: found)
  status, output, errors = audiogen("benchmark", "extractors", "vggish")
  assert status == 0, errors
  (row,) = (line for line in output.splitlines() if "vggish" in line)
  assert f"{1000 * found.clip_s:,.0f}" in row and "pip install" in output


def test_unknown_names_are_refused(refused):
  told = refused("benchmark", "extractors", "sfx", "openl3")
  assert "'openl3' is not one of vggish, cnn14, passt, clap-laion" in told


def test_nothing_is_waited_for_without_a_limit(refused, monkeypatch):
  monkeypatch.setattr(extractors, "_LIMIT_S", 0.01)
  told = refused("benchmark", "extractors", "sfx", "--clips", 9)
  assert "sfx was not done with 9 clips after 0.01 s" in told


@pytest.mark.slow
def test_command(audiogen, tmp_path):
  """The smallest network, in a process of its own."""
  path = tmp_path / "extractors.json"
  status, output, errors = audiogen(
    *("benchmark", "extractors", "sfx", "--clips", 1, "--seconds", 3),
    *("--runs", 1, "--json", path),
  )
  assert status == 0, errors
  assert "1 x 3 s, random weights, float32, one core of" in output
  (figures,) = json.loads(path.read_text())["figures"]
  assert figures["name"] == "sfx" and figures["clip_s"] > 0
  assert figures["compile_s"] > 0
  assert figures["missing"] or figures["ratio"] > 0
