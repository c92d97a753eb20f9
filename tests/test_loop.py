"""The loop, on a task that trains in a second: what a run promises."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy import Toy, same, train

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.train import loop, state
from audiogen_jax.train.state import TrainState

TESTS = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy.data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
  """An uninterrupted run: its last state and its folder."""
  folder = tmp_path_factory.mktemp("run")
  return train(folder, data), folder


def saved(folder):
  """Steps of the whole checkpoints."""
  names = os.listdir(folder / "checkpoints")
  return sorted(int(name) for name in names if name.isdigit())


def logged(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_it_trains_and_leaves_what_it_should(whole):
  last, folder = whole
  assert int(last.step) == 12 and float(last.extra["prepared"]) != 0
  lines = logged(folder)
  losses = [(x["step"], x["train/loss"]) for x in lines if "train/loss" in x]
  assert [step for step, _ in losses] == [2, 4, 6, 8, 10, 12]
  assert losses[-1][1] < losses[0][1] / 2
  far = {x["step"]: x["eval/distance"] for x in lines if "eval/distance" in x}
  assert list(far) == [0, 4, 8, 12] and far[12] < far[0]
  assert (folder / "export" / "gain.txt").exists()
  assert json.loads((folder / "config.json").read_text())["lr"] == 20
  assert list(folder.glob("events.out.*"))
  for line in lines:
    if "speed/step_s" in line:
      assert line["speed/examples_per_s"] > 0 and line["speed/flops_per_s"] >= 0


def test_what_it_says(data, tmp_path, capsys):
  train(tmp_path, data)
  said = capsys.readouterr().err
  for word in ("12/12", "loss", "evaluation at step 4", "parameters"):
    assert word in said


@pytest.mark.parametrize("stop", [4, 6])
def test_resumed_is_uninterrupted(whole, data, tmp_path, stop):
  """Bit for bit: parameters, and sums over all that was read."""
  last, folder = whole
  train(tmp_path, data, steps=stop)
  same(train(tmp_path, data), last)
  drop = ("time",)
  told = [
    [
      {k: v for k, v in x.items() if k not in drop and "speed" not in k}
      for x in logged(f)
    ]
    for f in (tmp_path, folder)
  ]
  # The run of six steps made one more evaluation, at its end.
  extra = [x for x in told[0] if x not in told[1]]
  assert all(x["step"] == stop for x in extra)
  assert [x for x in told[0] if x not in extra] == told[1]


def test_a_finished_run_does_nothing_more(whole, data, capsys):
  last, folder = whole
  before = (folder / "metrics.jsonl").read_text()
  same(train(folder, data), last)
  assert (folder / "metrics.jsonl").read_text() == before


def test_any_mesh_resumes_what_another_saved(whole, data, tmp_path):
  last, _ = whole
  train(tmp_path, data, steps=4)
  run = dataclasses.replace(toy.run_of(data), mesh={"data": 8})
  other = loop.train(run, Toy(), str(tmp_path))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), other, last
  )


_KILLED = textwrap.dedent("""
  import os, sys
  import toy
  from audiogen_jax.train.reporting import Report

  folder, data, number, at = sys.argv[1:]

  write = Report.write
  def shoot(self, done):
    write(self, done)
    if done == int(at):
      os.kill(os.getpid(), int(number))

  Report.write = shoot
  toy.train(folder, data)
""")


def shot(folder, data, number, at):
  """A run that is sent a signal after a step."""
  env = os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
  return subprocess.run(
    [sys.executable, "-c", _KILLED, folder, data, str(int(number)), str(at)],
    env=env,
    capture_output=True,
    text=True,
    timeout=120,
  )


def test_killed_and_resumed_is_uninterrupted(whole, data, tmp_path):
  done = shot(tmp_path, data, signal.SIGKILL, 10)
  assert done.returncode == -signal.SIGKILL, done.stderr
  assert saved(tmp_path)[-1] < 10
  same(train(tmp_path, data), whole[0])


def test_sigterm_saves_first(whole, data, tmp_path):
  done = shot(tmp_path, data, signal.SIGTERM, 6)
  assert "Stopped: stopped by SIGTERM at step 7" in done.stderr
  assert saved(tmp_path)[-1] == 7
  same(train(tmp_path, data), whole[0])


class Diverging(Toy):
  """Not a number from the sixth step on."""

  def train_step(self, now, batch, key):
    now, metrics = super().train_step(now, batch, key)
    metrics["loss"] = jnp.where(now.step >= 6, jnp.nan, metrics["loss"])
    return now, metrics


def test_divergence_names_step_and_metric(data, tmp_path):
  with pytest.raises(InputError) as stop:
    train(tmp_path, data, Diverging())
  for word in ("loss is nan at step 6", "that of step 4", "optim.lr"):
    assert word in str(stop.value)
  assert saved(tmp_path) == [4]


class Overflowing(Toy):
  """Whose update, not its loss, is the first to be infinite, at step 4."""

  def train_step(self, now, batch, key):
    now, metrics = super().train_step(now, batch, key)
    gain = jnp.where(now.step >= 4, jnp.inf, now.params["gain"])
    return now._replace(params={"gain": gain}), metrics


def test_no_checkpoint_of_infinite_parameters(data, tmp_path):
  with pytest.raises(InputError, match="param_norm is inf at step 4.*none yet"):
    train(tmp_path, data, Overflowing())
  assert saved(tmp_path) == []


def test_another_configuration_is_refused(whole, data):
  _, folder = whole
  with pytest.raises(InputError, match="lr is 20.0 there and 0.2 here"):
    train(folder, data, Toy(lr=0.2))
  with pytest.raises(InputError, match="loop.seed is 0 there and 1 here"):
    train(folder, data, seed=1)
  train(folder, data, log_every=3)  # how often it speaks is free


_FULL = textwrap.dedent("""
  import resource, sys
  import toy
  # Every file that grows beyond this fails, as on a full disk.
  toy.train(sys.argv[1], sys.argv[2], toy.Toy(wide=100_000), steps=4)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
  try:
    toy.train(sys.argv[1], sys.argv[2], toy.Toy(wide=100_000))
  except Exception as error:
    print(type(error).__name__, error)
