"""The processes of one program, each on the line with process 0.

    process 1 ---\
    process 2 ----+--- process 0      one TCP connection each
    process 3 ---/

Collectives of devices can only wait for each other: where one process ends, the
others hang.  On these lines each tells what it has decided and with which words
it ends; one that dies is missed at once, by its closed connection, or, with its
whole machine, by its silence.  They meet here before `jax.distributed` begins,
which answers a missing process by an abort.
"""

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from audiogen_jax.core.errors import InputError

_BEAT_S, _SILENT_S = 5.0, 30.0  # between signs of life; after which one is dead
_LEAVE_S = 10.0  # that process 0 gives the others to end before itself


class _Line:
  """A connection that carries JSON, a message a line; empty ones are beats."""

  def __init__(self, connection: socket.socket) -> None:
    self._connection = connection
    self._buffer, self._sending = b"", threading.Lock()

  def send(self, message: Mapping[str, Any] | None) -> None:
    """A message, or a sign of life; a broken line is found by its reader."""
    data = b"" if message is None else json.dumps(message).encode()
    with contextlib.suppress(OSError), self._sending:
      self._connection.sendall(data + b"\n")

  def read(self, wait_s: float) -> dict[str, Any] | None:
    """The next message; None at the end of the line.

    Raises:
      TimeoutError: After so many seconds without a sign of life.
    """
    self._connection.settimeout(wait_s)
    while True:
      line, end, rest = self._buffer.partition(b"\n")
      if end:
        self._buffer = rest
        if line:
          return json.loads(line)
        continue
      try:
        data = self._connection.recv(2**16)
      except TimeoutError:
        raise
      except OSError:  # reset, as when its process was killed
        return None
      if not data:
        return None
      self._buffer += data

  def close(self) -> None:
    """Ends the line."""
    self._connection.close()


