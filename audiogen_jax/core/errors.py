"""The exceptions that mean no fault of the program."""

import re
import signal


class InputError(ValueError):
  """Something the caller gave cannot be used.

  The message is one line that names the thing, the number that is wrong and the
  remedy.  The command line prints it and exits with status 2; every other
  exception is a bug and keeps its traceback.
  """


_LONGEST = 600  # characters of a line that a person reads


def line(error: Exception) -> str:
  """What an exception says, as one line that can be printed anywhere.

  Names that somebody gave may be long, and need not be text: the middle of a
  long line is left out, and bytes that are no UTF-8 are shown by number.
  """
  words = " ".join(str(error).split()) or type(error).__name__
  if len(words) > _LONGEST:
    half = _LONGEST // 2
    words = f"{words[:half]} … {words[-half:]}"
  # Some control characters would move the cursor, or color what follows.
  words = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda m: ascii(m[0])[1:-1], words)
  return words.encode(errors="backslashreplace").decode()


class Stopped(Exception):
  """A signal ended a run; its state is saved.

  Attributes:
    number: Number of the signal.
  """

  def __init__(self, number: int, step: int) -> None:
    super().__init__(
      f"stopped by {signal.Signals(number).name} at step {step:,}; the state"
      " is saved, and the same command goes on from there"
    )
    self.number = number
