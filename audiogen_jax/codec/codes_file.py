"""Codes on disk: one `.npz` a sound.

It holds `codes [m k t]` of m chunks (one, for most codecs), their `scales [m]`,
the `length` in samples that they stand for, and `sample_rate_hz`.
"""

import math
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from audiogen_jax.core.errors import InputError

# Kinds of numpy types, and axes.
_KINDS = {
  "codes": ("iu", 3),
  "scales": ("f", 1),
  "length": ("iu", 0),
  "sample_rate_hz": ("iu", 0),
}
_MOST_VALUES = 1 << 26  # four days of AudioGen's codes
_MOST_SAMPLES = 1 << 16  # of a frame
_MOST_HZ = 768_000


class Codes(NamedTuple):
  """Codes of one sound, as a file holds them.

  Attributes:
    codes: Of m overlapping chunks; one, for most codecs.
    scales: By which decoding multiplies each chunk.
    length: Samples of the sound.
    sample_rate_hz: Its rate.
  """

  codes: Int[np.ndarray, "m k t"]
  scales: Float[np.ndarray, " m"]
  length: int
  sample_rate_hz: int


def write(file: BinaryIO, codes: Codes) -> None:
  """Writes a compressed `.npz`, two bytes a code."""
  stored = codes._asdict() | {"codes": codes.codes.astype(np.uint16)}
  np.savez_compressed(file, **stored)


def read(path: Path) -> Codes:
  """Reads a file of `write`; headers are checked before anything is unpacked.

  Raises:
    InputError: If the file is missing, damaged or something else.
  """
  if not path.exists():
    raise InputError(f"{path} does not exist")
  if not path.is_file():
    raise InputError(f"{path} is no file")
  try:
    with zipfile.ZipFile(path) as file:
      arrays = {name: _array(file, name) for name in Codes._fields}
    return _checked(arrays)
  except InputError as error:
    reason = str(error)
  except MemoryError:
    raise
  except Exception as error:  # hostile bytes raise more than BadZipFile
    reason = type(error).__name__
  raise InputError(
    f"{path} holds no codes ({reason}); audiogen encode writes them"
  )


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
  """One array, of which the header is read before memory is taken."""
  kinds, axes = _KINDS[name]
  try:
    record = file.open(f"{name}.npy")
  except KeyError:
    raise InputError(f"{name} is missing") from None
  with record:
    if np.lib.format.read_magic(record) != (1, 0):
      raise InputError(f"{name} is in an unknown version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(record)
  count = math.prod(shape)
  if dtype.kind not in kinds or len(shape) != axes:
    raise InputError(f"{name} is of type {dtype} and shape {str(shape)[:60]}")
  if not 0 < count <= _MOST_VALUES:
    raise InputError(f"{name} has {count:,} values; at most {_MOST_VALUES:,}")
  with file.open(f"{name}.npy") as record:
    return np.lib.format.read_array(record, allow_pickle=False)


def _checked(arrays: dict[str, np.ndarray]) -> Codes:
  """The arrays as `Codes`; raises InputError unless they fit each other."""
  codes, scales = arrays["codes"], arrays["scales"].astype(np.float32)
  length, rate = int(arrays["length"]), int(arrays["sample_rate_hz"])
  if not 0 <= codes.min() <= codes.max() < 1 << 16:
    raise InputError(f"codes lie in [{codes.min()}, {codes.max()}]")
  if len(scales) != len(codes):
    raise InputError(f"{len(codes)} chunks have {len(scales)} scales")
  if not (np.isfinite(scales) & (scales >= 0)).all():
    raise InputError("scales are not finite, or negative")
  if not 0 < rate <= _MOST_HZ:
    raise InputError(f"sample_rate_hz is {rate}")
  # A frame is at least one sample and at most some thousands.
  m, _, t = codes.shape
  if not 0 < length <= m * t * _MOST_SAMPLES:
    raise InputError(f"{length} samples of {m} chunks of {t} frames")
  return Codes(codes.astype(np.int32), scales, length, rate)
