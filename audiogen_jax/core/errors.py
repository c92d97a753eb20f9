"""The one exception that means "the input is at fault, not the program"."""


class InputError(ValueError):
  """Something the caller gave cannot be used.

  The message is one line that names the thing, the number that is wrong and the
  remedy.  The command line prints it and exits with status 2; every other
  exception is a bug and keeps its traceback.
  """
