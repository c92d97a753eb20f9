"""Reads and writes the files of PyTorch's `torch.save`, without PyTorch.

Such a file is an uncompressed zip archive.  One record is a pickle, in which a
tensor only names its storage; the storages are records of raw bytes:

    state_dict.bin
      archive/data.pkl     {"best_state": {"emb.0.weight": tensor("0", ...)}}
      archive/byteorder    little
      archive/data/0       raw bytes, mapped only while a tensor is read

A pickle is a program.  Here it runs on an interpreter which knows only the
instructions that `torch.save` emits, and every name it asks for is looked up in
a short table of stand-ins: nothing is imported, and no code in the file runs.
What it says of shapes and sizes is checked before anything relies on it.
"""

import contextlib
import dataclasses
import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from audiogen_jax.core.errors import InputError

_DTYPES = {
  "FloatStorage": np.dtype(np.float32),
  "DoubleStorage": np.dtype(np.float64),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype(np.int64),
  "IntStorage": np.dtype(np.int32),
  "ShortStorage": np.dtype(np.int16),
  "CharStorage": np.dtype(np.int8),
  "ByteStorage": np.dtype(np.uint8),
  "BoolStorage": np.dtype(np.bool_),
  "ComplexFloatStorage": np.dtype(np.complex64),
  "ComplexDoubleStorage": np.dtype(np.complex128),
}
_STORAGES = {dtype: name for name, dtype in _DTYPES.items()}
_ZIP_START = b"PK\x03\x04"
_ZIP_HEADER = 30  # bytes that describe a record before its name


def read(path: str | os.PathLike[str]) -> Any:
  """Reads the object that `torch.save` wrote, leaving its tensors on disk.

  Returns:
    Nested dicts, lists, tuples, strings and numbers.  Tensors and parameters
    are `Tensor`, dtypes are numpy's, and devices are strings.

  Raises:
    InputError: The file is absent, damaged, cut short, or asks for code.
  """
  try:
    with open(path, "rb") as file:
      return _Decoder(_Archive(file)).load()
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


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor still on disk.

  Attributes:
    shape: Its shape.
    dtype: Its dtype; bfloat16 is that of `ml_dtypes`.
    strides: Steps along its axes, in elements.
    path: The file.
    start: Where in the file its first element begins, in bytes.
    stamp: Tells the file from one put in its place later.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  strides: tuple[int, ...] = dataclasses.field(repr=False)
  path: str = dataclasses.field(repr=False)
  start: int = dataclasses.field(repr=False)
  stamp: tuple[int, ...] = dataclasses.field(repr=False)

  @property
  def nbytes(self) -> int:
    """Bytes of its elements."""
    return math.prod(self.shape) * self.dtype.itemsize

  def read(self) -> np.ndarray:
    """Maps this tensor's bytes, and no others, as a read-only array.

    The memory goes back to the system with the last view of the map: copy what
    you keep and drop the array.

    Raises:
      InputError: The file has changed or gone since it was opened.
    """
    if not os.path.exists(self.path) or _stamp(self.path) != self.stamp:
      raise InputError(
        f"{self.path}: changed or gone since it was opened; open it again"
      )
    if not self.nbytes:  # it may lie outside its storage
      return np.zeros(self.shape, self.dtype)
    size = _extent(self.shape, self.strides) * self.dtype.itemsize
    data = np.memmap(self.path, np.uint8, "r", self.start, (size,))
    strides = tuple(stride * self.dtype.itemsize for stride in self.strides)
    return np.ndarray(self.shape, self.dtype, data, strides=strides)


def _stamp(path: str | int) -> tuple[int, ...]:
  status = os.stat(path)
  return status.st_ino, status.st_size, status.st_mtime_ns


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
  """Values from the first element to the last, with both."""
  return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


