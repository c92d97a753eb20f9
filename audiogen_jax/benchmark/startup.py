"""From command to sound: what takes how long in a fresh process.

    python -m audiogen_jax.benchmark.startup MODEL SECONDS START

is what `measure` runs as a child; START is when it was started, as seconds
since the epoch.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds


class Stages(NamedTuple):
  """Seconds of each stage.

  Attributes:
    imports: From the start of the process until all is imported.
    load: Reading the model.
    first: Until the first half second of sound, programs compiled or read.
    rest: Until the last.
  """

  imports: float
  load: float
  first: float
  rest: float


def measure(
  model: str, duration_s: Seconds, *, runs: int = 3
) -> tuple[Stages, list[Stages]]:
  """Stages of a first run, with nothing kept, and of runs after it.

  Raises:
    InputError: If the model cannot be used.
  """
  with tempfile.TemporaryDirectory() as cache:
    found = [_child(model, duration_s, cache) for _ in range(runs + 1)]
  return found[0], found[1:]


def _child(model: str, duration_s: Seconds, cache: str) -> Stages:
  command = [sys.executable, "-m", "audiogen_jax.benchmark.startup"]
  command += [model, str(duration_s), str(time.time())]
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


def _main(model: str, duration_s: float, start: float) -> None:
  import audiogen_jax.cli  # noqa: F401 (what the command imports)
  from audiogen_jax.audiogen import AudioGen

  marks = [start, time.time()]
  audiogen = AudioGen.from_pretrained(model)
  marks.append(time.time())
  stream = audiogen.stream("a dog barks", duration_s=duration_s)
  next(stream)
  marks.append(time.time())
  for _ in stream:
    pass
  marks.append(time.time())
  print(json.dumps([b - a for a, b in zip(marks, marks[1:], strict=False)]))


if __name__ == "__main__":
  _main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
