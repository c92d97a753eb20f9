"""What processes tell each other; small programs that need no JAX."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import virtual_pod

from audiogen_jax.core import peers
from audiogen_jax.core.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]
_HEAD = textwrap.dedent("""
  import os, sys, time
  from audiogen_jax.core import peers as room
  from audiogen_jax.core.errors import InputError
  index, count, port, wait_s = (float(word) for word in sys.argv[1:5])
  version = sys.argv[5]
  room._SILENT_S, room._BEAT_S = float(sys.argv[6]), float(sys.argv[6]) / 6
  peers = room.Peers(int(index), int(count))
  try:
    peers.meet(
      f"localhost:{int(port)}", {"version": version}, wait_s=wait_s
    )
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  print("met", flush=True)
""")


def start(
  body,
  *,
  count=3,
  only=None,
  wait_s=20.0,
  silent_s=30.0,
  versions=None,
  numbers=None,
):
  """Programs that meet and then do `body`."""
  port = virtual_pod.two_ports()
  started = []
  for index in range(count) if only is None else only:
    words = [(numbers or {}).get(index, index), count, port, wait_s]
    words += [(versions or {}).get(index, "1"), silent_s]
    started.append(
      subprocess.Popen(
        [sys.executable, "-c", _HEAD + textwrap.dedent(body), *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return started


def ended(started, timeout=60):
  found = []
  for process in started:
    output, errors = process.communicate(timeout=timeout)
    found.append((process.returncode, output.split(), errors.splitlines()))
  return found


def met(started):
  for process in started:
    assert process.stdout.readline() == "met\n", process.stderr.read()


def test_they_tell_and_pass_on():
  for status, output, _ in ended(
    start("""
      if peers.index:
        peers.pass_on({"from": peers.index})
        print(peers.hear(20.0))
      else:
        said = [peers.passed(i, 20.0)["from"] for i in (1, 2)]
        peers.tell(sum(said))
        print(sum(said))
      peers.leave()
    """)
  ):
    assert (status, output) == (0, ["met", "3"])


@pytest.mark.parametrize("who", [0, 2])
def test_the_last_words_of_one_are_those_of_all(who):
  found = ended(
    start(f"""
      if peers.index == {who}:
        peers.end(2, "error: the number 7 is wrong")
      time.sleep(60)
    """)
  )
  assert [x[0] for x in found] == [2] * 3
  assert all(x[2] == ["error: the number 7 is wrong"] for x in found)


def test_all_of_them_find_the_same_fault():
  """Whoever ends first, each says it once."""
  found = ended(start('peers.end(2, "error: all wrong")'))
  assert all(x[0] == 2 and x[2] == ["error: all wrong"] for x in found)


@pytest.mark.parametrize("who", [0, 1])
def test_one_that_is_killed_is_missed(who):
  started = start("time.sleep(60)")
  met(started)
  begun = time.monotonic()
  started[who].kill()
  found = ended(started)
  assert time.monotonic() - begun < 20
  for index, (status, _, errors) in enumerate(found):
    if index != who:
      assert status == 1 and len(errors) == 1
      assert errors[0].startswith(f"error: process {who} (")
      assert "died, and the others end; run the same command" in errors[0]


def test_one_that_is_silent_is_missed():
  """Stopped whole, as when its machine is gone: no connection is closed."""
  started = start("time.sleep(60)", silent_s=3.0)
  met(started)
  started[2].send_signal(signal.SIGSTOP)
  try:
    found = ended(started[:2])
  finally:
    started[2].kill()
    started[2].communicate()
  for status, _, errors in found:
    assert status == 1 and "process 2 (" in errors[0]
    assert "has not been heard of for" in errors[0]


def test_they_leave_together():
  """Whoever is done waits for the slowest, whose death it would not miss."""
  found = ended(
    start("""
      begun = time.monotonic()
      time.sleep(float(peers.index == 1))
      peers.leave()
      assert time.monotonic() - begun > 0.5
    """)
  )
  assert [(status, errors) for status, _, errors in found] == [(0, [])] * 3


def test_one_that_does_not_come():
  found = ended(start("", only=(0, 1), wait_s=1.0))
  for status, _, errors in found:
    assert status == 2 and len(errors) == 1
    assert errors[0] == (
      "error: of 3 processes 2 did not come within 1 s; start all of them, and"
      " see what these said"
    )


def test_no_process_0():
  ((status, _, errors),) = ended(start("", only=(1,), wait_s=1.0))
  assert status == 2 and len(errors) == 1
  assert "process 0 did not answer at localhost:" in errors[0]


def test_a_port_that_is_ones_own(monkeypatch):
  """Without a listener TCP may connect a socket with itself, on one machine."""
  port, connect = virtual_pod.two_ports(), socket.create_connection
  monkeypatch.setattr(
    socket, "create_connection", lambda to, wait: connect(to, wait, to)
  )
  with pytest.raises(InputError, match="process 0 did not answer"):
    peers.Peers(1, 2).meet(f"127.0.0.1:{port}", {}, wait_s=1.0)


def test_another_version():
  found = ended(start("", versions={2: "2"}))
  assert {status for status, *_ in found} == {2}
  (words,) = {errors[0] for *_, errors in found}
  assert words.startswith("error: process 2 (") and "has version 2" in words


def test_a_number_that_two_have():
  found = ended(start("", numbers={2: 1}, wait_s=10.0))
  assert {status for status, *_ in found} == {2}
  assert "two processes say that they are number 1 of 3" in found[0][2][0]


def test_strangers_are_let_go():
  """Whoever tries ports does not disturb."""
  started = start("peers.leave()\ntime.sleep(1)", count=2, only=(0,))
  port = int(started[0].args[5])
  deadline = time.monotonic() + 20
  for words in (b"GET / HTTP/1.1\r\n\r\n", json.dumps([1]).encode() + b"\n"):
    while time.monotonic() < deadline:
      try:
        with socket.create_connection(("localhost", port)) as stranger:
          stranger.sendall(words)
        break
      except OSError:
        time.sleep(0.05)
  other = subprocess.Popen(
    [*started[0].args[:3], "1", *started[0].args[4:]],
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )
  assert other.wait(timeout=30) == 0
  assert ended(started)[0][0] == 0


def test_a_port_that_is_taken():
  with socket.create_server(("", 0)) as taken:
    port = str(taken.getsockname()[1])
    done = subprocess.run(
      [sys.executable, "-c", _HEAD, "0", "2", port, "1", "1", "30"],
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
    )
  assert done.returncode == 2
  assert f"process 0 cannot listen at port {port}" in done.stderr