class Peers:
  """This process among the others.

  Attributes:
    index: Number of this process.
    count: Number of processes.
  """

  def __init__(self, index: int, count: int) -> None:
    self.index, self.count = index, count
    self._lines: dict[int, _Line] = {}
    self._hosts: dict[int, str] = {}
    self._gone: set[int] = set()  # have said that they are done
    self._told: queue.Queue = queue.Queue()  # by process 0
    # To process 0, by sender and channel.
    self._passed: dict[tuple[int, str], queue.Queue] = {}
    self._ending = threading.Lock()

  def meet(
    self, address: str, about: Mapping[str, Any], *, wait_s: float
  ) -> None:
    """Returns once all processes are here.

    Args:
      address: `host:port` at which process 0 listens.
      about: What all must agree on, such as the version of this package.
      wait_s: Until when, in seconds from now.

    Raises:
      InputError: With the same words in every process that came, if one did not
        come, or is no part of this program.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + wait_s
    about = {"process count": self.count, **about}
    if self.index:
      self._come(host.strip("[]"), int(port), about, deadline, wait_s)
    else:
      self._receive(int(port), about, deadline, wait_s)
    for peer in self._lines:
      threading.Thread(target=self._listen, args=(peer,), daemon=True).start()
    threading.Thread(target=self._beat, daemon=True).start()

  def tell(self, message: Any) -> None:
    """Sends a message from process 0 to all others."""
    for line in list(self._lines.values()):
      line.send({"told": message})

  def hear(self, wait_s: float) -> Any:
    """The next message of process 0 (`tell`).

    Raises:
      TimeoutError: If none comes within `wait_s` seconds.
    """
    try:
      return self._told.get(timeout=wait_s)
    except queue.Empty:
      raise TimeoutError from None

  def pass_on(self, message: Any, channel: str = "") -> None:
    """Sends a message from this process to process 0, on a named channel."""
    self._lines[0].send({"passed": message, "channel": channel})

  def passed(self, sender: int, wait_s: float = 0.0, channel: str = "") -> Any:
    """The next message that `sender` has passed on to process 0.

    Raises:
      TimeoutError: If there is none.
    """
    waiting = self._passed.setdefault((sender, channel), queue.Queue())
    try:
      return waiting.get(block=wait_s > 0, timeout=wait_s or None)
    except queue.Empty:
      raise TimeoutError from None

  def leave(self) -> None:
    """Returns once all are done: from then on nobody's end is a death.

    Together, for JAX gives them five minutes to end after the first.  Whoever
    dies meanwhile ends this process, too.
    """
    if self.index:
      self._lines[0].send({"bye": True})
    while set(self._lines) - self._gone:
      time.sleep(0.02)
    if not self.index:
      for line in list(self._lines.values()):
        line.send({"bye": True})

  def end(self, status: int, line: str) -> NoReturn:
    """Ends this process and all others, each with this line and status.

    If the end came from another process already, its words are the last ones.
    """
    if not self._ending.acquire(blocking=False):
      time.sleep(2 * _LEAVE_S)  # the other thread ends the process
    self._end(status, line)

  def _end(self, status: int, line: str, by: int | None = None) -> NoReturn:
    # Unbuffered, and before anything else: where process 0 died, JAX's own
    # threads are about to abort.
    with contextlib.suppress(OSError):
      os.write(2, f"{line}\n".encode(errors="replace"))
    for peer, other in list(self._lines.items()):
      if peer != by and peer not in self._gone:
        other.send({"end": status, "line": line})
    if self.index == 0:
      # JAX's service lives here, and must not be missed before its clients.
      deadline = time.monotonic() + _LEAVE_S
      while set(self._lines) - self._gone and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(Exception):
      sys.stdout.flush()
      sys.stderr.flush()
    # Not by `sys.exit`: JAX would wait for the others, and abort.
    os._exit(status)

  def _receive(
    self, port: int, about: Mapping, deadline: float, wait_s: float
  ) -> None:
    """Process 0: lets the others in."""
    try:
      server = _server(port)
    except OSError as error:
      raise InputError(
        f"process 0 cannot listen at port {port} ({error.strerror}): end what"
        " runs there, or set another port in JAX_COORDINATOR_ADDRESS"
      ) from None
    with server:
      wrong = None
      # All of them, even if one is wrong: each is to hear of it.
      while len(self._lines) < self.count - 1:
        left = deadline - time.monotonic()
        if left <= 0:
          break
        server.settimeout(left)
        try:
          connection, _ = server.accept()
        except TimeoutError:
          break
        wrong = self._admit(_Line(connection), about) or wrong
    missing = sorted(set(range(1, self.count)) - set(self._lines))
    if missing and not wrong:
      wrong = (
        f"of {self.count} processes {_listed(missing)} did not come within"
        f" {wait_s:g} s; start all of them, and see what these said"
      )
    for line in self._lines.values():
      line.send({"end": 2, "line": wrong} if wrong else {"go": True})
    if wrong:
      raise InputError(wrong)

  def _admit(self, line: _Line, about: Mapping) -> str | None:
    """Lets a process in; what is wrong with it, if something is."""
    try:
      hello = line.read(_BEAT_S)
      peer, host = hello["hello"], hello["host"]
    except (TimeoutError, ValueError, TypeError, KeyError):
      line.close()  # none of us: somebody who tries ports
      return None
    wrong = None
    if peer in self._lines or peer not in range(1, self.count):
      wrong = f"two processes say that they are number {peer} of {self.count}"
      peer = -1
    self._lines[peer], self._hosts[peer] = line, host
    for name, value in about.items():
      if not wrong and hello.get(name) != value:
        wrong = (
          f"process {peer} ({host}) has {name} {hello.get(name)}, process 0 has"
          f" {value}; start all processes alike"
        )
    return wrong

  def _come(
    self, host: str, port: int, about: Mapping, deadline: float, wait_s: float
  ) -> None:
    """Other processes: go to process 0."""
    while True:
      left = deadline - time.monotonic()
      if left <= 0:
        raise InputError(
          f"process 0 did not answer at {host}:{port} within {wait_s:g} s: does"
          " it run, and can this machine reach it?"
        )
      try:
        connection = socket.create_connection((host, port), min(left, 5.0))
        # On one machine a port that nobody listens at may be the very port
        # that this end is given: TCP then connects a socket with itself.
        if connection.getsockname() != connection.getpeername():
          break
        connection.close()
      except OSError:
        pass
      time.sleep(min(0.2, max(left, 0)))
    line = self._lines[0] = _Line(connection)
    self._hosts[0] = host
    line.send({"hello": self.index, "host": socket.gethostname(), **about})
    try:
      left = max(deadline - time.monotonic(), 0) + _BEAT_S
      answer = line.read(left) or {}
    except TimeoutError:
      answer = {}
    if "go" not in answer:
      raise InputError(
        answer.get("line")
        or f"process 0 at {host}:{port} has not begun within {wait_s:g} s; see"
        " what it says"
      )

  def _listen(self, peer: int) -> None:
    """A thread a line: what comes, until it ends."""
    line = self._lines[peer]
    who = f"process {peer} ({self._hosts[peer]})"
    while True:
      try:
        message = line.read(_SILENT_S)
      except TimeoutError:
        self._lost(peer, f"{who} has not been heard of for {_SILENT_S:g} s")
        return
      if message is None:
        if peer not in self._gone:
          self._lost(peer, f"{who} died")
        return
      if "told" in message:
        self._told.put(message["told"])
      elif "passed" in message:
        channel = peer, message["channel"]
        self._passed.setdefault(channel, queue.Queue()).put(message["passed"])
      elif "bye" in message:
        self._gone.add(peer)
      elif "end" in message:
        self._gone.add(peer)
        if self._ending.acquire(blocking=False):
          self._end(message["end"], message["line"], by=peer)

  def _lost(self, peer: int, what: str) -> None:
    self._gone.add(peer)
    if self._ending.acquire(blocking=False):
      line = f"error: {what}, and the others end; run the same command again"
      self._end(1, line, by=peer)

  def _beat(self) -> None:
    """A thread: signs of life."""
    while True:
      time.sleep(_BEAT_S)
      for line in list(self._lines.values()):
        line.send(None)


def _server(port: int) -> socket.socket:
  """Listens on all of this machine's addresses."""
  if socket.has_dualstack_ipv6():
    with contextlib.suppress(OSError):
      return socket.create_server(
        ("", port), family=socket.AF_INET6, dualstack_ipv6=True
      )
  return socket.create_server(("", port))


def _listed(numbers: list[int]) -> str:
  shown = ", ".join(map(str, numbers[:8]))
  return shown + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
