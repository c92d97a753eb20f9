"""What a run shows on its way: means, times, traces, a table of parameters."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy import train

from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.train import evaluation, loop, metrics, overview
from audiogen_jax.train.reporting import Report
from audiogen_jax.train.state import TrainState


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy.data(tmp_path_factory.mktemp("data") / "tiny")


def test_a_trace_on_request(data, tmp_path, monkeypatch):
  """It ends once the devices have done what it is about."""
  calls = []

  def noted(owner, name):
    function = getattr(owner, name)

    def call(*arguments):
      calls.append(name)
      return function(*arguments)

    monkeypatch.setattr(owner, name, call)

  noted(jax, "block_until_ready")
  noted(jax.profiler, "start_trace")
  noted(jax.profiler, "stop_trace")
  train(tmp_path, data, profile_step=3)
  assert list((tmp_path / "profile").rglob("*.xplane.pb"))
  during = calls[calls.index("start_trace") : calls.index("stop_trace")]
  assert during == ["start_trace", "block_until_ready"]


def test_a_run_that_goes_on_within_the_trace(data, tmp_path, capsys):
  """It traces what is left, and ends the trace."""
  train(tmp_path, data, steps=4)
  train(tmp_path, data, steps=12, profile_step=3)
  assert "a trace of steps 5 to 7 is in" in capsys.readouterr().err
  assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_evaluation_is_no_time_of_steps(data, tmp_path, monkeypatch):
  """By a clock that ticks once a step, and a thousand times an evaluation."""
  clock = [0.0]
  monkeypatch.setattr(metrics.time, "perf_counter", lambda: clock[0])

  def slow(owner, name, seconds):
    function = getattr(owner, name)

    def call(*arguments):
      clock[0] += seconds
      return function(*arguments)

    monkeypatch.setattr(owner, name, call)

  slow(Report, "_fetch", 0.5)  # twice a step that is logged
  slow(evaluation, "evaluate", 1000.0)
  train(tmp_path, data, log_every=1)
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  times = [json.loads(x).get("speed/step_s") for x in lines]
  times = [x for x in times if x is not None]
  assert len(times) > 8 and max(times) <= 1.0


def test_the_table_of_parameters(data, tmp_path):
  train(tmp_path, data, steps=1, eval_every=0)
  rows = (tmp_path / overview.FILE).read_text().splitlines()
  columns = "parameter shape type split along values MiB"
  assert rows[0].split() == columns.split()
  assert rows[1].split() == "gain 1 float32 - 1 0.000".split()
  assert rows[-1].split() == "all of average 1 0.000".split()


def test_the_table_tells_where_parameters_live():
  rules = {"embed": ("fsdp", "tensor"), "ff": ()}
  placement = Placement.make(make_mesh(fsdp=4, tensor=2), rules)
  place = placement.sharding("embed", "ff")
  params = {"wi": {"kernel": jax.device_put(jnp.zeros((1024, 512)), place)}}
  table = overview.table(TrainState(jnp.int32(0), params, {}, {}, {}))
  row = table.splitlines()[1].split()
  assert row[:3] == ["wi/kernel", "1024x512", "float32"]
  assert row[3:] == ["fsdp+tensor", "-", "524,288", "0.250"]


def test_a_step_sends_nothing_to_the_devices(data, tmp_path, monkeypatch):
  """What is not there already is a fault, not a silent transfer."""

  def on_the_host(batch, names):
    return {name: np.asarray(batch[name]) for name in names}

  train(tmp_path / "as it is", data, steps=4, eval_every=0)
  monkeypatch.setattr(loop.inputs, "arrays", on_the_host)
  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    train(tmp_path / "broken", data, steps=4, eval_every=0)
