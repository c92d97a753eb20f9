"""Seeds: one a prompt, so that what it becomes depends on nothing else."""

import operator
from collections.abc import Sequence
from typing import Any

from jaxtyping import Int

from audiogen_jax.core import config
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray


def checked(
  seed: int | Sequence[int] | Int[AnyArray, "..."], count: int
) -> list[int]:
  """One seed a prompt.

  Raises:
    InputError: If they are no whole numbers in [0, 2^32), or not as many as
      prompts.
  """
  try:
    first = operator.index(seed)  # arrays without axes, too
    values = [first + i for i in range(count)]
  except TypeError:
    values = [_whole(one) for one in _listed(seed)]
  if len(values) != count:
    raise InputError(
      f"{len(values)} seeds for {count} prompts; give one for each"
    )
  if min(values) < 0 or max(values) >= 2**32:
    raise InputError(
      f"seeds {config.shown(min(values))} … {config.shown(max(values))} must"
      " lie in [0, 4294967295]"
    )
  return values


def _listed(seed: Any) -> list[Any]:
  try:
    return list(seed)
  except TypeError:
    return [seed]


def _whole(seed: Any) -> int:
  try:
    return operator.index(seed)
  except TypeError:
    raise InputError(
      f"seed {config.shown(seed)} must be a whole number, one for all prompts"
      " or a list with one for each"
    ) from None
