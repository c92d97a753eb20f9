"""Codes on disk: one `.npz` a sound.

It holds `codes [m k t]` of m chunks (one, for most codecs), their `scales [m]`,
the `length` in samples that they stand for, and `sample_rate_hz`.
"""

import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from audiogen_jax.core.errors import InputError


class Codes(NamedTuple):
  """What a file holds; see above."""

  codes: Int[np.ndarray, "m k t"]
  scales: Float[np.ndarray, " m"]
  length: int
  sample_rate_hz: int


def write(file: BinaryIO, codes: Codes) -> None:
  """Writes codes; two bytes each, compressed."""
  stored = codes._asdict() | {"codes": codes.codes.astype(np.uint16)}
  np.savez_compressed(file, **stored)


def read(path: Path) -> Codes:
  """Reads what `write` wrote.

  Raises:
    InputError: If the file is missing, damaged or something else.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      held = {name: file[name] for name in Codes._fields}
  except FileNotFoundError:
    raise InputError(f"{path} does not exist") from None
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    raise InputError(
      f"{path} holds no codes; audiogen encode writes them"
    ) from None
  return Codes(
    held["codes"].astype(np.int32),
    held["scales"],
    int(held["length"]),
    int(held["sample_rate_hz"]),
  )
