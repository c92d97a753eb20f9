"""What was asked for on the command line: words, files of them, or a sound."""

from collections.abc import Sequence
from pathlib import Path

from audiogen_jax.core.errors import InputError
from audiogen_jax.text.prompts import checked


def read(
  given: Sequence[str] | None, file: Path | None, sound: Path | None
) -> list[str | None]:
  """All prompts, or one None to continue a sound without text."""
  prompts = checked(given or [])
  for i, prompt in enumerate(prompts):
    if not prompt.strip():
      raise InputError(f"prompt {i + 1} is empty; say what to hear")
  if file is not None:
    if not file.is_file():
      raise InputError(f"{file} is not a file with prompts")
    lines = []
    for i, line in enumerate(file.read_bytes().splitlines()):
      try:
        lines.append(line.decode("utf-8-sig" if i == 0 else "utf-8").strip())
      except UnicodeDecodeError as error:
        raise InputError(
          f"{file}, line {i + 1}, is not UTF-8 text (byte {error.start + 1});"
          " save the file as UTF-8"
        ) from None
    lines = [line for line in lines if line]
    if not lines:
      raise InputError(f"{file} holds no prompts; put one on each line")
    prompts += lines
  if prompts:
    return prompts
  if sound is None:
    raise InputError('no prompt; for example: audiogen generate "a dog barks"')
  return [None]
