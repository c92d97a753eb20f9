"""What may be asked for: sentences, or nothing."""

from collections.abc import Iterable, Sequence

from audiogen_jax.core.errors import InputError


def checked(texts: str | Sequence[str | None]) -> list[str | None]:
  """Prompts, each a text or None.

  Raises:
    InputError: For whatever else is among them.
  """
  if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
    texts = [texts]
  result = list(texts)
  for i, text in enumerate(result):
    if text is not None and not isinstance(text, str):
      raise InputError(
        f"prompt {i + 1} is of type {type(text).__name__}; pass a str, or None"
        " for no text"
      )
    try:
      (text or "").encode()
    except UnicodeEncodeError as error:
      raise InputError(
        f"prompt {i + 1} holds what is no Unicode text, at character"
        f" {error.start + 1}; give it as UTF-8"
      ) from None
  return result


def unwanted(
  negative: str | Sequence[str | None] | None, rows: int
) -> list[str | None] | None:
  """Negative prompts, one for each row; None if no row has one.

  Args:
    negative: A text for all rows, or one for each; None or "" for no text.
    rows: How many there are.

  Raises:
    InputError: As `checked`, or if there are more or fewer.
  """
  if negative is None or isinstance(negative, str):
    negative = [negative] * rows
  texts = checked(negative)
  if len(texts) != rows:
    raise InputError(
      f"{len(texts)} negative prompts for {rows} prompts; give one for all, or"
      " one for each"
    )
  return texts if any(texts) else None
