"""`audiogen export`: a model from any checkpoint of a run."""

import json

import pytest
import toy
from test_loop import Worsening, train

from audiogen_jax.core.errors import InputError
from audiogen_jax.train import configuration, exporting


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run that was stopped at step 12 and was best at step 4."""
  folder = tmp_path_factory.mktemp("run")
  data = toy.data(folder / "data")
  train(folder / "work", data, Worsening(), steps=12)
  return folder / "work"


@pytest.fixture(autouse=True)
def task(monkeypatch):
  monkeypatch.setitem(configuration.TASKS, "toy", Worsening)


def gain(folder):
  return (folder / "gain.txt").read_text()


def test_last_best_and_any(run, tmp_path, audiogen):
  folder, step = exporting.export(run, tmp_path / "last")
  assert step == 12
  assert gain(folder) == gain(run / "export")
  best, step = exporting.export(run, tmp_path / "best", step="best")
  assert step == 4 and gain(best) != gain(folder)
  again, _ = exporting.export(run, tmp_path / "four", step=4)
  assert gain(best) == gain(again)
  status, output, errors = audiogen("export", run, "--step", "best")
  assert status == 0, errors
  assert str(run / "export_4") in output and "step 4" in output
  assert gain(run / "export_4") == gain(best)


def test_what_cannot_be_exported(run, tmp_path, refused):
  for words, told in (
    ((run, "--step", "5"), "has no checkpoint of step 5; it has"),
    ((run, "--step", "worst"), "must be a number, last or best"),
    ((run, "-o", tmp_path), "exists; name another folder"),
    ((tmp_path,), "is no work folder"),
    ((tmp_path / "nowhere",), "is no work folder"),
  ):
    assert told in refused("export", *words)
  (tmp_path / "checkpoints").mkdir()
  assert "lacks config.json" in refused("export", tmp_path)
  (tmp_path / "config.json").write_text("{")
  assert "is not JSON" in refused("export", tmp_path)
  (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
  with pytest.raises(InputError, match="no configuration of autoencoder"):
    exporting.export(tmp_path)
