"""Reads and writes the files of PyTorch's `torch.save`, without PyTorch.

Such a file is an uncompressed zip archive.  One record is a pickle, in which a
tensor only names its storage; the storages are records of raw bytes:

    state_dict.bin
      archive/data.pkl     {"best_state": {"emb.0.weight": tensor("0", ...)}}
      archive/byteorder    little
      archive/data/0       raw bytes, mapped only while a tensor is read

`torch_pickle` says what a pickle may do; files from before torch 1.6, which are
no archives, are read by `torch_legacy`.  Tensors stay on the disk until they
are read, so one of a file of gigabytes costs no more than itself.
"""

import contextlib
import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from audiogen_jax.convert import torch_legacy, torch_pickle
from audiogen_jax.convert.torch_pickle import Decoder, Tensor
from audiogen_jax.core.errors import InputError

_STORAGES = {dtype: name for name, dtype in torch_pickle.DTYPES.items()}
_ZIP_START = b"PK\x03\x04"
_ZIP_HEADER = 30  # bytes that describe a record before its name


def read(path: str | os.PathLike[str]) -> Any:
  """Reads the object that `torch.save` wrote, leaving its tensors on disk.

  Returns:
    Nested dicts, lists, tuples, strings, bytes and numbers, among them those of
    numpy.  Tensors and parameters are `Tensor`, arrays of numpy `Array`, dtypes
    are numpy's, and devices are strings.

  Raises:
    InputError: The file is absent, damaged, cut short, or asks for code.
  """
  try:
    # A pipe would be waited for; a folder the system refuses.
    regular = os.path.isfile(path) or os.path.isdir(path)
    if os.path.exists(path) and not regular:
      raise InputError("is no regular file; name the one that torch.save wrote")
    with open(path, "rb") as file:
      start = file.read(len(torch_legacy.START))
      if start == torch_legacy.START:
        return torch_legacy.load(file)
      archive = _Archive(file, start)
      program = archive.load("data.pkl")
      return Decoder(io.BytesIO(program), len(program), archive.storage).load()
  except Exception as error:  # a damaged pickle may fail in any way
    reason = f"is damaged ({type(error).__name__}); get or save it again"
    if isinstance(error, OSError):
      reason = f"cannot be read ({error.strerror}); check the path"
    elif isinstance(error, InputError):
      reason = str(error)
    raise InputError(f"{os.fspath(path)}: {reason}") from error


def write(path: str | os.PathLike[str], obj: Any) -> None:
  """Writes a file that `torch.load(path, weights_only=True)` opens.

  The file appears under its name only once complete.  Tensors are read and
  written one at a time; one that occurs twice in `obj` is stored once.

  Args:
    path: Where to write; an existing file is replaced.
    obj: Nested dicts, lists, tuples, strings, numbers, bools and None.  Leaves
      are arrays, or objects with `shape`, `dtype` and `read()`, like `Tensor`.

  Raises:
    InputError: `obj` holds something else, or the disk refuses the file.
  """
  leaves: dict[int, tuple[int, Any]] = {}
  program = b"\x80\x02" + b"".join(_encode(obj, leaves)) + pickle.STOP
  temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
  try:
    with open(temporary, "wb") as file, zipfile.ZipFile(file, "w") as archive:
      _add(archive, file, "data.pkl", program)
      _add(archive, file, "byteorder", b"little")
      for index, leaf in leaves.values():
        _add(archive, file, f"data/{index}", _raw(leaf))
      _add(archive, file, "version", b"3\n")
    os.replace(temporary, path)
  except BaseException as error:  # KeyboardInterrupt too: leave nothing behind
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    if isinstance(error, OSError):
      raise InputError(
        f"{os.fspath(path)}: cannot be written ({error.strerror}); choose "
        "another folder or make room"
      ) from error
    raise


