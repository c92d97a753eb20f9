r"""Trains what a configuration describes.

    python -m audiogen_jax.train --config=configs/codec_16khz.py \
      --workdir=DIR --config.data.folders=DATASET [--config.optim.lr=1e-4 ...]

Run the same command again to go on after a stop, however the last one ended.
Bad input is one line and exit status 2; after SIGTERM or Ctrl-C the state is
saved and the status is that of the signal, so that a scheduler starts it again.
Several processes, as on a pod, end together and with the same line and status,
whichever of them found the fault, got the signal, or died (status 1).
"""

import signal
import sys
from typing import Any

from absl import app, flags, logging

from audiogen_jax.core import errors, processes
from audiogen_jax.core.errors import InputError, Stopped
from audiogen_jax.train import configuration, loop

flags.DEFINE_string(
  "config",
  None,
  "configs/NAME.py, or configs/NAME.py:VARIANT.  Each key of it is a flag:"
  " --config.optim.lr=1e-4; --print shows all of them.",
)
flags.DEFINE_string(
  "workdir", None, "Folder or gs:// URI of the run: checkpoints and logs."
)
flags.DEFINE_bool(
  "print", False, "Print every key of the configuration and its value, and end."
)


def parse_flags(arguments: list[str]) -> list[Any]:
  """The configuration, with what the command line changes; else one line."""
  changes = [a for a in arguments[1:] if a.startswith(configuration.PREFIX)]
  try:
    left = flags.FLAGS([a for a in arguments if a not in changes])
    values = configuration.changed(flags.FLAGS.config, [*left[1:], *changes])
    if flags.FLAGS.print:
      print("\n".join(configuration.lines(values)))
      sys.exit()
    return [arguments[0], values]
  except (flags.Error, InputError) as error:
    reason = str(error).strip().splitlines()[-1].strip()
    print(f"error: {errors.line(InputError(reason))}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[Any]) -> None:
  """Runs; see the head of the file."""
  values = arguments[1]
  # Orbax and JAX tell of every step they take, and warn of what is meant.
  logging.set_verbosity(logging.ERROR)
  try:
    with processes.distributed(saves=True):
      run, task = configuration.parse(values)
      if flags.FLAGS.workdir is None:
        raise InputError("no work folder: give --workdir=DIR")
      loop.train(run, task.opened(), flags.FLAGS.workdir)
  except InputError as error:
    print(f"error: {errors.line(error)}", file=sys.stderr)
    sys.exit(2)
  except Stopped as stop:
    print(stop, file=sys.stderr)
    sys.exit(128 + stop.number)
  except KeyboardInterrupt:
    print("stopped by Ctrl-C before training began", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  app.run(main, flags_parser=parse_flags)
