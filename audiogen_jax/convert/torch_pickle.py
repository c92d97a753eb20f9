"""The pickles of PyTorch's files, run without obeying them.

A pickle is a program.  Here it runs on an interpreter which knows only the
instructions that `torch.save` emits, and every name it asks for is looked up in
a short table of stand-ins: nothing is imported, and no code in the file runs.
What it says of shapes and sizes is checked before anything relies on it.
"""

import dataclasses
import math
import os
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias

import ml_dtypes
import numpy as np

from audiogen_jax.core.errors import InputError

DTYPES = {
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


# Where a storage lies, from its key, type and number of values.
Find: TypeAlias = Callable[[str, np.dtype, int], "Tensor"]


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


def storage(file: BinaryIO, start: int, dtype: np.dtype, count: int) -> Tensor:
  """A whole storage of an open file, as a tensor of one axis."""
  path, stamp = os.path.abspath(file.name), _stamp(file.fileno())
  return Tensor((count,), dtype, (1,), path, start, stamp)


def _stamp(path: str | int) -> tuple[int, ...]:
  status = os.stat(path)
  return status.st_ino, status.st_size, status.st_mtime_ns


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
  """Values from the first element to the last, with both."""
  return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


@dataclasses.dataclass(eq=False)
class Array:
  """An array of numpy, whose values stand in the pickle itself.

  Attributes:
    shape: Its shape.
    dtype: Its dtype.
    values: All of them, read-only; None until the pickle says which.
  """

  values: np.ndarray | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """How many values there are along each axis."""
    return self.read().shape

  @property
  def dtype(self) -> np.dtype:
    """Of which type the values are."""
    return self.read().dtype

  def read(self) -> np.ndarray:
    """Its values, read-only."""
    if self.values is None:
      raise InputError("holds an array without values; download it again")
    return self.values


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


class Decoder(pickle._Unpickler):
  """Runs a pickle's program with harmless instructions and names only.

  The base is the unpickler written in Python, because its instructions can be
  taken away, and because the one in C allocates a memo for the largest index a
  program mentions: up to 64 GiB for five bytes.
  """

  def __init__(self, stream: Any, size: int, find: Find) -> None:
    """A decoder of the pickle at which `stream` stands.

    Args:
      stream: What can be read, by bytes and by lines.
      size: Bytes that the pickle has at most.
      find: Looks up storages.
    """
    super().__init__(stream)
    self._find = find
    self._room = size  # for bytes, of which a program may ask again and again

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("_codecs", "encode"):
      return self._bytes
    if (module, name) not in _STAND_INS:
      raise InputError(
        f"asks for code, {f'{module}.{name}'!r:.80}, which is refused; "
        "re-export it with weights only"
      )
    return _STAND_INS[module, name]

  def persistent_load(self, pid: Any) -> Tensor:
    match pid:
      case ("storage", np.dtype() as dtype, str(key), _, int(count), *view):
        if view in ([], [None]):  # None stands in files from before torch 1.6
          return self._find(key, dtype, *_counts(count))
    raise InputError("names a storage in an unknown way; download it again")

  def _bytes(self, text: Any, encoding: Any) -> bytes:
    """Protocol 2 knows no bytes: they are Latin-1, encoded once more."""
    if type(text) is not str or encoding != "latin1":
      raise InputError("encodes what is no Latin-1 text; download it again")
    self._room -= len(text)
    if self._room < 0:
      raise InputError("repeats its bytes without end; download it again")
    return text.encode("latin1")

  def load_build(self) -> None:
    # State dicts bring their `_metadata`, versions of modules, so: not needed.
    state = self.stack.pop()
    target = self.stack[-1]
    if isinstance(target, Array) and target.values is None:
      target.values = _array(*state)
    elif isinstance(target, np.dtype):
      _check_dtype(*state)
    elif type(target) is not dict:
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


def _dtype(code: Any, *_: Any) -> np.dtype:
  """Numpy's own name of a type, `f8`."""
  if code not in _NUMPY_CODES:
    raise InputError(
      f"holds values of numpy's type {code!r:.40}; re-export it with numbers"
    )
  return _NUMPY_CODES[code]


def _check_dtype(_: Any, order: Any, *parts: Any) -> None:
  """What completes a numpy type: its byte order, and nothing else."""
  if order not in ("<", "|") or any(parts[:3]):  # rest: size, alignment, flags
    raise InputError(
      f"holds values of numpy in byte order {order!r:.20} or with fields; save "
      "it again with plain numbers on a little-endian machine"
    )


def _array(
  _: Any, shape: Any, dtype: Any, fortran: Any, data: Any
) -> np.ndarray:
  """What completes an array."""
  shape = _counts(*shape)
  values = _values(dtype, data, math.prod(shape))
  return values.reshape(shape, order="F" if fortran else "C")


def _scalar(dtype: Any, data: Any) -> bool | int | float | complex:
  """A number of numpy, as Python's own."""
  return _values(dtype, data, 1)[0].item()


def _values(dtype: Any, data: Any, count: int) -> np.ndarray:
  if not isinstance(dtype, np.dtype) or type(data) is not bytes:
    raise InputError("has numbers of numpy without values; download it again")
  if len(data) != count * dtype.itemsize:
    raise InputError(
      f"has {len(data)} bytes for {count} values of {dtype}; download it again"
    )
  return np.frombuffer(data, dtype)


_NUMPY_CODES = {
  f"{dtype.kind}{dtype.itemsize}": dtype
  for dtype in (np.dtype(code) for code in "?bBhHiIqQefdFD")
}

# All that a pickle may ask for.  It can call these with anything it made.
_STAND_INS = {
  ("collections", "OrderedDict"): lambda: {},
  ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
  ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
  ("torch", "Size"): lambda values: _counts(*values),
  ("torch", "device"): lambda kind, *index: kind,
  **{("torch", name): dtype for name, dtype in DTYPES.items()},
  **{("torch", dtype.name): dtype for dtype in DTYPES.values()},
  ("numpy", "dtype"): _dtype,
  ("numpy", "ndarray"): None,
  **{
    (f"numpy.{core}.multiarray", name): stand_in
    for core in ("core", "_core")  # numpy before and from 2.0 on
    for name, stand_in in (
      ("scalar", _scalar),
      ("_reconstruct", lambda *_: Array()),
    )
  },
}
