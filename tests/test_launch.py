"""The scripts that start training elsewhere, as far as they go without it.

Cloud, scheduler and workers are played by small programs on PATH; what runs on
a worker runs here, in a folder of its own.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
ARGUMENTS = ["--config=configs/lm_1p5b.py", "--workdir=gs://bucket/a run"]

GCLOUD = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >>"$WORLD/calls"
cd "$WORLD/worker"
verb=$4 command=""
for word in "$@"; do
  case $word in --command=*) command=${word#--command=} ;; esac
done
case $verb in
  describe)
    [[ -f $WORLD/there ]] || { echo "ERROR: NOT_FOUND: no slice" >&2; exit 1; }
    cat "$WORLD/there" ;;
  create) echo READY >"$WORLD/there" ;;
  delete) rm "$WORLD/there" ;;
  scp) cp "$5" "${6#*:}" ;;
  ssh)
    if [[ $command == *follow* && -f $WORLD/breaks ]]; then
      rm "$WORLD/breaks"
      exit 255
    fi
    HOME=$WORLD/worker exec bash -c "$command" ;;
esac
"""
UV = r"""#!/usr/bin/env bash
printf 'uv %s\n' "$*" >>"$WORLD/calls"
if [[ $1 == venv ]]; then
  mkdir -p venv/bin && cp "$WORLD/python" venv/bin/python
fi
"""
PYTHON = r"""#!/usr/bin/env bash
echo "training:$(printf ' <%s>' "$@")"
trap 'echo saved; exit 143' TERM
touch "$WORLD/training"
for _ in $(seq "$(<"$WORLD/tenths")"); do sleep 0.1; done
echo done
exit "$(<"$WORLD/status")"
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A cloud in which training takes a moment and ends with status 3."""
  (tmp_path / "worker").mkdir()
  (tmp_path / "tenths").write_text("5")
  (tmp_path / "status").write_text("3")
  (tmp_path / "calls").write_text("")
  for name, text in (
    ("bin/gcloud", GCLOUD),
    ("bin/uv", UV),
    ("python", PYTHON),
  ):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
  monkeypatch.setenv("WORLD", str(tmp_path))
  monkeypatch.setenv("AUDIOGEN_RETRY_S", "0.1")
  return tmp_path


def pod(*words, arguments=ARGUMENTS, wait=True):
  given = ["--name", "pod", "--zone", "z1-a", "--type", "v5litepod-16", *words]
  # Where SIGINT is ignored, as under nohup, a shell could not trap it.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  started = subprocess.Popen(
    ["bash", LAUNCH / "tpu_pod.sh", *given, "--", *arguments],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  signal.signal(signal.SIGINT, before)
  return (started, *started.communicate(timeout=60)) if wait else started


def verbs(world):
  calls = (world / "calls").read_text().splitlines()
  return [line.split()[3] for line in calls if line.startswith("compute")]


def test_a_slice_for_one_run(world):
  ended, output, errors = pod()
  assert ended.returncode == 3, errors
  said = "training: <-m> <audiogen_jax.train>"
  said += "".join(f" <{word}>" for word in ARGUMENTS)
  assert said in output and "done" in output
  assert verbs(world)[:3] == ["describe", "create", "ssh"]
  assert verbs(world)[-1] == "delete"
  assert not (world / "there").exists()
  assert (world / "worker/audiogen/code/setup.cfg").exists()
  calls = (world / "calls").read_text()
  assert "--accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-l" in calls
  assert "-e code[tpu,gcs]" in calls


def test_a_slice_that_was_there_stays(world):
  (world / "there").write_text("READY\n")
  (world / "status").write_text("0")
  ended, _, errors = pod("--project", "p")
  assert ended.returncode == 0, errors
  assert not {"create", "delete"} & set(verbs(world))
  assert (world / "calls").read_text().count("--project=p") == len(verbs(world))


def test_keeping_it(world):
  ended, _, errors = pod("--keep", arguments=["--config=c.py", "--workdir=run"])
  assert ended.returncode == 3 and "left running, and costs" in errors
  assert "create" in verbs(world) and "delete" not in verbs(world)


