"""Joining other processes; two real ones are in test_distributed."""

import pytest

from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError

CLUSTERS = {
  "SLURM_NTASKS": "2",
  "OMPI_COMM_WORLD_SIZE": "2",
  "MEGASCALE_NUM_SLICES": "2",
  "TPU_WORKER_HOSTNAMES": "a,b",
}


@pytest.fixture
def joined(monkeypatch):
  """What `jax.distributed.initialize` is called with."""
  calls = []
  for name in (*CLUSTERS, "JAX_COORDINATOR_ADDRESS"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(
    processes.jax.distributed, "initialize", lambda **given: calls.append(given)
  )
  return calls


def test_alone(joined, monkeypatch):
  processes.join()
  monkeypatch.setenv("SLURM_NTASKS", "1")
  processes.join()
  assert joined == []


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_know_by_themselves(joined, monkeypatch, name):
  monkeypatch.setenv(name, CLUSTERS[name])
  processes.join()
  assert joined == [{}]


def test_by_the_environment(joined, monkeypatch):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
  with pytest.raises(InputError, match="JAX_PROCESS_ID is ''"):
    processes.join()
  monkeypatch.setenv("JAX_PROCESS_ID", "1")
  processes.join()
  assert joined == [
    {
      "coordinator_address": "localhost:1",
      "num_processes": 2,
      "process_id": 1,
    }
  ]


def test_nobody_answers(joined, monkeypatch):
  def refuse():
    raise RuntimeError("no\nanswer")

  monkeypatch.setattr(processes.jax.distributed, "initialize", refuse)
  monkeypatch.setenv("SLURM_NTASKS", "2")
  with pytest.raises(InputError, match="could not be joined: no answer"):
    processes.join()