""")


def test_a_full_disk(data, tmp_path):
  env = os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
  done = subprocess.run(
    [sys.executable, "-c", _FULL, tmp_path, data],
    env=env,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stdout.startswith("InputError"), done.stdout + done.stderr
  assert "step 4" in done.stdout and "Make room" in done.stdout
  assert saved(tmp_path)[-1] == 4
  last = train(tmp_path, data, Toy(wide=100_000))
  assert int(last.step) == 12 and np.all(np.isfinite(last.params["gain"]))


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_checkpoint_costs_its_steps(
  whole, data, tmp_path, capsys, damage
):
  """The run goes on from the one before, and says so."""
  train(tmp_path, data, steps=8)
  assert saved(tmp_path)[-2:] == [4, 8]
  newest = tmp_path / "checkpoints" / "8"
  files = [f for f in newest.rglob("*") if f.is_file() and "state" in str(f)]
  for file in files:
    data_ = file.read_bytes()
    file.unlink()
    if damage != "gone":
      file.write_bytes(data_[: len(data_) // 2] if damage == "cut" else b"")
  capsys.readouterr()
  last = train(tmp_path, data)
  _, errors = capsys.readouterr()
  assert "going on from the one before" in errors
  assert "going on from step 4" in errors
  assert saved(tmp_path)[-1] == 12 and 8 in saved(tmp_path)
  same(last, whole[0])


class Worsening(Toy):
  """Best at its first evaluation."""

  def eval_step(self, now, batch):
    rows = jnp.sum(batch["valid"])
    return {"distance": now.step * rows.astype(jnp.float32), "rows": rows}


def test_the_best_checkpoint_is_kept(data, tmp_path):
  train(tmp_path, data, Worsening(), steps=20)
  steps = saved(tmp_path)
  assert steps == [4, 16, 20]
  # A run that goes on remembers which it was.
  train(tmp_path, data, Worsening(), steps=28)
  assert saved(tmp_path) == [4, 24, 28]


class Drawing(Toy):
  """Tells what its key draws."""

  def train_step(self, now, batch, key):
    new, values = super().train_step(now, batch, key)
    return new, values | {"draw": jax.random.uniform(key)}


def test_each_step_has_a_key_of_its_own(data, tmp_path):
  train(tmp_path, data, Drawing(), log_every=1)
  draws = [x["train/draw"] for x in logged(tmp_path) if "train/draw" in x]
  assert len(draws) == len(set(draws)) == 12


@pytest.mark.parametrize(
  ("options", "said"),
  [
    ({"steps": 0}, "loop.steps 0"),
    ({"eval_every": -1}, "loop.eval_every -1"),
  ],
)
def test_numbers_that_cannot_be(data, options, said):
  with pytest.raises(InputError, match=said):
    toy.run_of(data, **options)


def test_data_that_cannot_be(data, tmp_path):
  run = toy.run_of(data)
  for change, said in (
    ({"folders": ""}, "config.data.folders"),
    ({"folders": f"{data}@often"}, "'often'"),
    ({"folders": str(tmp_path / "none")}, "none"),
    ({"eval_split": "test"}, "no split test"),
    ({"batch": 7}, "batch 7 does not divide"),
  ):
    other = dataclasses.replace(
      run, data=dataclasses.replace(run.data, **change), mesh={"data": 2}
    )
    with pytest.raises(InputError, match=said):
      loop.train(other, Toy(), str(tmp_path / "run"))


def test_optimiser_and_average_live_with_their_parameters():
  params = {
    "encoder": {"in": jnp.zeros((8, 4))},
    "decoder": {"in": jnp.zeros((8, 4))},
  }
  axes = {
    "params/encoder/in": ("embed", None),
    "params/decoder/in": (None, "embed"),
    "extra/.*": (None,),
  }
  like = TrainState(
    jnp.int32(0),
    params,
    {"adam": {"mu": params, "count": jnp.int32(0), "in": jnp.zeros(3)}},
    {"codebooks": jnp.zeros(8)},
    {"params": params, "codebooks": jnp.zeros(8)},
  )
  placement = Placement.make(make_mesh(fsdp=4), {"embed": "fsdp"})
  placed = state.shardings(like, axes, placement)
  mu = placed.optimiser["adam"]["mu"]
  assert mu["encoder"]["in"].spec == placed.params["encoder"]["in"].spec
  assert mu["decoder"]["in"].spec == placed.params["decoder"]["in"].spec
  assert mu["encoder"]["in"].spec != mu["decoder"]["in"].spec
  assert placed.average["params"] == placed.params
  assert placed.optimiser["adam"]["count"].is_fully_replicated
  # The same name and another shape, as of a factored moment: kept whole.
  assert placed.optimiser["adam"]["in"].is_fully_replicated
