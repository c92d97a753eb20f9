"""Several processes as one program: `jax.distributed`, where there are any.

Who belongs together is for JAX's own cluster detection to say (Cloud TPU, GKE,
SLURM, Open MPI), or for three variables of the environment.  Whatever one
process decides for all, its errors included, goes through this file: see
`peers`.
"""

import contextlib
import functools
import json
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from jax._src import distributed as jax_distributed
from jax._src.clusters import ClusterEnv

from audiogen_jax import __version__
from audiogen_jax.core.errors import InputError, Stopped
from audiogen_jax.core.peers import Peers

T = TypeVar("T")

_JOIN_S = 60.0  # from the first process to the last
# Limits for processes that live but are busy, reading a large dataset perhaps:
# one that has died is missed within half a minute (`peers`).
_DECIDE_S = 300.0  # for what process 0 decides
_SLOWEST_S = 300.0  # between the first and the last at a meeting point
_GRACE_S = 3.0  # for the news of a death, after a collective has failed


class _Place(NamedTuple):
  """Number and address of this process among the others."""

  address: str
  count: int
  index: int
  devices: Sequence[int] | None


_peers: Peers | None = None


def initialize(*, saves: bool = False) -> None:
  """Joins the other processes, if there are any.

  JAX detects Cloud TPU slices, GKE, SLURM and Open MPI by itself.  Elsewhere
  set JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
  JAX_PROCESS_ID.  A process that is alone stays alone, and asks no network.
  Beside JAX's port the one below it is used, by `peers`.
  AUDIOGEN_JOIN_SECONDS says how long to wait for the others, 60 if it is not
  set.

  Must come before anything that asks JAX for its devices.

  Args:
    saves: Whether SIGTERM is left to JAX's pre-emption service, by which all
      agree on a step to save (`Checkpoints.reached_preemption`); it kills
      otherwise.

  Raises:
    InputError: If the environment contradicts itself, or not all processes
      come; in every process that came, with the same words.
  """
  global _peers
  if _peers is not None:
    return
  begun = jax.distributed.is_initialized()
  place = _initialized() if begun else _detected()
  if place is None or place.count == 1:
    return
  wait_s = _seconds("AUDIOGEN_JOIN_SECONDS", _JOIN_S)
  host, _, port = place.address.rpartition(":")
  peers = Peers(place.index, place.count)
  peers.meet(
    f"{host}:{int(port) - 1}",
    {"audiogen_jax": __version__, "jax": jax.__version__},
    wait_s=wait_s,
  )
  _peers = peers
  if begun:
    return
  jax.config.update("jax_enable_preemption_service", saves)
  try:
    jax.distributed.initialize(
      place.address, place.count, place.index, local_device_ids=place.devices
    )
  except (RuntimeError, ValueError) as error:
    reason = " ".join(str(error).split())[:200]
    raise InputError(f"the processes could not be joined: {reason}") from None


@contextlib.contextmanager
def distributed(*, saves: bool = False) -> Iterator[None]:
  """`initialize`, and within it the errors of one process are those of all.

  Alone, errors pass through.  With others, an InputError or OSError ends all
  processes with its line and status 2; anything else with status 1, and a
  traceback where it happened.
  """
  try:
    initialize(saves=saves)
    yield
  except Stopped:  # in all of them, at the same step
    _leave()
    raise
  except (InputError, OSError) as error:
    if _peers is None:
      raise
    _peers.end(2, f"error: {' '.join(str(error).split())}")
  except KeyboardInterrupt:
    if _peers is None:
      raise
    _peers.end(128 + signal.SIGINT, "stopped by Ctrl-C")
  except Exception as error:
    if _peers is None:
      raise
    # Where a process died, collectives fail: the thread that misses it ends
    # this process meanwhile.
    time.sleep(_GRACE_S)
    traceback.print_exc()
    kind = type(error).__name__
    _peers.end(1, f"error: process {_peers.index} failed: {kind}: {error}")
  _leave()


def _leave() -> None:
  if _peers is not None:
    _peers.leave()


def agreed(decide: Callable[[], T]) -> T:
  """What `decide` returns, or raises, in process 0 alone: in all of them.

  Every process must call this, in the same order.

  Args:
    decide: Returns what JSON can hold.

  Raises:
    InputError: As in process 0, or if it does not decide within five minutes.
  """
  peers = _others()
  if peers is None:
    return decide()
  if peers.index:
    answer = _received(peers, _DECIDE_S)
    if "error" in answer:
      raise InputError(answer["error"])
    return answer["value"]
  try:
    value = decide()
  except (InputError, OSError) as error:
    peers.tell({"error": str(error)})
    raise
  peers.tell({"value": value})
  return value


