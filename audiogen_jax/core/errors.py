"""The exceptions that mean no fault of the program."""

import signal


class InputError(ValueError):
  """Something the caller gave cannot be used.

  The message is one line that names the thing, the number that is wrong and the
  remedy.  The command line prints it and exits with status 2; every other
  exception is a bug and keeps its traceback.
  """


class Stopped(Exception):
  """A signal ended a run; its state is saved.

  Attributes:
    number: Of the signal.
  """

  def __init__(self, number: int, step: int):
    super().__init__(
      f"stopped by {signal.Signals(number).name} at step {step:,}; the state"
      " is saved, and the same command goes on from there"
    )
    self.number = number
