"""`launch/tpu_pod.sh`, as far as it goes without a cloud.

Cloud and workers are played by small programs on PATH; what runs on a worker
runs here, in a folder of its own.
"""

import os
import pathlib
import re
import signal
import subprocess
import time

import clouds
import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "launch/tpu_pod.sh"
ARGUMENTS = ["--config=configs/lm_1p5b.py", "--workdir=gs://bucket/a run"]


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A cloud in which training takes a moment and ends well."""
  clouds.build(tmp_path)
  monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
  monkeypatch.setenv("WORLD", str(tmp_path))
  monkeypatch.setenv("AUDIOGEN_RETRY_S", "0.02")
  return tmp_path


def pod(*words, arguments=ARGUMENTS, wait=True):
  given = ["--name", "pod", "--zone", "z1-a", "--type", "v5litepod-16", *words]
  # Where SIGINT is ignored, as under nohup, a shell could not trap it.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  started = subprocess.Popen(
    ["bash", SCRIPT, *given, "--", *arguments],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  signal.signal(signal.SIGINT, before)
  return (started, *started.communicate(timeout=120)) if wait else started


def verbs(world, group="tpu-vm"):
  """What was asked of the cloud, but for descriptions."""
  calls = [line.split() for line in (world / "calls").read_text().splitlines()]
  found = [call[3] for call in calls if call[:3:2] == ["compute", group]]
  return [verb for verb in found if verb != "describe"]


def starts(world):
  return (world / "calls").read_text().count("worker.sh start")


def test_a_slice_for_one_run(world):
  ended, output, errors = pod()
  assert ended.returncode == 0, errors
  said = "training: <-m> <audiogen_jax.train>"
  said += "".join(f" <{word}>" for word in ARGUMENTS)
  assert said in output and "done" in output
  assert verbs(world)[:2] == ["create", "ssh"]
  assert verbs(world)[-1] == "delete" and starts(world) == 1
  assert not (world / "there").exists()
  assert (world / "worker/audiogen/code/setup.cfg").exists()
  calls = (world / "calls").read_text()
  assert "--accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-l" in calls
  assert "-e code[tpu,gcs]" in calls
  # A host that is gone does not say so: ssh has to ask.
  silent = [line for line in calls.splitlines() if " ssh " in line]
  assert all("-oServerAliveInterval=30" in line for line in silent)


def test_a_slice_that_was_there_stays(world):
  (world / "there").write_text("READY\n")
  ended, _, errors = pod("--project", "p")
  assert ended.returncode == 0, errors
  assert not {"create", "delete"} & set(verbs(world))
  asked = (world / "calls").read_text()
  assert asked.count("--project=p") == asked.count("compute tpus")


def test_keeping_it(world):
  ended, _, errors = pod("--keep")
  assert ended.returncode == 0 and "left running, and costs" in errors
  assert "create" in verbs(world) and "delete" not in verbs(world)


def test_through_the_queue(world):
  states = ["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING"]
  (world / "queue").write_text("\n".join([*states, "ACTIVE", ""]))
  ended, output, errors = pod("--queued", "--spot", "--wait", "0.5")
  assert ended.returncode == 0 and "done" in output, errors
  told = re.findall(r"in the queue: (\w+)", errors)
  assert told == ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
  assert verbs(world, "queued-resources") == ["create", "delete"]
  assert not {"create", "delete"} & set(verbs(world))
  (created,) = re.findall(
    r"resources create (.*)", (world / "calls").read_text()
  )
  assert "--node-id=pod" in created and "--spot" in created
  assert "--runtime-version=v2-alpha-tpuv5-lite" in created
  assert "--valid-until-duration=1800s" in created
  assert not (world / "request").exists()


@pytest.mark.parametrize(
  ("queue", "words", "said"),
  [
    (["PROVISIONING", "FAILED"], [], "no capacity"),
    (["SUSPENDED"], [], "in the queue: SUSPENDED"),
    ([], ["--wait", "0.0003"], "no slice within 0.0003 h"),
  ],
)
def test_a_queue_without_a_slice(world, queue, words, said):
  (world / "queue").write_text("\n".join([*queue, ""] if queue else []))
  ended, output, errors = pod("--queued", *words)
  assert ended.returncode == 1 and said in output + errors
  assert "error: pod could not be had" in errors
  assert verbs(world, "queued-resources") == ["create", "delete"]
  assert not verbs(world) and not (world / "request").exists()


def test_a_request_that_was_there_stays(world):
  (world / "request").write_text("PROVISIONING\n")
  ended, _, errors = pod("--queued")
  assert ended.returncode == 2
  assert "a queued resource pod is there (PROVISIONING)" in errors
  assert not verbs(world, "queued-resources")


@pytest.mark.parametrize("queued", [False, True])
def test_pre_empted_it_goes_on(world, queued):
  """Taken away twice, once without a trace; no other one for a while."""
  (world / "preempt").write_text("PREEMPTED\n\n")
  (world / "queue").write_text("ACTIVE\nACTIVE\nACTIVE\nSUSPENDED\nACTIVE\n")
  (world / "tenths").write_text("5")
  if not queued:
    (world / "queue").unlink()
  ended, output, errors = pod("--spot", *["--queued"] * queued)
  assert ended.returncode == 0 and "done" in output, errors
  assert re.findall(r"pre-emption (\d) of at most 20", errors) == ["1", "2"]
  assert starts(world) == 3
  group = "queued-resources" if queued else "tpu-vm"
  made = [v for v in verbs(world, group) if v in ("create", "delete")]
  assert made[0] == "create" and made[-1] == "delete"
  assert made.count("create") == 3 and not (world / "there").exists()
  calls = (world / "calls").read_text()
  assert calls.count(" create pod") == calls.count("--spot") == 3


def test_chips_are_scarce_after_a_pre_emption(world):
  (world / "preempt").write_text("TERMINATED\n")
  (world / "full").write_text("\nno more capacity\nno more capacity\n")
  (world / "tenths").write_text("5")
  ended, _, errors = pod("--spot")
  assert ended.returncode == 0, errors
  assert errors.count("no slice now") == 2 and verbs(world).count("create") == 4


@pytest.mark.parametrize("words", [[], ["--spot"]])
def test_chips_are_scarce_from_the_start(world, words):
  """Whoever waits for the first slice has the queue."""
  (world / "full").write_text("no more capacity\n")
  ended, _, errors = pod(*words)
  assert ended.returncode == 1 and "error: pod could not be had" in errors
  assert verbs(world) == ["create"]


def test_no_other_slice_in_time(world):
  (world / "preempt").write_text("TERMINATED\n")
  (world / "full").write_text("\n" + 999 * "no more capacity\n")
  (world / "tenths").write_text("5")
  ended, _, errors = pod("--spot", "--keep", "--wait", "0.0003")
  assert ended.returncode == 1 and "error: pod could not be had again" in errors
  assert "left running" not in errors


def test_taken_away_without_spot(world):
  (world / "preempt").write_text("PREEMPTED\n")
  (world / "tenths").write_text("5")
  ended, _, errors = pod("--keep")
  assert ended.returncode == 1
  (line,) = [x for x in errors.splitlines() if x.startswith("error: ")]
  assert "pod is PREEMPTED; the same command goes on" in line
  assert verbs(world)[-1] == "delete" and verbs(world).count("create") == 1


def test_taken_away_and_not_created_here(world):
  (world / "there").write_text("READY\n")
  (world / "preempt").write_text("PREEMPTED\n")
  (world / "tenths").write_text("5")
  ended, _, errors = pod("--spot")
  assert (
    ended.returncode == 1 and "error: pod was there before: delete" in errors
  )
  assert not {"create", "delete"} & set(verbs(world))


@pytest.mark.parametrize(
  ("statuses", "runs", "status"),
  [([143, 1, 1, 130, 1, 0], 6, 0), ([1, 3, 3, 5], 4, 5), ([2], 1, 2)],
)
def test_what_is_started_again(world, statuses, runs, status):
  """A stop from elsewhere and three failures are; bad input is not."""
  (world / "status").write_text("".join(f"{n}\n" for n in statuses))
  ended, _, errors = pod()
  assert ended.returncode == status, errors
  assert starts(world) == runs and verbs(world).count("create") == 1
  assert f"training ended with status {statuses[0]}" in errors


def test_a_host_that_was_restarted(world):
  """Training is gone and left no status."""
  (world / "breaks").write_text("READY killed\n")
  (world / "tenths").write_text("10")
  ended, output, errors = pod()
  assert ended.returncode == 0 and "done" in output, errors
  assert "gone without a status" in errors and starts(world) == 2


def test_a_broken_connection(world):
  (world / "breaks").write_text("READY\n")
  (world / "tenths").write_text("10")
  ended, output, errors = pod()
  assert ended.returncode == 0, errors
  assert "training goes on" in errors and "done" in output
  assert starts(world) == 1


def test_no_connection_any_more(world):
  """It ends, says how to go on, and the same command does."""
  (world / "breaks").write_text("REPAIRING\n")
  (world / "tenths").write_text("600")
  ended, _, errors = pod()
  assert ended.returncode == 1 and "(REPAIRING): attempt 29 of 30" in errors
  assert "error: no connection to pod; training may go on there" in errors
  assert "delete" not in verbs(world)
  (world / "there").write_text("READY\n")
  ended, _, errors = pod(arguments=["--config=c.py", "--workdir=gs://b/r"])
  assert ended.returncode == 2 and "pod trains something else" in errors
  again = pod(wait=False)
  follows = (world / "calls").read_text().count(" follow ")
  await_(lambda: (world / "calls").read_text().count(" follow ") > follows)
  again.send_signal(signal.SIGTERM)
  _, errors = again.communicate(timeout=120)
  assert again.returncode == 143 and "is followed" in errors
  assert starts(world) == 1 and "delete" not in verbs(world)
  assert (world / "worker/audiogen/log").read_text().endswith("saved\n")


def await_(done, seconds=60):
  deadline = time.monotonic() + seconds
  while not done() and time.monotonic() < deadline:
    time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_saves_and_deletes(world, number):
  (world / "tenths").write_text("600")
  started = pod(wait=False)
  await_(lambda: " follow " in (world / "calls").read_text())
  await_((world / "training").exists)
  if number == signal.SIGINT:  # a terminal sends it to the whole group
    os.killpg(started.pid, number)
  else:
    started.send_signal(number)
  started.communicate(timeout=120)
  assert started.returncode == 128 + number
  log = (world / "worker/audiogen/log").read_text()
  assert log.endswith("saved\n")
  assert (world / "worker/audiogen/status").read_text() == "143\n"
  assert verbs(world)[-1] == "delete"


def test_stopped_in_the_queue(world):
  started = pod("--queued", wait=False)
  await_(lambda: (world / "request").exists())
  started.send_signal(signal.SIGTERM)
  _, errors = started.communicate(timeout=120)
  assert started.returncode == 143 and "deleting pod" in errors
  assert not (world / "request").exists() and not verbs(world)


def test_training_that_does_not_stop(world, monkeypatch):
  monkeypatch.setenv("AUDIOGEN_STOP_S", "1")
  (world / "tenths").write_text("600")
  python = world / "python"
  python.write_text(clouds.PYTHON.replace("'echo saved; exit 143'", "''"))
  started = pod(wait=False)
  await_((world / "training").exists)
  await_(lambda: " follow " in (world / "calls").read_text())
  started.send_signal(signal.SIGTERM)
  _, errors = started.communicate(timeout=120)
  assert started.returncode == 143
  assert re.search(r"does not end; process \d+ is killed", errors)
  ended = world / "worker/audiogen/status"
  await_(ended.exists, seconds=5)
  assert ended.read_text() == "137\n"  # 128 + SIGKILL
  assert verbs(world)[-1] == "delete"


@pytest.mark.parametrize("queued", [False, True])
def test_a_dry_run_only_prints(world, queued):
  (world / "bin/gcloud").unlink()
  ended, output, errors = pod("--dry-run", "--spot", *["--queued"] * queued)
  assert ended.returncode == 0, errors
  assert not (world / "calls").read_text()
  lines = output.splitlines()
  assert all(x.startswith("+ gcloud compute tpus ") for x in lines)
  found = [line.split()[5] for line in lines]
  first = ["create", "describe"] if queued else ["create"]
  assert found == [*first, "ssh", "scp", "ssh", *["ssh"] * 4, "delete"]
  assert "--spot" in lines[0] and "--quiet" in lines[-1]


@pytest.mark.parametrize(
  ("words", "arguments", "said"),
  [
    (["--type", "v9-8"], ARGUMENTS, "what software suits v9-8"),
    (["--type", "v5p"], ARGUMENTS, "--type v5p has no size"),
    (["--name"], ARGUMENTS, "--name needs a value"),
    (["--frob"], ARGUMENTS, "--frob is no option"),
    (["--wait", "2"], ARGUMENTS, "--wait 2: there is nothing to wait for"),
    (["--spot", "--wait", "5x"], ARGUMENTS, "--wait 5x must be a number"),
    ([], [], "nothing to train"),
    ([], ["--config=c.py", "--workdir=run"], "give --workdir=gs://BUCKET/RUN"),
    # On four hosts, and in the folder that the next run replaces.
    (["--keep"], ["--workdir=/run"], "give --workdir=gs://BUCKET/RUN"),
    (["--keep", "--type", "v6e-8"], ["--workdir=run"], "give --workdir=gs://"),
    # Gone with a slice that is pre-empted.
    (["--keep", "--spot", "--type", "v6e-8"], ["--workdir=/run"], "gs://"),
  ],
)
def test_what_it_refuses(world, words, arguments, said):
  ended, output, errors = pod(*words, arguments=arguments)
  assert ended.returncode == 2 and not output
  assert errors.startswith("error: ") and len(errors.splitlines()) == 1
  assert said in errors and not (world / "calls").read_text()


def test_one_host_may_keep_the_run(world):
  words = ["--keep", "--type", "v6e-8"]
  ended, _, errors = pod(*words, arguments=["--workdir=~/run"])
  assert ended.returncode == 0 and "left running" in errors, errors


@pytest.mark.parametrize(
  ("there", "said"),
  [(None, "PERMISSION_DENIED"), ("PREEMPTED", "pod is there but PREEMPTED")],
)
def test_what_the_cloud_refuses(world, there, said):
  gcloud = world / "bin/gcloud"
  if there:
    (world / "there").write_text(f"{there}\n")
  gcloud.write_text(
    clouds.GCLOUD.replace("NOT_FOUND: no", "PERMISSION_DENIED: to")
  )
  ended, _, errors = pod("--spot")
  assert ended.returncode == 2 and said in errors
  assert not verbs(world) and len(errors.strip().splitlines()) == 1