class _Archive:
  """The records of an open `torch.save` file."""

  def __init__(self, file: BinaryIO, start: bytes) -> None:
    self._file = file
    self._size = os.fstat(file.fileno()).st_size
    if not start.startswith(_ZIP_START):
      raise InputError(
        f"its {self._size} bytes are no file of torch.save; download it again"
      )
    try:
      with zipfile.ZipFile(file) as archive:
        self._records = {info.filename: info for info in archive.infolist()}
    except Exception as error:  # hostile bytes raise more than BadZipFile
      raise InputError(
        "is cut short or damaged: no whole zip directory ends its "
        f"{self._size} bytes; download it again"
      ) from error
    roots = [name for name in self._records if name.endswith("/data.pkl")]
    if len(roots) != 1:
      raise InputError(f"holds {len(roots)} data.pkl records; give one with 1")
    self._root = roots[0].removesuffix("data.pkl")
    marked = self._root + "byteorder" in self._records  # from torch 2.1 on
    if marked and self.load("byteorder") != b"little":
      raise InputError(
        "its byte order is not little; save it again on a little-endian machine"
      )

  def load(self, name: str) -> bytes:
    start, size = self._find(name)
    self._file.seek(start)
    return self._file.read(size)

  def storage(self, key: str, dtype: np.dtype, count: int) -> Tensor:
    """A whole storage, as a tensor of one axis."""
    start, size = self._find(f"data/{key}")
    need = count * dtype.itemsize
    if need > size:
      raise InputError(
        f"record {f'data/{key}'!r:.80} has {size} bytes but {count} values of "
        f"{dtype} need {need}; download the file again"
      )
    return torch_pickle.storage(self._file, start, dtype, count)

  def _find(self, name: str) -> tuple[int, int]:
    """The first byte and the number of bytes of a record."""
    label = f"record {name!r:.80}"
    info = self._records.get(self._root + name)
    if info is None:
      raise InputError(f"{label} is missing; download the file again")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
      raise InputError(
        f"{label} is compressed or encrypted; keep what torch.save wrote"
      )
    self._file.seek(info.header_offset)
    header = self._file.read(_ZIP_HEADER).ljust(_ZIP_HEADER, b"\0")
    start = info.header_offset + _ZIP_HEADER
    start += sum(struct.unpack_from("<HH", header, 26))  # name, extra field
    if header[:4] != _ZIP_START or start + info.file_size > self._size:
      raise InputError(
        f"{label} should lie at bytes {start} to {start + info.file_size} of a "
        f"file of {self._size}; it is cut short or damaged, download it again"
      )
    return start, info.file_size


def _encode(obj: Any, leaves: dict[int, tuple[int, Any]]) -> Iterator[bytes]:
  """The instructions that push `obj`; its tensors are entered in `leaves`."""
  if type(obj) in (type(None), bool, int, float, str):
    yield _plain(obj)
  elif isinstance(obj, dict):
    yield pickle.EMPTY_DICT + pickle.MARK
    for pair in obj.items():
      for item in pair:
        yield from _encode(item, leaves)
    yield pickle.SETITEMS
  elif isinstance(obj, list | tuple):
    plain = isinstance(obj, list)
    yield pickle.EMPTY_LIST + pickle.MARK if plain else pickle.MARK
    for item in obj:
      yield from _encode(item, leaves)
    yield pickle.APPENDS if plain else pickle.TUPLE
  elif getattr(obj, "dtype", None) in _STORAGES:
    index, _ = leaves.setdefault(id(obj), (len(leaves), obj))
    shape = tuple(int(n) for n in obj.shape)
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    yield b"ctorch._utils\n_rebuild_tensor_v2\n(("
    yield _plain("storage") + f"ctorch\n{_STORAGES[obj.dtype]}\n".encode()
    yield _plain(str(index)) + _plain("cpu") + _plain(math.prod(shape)) + b"tQ"
    yield _plain(0) + _plain(shape) + _plain(strides) + _plain(False)
    yield b"ccollections\nOrderedDict\n)RtR"
  else:
    kind = f"{type(obj).__name__} of dtype {getattr(obj, 'dtype', None)}"
    known = ", ".join(dtype.name for dtype in _STORAGES)
    raise InputError(f"cannot write a {kind}; make it an array of {known}")


def _plain(obj: Any) -> bytes:
  return pickle.dumps(obj, protocol=2)[2:-1]  # without PROTO and STOP


def _raw(leaf: Any) -> np.ndarray:
  """The bytes of a leaf, in the order of its elements."""
  array = np.asarray(leaf.read() if hasattr(leaf, "read") else leaf)
  if (array.shape, array.dtype) != (tuple(leaf.shape), leaf.dtype):
    raise InputError(
      f"an array declared {leaf.dtype} {tuple(leaf.shape)} was read as "
      f"{array.dtype} {array.shape}; declare what it holds"
    )
  return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _add(
  archive: zipfile.ZipFile, file: BinaryIO, name: str, data: bytes | np.ndarray
) -> None:
  info = zipfile.ZipInfo(f"archive/{name}")
  # As torch does, padding in the extra field starts the data at a multiple of
  # 64.  Of that field, 20 bytes are ZIP64 sizes and 4 the padding's own header.
  padding = -(file.tell() + _ZIP_HEADER + len(info.filename) + 20 + 4) % 64
  info.extra = struct.pack(f"<2sH{padding}x", b"FB", padding)
  with archive.open(info, "w", force_zip64=True) as record:
    record.write(data)
