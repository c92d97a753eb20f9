"""Who belongs together, and what they decide; `peers` has tests of its own.

Real processes, in the clusters that JAX detects: a Cloud TPU slice by its
metadata server, SLURM and GKE by their environments, and the three variables.
"""

import textwrap
import time

import pytest
import virtual_pod
from virtual_pod import Metadata, Pod

from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError

SHORT = {"AUDIOGEN_JOIN_SECONDS": "3"}


@pytest.fixture
def script(tmp_path):
  """A program in which processes are joined."""

  def write(body):
    path = tmp_path / "program.py"
    head = """
      import sys
      import jax
      from audiogen_jax.core import processes
      from audiogen_jax.core.errors import InputError
    """
    tail = """
      if __name__ == "__main__":
        try:
          with processes.distributed():
            main()
        except InputError as error:
          print(f"error: {error}", file=sys.stderr)
          sys.exit(2)
    """
    parts = [head, f"\ndef main():\n{textwrap.indent(body, '  ')}\n", tail]
    path.write_text("\n".join(map(textwrap.dedent, parts)))
    return path

  return write


@pytest.fixture
def alone(monkeypatch):
  for name in ("JAX_COORDINATOR_ADDRESS", "KUBERNETES_SERVICE_HOST"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(processes, "_peers", None)


WHO = (
  "print(jax.process_index(), jax.process_count(), jax.local_device_count())"
)


def said(found):
  return [one.output.split() for one in found]


def test_alone(alone, monkeypatch):
  """At once, without a network, and without JAX's service."""

  def refuse(*_, **__):
    pytest.fail("asked the network")

  monkeypatch.setattr("socket.create_connection", refuse)
  monkeypatch.setattr("socket.create_server", refuse)
  begun = time.monotonic()
  with processes.distributed():
    assert processes.agreed(lambda: 7) == 7
    assert processes.gathered("x") == ["x"]
    processes.check_same({"a": 1})
    assert list(processes.passed_on()) == []
  assert time.monotonic() - begun < 1
  with pytest.raises(InputError, match="as it was"), processes.distributed():
    raise InputError("as it was")


def test_a_task_of_one(alone, monkeypatch):
  """`srun` with one task, and one host of TPUs, are alone, too."""
  for name, value in {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "nowhere",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
  }.items():
    monkeypatch.setenv(name, value)
  processes.initialize()
  assert processes.gathered(3) == [3]


def test_a_cloud_tpu_slice(script):
  """Found through the metadata server, as on the VMs of a slice."""
  with Metadata(2) as metadata:
    pod = Pod(count=2, devices=2)
    found = pod.start(script(WHO), by_metadata=metadata).well()
  assert said(found) == [["0", "2", "2"], ["1", "2", "2"]]


def test_slurm(script):
  pod = Pod(count=2, devices=1)
  envs = {
    index: {
      "SLURM_JOB_ID": "7",
      "SLURM_STEP_NODELIST": "localhost",
      "SLURM_NTASKS": "2",
      "SLURM_PROCID": str(index),
      "SLURM_LOCALID": str(index),
    }
    for index in range(2)
  }
  found = pod.start(script(WHO), detected=True, envs=envs).well()
  assert said(found) == [["0", "2", "1"], ["1", "2", "1"]]


def test_what_they_decide(script):
  """One decides, all know; errors have the same words everywhere."""
  body = textwrap.dedent("""
    index = jax.process_index()
    print(processes.agreed(lambda: {"by": index}))
    print(processes.gathered([index, "x"]))
    processes.check_same({"a": (1, 2)})
    if index:
      processes.pass_on({"from": index})
    else:
      print(list(processes.passed_on(wait_s=20.0)))
    try:
      processes.check_same({"optim.lr": 0.1 + index})
    except InputError as error:
      print(error)
    def refuse():
      raise InputError(f"{index} refuses")
    processes.agreed(refuse)
  """)
  found = Pod(count=2, devices=1).start(script(body)).ended()
  first, second = (one.output.splitlines() for one in found)
  assert first.pop(2) == "[{'from': 1}]"
  assert first == second
  assert first[:2] == ["{'by': 0}", "[[0, 'x'], [1, 'x']]"]
  assert first[2] == (
    "process 1 has optim.lr 1.1, process 0 has 0.1; start all processes with"
    " the same"
  )
  for one in found:
    assert (one.status, one.lines) == (2, ["error: 0 refuses"])


@pytest.mark.parametrize("who", [0, 1])
def test_errors_of_one(script, who):
  """Bad input and bugs end all, while the others wait for a collective."""
  body = textwrap.dedent(f"""
    from jax.experimental import multihost_utils
    if jax.process_index() == {who}:
      raise ZeroDivisionError("a bug")
    multihost_utils.sync_global_devices("never")
  """)
  found = Pod(count=2, devices=1).start(script(body)).ended()
  for one in found:
    assert one.status == 1
    assert f"error: process {who} failed: ZeroDivisionError: a bug" in one.lines
  assert "Traceback" in found[who].errors


def test_somebody_else_has_joined_them(script):
  """`jax.distributed.initialize` called by the user's own program."""
  body = "print(processes.agreed(lambda: jax.process_index()))"
  path = script(body)
  text = path.read_text().replace(
    "    with processes.distributed():\n      main()",
    "    import os\n"
    "    jax.distributed.initialize(\n"
    "      os.environ.pop('JAX_COORDINATOR_ADDRESS'),\n"
    "      2, int(os.environ['JAX_PROCESS_ID'])\n"
    "    )\n"
    "    main()",
  )
  path.write_text(text)
  found = Pod(count=2, devices=1).start(path).well()
  assert said(found) == [["0"], ["0"]]


@pytest.mark.parametrize("only", [[0], [1]])
def test_one_that_does_not_come(script, only):
  begun = time.monotonic()
  (one,) = (
    Pod(count=2, devices=1, env=SHORT).start(script(WHO), only=only).ended()
  )
  assert time.monotonic() - begun < 60
  assert one.status == 2 and len(one.errors.splitlines()) == 1
  expected = "1 did not come within 3 s" if only == [0] else "process 0 did not"
  assert expected in one.errors


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"JAX_NUM_PROCESSES": ""}, "JAX_NUM_PROCESSES is ''"),
    ({"JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID is 'x'"),
    ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID 2 must lie in 0 to 1"),
    ({"JAX_COORDINATOR_ADDRESS": "here"}, "it must be host:port"),
    ({"JAX_COORDINATOR_ADDRESS": "here:1"}, "it must be host:port"),
    ({"AUDIOGEN_JOIN_SECONDS": "soon"}, "AUDIOGEN_JOIN_SECONDS is 'soon'"),
    ({"AUDIOGEN_JOIN_SECONDS": "-1"}, "it must be seconds"),
  ],
)
def test_an_environment_that_contradicts_itself(
  alone, monkeypatch, changes, words
):
  for name, value in {
    "JAX_COORDINATOR_ADDRESS": f"localhost:{virtual_pod.two_ports()}",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
    **changes,
  }.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(InputError, match=words):
    processes.initialize()


def test_a_cluster_that_cannot_be_told(alone, monkeypatch):
  def refuse(*_, **__):
    raise RuntimeError("no\npermission")

  monkeypatch.setattr(
    processes.ClusterEnv, "auto_detect_unset_distributed_params", refuse
  )
  with pytest.raises(InputError, match="who is in it: no permission; set JAX_"):
    processes.initialize()


def test_tpus_without_a_metadata_server(alone, monkeypatch):
  def refuse(*_, **__):
    raise ConnectionError("nobody there")

  monkeypatch.setattr(
    processes.ClusterEnv, "auto_detect_unset_distributed_params", refuse
  )
  with pytest.warns(UserWarning, match="going on as one process"):
    processes.initialize()
  assert processes.gathered(1) == [1]
