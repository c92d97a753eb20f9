r"""Trains what a configuration describes.

    python -m audiogen_jax.train --config=configs/codec_16khz.py \
      --workdir=DIR --config.data.folders=DATASET [--config.optim.lr=1e-4 ...]

Run the same command again to go on after a stop, however the last one ended.
Bad input is one line and exit status 2; after SIGTERM or Ctrl-C the state is
saved and the status is that of the signal, so that a scheduler starts it again.
Several processes, as on a pod, end together and with the same line and status,
whichever of them found the fault, got the signal, or died (status 1).
"""

import re
import signal
import sys
from collections.abc import Mapping

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from audiogen_jax.core import config, processes
from audiogen_jax.core.errors import InputError, Stopped
from audiogen_jax.train import loop
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.task import Task

# What `config.task` may say; the rest of the configuration is the task's own
# fields, beside those of `RunConfig`.
TASKS = {"codec": CodecTask, "lm": LMTask}

_CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="configs/NAME.py, or configs/NAME.py:tiny"
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder or gs:// URI of the run: checkpoints and logs."
)


def parse(values: ConfigDict | Mapping) -> tuple[RunConfig, Task]:
  """What to run and what to train.

  Raises:
    InputError: For an unknown task or key, or a value that cannot be.
  """
  values = dict(values.items())
  name = values.pop("task", None)
  if name not in TASKS:
    raise InputError(f"config.task {name!r} is not one of {', '.join(TASKS)}")
  own = {
    k: values.pop(k) for k in ("loop", "data", "mesh", "rules") & values.keys()
  }
  run = config.build(RunConfig, own)
  return run, config.build(TASKS[name], values)


def parse_flags(arguments: list[str]) -> list[str]:
  """As absl does it, but a mistake is one line."""
  try:
    left = flags.FLAGS(arguments)
    _CONFIG.value.items()  # a file that is not there is only told here
    return left
  except AttributeError as error:  # what config flags raise for an unknown key
    key, *_ = re.findall(r"\w+", str(error))
    near = re.search(r'mean "(\w+)"', str(error))
    hint = f"did you mean {near[1]!r}?" if near else "see its file for all"
    reason = f"the configuration has no key {key!r}; {hint}"
  except (flags.Error, ValueError, OSError) as error:
    reason = str(error).strip().splitlines()[-1].strip()
  print(f"error: {reason}", file=sys.stderr)
  sys.exit(2)


def main(arguments: list[str]) -> None:
  """Runs; see the head of the file."""
  del arguments
  # Orbax and JAX tell of every step they take.
  logging.set_verbosity(logging.WARNING)
  try:
    with processes.joined(saves=True):
      run, task = parse(_CONFIG.value)
      loop.train(run, task.opened(), _WORKDIR.value)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except Stopped as stop:
    print(stop, file=sys.stderr)
    sys.exit(128 + stop.number)
  except KeyboardInterrupt:
    print("stopped by Ctrl-C before training began", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main, flags_parser=parse_flags)