class _Archive:
  """The records of an open `torch.save` file."""

  def __init__(self, file: BinaryIO) -> None:
    self._file = file
    self._size = os.fstat(file.fileno()).st_size
    if file.read(4) != _ZIP_START:
      raise InputError(
        f"its {self._size} bytes are no zip archive; download it again or, if "
        "torch before 1.6 wrote it, save it again with torch>=1.6"
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
    path, stamp = os.path.abspath(self._file.name), _stamp(self._file.fileno())
    return Tensor((count,), dtype, (1,), path, start, stamp)

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


# What `torch.save` writes, all of it in protocol 2.
_INSTRUCTIONS = [
  getattr(pickle, name)[0]
  for name in (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BINFLOAT BININT BININT1 BININT2 "
    "LONG1 LONG4 BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 APPEND APPENDS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL "
    "BINPERSID REDUCE"
  ).split()
]


class _Decoder(pickle._Unpickler):
  """Runs the pickle's program with harmless instructions and names only.

  The base is the unpickler written in Python, because its instructions can be
  taken away, and because the one in C allocates a memo for the largest index a
  program mentions: up to 64 GiB for five bytes.
  """

  def __init__(self, archive: _Archive) -> None:
    super().__init__(io.BytesIO(archive.load("data.pkl")))
    self._archive = archive

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _STAND_INS:
      raise InputError(
        f"asks for code, {f'{module}.{name}'!r:.80}, which is refused; "
        "re-export it with weights only"
      )
    return _STAND_INS[module, name]

  def persistent_load(self, pid: Any) -> Tensor:
    match pid:
      case ("storage", np.dtype() as dtype, str(key), _, int(count)):
        return self._archive.storage(key, dtype, *_counts(count))
    raise InputError("names a storage in an unknown way; download it again")

  def load_build(self) -> None:
    # State dicts bring their `_metadata`, versions of modules, so: not needed.
    self.stack.pop()
    if type(self.stack[-1]) is not dict:
      raise InputError(
        "sets attributes, which is refused; re-export it with weights only"
      )

  def load_setitem(self) -> None:
    pair, self.stack[-2:] = self.stack[-2:], []
    self._update(pair)

  def load_setitems(self) -> None:
    self._update(self.pop_mark())

  def _update(self, items: list[Any]) -> None:
    # To hash tuples nested a million deep overflows the interpreter's stack.
    if not all(isinstance(key, str | int | float | None) for key in items[::2]):
      raise InputError(
        "has dict keys other than text and numbers; re-export it without them"
      )
    self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

  dispatch = {
    **{code: pickle._Unpickler.dispatch[code] for code in _INSTRUCTIONS},
    pickle.BUILD[0]: load_build,
    pickle.SETITEM[0]: load_setitem,
    pickle.SETITEMS[0]: load_setitems,
  }


def _counts(*values: Any) -> tuple[int, ...]:
  """Checks that the values are what a shape, strides or offset may hold."""
  if len(values) > 64 or not all(  # the most axes of numpy and of torch
    type(value) is int and 0 <= value < 2**63 for value in values
  ):
    raise InputError("has a tensor of impossible size; download it again")
  return values


def _rebuild_tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any
) -> Tensor:
  _, _, *marks = rest  # requires_grad, hooks, and marks such as "conjugated"
  if any(marks):
    raise InputError("has conjugated or negated views; save plain tensors")
  shape, strides = _counts(*shape), _counts(*strides)
  (offset,), (held,) = _counts(offset), storage.shape
  end = offset + _extent(shape, strides) if 0 not in shape else 0
  # More elements than values would let a few bytes claim terabytes.  And numpy
  # makes no empty array whose other axes are too long.
  huge = math.prod(n or 1 for n in shape) >= 2**56
  if huge or max(end, math.prod(shape)) > held:
    raise InputError(
      f"a tensor of shape {shape}, strides {strides} and offset {offset} does "
      f"not fit into its storage of {held} values; save contiguous tensors"
    )
  start = storage.start + offset * storage.dtype.itemsize
  return dataclasses.replace(storage, shape=shape, strides=strides, start=start)


# All that a pickle may ask for.  It can call these with anything it made.
_STAND_INS = {
  ("collections", "OrderedDict"): lambda: {},
  ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
  ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
  ("torch", "Size"): lambda values: _counts(*values),
  ("torch", "device"): lambda kind, *index: kind,
  **{("torch", name): dtype for name, dtype in _DTYPES.items()},
  **{("torch", dtype.name): dtype for dtype in _DTYPES.values()},
}


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
