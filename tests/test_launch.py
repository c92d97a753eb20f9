"""What starts training elsewhere: SLURM, GKE, and the README's commands.

Each command of the README's training page goes as far as it does without the
cluster, and its mesh is held against the cluster's devices.
"""

import functools
import os
import pathlib
import re
import shlex
import shutil
import string
import subprocess
from unittest import mock

import jax
import pytest
import yaml

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement
from audiogen_jax.plan import chips
from audiogen_jax.train import configuration, state
from audiogen_jax.train.configuration import parse

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
ARGUMENTS = ["--config=configs/lm_1p5b.py", "--workdir=gs://bucket/a run"]
# Types of Cloud TPU count cores where a chip has two.
TOPOLOGIES = {
  "v5litepod-16": "v5e:4x4",
  "v5p-32": "v5p:2x2x4",
  "v6e-16": "v6e:4x4",
  "v4-32": "v4:2x2x4",
}
GKE_TOPOLOGIES = {"tpu-v5-lite-podslice": "v5e"}


def gpu(number):
  """A device that is not here, of a process of its own."""
  device = mock.Mock(spec=jax.Device, platform="gpu", slice_index=0)
  device.id = device.process_index = number
  return device


def commands():
  """Commands of the README's training page, as words."""
  text = (ROOT / "audiogen_jax/train/README.md").read_text()
  part = text[text.index("**3. Train there**") :]
  (block,) = re.findall(r"```\n(.*?)```", part[: part.index("| config")], re.S)
  lines = block.replace("\\\n", " ").splitlines()
  return [shlex.split(line) for line in lines if line.strip()]


def the_command(*start):
  (found,) = [c for c in commands() if c[: len(start)] == list(start)]
  return found


def variables():
  words = the_command("export")[1:]
  return dict(word.split("=", 1) for word in words)


def tpus(name, slices=1):
  pytest.importorskip("libtpu", reason="the topologies come with libtpu")
  return chips.topology(name, slices)[1]


@functools.cache
def model(config):
  """The task of a configuration, and what it trains, without memory for it."""
  _, task = parse(configuration.load(str(ROOT / config)))
  return task, jax.eval_shape(task.init, jax.random.key(0))


def check(words, devices):
  """A command's mesh divides devices, batches and parameters."""
  given = dict(re.fullmatch(r"--(.*?)=(.*)", word).groups() for word in words)
  changes = [word for word in words if word.startswith("--config.")]
  assert given["workdir"] and given["config.data.folders"]
  run, _ = parse(configuration.changed(str(ROOT / given["config"]), changes))
  mesh = sharding.arrange(run.mesh, devices)
  assert mesh.devices.size == len(devices)
  placement = Placement.make(mesh, run.rules)
  task, like = model(given["config"])
  state.shardings(like, task.axes, placement)  # raises
  assert placement.ways("batch") == len(devices)
  for what in ("batch", "eval_batch"):
    size = getattr(run.data, what)
    placement.check_batch(size, what)
    read = []
    for process in {device.process_index for device in devices}:
      own = sum(d.process_index == process for d in devices)
      rows = placement.rows(size, process)
      assert len(rows) == size * own // len(devices)
      read.extend(rows)
    assert sorted(read) == list(range(size))
  return mesh


def play(world, monkeypatch, **programs):
  """Programs on PATH that write down what they are called with."""
  (world / "bin").mkdir()
  (world / "calls").write_text("")
  for name, text in programs.items():
    path = world / "bin" / name
    said = f'printf "%s\\n" "{name} $*" >>"{world}/calls"'
    path.write_text(f"#!/usr/bin/env bash\n{said}\n{text}\n")
    path.chmod(0o755)
  monkeypatch.setenv("PATH", f"{world / 'bin'}:{os.environ['PATH']}")
  return lambda: (world / "calls").read_text().splitlines()


