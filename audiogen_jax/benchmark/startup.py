"""From command to sound: what takes how long in a fresh process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from audiogen_jax import families
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds

# A child imports what the command imports; it is told seconds of sound, when it
# was started, in seconds since the epoch, the model and its adapters.
_PROGRAM = """
import sys
import audiogen_jax.cli
from audiogen_jax.benchmark import startup
startup.run(*map(float, sys.argv[1:3]), *sys.argv[3:])
"""


class Stages(NamedTuple):
  """Seconds of each stage.

  Attributes:
    imports: From the start of the process until all is imported.
    load: Reading the model.
    first: Until the first half second of sound, programs compiled or read;
      until all of it where a family cannot stream.
    rest: Until the last.
  """

  imports: float
  load: float
  first: float
  rest: float


def measure(
  model: str,
  duration_s: Seconds,
  *,
  adapters: Sequence[str] = (),
  runs: int = 3,
) -> tuple[Stages, list[Stages]]:
  """Stages of a first run, with nothing kept, and of runs after it.

  Raises:
    InputError: If the model or its adapters cannot be used.
  """
  with tempfile.TemporaryDirectory() as cache:
    found = [
      _child([model, *adapters], duration_s, cache) for _ in range(runs + 1)
    ]
  return found[0], found[1:]


def _child(words: list[str], duration_s: Seconds, cache: str) -> Stages:
  command = [sys.executable, "-c", _PROGRAM]
  command += [str(duration_s), str(time.time()), *words]
  options = {
    "JAX_COMPILATION_CACHE_DIR": cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
  }
  ran = subprocess.run(
    command, capture_output=True, text=True, env={**os.environ, **options}
  )
  if ran.returncode:
    raise InputError(ran.stderr.strip().splitlines()[-1])
  return Stages(*json.loads(ran.stdout.splitlines()[-1]))


def run(duration_s: Seconds, start: float, model: str, *adapters: str) -> None:
  """Prints the seconds of each stage of this process, as JSON."""
  marks = [start, time.time()]
  loaded = families.load(model, adapters=adapters or None)
  marks.append(time.time())
  if hasattr(loaded, "stream"):
    stream = loaded.stream("a dog barks", duration_s=duration_s)
  else:
    stream = iter([loaded.generate(["a dog barks"], duration_s=duration_s)])
  next(stream)
  marks.append(time.time())
  for _ in stream:
    pass
  marks.append(time.time())
  print(json.dumps([b - a for a, b in zip(marks, marks[1:], strict=False)]))
