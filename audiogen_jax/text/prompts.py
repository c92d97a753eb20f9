"""What may be asked for: sentences, or nothing."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from audiogen_jax.core import processes, seeds
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement


class Asked(NamedTuple):
  """What was asked for, found to be in order.

  Attributes:
    texts: Prompts.
    seeds: One for each.
    negative: What is not wanted, one for each; None if there is nothing.
  """

  texts: list[str | None]
  seeds: list[int]
  negative: list[str | None] | None


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


def asked(
  texts: str | Sequence[str | None],
  seed: int | Sequence[int],
  negative: str | Sequence[str | None] | None,
  sampling: Any,
  *,
  options: type,
  placement: Placement,
  **others: Any,
) -> Asked:
  """Prompts, seeds and negative prompts, once they are found to be in order.

  Args:
    texts: Sentences; None for no text.
    seed: One, or one for each text.
    negative: What is not wanted; see `unwanted`.
    sampling: Options, which must be of the family's class.
    options: That class; its `guided` says whether negative prompts are read.
    placement: Devices; processes that share them must ask for the same.
    **others: What they must ask for alike, too.

  Raises:
    InputError: For what does not fit, or what processes ask for differently.
  """
  texts = checked(texts)
  if not isinstance(sampling, options):
    raise InputError(
      f"sampling must be a {options.__name__}, got {type(sampling).__name__}"
    )
  if not texts:
    raise InputError("no prompt was given; pass at least one text or None")
  each = seeds.checked(seed, len(texts))
  against = unwanted(negative, len(texts))
  if against and not sampling.guided:
    raise InputError(
      "guidance 1 reads no negative prompt; ask for more, such as 3, or leave"
      " the negative prompt out"
    )
  if placement.spans:
    same = {"prompts": texts, "seeds": each, "sampling": repr(sampling)}
    processes.check_same(same | {"negative": against} | others)
  return Asked(texts, each, against)