def test_every_command_is_known():
  """Whatever else stands there needs a test of its own."""
  starts = [" ".join(command[:2]) for command in commands()]
  assert starts == [
    "gcloud storage",
    "bash launch/tpu_pod.sh",
    "sbatch --nodes=4",
    "export NAME=lm",
    "envsubst $NAME $IMAGE $CONFIG $WORKDIR $DATASET",
  ]
  copied = the_command("gcloud", "storage")
  assert copied[2:4] == ["cp", "--recursive"]
  there = f"{copied[5]}{copied[4]}"
  pod = the_command("bash", "launch/tpu_pod.sh")
  assert f"--config.data.folders={there}" in pod
  assert variables()["DATASET"] == there


def test_the_pod_of_the_readme():
  command = the_command("bash", "launch/tpu_pod.sh")
  end = command.index("--")
  words = [*command[:end], "--dry-run", *command[end:]]
  ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
  assert ended.returncode == 0, ended.stderr
  kind = command[command.index("--type") + 1]
  assert f"--accelerator-type={kind}" in ended.stdout
  started = shlex.join(command[end + 1 :])
  assert f"tpu_worker.sh start {started}" in ended.stdout.replace("\\", "")
  check(command[end + 1 :], tpus(TOPOLOGIES[kind]))


def test_types_of_the_help():
  words = ["bash", LAUNCH / "tpu_pod.sh", "--help"]
  told = subprocess.run(words, capture_output=True, text=True).stdout
  (line,) = re.findall(r"--type TYPE +as (.*)", told)
  assert line.split(", ") == list(TOPOLOGIES)


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_a_type(kind):
  """It has software, and takes the released batches as they are."""
  words = ["--name", "a", "--zone", "b", "--type", kind, "--dry-run", "--"]
  words = ["bash", LAUNCH / "tpu_pod.sh", *words, *ARGUMENTS]
  ended = subprocess.run(words, capture_output=True)
  assert ended.returncode == 0, ended.stderr
  devices = tpus(TOPOLOGIES[kind])
  assert len(devices) == 16
  check([*ARGUMENTS, "--config.data.folders=d"], devices)


