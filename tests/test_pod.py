"""Training on virtual pods: real processes, in the order of real meshes."""

import fcntl
import json
import pathlib
import shutil
import signal
import time

import pytest
import toy
from virtual_pod import Pod

from audiogen_jax.core.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]
TRAIN = ROOT / "tests" / "train_toy.py"
SPLITS = ("train", "validation")
LONG = {"loop.steps": 10**6, "loop.eval_every": 0, "loop.save_every": 10**6}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy.data(tmp_path_factory.mktemp("data") / "sounds")


@pytest.fixture(scope="module")
def words(data):
  """The command line of a run."""

  def of(workdir, **changes):
    changes = {"data.folders": data} | changes
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    return [TRAIN, f"--config={TRAIN}", f"--workdir={workdir}", *flags]

  return of


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
  """The figures of an uninterrupted run in one process."""
  folder = tmp_path_factory.mktemp("whole")
  Pod(count=1, devices=1).start(*words(folder), only=[0]).well()
  return figures(folder)


def figures(folder):
  """Everything a run measured, by step, but for times."""
  found = {}
  for line in (folder / "metrics.jsonl").read_text().splitlines():
    values = json.loads(line)
    names = [k for k in values if k.startswith(("train/", "eval/"))]
    found.setdefault(values["step"], {}).update({k: values[k] for k in names})
  return found


def alike(one, other):
  """Measured: 2e-7, from sums taken in another order."""
  assert one.keys() == other.keys()
  for step, values in one.items():
    assert other[step] == pytest.approx(values, rel=1e-5), step


def underway(pod, folder, step=3, patience_s=200):
  """Waits until so many steps are done."""
  deadline = time.monotonic() + patience_s
  while time.monotonic() < deadline:
    for process in pod.processes:
      assert process.poll() is None, process.communicate()
    if (folder / "metrics.jsonl").exists():
      if max(figures(folder), default=0) >= step:
        return
    time.sleep(0.05)
  pytest.fail(f"step {step} was not reached")


def test_two_hosts_are_one(words, whole, tmp_path):
  """v5e:2x4, whose second host has the rows in the middle: trained, saved."""
  pod = Pod("v5e:2x4")
  first, second = pod.start(*words(tmp_path)).well()
  alike(whole, figures(tmp_path))
  assert "8 cpu (data 8 x fsdp 1 x tensor 1)" in first.errors
  assert "8 cpu" not in second.errors  # one of them speaks
  assert (tmp_path / "export" / "gain.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("who", "number"), [(1, signal.SIGTERM), (0, signal.SIGINT)]
)
def test_a_signal_to_one_saves_all(words, tmp_path, who, number):
  """All end at the same step, with the same line; Ctrl-C is as SIGTERM."""
  pod = Pod("v5e:2x4").start(*words(tmp_path, **LONG))
  underway(pod, tmp_path)
  pod.processes[who].send_signal(number)
  found = pod.ended(60)
  assert [one.status for one in found] == [128 + signal.SIGTERM] * 2
  (line,) = {tuple(one.lines) for one in found}
  assert line[0].startswith("stopped by SIGTERM at step "), line
  step = int(line[0].split()[5].strip(";").replace(",", ""))
  checkpoints = Checkpoints(tmp_path / "checkpoints", best="distance")
  assert checkpoints.steps() == [step]
  checkpoints.close()


@pytest.mark.slow
def test_one_that_dies_ends_all(words, whole, tmp_path):
  """Killed in the middle; gone on with one process: as uninterrupted."""
  who = 0  # with which JAX's service dies
  slow = {"loop.steps": 10**6, "loop.save_every": 4}
  pod = Pod("v5e:2x4").start(*words(tmp_path, **slow))
  underway(pod, tmp_path, step=6)
  begun = time.monotonic()
  pod.processes[who].kill()
  other = pod.ended(60)[1 - who]
  assert time.monotonic() - begun < 60
  assert other.status in (1, -signal.SIGABRT)
  assert any(f"process {who} (" in line for line in other.lines), other.errors
  for step in (tmp_path / "checkpoints").iterdir():
    if step.name.isdigit() and int(step.name) > 8:
      shutil.rmtree(step)
  Pod(count=1, devices=4).start(*words(tmp_path), only=[0]).well()
  alike(whole, figures(tmp_path))


