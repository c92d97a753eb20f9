"""Pods that are not there: real processes, in the order of real pods.

A TPU pod's mesh follows its torus: a host owns a square of chips, and so rows
of a batch that are no stretch of it.  Here every process has CPU devices that
stand in for its chips: `core.sharding.arrange` is shown their coordinates, as
libtpu's description of the topology has them (`topologies.json`), and arranges
them as it would there.  Run as a program this file does so for the module or
script that it is given, in one of the processes; `Pod` starts all of them.

A metadata server on loopback stands in for Google's where JAX is to find out by
itself who belongs together.
"""

import dataclasses
import http.server
import itertools
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import threading

import haste

ROOT = pathlib.Path(__file__).parents[1]
TOPOLOGIES = json.loads(
  (pathlib.Path(__file__).parent / "topologies.json").read_text()
)
KINDS = {"v5e": "TPU v5 lite", "v5p": "TPU v5"}


def keeping(cache):
  """Variables for programs that keep in `cache` what they compile, quickly."""
  return {
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {haste.FLAGS}",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # `python -c` would find the package installed elsewhere.
    "PYTHONPATH": str(ROOT),
  }


@dataclasses.dataclass(frozen=True)
class Chip:
  """A device that stands in for a chip of a topology."""

  device: object
  id: int
  process_index: int
  coords: tuple
  core_on_chip: int
  slice_index: int
  device_kind: str
  platform: str = "tpu"


def chips(name, devices):
  """The chips of a topology, process after process, on these devices."""
  kind = KINDS[name.rpartition(" ")[2].partition(":")[0]]
  waiting = {}
  for device in sorted(devices, key=lambda d: d.id):
    waiting.setdefault(device.process_index, []).append(device)
  return [
    Chip(waiting[process].pop(0), i, process, tuple(coords), core, part, kind)
    for i, (process, coords, core, part) in enumerate(TOPOLOGIES[name])
  ]


def hosts(name):
  """Processes of a topology, and devices of each."""
  count = 1 + max(process for process, *_ in TOPOLOGIES[name])
  return count, len(TOPOLOGIES[name]) // count


@dataclasses.dataclass
class Ended:
  """What a process left."""

  status: int
  output: str
  errors: str

  @property
  def lines(self):
    """What it said to its user; JAX's own threads say more."""
    said = self.errors.splitlines()
    return [line for line in said if line.startswith(("error:", "stopped"))]


class Pod:
  """Starts the processes of a program."""

  def __init__(self, topology=None, *, count=None, devices=None, env=()):
    self.topology = topology
    if topology is not None:
      self.count, self.devices = hosts(topology)
    else:
      self.count, self.devices = count, devices
    self._env = dict(env)
    self.port = two_ports()
    self.processes = []

  def start(
    self,
    *words,
    only=None,
    by_metadata=None,
    detected=False,
    envs=None,
    cwd=ROOT,
  ):
    """Starts `python MODULE-OR-SCRIPT WORDS…`, once for each process.

    They belong together by the three variables; by a metadata server; or, where
    they are to be `detected`, by what `envs` has for each of them.
    """
    for index in range(self.count) if only is None else only:
      env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={self.devices}"
        f" {haste.FLAGS}",
        "VIRTUAL_POD": self.topology or "",
      }
      if by_metadata is None and not detected:
        env |= {
          "JAX_COORDINATOR_ADDRESS": f"localhost:{self.port}",
          "JAX_NUM_PROCESSES": str(self.count),
          "JAX_PROCESS_ID": str(index),
        }
      else:
        env |= {"JAX_COORDINATOR_PORT": str(self.port)}
        env |= by_metadata.env(index) if by_metadata else {}
      env |= self._env | (envs or {}).get(index, {})
      command = [sys.executable, __file__, *map(str, words)]
      pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
      self.processes.append(
        subprocess.Popen(command, cwd=cwd, env=env, **pipes)
      )
    return self

  def ended(self, timeout=240):
    """Waits; what each left.  None of them outlives the time."""
    found = []
    try:
      for process in self.processes:
        output, errors = process.communicate(timeout=timeout)
        found.append(Ended(process.returncode, output, errors))
    finally:
      for process in self.processes:
        if process.poll() is None:
          process.kill()
          process.communicate()
      self.processes = []
    return found

  def well(self, timeout=240):
    """The same, of processes that all end well."""
    found = self.ended(timeout)
    for one in found:
      assert one.status == 0, one.errors
    return found


class Metadata:
  """Google's metadata server, for hosts that are all this machine."""

  def __init__(self, count):
    self.count, self._servers = count, []

  def __enter__(self):
    for index in range(self.count):
      values = {
        "agent-worker-number": str(index),
        "worker-network-endpoints": ",".join(
          f"unknown:{i}:127.0.0.1" for i in range(self.count)
        ),
        "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\n",
      }
      server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), _answers(values)
      )
      threading.Thread(target=server.serve_forever, daemon=True).start()
      self._servers.append(server)
    return self

  def __exit__(self, *_):
    for server in self._servers:
      server.shutdown()
      server.server_close()

  def env(self, index):
    """What sends JAX, in process `index`, here."""
    port = self._servers[index].server_address[1]
    return {
      "GCE_METADATA_IP": f"127.0.0.1:{port}",
      "JAX_FORCE_TPU_INIT": "1",
      "VIRTUAL_METADATA": "1",
    }


def _answers(values):
  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802  the library's name
      text = values.get(self.path.rpartition("/")[2])
      self.send_response(404 if text is None else 200)
      self.end_headers()
      self.wfile.write((text or "").encode())

    def log_message(self, *_):
      pass

  return Handler


def two_ports():
  """A free port above a free port."""
  while True:
    with socket.socket() as one, socket.socket() as below:
      one.bind(("localhost", 0))
      port = one.getsockname()[1]
      try:
        below.bind(("localhost", port - 1))
      except OSError:
        continue
      return port


def _stand_in(topology):
  """Shows `sharding.arrange` chips in place of this program's devices."""
  from audiogen_jax.core import sharding

  arrange, mesh = sharding.arrange, sharding.Mesh

  def of_devices(grid, *names, **options):
    grid = grid.copy()
    for place, one in enumerate(grid.flat):
      grid.flat[place] = getattr(one, "device", one)
    return mesh(grid, *names, **options)

  sharding.Mesh = of_devices
  sharding.arrange = lambda sizes, devices: arrange(
    sizes, chips(topology, devices)
  )


def _compile_together():
  """Lets all processes go on together from each program that they share.

  Collectives of CPUs wait 30 s for each other; where the processes share a few
  cores one may compile for longer than the others.
  """
  from jax._src import compiler, distributed

  alone, numbers = compiler.compile_or_get_cached, itertools.count()

  def together(backend, computation, devices, *more, **options):
    made = alone(backend, computation, devices, *more, **options)
    if len({device.process_index for device in devices.flat}) > 1:
      client = distributed.global_state.client
      client.wait_at_barrier(f"compiled {next(numbers)}", 600_000)
    return made

  compiler.compile_or_get_cached = together


def main(name, *words):
  # A test that is killed must not leave them behind.
  if sys.platform == "linux":
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
  import jax  # noqa: F401  sets the variable that is taken back next

  if os.environ.get("VIRTUAL_METADATA"):
    os.environ.pop("TPU_SKIP_MDS_QUERY", None)
  _compile_together()
  if os.environ["VIRTUAL_POD"]:
    _stand_in(os.environ["VIRTUAL_POD"])
  sys.argv = [name, *words]
  if name.endswith(".py"):
    runpy.run_path(name, run_name="__main__")
  else:
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
