r"""Trains what a configuration describes.

    python -m audiogen_jax.train --config=configs/codec_16khz.py \
      --workdir=DIR --config.data.folders=DATASET [--config.optim.lr=1e-4 ...]

Run the same command again to go on after a stop, however the last one ended.
Bad input is one line and exit status 2; after SIGTERM or Ctrl-C the state is
saved and the status is that of the signal, so that a scheduler starts it again.
"""

import logging
import sys
from collections.abc import Mapping

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from audiogen_jax.core import config, processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.train import loop, stopping
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.task import Task

# What `config.task` may say; the rest of the configuration is the task's own
# fields, beside those of `RunConfig`.
TASKS = {"codec": CodecTask}

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


def main(arguments: list[str]) -> None:
  """Runs; see the head of the file."""
  del arguments
  # Orbax and JAX tell of every step they take.
  logging.getLogger("absl").setLevel(logging.WARNING)
  try:
    run, task = parse(_CONFIG.value)
    processes.join()
    loop.train(run, task, _WORKDIR.value)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except stopping.Stopped as stop:
    print(stop, file=sys.stderr)
    sys.exit(128 + stop.number)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