def test_slurm_of_the_readme(tmp_path, monkeypatch):
  command = the_command("sbatch")
  at = command.index("launch/slurm.sbatch")
  head = (LAUNCH / "slurm.sbatch").read_text()
  asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", head, re.M))
  asked |= dict(re.findall(r"--([\w-]+)=(\S+)", " ".join(command[:at])))
  gpus = int(asked["gpus-per-node"])
  assert int(asked["ntasks-per-node"]) == gpus
  devices = [gpu(i) for i in range(int(asked["nodes"]) * gpus)]
  mesh = check(command[at + 1 :], devices)
  # What is split often stays within a node.
  for row in mesh.devices.reshape(-1, gpus):
    assert len({device.id // gpus for device in row}) == 1
  calls = play(tmp_path, monkeypatch, srun="")
  subprocess.run(["bash", *command[at:]], cwd=ROOT, check=True)
  assert calls()[0].endswith(
    f"audiogen_jax.train {' '.join(command[at + 1 :])}"
  )


@pytest.mark.parametrize(
  ("status", "restarts", "again"),
  [
    (0, 0, False),
    (1, 0, True),
    (1, 2, True),
    (1, 3, False),
    (2, 0, False),
    (130, 3, True),
    (143, 9, True),
  ],
)
def test_slurm(tmp_path, monkeypatch, status, restarts, again):
  """Saved and not done, it queues again; failed, three times; else it ends."""
  calls = play(tmp_path, monkeypatch, srun=f"exit {status}", scontrol="")
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  if restarts:
    monkeypatch.setenv("SLURM_RESTART_COUNT", f"{restarts}")
  words = ["bash", LAUNCH / "slurm.sbatch"]
  ended = subprocess.run([*words, *ARGUMENTS], cwd=tmp_path)
  assert ended.returncode == status
  # Other processes have time to say why they end.
  said = "srun --kill-on-bad-exit=0 --wait=120 python -m audiogen_jax.train "
  assert calls()[0] == said + " ".join(ARGUMENTS)
  assert calls()[1:] == ["scontrol requeue 7"] * again


def test_slurm_without_arguments():
  words = ["bash", LAUNCH / "slurm.sbatch"]
  ended = subprocess.run(words, capture_output=True, text=True)
  assert ended.returncode == 2 and ended.stderr.startswith("error: nothing")


@pytest.mark.skipif(not shutil.which("sbatch"), reason="no SLURM here")
def test_slurm_takes_the_job():
  words = ["sbatch", "--test-only", LAUNCH / "slurm.sbatch", *ARGUMENTS]
  assert subprocess.run(words).returncode == 0


def test_shellcheck():
  found = shutil.which("shellcheck")
  if not found:
    pytest.skip("shellcheck is not on PATH")
  scripts = [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]
  checked = subprocess.run([found, *scripts], capture_output=True, text=True)
  assert len(scripts) == 6 and checked.returncode == 0, checked.stdout


def jobset():
  """What the README's commands hand to `kubectl`."""
  command = the_command("envsubst")
  assert command[2:] == [
    "<",
    "launch/gke.yaml",
    "|",
    *"kubectl apply -f -".split(),
  ]
  text = (ROOT / command[3]).read_text()
  head, body = text.split("\napiVersion", 1)
  listed = re.findall(r"\$(\w+)", command[1])
  assert listed == list(variables()) and command[1] in head
  assert set(re.findall(r"\$\{(\w+)\}", body)) == set(listed)
  # The file's own head says the same.
  said = " ".join(head.replace("\\\n#", " ").split())
  assert " ".join(map("=".join, variables().items())) in said
  return yaml.safe_load(string.Template(text).safe_substitute(variables()))


def test_gke():
  """The job in it is valid; a slice's hosts, chips, mesh and batches agree."""
  validate = pytest.importorskip("kubernetes_validate")
  found = jobset()
  assert found["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert found.keys() == {"apiVersion", "kind", "metadata", "spec"}
  assert found["spec"].keys() == {"failurePolicy", "replicatedJobs"}
  (group,) = found["spec"]["replicatedJobs"]
  assert group.keys() == {"name", "replicas", "template"}
  job = {"apiVersion": "batch/v1", "kind": "Job", **group["template"]}
  job["metadata"] = {"name": "slice"}
  validate.validate(job, "1.31", strict=True)
  spec = job["spec"]
  inner = spec["template"]["spec"]
  (container,) = inner["containers"]
  limits, where = container["resources"]["limits"], inner["nodeSelector"]
  hosts = spec["completions"]
  shape = where["cloud.google.com/gke-tpu-topology"]
  kind = GKE_TOPOLOGIES[where["cloud.google.com/gke-tpu-accelerator"]]
  assert hosts == spec["parallelism"]
  for mounted in container["volumeMounts"]:
    assert mounted["name"] in [volume["name"] for volume in inner["volumes"]]
  assert container["command"][:3] == ["python", "-m", "audiogen_jax.train"]
  for slices in (group["replicas"], 2):  # as its head says of more replicas
    devices = tpus(f"{kind}:{shape}", slices)
    assert limits["google.com/tpu"] * hosts * slices == len(devices)
    assert len({device.process_index for device in devices}) == hosts * slices
    mesh = check(container["command"][3:], devices)
    assert dict(mesh.shape) == {"data": slices, "fsdp": 16, "tensor": 1}


def test_gke_ends_after_bad_input():
  """Status 2 fails the job by its policy, and that reason fails the set."""
  spec = jobset()["spec"]
  policy, (group,) = spec["failurePolicy"], spec["replicatedJobs"]
  job = group["template"]["spec"]
  (rule,) = job["podFailurePolicy"]["rules"]
  assert (
    rule.keys() == {"action", "onExitCodes"} and rule["action"] == "FailJob"
  )
  codes = rule["onExitCodes"]
  assert (codes["operator"], codes["values"]) == ("In", [2])
  (container,) = job["template"]["spec"]["containers"]
  assert codes["containerName"] == container["name"]
  # Kubernetes takes such a policy with this alone.
  assert job["template"]["spec"]["restartPolicy"] == "Never"
  # Fields and words of JobSet's v1alpha2, from 0.6 on.
  assert policy.keys() == {"maxRestarts", "rules"} and policy["maxRestarts"] > 0
  (ending,) = policy["rules"]
  assert ending.keys() == {"name", "action", "onJobFailureReasons"}
  assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", ending["name"])
  assert ending["action"] == "FailJobSet"
  assert ending["onJobFailureReasons"] == ["PodFailurePolicy"]
