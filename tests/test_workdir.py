"""The folder of a run: one run at a time, always with one configuration."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
import toy
from etils import epath
from toy import train

from audiogen_jax.core.errors import InputError
from audiogen_jax.train import workdir

TESTS = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy.data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("packed", [True, False])
def test_a_key_of_older_versions(tmp_path, packed):
  """What all models are now need not be said; what none is any more, is."""
  old = {"lm": {"transformer": {"width": 8, "packed": packed}}}
  (tmp_path / "config.json").write_text(json.dumps(old))
  new = {"lm": {"transformer": {"width": 8}}}
  if packed:
    workdir.agree(epath.Path(tmp_path), new)
  else:
    with pytest.raises(InputError, match="packed is false there"):
      workdir.agree(epath.Path(tmp_path), new)


def test_keys_that_older_versions_did_not_know(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"optim": {"lr": 1.0}}))
  new = {
    "optim": {"lr": 1.0, "decay_rate": 1.0},
    "data": {"reprogram": {"bank": "", "share": 0.3}},
  }
  workdir.agree(epath.Path(tmp_path), new)
  new["data"]["reprogram"]["bank"] = "events"
  with pytest.raises(InputError, match="data.reprogram.bank is not set there"):
    workdir.agree(epath.Path(tmp_path), new)


def test_a_damaged_configuration(tmp_path):
  (tmp_path / "config.json").write_text('{"lm": ')
  with pytest.raises(InputError, match="config.json is not JSON"):
    workdir.agree(epath.Path(tmp_path), {})


def test_lengths_of_a_schedule(tmp_path):
  """A run may go on for longer, unless its schedule would be another."""

  def agree(schedule, old, new):
    told = {"optim": {"schedule": schedule, "steps": old}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    told["optim"]["steps"] = new
    workdir.agree(epath.Path(tmp_path), told)

  for schedule in ("constant", "inverse_sqrt"):
    agree(schedule, 0, 300)  # as older versions wrote it
    agree(schedule, 200, 300)
  for schedule in ("cosine", "wsd"):
    agree(schedule, 200, 200)
    with pytest.raises(InputError, match="optim.steps is 200 there and 300"):
      agree(schedule, 200, 300)


def test_two_runs_in_one_folder(data, tmp_path):
  code = textwrap.dedent("""
    import sys, time
    from etils import epath
    from audiogen_jax.train import workdir
    with workdir.claimed(epath.Path(sys.argv[1]), {}):
      print("held", flush=True)
      time.sleep(60)
  """)
  env = os.environ | {"PYTHONPATH": str(TESTS.parent)}
  other = subprocess.Popen(
    [sys.executable, "-c", code, tmp_path],
    env=env,
    stdout=subprocess.PIPE,
    text=True,
  )
  with other:
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another run is training in"):
      train(tmp_path, data)
    other.kill()
  train(tmp_path, data, steps=1)  # the claim ended with its process