def gathered(value: Any) -> list[Any]:
  """The values of all processes, in all of them; what JSON can hold.

  Raises:
    InputError: If a process does not come within five minutes.
  """
  peers = _others()
  if peers is None:
    return [value]
  value = json.loads(json.dumps(value))  # as the others see it
  if peers.index:
    peers.pass_on(value, "gathered")
    return _received(peers, 2 * _SLOWEST_S)
  values = [value]
  for sender in range(1, peers.count):
    try:
      values.append(peers.passed(sender, _SLOWEST_S, "gathered"))
    except TimeoutError:
      raise InputError(
        f"process {sender} did not come within {_SLOWEST_S:g} s to where the"
        " others wait"
      ) from None
  peers.tell(values)
  return values


def check_same(what: Mapping[str, Any]) -> None:
  """Raises InputError, in all processes alike, if they differ in something.

  Args:
    what: Names and values, which JSON can hold.
  """
  first, *others = gathered(dict(what))
  for index, other in enumerate(others, 1):
    for name in sorted(first.keys() | other.keys()):
      if first.get(name) != other.get(name):
        raise InputError(
          f"process {index} has {name} {other.get(name)!r}, process 0 has"
          f" {first.get(name)!r}; start all processes with the same"
        )


def pass_on(message: Any) -> None:
  """Sends what JSON can hold to process 0, which gets it by `passed_on`."""
  _others().pass_on(message)


def passed_on(*, wait_s: float = 0.0) -> Iterator[Any]:
  """What the others have passed on to process 0 and it has not had yet.

  Args:
    wait_s: How long to wait for a first message of each, if there is none.
  """
  peers = _others()
  for sender in range(1, peers.count if peers else 1):
    with contextlib.suppress(TimeoutError):
      yield peers.passed(sender, wait_s)
      while True:
        yield peers.passed(sender)


def _others() -> Peers | None:
  """Connections to the other processes; None where there are none."""
  if _peers is None and jax.process_count() > 1:
    initialize()  # somebody called jax.distributed.initialize without us
  return _peers


def _received(peers: Peers, wait_s: float) -> Any:
  """The next message of process 0; raises InputError if none comes in time."""
  try:
    return peers.hear(wait_s)
  except TimeoutError:
    raise InputError(
      f"process 0 has not answered within {wait_s:g} s; see what it says"
    ) from None


def _initialized() -> _Place | None:
  """Number and address that `jax.distributed.initialize` gave this process."""
  state = jax_distributed.global_state
  return _Place(
    state.coordinator_address, state.num_processes, state.process_id, None
  )


def _detected() -> _Place | None:
  """Number and address from the environment; None for a lone process."""
  if "JAX_COORDINATOR_ADDRESS" in os.environ:
    address = os.environ["JAX_COORDINATOR_ADDRESS"]
    port = address.rpartition(":")[2]
    if not port.isdigit() or not 1 < int(port) < 2**16:
      raise InputError(
        f"JAX_COORDINATOR_ADDRESS is {address!r}; it must be host:port of"
        " process 0, with a port of 2 to 65535"
      )
    count, index = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
    if index >= count:
      raise InputError(
        f"JAX_PROCESS_ID {index} must lie in 0 to {count - 1}, for"
        f" JAX_NUM_PROCESSES is {count}"
      )
    return _Place(address, count, index, None)
  find = functools.partial(
    ClusterEnv.auto_detect_unset_distributed_params, initialization_timeout=60
  )
  try:
    detected = find(*(None,) * 5)
  except OSError as error:
    # A machine with TPUs where no metadata server answers is no Cloud TPU VM.
    reason = " ".join(str(error).split())[:120]
    warnings.warn(
      f"going on as one process: no metadata server answers ({reason})",
      stacklevel=2,
    )
    return None
  except (RuntimeError, ValueError, KeyError) as error:
    reason = " ".join(str(error).split())[:200]
    raise InputError(
      f"JAX sees a cluster here and cannot tell who is in it: {reason}; set"
      " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
    ) from None
  return None if detected[0] is None else _Place(*detected)


def _number(name: str) -> int:
  text = os.environ.get(name, "")
  if not text.isdigit():
    raise InputError(
      f"{name} is {text!r}; with JAX_COORDINATOR_ADDRESS set it must be a"
      " number"
    )
  return int(text)


def _seconds(name: str, default: float) -> float:
  text = os.environ.get(name, "")
  try:
    seconds = float(text or default)
  except ValueError:
    seconds = -1.0
  if not 0 < seconds < float("inf"):
    raise InputError(f"{name} is {text!r}; it must be seconds, such as 60")
  return seconds