def test_a_broken_connection(world):
  (world / "breaks").touch()
  (world / "tenths").write_text("30")
  ended, output, errors = pod()
  assert ended.returncode == 3, errors
  assert "trying again" in errors and "done" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_saves_and_deletes(world, number):
  (world / "tenths").write_text("600")
  started = pod(wait=False)
  deadline = time.monotonic() + 30
  calls = world / "calls"
  while " follow " not in calls.read_text() and time.monotonic() < deadline:
    time.sleep(0.1)
  while not (world / "training").exists() and time.monotonic() < deadline:
    time.sleep(0.1)
  # A terminal sends its signals to all that it started.
  children = subprocess.run(
    ["pgrep", "-P", str(started.pid)], capture_output=True, text=True
  ).stdout.split()
  started.send_signal(number)
  for child in children:
    os.kill(int(child), signal.SIGTERM)
  started.communicate(timeout=60)
  assert started.returncode == 128 + number
  log = (world / "worker/audiogen/log").read_text()
  assert log.endswith("saved\n")
  assert (world / "worker/audiogen/status").read_text() == "143\n"
  assert verbs(world)[-1] == "delete"


def test_a_dry_run_only_prints(world):
  (world / "bin/gcloud").unlink()
  ended, output, errors = pod("--dry-run", "--spot")
  assert ended.returncode == 0, errors
  assert not (world / "calls").read_text()
  lines = output.splitlines()
  assert all(x.startswith("+ gcloud compute tpus tpu-vm ") for x in lines)
  found = [line.split()[5] for line in lines]
  assert found == ["create", "ssh", "scp", "ssh"] + ["ssh"] * 4 + ["delete"]
  assert "--spot" in lines[0] and "--quiet" in lines[-1]


@pytest.mark.parametrize(
  ("words", "arguments", "said"),
  [
    (["--type", "v9-8"], ARGUMENTS, "what software suits v9-8"),
    (["--name"], ARGUMENTS, "--name needs a value"),
    (["--frob"], ARGUMENTS, "--frob is no option"),
    ([], [], "nothing to train"),
    ([], ["--config=c.py", "--workdir=run"], "give --workdir=gs://BUCKET/RUN"),
  ],
)
def test_what_it_refuses(world, words, arguments, said):
  ended, output, errors = pod(*words, arguments=arguments)
  assert ended.returncode == 2 and not output
  assert errors.startswith("error: ") and len(errors.splitlines()) == 1
  assert said in errors and not verbs(world)


def test_what_the_cloud_refuses(world):
  gcloud = world / "bin/gcloud"
  text = GCLOUD.replace("NOT_FOUND: no slice", "PERMISSION_DENIED: tpu.get")
  gcloud.write_text(text)
  ended, _, errors = pod()
  assert ended.returncode == 2 and "PERMISSION_DENIED" in errors
  assert verbs(world) == ["describe"]


@pytest.mark.parametrize("status", [0, 1, 143])
def test_slurm(world, status):
  """Saved and not done, the job queues again; otherwise it has ended."""
  for name in ("srun", "scontrol"):
    path = world / "bin" / name
    path.write_text(
      f'#!/usr/bin/env bash\necho "{name} $*" >>"$WORLD/calls"\n'
      + (f"exit {status}\n" if name == "srun" else "")
    )
    path.chmod(0o755)
  words = ["bash", LAUNCH / "slurm.sbatch"]
  ended = subprocess.run(
    [*words, *ARGUMENTS], cwd=world, env=os.environ | {"SLURM_JOB_ID": "7"}
  )
  assert ended.returncode == status
  calls = (world / "calls").read_text().splitlines()
  said = "srun --kill-on-bad-exit=1 python -m audiogen_jax.train "
  assert calls[0] == said + " ".join(ARGUMENTS)
  assert calls[1:] == (["scontrol requeue 7"] if status == 143 else [])
  empty = subprocess.run(words, cwd=world, capture_output=True, text=True)
  assert empty.returncode == 2 and empty.stderr.startswith("error: nothing")


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
  assert len(scripts) == 4 and checked.returncode == 0, checked.stdout


def test_gke():
  """The job in it is valid; a slice's hosts, chips and mesh agree."""
  validate = pytest.importorskip("kubernetes_validate")
  found = yaml.safe_load((LAUNCH / "gke.yaml").read_text())
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
  chips = container["resources"]["limits"]["google.com/tpu"]
  x, y = inner["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
  assert spec["completions"] == spec["parallelism"]
  assert spec["completions"] * chips == int(x) * int(y) == 16
  assert "--config.mesh.fsdp=16" in container["command"]
