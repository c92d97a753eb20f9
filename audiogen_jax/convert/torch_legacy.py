"""The files that PyTorch wrote before 1.6, which are no zip archives.

Pickles one behind the other, and then the storages:

    magic number
    protocol      1001
    machine       {"little_endian": True, ...}
    object        {"features.0.weight": tensor("9453…", ...)}
    keys          ["9453…", ...] of the storages, in their order
    storage       8 bytes: how many values; the values
    …

Where a storage lies is known only behind the object that is made of it, so the
object is decoded twice: once to learn what storages there are.
"""

import mmap
import os
from typing import Any, BinaryIO

import numpy as np

from audiogen_jax.convert import torch_pickle
from audiogen_jax.convert.torch_pickle import Decoder, Tensor
from audiogen_jax.core.errors import InputError

START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PROTOCOL = 1001
_COUNT = 8  # bytes that say how many values a storage has


class _Stream(mmap.mmap):
  """A mapped file, whose lines are whole."""

  def readline(self) -> bytes:
    line = super().readline()
    if not line.endswith(b"\n"):
      raise EOFError
    return line


def load(file: BinaryIO) -> Any:
  """The object of an open file that begins with `START`.

  Raises:
    InputError: The file is damaged, cut short, or asks for code.
  """
  size = os.fstat(file.fileno()).st_size
  # Not read, but mapped: a length that the file only claims costs no memory.
  with _Stream(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
    try:
      return _load(file, stream, size)
    except InputError:
      raise
    except Exception as error:  # a damaged pickle may fail in any way
      raise InputError(
        f"is cut short or damaged: its {size} bytes are no whole file of torch "
        f"before 1.6 ({type(error).__name__}); download it again, or save it "
        "again with torch>=1.6"
      ) from error


def _load(file: BinaryIO, stream: mmap.mmap, size: int) -> Any:
  stream.seek(len(START))
  protocol = Decoder(stream, size, _none).load()
  machine = Decoder(stream, size, _none).load()
  if protocol != _PROTOCOL or machine["little_endian"] is not True:
    raise InputError(
      f"its protocol is {protocol!r:.20}, not {_PROTOCOL}, or its byte order "
      "not little; save it again on a little-endian machine"
    )
  start = stream.tell()
  declared: dict[str, Tensor] = {}

  def declare(key: str, dtype: np.dtype, count: int) -> Tensor:
    tensor = torch_pickle.storage(file, 0, dtype, count)
    if declared.setdefault(key, tensor) != tensor:
      raise InputError(
        f"storage {key!r:.40} has two types or sizes; download it again"
      )
    return tensor

  Decoder(stream, size, declare).load()
  keys = Decoder(stream, size, _none).load()
  starts = _starts(stream, size, keys, declared)

  def find(key: str, dtype: np.dtype, count: int) -> Tensor:
    return torch_pickle.storage(file, starts[key], dtype, count)

  stream.seek(start)
  return Decoder(stream, size, find).load()


def _starts(
  stream: mmap.mmap, size: int, keys: list[Any], declared: dict[str, Tensor]
) -> dict[str, int]:
  """Where each storage's values begin, in bytes."""
  if sorted(keys) != sorted(declared):
    raise InputError(
      f"lists {len(keys)} storages where its tensors name {len(declared)}; "
      "download it again"
    )
  starts, at = {}, stream.tell()
  for key in keys:
    count = int.from_bytes(stream[at : at + _COUNT], "little")
    starts[key] = at + _COUNT
    at = starts[key] + declared[key].nbytes
    if at > size:
      raise InputError(
        f"storage {key!r:.40} should lie at bytes {starts[key]} to {at} of a "
        f"file of {size} bytes; it is cut short or damaged, download it again, "
        "or save it again with torch>=1.6"
      )
    if (count,) != declared[key].shape:
      raise InputError(
        f"storage {key!r:.40} has {count} values where tensors name "
        f"{declared[key].shape[0]}; download it again"
      )
  return starts


def _none(key: str, *_: Any) -> Tensor:
  raise InputError(f"names storage {key!r:.40} in its head; download it again")
