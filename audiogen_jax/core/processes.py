"""Several processes as one program: `jax.distributed`, where there are any."""

import os

import jax

from audiogen_jax.core.errors import InputError


def join() -> None:
  """Joins the other processes, if the environment says that there are any.

  Clusters that JAX knows (SLURM, Open MPI, TPU pods, GKE) tell it everything.
  Elsewhere set JAX_COORDINATOR_ADDRESS (host:port of process 0),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  Raises:
    InputError: If one of the three is missing or no number, or the others do
      not answer.
  """
  if jax.distributed.is_initialized():
    return
  own = "JAX_COORDINATOR_ADDRESS" in os.environ
  if not own and not _in_cluster():
    return
  arguments = {}
  if own:
    arguments = {
      "coordinator_address": os.environ["JAX_COORDINATOR_ADDRESS"],
      "num_processes": _number("JAX_NUM_PROCESSES"),
      "process_id": _number("JAX_PROCESS_ID"),
    }
  try:
    jax.distributed.initialize(**arguments)
  except (RuntimeError, ValueError) as error:
    reason = " ".join(str(error).split())[:200]
    raise InputError(f"the processes could not be joined: {reason}") from None


def _in_cluster() -> bool:
  """Whether a scheduler started this as one of several processes."""
  env = os.environ
  counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
  hosts = env.get("TPU_WORKER_HOSTNAMES", "").split(",")
  return len(hosts) > 1 or any(int(env.get(name, 1)) > 1 for name in counts)


def _number(name: str) -> int:
  text = os.environ.get(name, "")
  if not text.isdigit():
    raise InputError(
      f"{name} is {text!r}; with JAX_COORDINATOR_ADDRESS set it must be a"
      " number"
    )
  return int(text)
