"""Drawing what runs have logged."""

import json

import pytest
from typer.testing import CliRunner

from audiogen_jax.core.errors import InputError
from audiogen_jax.train import curves


@pytest.fixture
def run(tmp_path):
  lines = [{"step": i, "a_0": i, "a_1": -i, "time": 0} for i in range(3)]
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
  return folder


def test_lines_of_a_panel(run):
  logs = {run: curves.read(run)}
  assert curves._panel(logs, ["a_0"]) == ("a_0", {"": ((0, 1, 2), (0, 1, 2))})
  title, lines = curves._panel(logs, ["a_0", "a_1"])
  assert title == "a" and lines["1"] == ((0, 1, 2), (0, -1, -2))
  other = logs | {run.parent / "other": logs[run]}
  assert list(curves._panel(other, ["a_0", "a_1"])[1]) == [
    "run 0",
    "other 0",
    "run 1",
    "other 1",
  ]


def test_a_picture_and_bad_input(run, tmp_path):
  import typer

  app = typer.Typer()
  app.command()(curves.main)
  call = CliRunner().invoke
  out = tmp_path / "a.png"
  done = call(app, [str(run), "--show", "a_0+a_1", "--out", str(out)])
  assert done.exit_code == 0 and out.read_bytes().startswith(b"\x89PNG")
  with pytest.raises(InputError, match="not logged 'b'; it has a_0, a_1"):
    curves._panel({run: curves.read(run)}, ["b"])
  done = call(app, [str(tmp_path), "--show", "a_0"])
  assert done.exit_code == 1 and "has no log of a run" in str(done.exception)
