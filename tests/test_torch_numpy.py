"""Numbers and arrays of numpy in files of `torch.save`: read, never run."""

import pickle

import numpy as np
import pytest
from test_torch_file import craft, push, refused

from audiogen_jax.convert import torch_file

CORE = ("numpy.core.multiarray", "numpy._core.multiarray")


def numbers(value, core: str = CORE[1]) -> bytes:
  """The instructions that numpy's own pickles have, in either spelling."""
  program = pickle.dumps(value, protocol=2)[2:-1]
  return program.replace(CORE[1].encode(), core.encode())


@pytest.mark.parametrize("core", CORE)
def test_numbers_become_pythons(tmp_path, core):
  values = [np.float64(0.5), np.float32(-2), np.int64(-(2**60)), np.uint8(200)]
  values += [np.bool_(True), np.complex64(1 + 2j), np.float16(0.25)]
  program = b"](" + b"".join(numbers(v, core) for v in values) + b"e"
  read = torch_file.read(craft(tmp_path / "a.pt", program))
  assert read == [v.item() for v in values]
  assert [type(v) for v in read] == [type(v.item()) for v in values]


@pytest.mark.parametrize("core", CORE)
def test_arrays_keep_shape_type_and_order(tmp_path, core):
  plain = np.arange(6, dtype=np.float32).reshape(2, 3)
  values = [plain, np.asfortranarray(plain), np.arange(3), np.array(7.5)]
  program = b"](" + b"".join(numbers(v, core) for v in values) + b"e"
  found = torch_file.read(craft(tmp_path / "a.pt", program))
  torch_file.write(tmp_path / "b.pt", found)
  for arrays in (found, torch_file.read(tmp_path / "b.pt")):
    for value, array in zip(values, arrays, strict=True):
      assert (array.shape, array.dtype) == (value.shape, value.dtype)
      np.testing.assert_array_equal(array.read(), value)


def dtype(code="f8") -> bytes:
  return b"cnumpy\ndtype\n" + push((code, False, True)) + b"R"


def encoded(text, encoding="latin1") -> bytes:
  return b"c_codecs\nencode\n" + push((text, encoding)) + b"R"


def scalar(kind=None, data=None) -> bytes:
  data = encoded("\0" * 8) if data is None else data
  pair = b"(" + (kind or dtype()) + data + b"t"
  return b"cnumpy.core.multiarray\nscalar\n" + pair + b"R"


def array(shape=(2,), kind=None, data=None) -> bytes:
  """The instructions for an array of eight bytes, right or wrong."""
  made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
  made += push((0,)) + encoded("b") + b"tR"
  data = encoded("\0" * 8) if data is None else data
  state = push(1) + push(shape) + (kind or dtype("f4")) + push(False) + data
  return made + b"(" + state + b"tb"


def state(*rest) -> bytes:
  return dtype() + push((3, *rest)) + b"b"


WRONG = {
  "numpy's type 'O8'": [scalar(dtype("O8")), array(kind=dtype("O8"))],
  "numpy's type '>f8'": [scalar(dtype(">f8"))],
  "numpy's type 'V8'": [dtype("V8")],
  "byte order '>' or with": [state(">", None, None, None, -1, -1, 0)],
  "or with fields": [state("<", None, ("a",), {"a": 1}, -1, -1, 0)],
  "7 bytes for 1 values": [scalar(data=encoded("\0" * 7))],
  "8 bytes for 3 values": [array((3,))],
  f"8 bytes for {2**62} values": [array((2**62,))],
  "impossible size": [array((-2,)), array((2.0,)), array((1,) * 65)],
  "without values": [
    *[scalar(data=push("x" * 8)), scalar(push("f8")), array(kind=push("f4"))],
    *[array(data=push(5)), scalar(b"ctorch._utils\n_rebuild_parameter\n")],
  ],
  "no Latin-1": [encoded("a", "rot13"), encoded("a", "zlib"), encoded(5)],
  "sets attributes": [array() + push(1) + b"b", encoded("a") + b"}b"],
  "asks for code, 'numpy.load'": [b"cnumpy\nload\n" + push(("x",)) + b"R"],
  "asks for code, 'numpy.core.multiarray.fromfile'": [
    b"cnumpy.core.multiarray\nfromfile\n"
  ],
  "asks for code, '_codecs.decode'": [b"c_codecs\ndecode\n"],
  "damaged": [
    *[dtype([1]), encoded("\u1234"), array() + b"R", dtype() + b")R"],
    b"cnumpy\nndarray\n)R",
  ],
}


@pytest.mark.parametrize("match", WRONG)
def test_what_bends_numbers_is_refused(tmp_path, match):
  for program in WRONG[match]:
    refused(craft(tmp_path / "a.pt", program), match)


def test_bytes_asked_for_again_and_again_are_refused(tmp_path):
  # A text of a million, and four bytes for each copy of it.
  once = b"c_codecs\nencode\nq\x08" + push(("x" * 10**6, "latin1")) + b"q\x09"
  program = b"](" + once + b"R" + b"h\x08h\x09R" * 300 + b"e"
  refused(craft(tmp_path / "a.pt", program), "repeats its bytes")


def test_an_array_without_values_says_so(tmp_path):
  made = array().partition(b"(cnumpy")[0] + b")R"
  found = torch_file.read(craft(tmp_path / "a.pt", made))
  with pytest.raises(torch_file.InputError, match="without values"):
    found.read()