@pytest.mark.slow
def test_a_disk_that_fails_ends_all(words, tmp_path):
  """Checkpoints cannot be written any more: one line, the same in both."""
  often = {"loop.steps": 10**6, "loop.save_every": 20, "loop.eval_every": 0}
  pod = Pod("v5e:2x4").start(*words(tmp_path, **often))
  underway(pod, tmp_path, step=25)
  folder, whole = tmp_path / "checkpoints", tmp_path / "whole"
  folder.rename(whole)
  folder.touch()  # even root cannot write into a file
  found = pod.ended(60)
  assert [one.status for one in found] == [2, 2], found
  (lines,) = {tuple(one.lines) for one in found}
  assert f"could not be written to {folder}" in lines[0]
  checkpoints = Checkpoints(whole, best="distance")
  assert all(step % 20 == 0 for step in checkpoints.steps())
  checkpoints.close()


_REFUSED = """
import json, os, sys
import jax
from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.train import loop
from audiogen_jax.train.configuration import TASKS, parse
import toy, train_toy

TASKS["toy"] = toy.Toy
with processes.distributed():
  for folder, of_all, of_one in json.loads(sys.argv[1]):
    config = train_toy.get_config()
    changes = of_all | (of_one if jax.process_index() else {})
    os.chdir(changes.pop("cwd", "/"))
    config.update_from_flattened_dict(changes)
    try:
      loop.train(*parse(config), folder)
    except InputError as error:
      print(f"error: {error}", file=sys.stderr)
  processes.gathered(None)
  raise InputError("and the last one")
"""


@pytest.mark.slow
def test_verdicts_are_those_of_all(data, tmp_path):
  """The same line in every process, whichever of them is wrong."""
  run, data = str(tmp_path / "run"), {"data.folders": str(data)}
  (tmp_path / "file").write_text("")
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "config.json").write_text(json.dumps({"lr": 10.0}))
  (tmp_path / "held").mkdir()
  for name, sounds in (("a", 40), ("b", 80)):  # as on disks of their own
    lengths = range(200, 200 + sounds)
    toy.dataset(tmp_path / name / "own", lengths, splits=SPLITS)
  own = {"data.folders": "own", "cwd": str(tmp_path / "a")}
  cases = {
    "process 1 has lr 10.0, process 0 has 20.0": (run, data, {"lr": 10.0}),
    "data.batch 12 does not divide over the mesh": (
      run,
      data | {"data.batch": 12},
      {},
    ),
    "data.eval_batch 12 does not divide over the mesh {'data': 8, 'fsdp': 1,"
    " 'tensor': 1}, which splits it 8 ways; the nearest that do: 8 or 16": (
      run,
      data | {"data.eval_batch": 12},
      {},
    ),
    "none of process 1's; let one axis be -1": (
      run,
      data | {"mesh.data": 3},
      {},
    ),
    "3 does not divide the 8 devices": (run, data | {"mesh.fsdp": 3}, {}),
    "/nowhere holds no dataset": (run, {"data.folders": "/nowhere"}, {}),
    "process 1 has the data of own": (run, own, {"cwd": str(tmp_path / "b")}),
    "another run is training in": (str(tmp_path / "held"), data, {}),
    "lr is 10.0 there and 20.0 here": (str(tmp_path / "other"), data, {}),
    "cannot write": (str(tmp_path / "file" / "run"), data, {}),
  }
  script = tmp_path / "refused.py"
  script.write_text(_REFUSED)
  with (tmp_path / "held" / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    pod = Pod("v5e:2x4").start(script, json.dumps(list(cases.values())))
    found = pod.ended()
  first, second = found
  assert (first.status, first.lines) == (second.status, second.lines)
  assert first.status == 2
  expected = [*cases, "error: and the last one"]
  for said, line in zip(expected, first.lines, strict=True):
    assert said in line
  assert not list((tmp_path / "run").glob("checkpoints/[0-9]*"))
