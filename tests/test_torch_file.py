"""Files of `torch.save`: read as torch reads them, and never obeyed."""

import pathlib
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import types
import zipfile
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from audiogen_jax.convert import torch_file
from audiogen_jax.core import errors

TESTS = pathlib.Path(__file__).parent
GOLDEN = TESTS / "golden" / "audiogen_tiny" / "state_dict.bin"
DTYPES = (
  "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool "
  "complex64 complex128"
).split()


def array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
  values = np.random.default_rng(0).integers(-1, 2, shape)
  return np.asarray(values, np.dtype(getattr(ml_dtypes, dtype, dtype)))


def tensors(obj) -> Iterator[torch_file.Tensor]:
  if isinstance(obj, torch_file.Tensor):
    yield obj
  elif isinstance(obj, dict | list | tuple):
    for item in obj.values() if isinstance(obj, dict) else obj:
      yield from tensors(item)


def craft(path, program: bytes, compression=zipfile.ZIP_STORED, **records):
  """A file with this pickle and, unless told otherwise, eight floats."""
  records = {"byteorder": b"little", "data/0": bytes(32)} | records
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
    for name, data in records.items():
      archive.writestr(f"archive/{name}", data)
  return path


def push(value) -> bytes:
  """The instructions for a plain value."""
  return pickle.dumps(value, protocol=2)[2:-1]


def storage(count=8, key="0") -> bytes:
  kind = push("storage") + b"ctorch\nFloatStorage\n"
  return b"(" + kind + push(key) + push("cpu") + push(count) + b"tQ"


def view(offset=0, shape=(2, 4), strides=(4, 1), held=None, mark=b"") -> bytes:
  """The instructions for a tensor, right or wrong."""
  head = b"ctorch._utils\n_rebuild_tensor_v2\n(" + (held or storage())
  sizes = push(offset) + push(shape) + push(strides)
  return head + sizes + push(False) + push(None) + mark + b"tR"


def refused(path, match: str = ".") -> None:
  with pytest.raises(errors.InputError, match=match) as caught:
    torch_file.read(path)
  assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_reads_a_published_layout():
  state = torch_file.read(GOLDEN)
  assert isinstance(state["xp.cfg"], str)
  weights = state["best_state"]
  assert type(weights) is dict and len(weights) == 48
  for tensor in weights.values():
    value = tensor.read()
    assert (value.shape, value.dtype) == (tensor.shape, tensor.dtype)
    assert value.nbytes == tensor.nbytes and np.isfinite(value).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(tmp_path, dtype, shape):
  value = array(dtype, shape)
  torch_file.write(tmp_path / "a.bin", {"x": [value]})
  (tensor,) = torch_file.read(tmp_path / "a.bin")["x"]
  assert (tensor.shape, tensor.dtype) == (shape, value.dtype)
  assert tensor.nbytes == value.nbytes and tensor.start % 64 == 0
  read = tensor.read()
  assert (read.shape, read.dtype) == (shape, value.dtype)
  assert read.tobytes() == value.tobytes()


def test_plain_values_round_trip(tmp_path):
  plain = {"ints": [0, -1, 255, 2**31, -(2**63), 2**200], "pair": (1, (2.5,))}
  plain |= {"none": None, "bools": [True, False], "text": "grüße\n", "": ""}
  plain |= {3: {}, 0.1: 0.1, "empty": [[], (), {}]}
  torch_file.write(tmp_path / "a.bin", plain)
  assert torch_file.read(tmp_path / "a.bin") == plain


def test_copies_a_file_in_place(tmp_path):
  path = tmp_path / "a.bin"
  value = array("float32", (4, 6))
  torch_file.write(path, {"x": value.T, "y": [value, value]})
  torch_file.write(path, torch_file.read(path))
  copy = torch_file.read(path)
  assert (copy["x"].read() == value.T).all()
  assert (copy["y"][1].read() == value).all()


def test_strided_view_beyond_four_gib(tmp_path):
  path = tmp_path / "a.bin"
  program = view(offset=1, shape=(3, 2), strides=(1, 3))
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
    archive.start_dir += 5 << 30  # a hole: takes no room on the disk
    archive.writestr("archive/data/0", np.arange(8, dtype="<f4").tobytes())
  read = torch_file.read(path).read()
  np.testing.assert_array_equal(read, [[1, 4], [2, 5], [3, 6]])


def test_an_empty_view_maps_nothing(tmp_path):
  program = view(offset=8, shape=(0,), strides=(9,))
  assert torch_file.read(craft(tmp_path / "a.bin", program)).read().size == 0


@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.eval"])
def test_code_is_refused_by_name(tmp_path, name):
  mark = tmp_path / "mark"
  module, function = name.split(".")
  call = f"touch {mark}" if "system" in name else f"open({str(mark)!r}, 'w')"
  program = f"c{module}\n{function}\n(".encode() + push(call) + b"tR"
  message = f"asks for code, '{name}'.*re-export it with weights only"
  refused(craft(tmp_path / "a.bin", program), message)
  assert not mark.exists()


STAND_IN = b"ccollections\nOrderedDict\n"
WAYS = {
  "BUILD on a function": STAND_IN + b"}(" + push("a") + b"K\x01ub",
  "BUILD on a tensor": view() + b"}(" + push("path") + b"K\x01ub",
  "NEWOBJ": STAND_IN + b")\x81",
  "INST": b"(ios\nsystem\n",
  "OBJ": b"(" + STAND_IN + b"o",
  "EXT1": b"\x82\x01",
  "STACK_GLOBAL": push("os") + push("system") + b"\x93",
  "PERSID": b"P0\n",
  "REDUCE on a dict": b"})R",
  "REDUCE with pairs": STAND_IN + b"(]tR",
  "SETITEM on a list": b"]K\x00K\x01s",
  "APPEND to a tensor": view() + b"K\x01a",
  "bytearray": b"\x96" + struct.pack("<Q", 2**40),
  "storage of storages": b"(" + push("storage") + b"NNNNtQ",
  "missing record": storage(key="1"),
  "record elsewhere": storage(key="../data.pkl"),
  "no end": b"(",
}


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_run_or_bend_things_are_refused(tmp_path, way):
  refused(craft(tmp_path / "a.bin", WAYS[way]))


def test_pickles_that_exhaust_the_machine_do_not(tmp_path):
  program = b"K\x01r" + struct.pack("<I", 2**32 - 1)  # a huge memo index
  assert torch_file.read(craft(tmp_path / "a.bin", program)) == 1
  program = b"})" + b"\x85" * 10**6 + b"K\x01s"  # a key too deep to hash
  refused(craft(tmp_path / "a.bin", program), "dict keys")


WRONG = {
  "does not fit": [
    *[{"offset": 1}, {"strides": (5, 1)}, {"shape": (2, 5)}],
    *[{"shape": (n,), "strides": (0,)} for n in (9, 2**40)],
    *[{"shape": (0, 2**62)}, {"held": view(4, (4,), (1,))}],
  ],
  "impossible size": [
    *[{"offset": value} for value in (-1, 2**64, None)],
    *[{"shape": value} for value in ((-2, -4), (2.0, 4), (True, 4))],
    *[{"strides": (-4, 1)}, {"shape": (1,) * 65, "strides": (1,) * 65}],
    *[{"held": storage(-1)}, {"held": storage(2**70)}],
  ],
  "has 32 bytes but 9 values of float32 need 36": [{"held": storage(9)}],
  "conjugated": [{"mark": b"}(" + push("conj") + b"\x88u"}],
  "damaged": [{"held": b"N"}, {"strides": (1,)}],
}


@pytest.mark.parametrize("match", WRONG)
def test_views_outside_their_storage_are_refused(tmp_path, match):
  for arguments in WRONG[match]:
    refused(craft(tmp_path / "a.bin", view(**arguments)), match)


@pytest.mark.parametrize("part", [0, 1, 3, 40, 0.3, 0.9, -300, -22, -1])
def test_a_file_cut_short_is_refused(tmp_path, part):
  whole = GOLDEN.read_bytes()
  cut = whole[: int(part * len(whole)) if isinstance(part, float) else part]
  path = tmp_path / "a.bin"
  path.write_bytes(cut)
  refused(path, f"{len(cut)} bytes")


def test_a_record_past_the_end_is_refused(tmp_path):
  path = craft(tmp_path / "a.bin", view())
  data = bytearray(path.read_bytes())
  entry = data.rindex(b"PK\x01\x02")  # the directory's entry for data/0
  struct.pack_into("<II", data, entry + 20, 2**20, 2**20)
  path.write_bytes(data)
  refused(path, f"file of {len(data)}; it is cut short")


def test_flipped_bytes_never_raise_another_error(tmp_path):
  path = tmp_path / "a.bin"
  state = torch_file.read(GOLDEN)
  state["best_state"] = dict(sorted(state["best_state"].items())[:6])
  state["more"] = [1.5, None, (True, 2**70), array("bfloat16", (2, 3))]
  torch_file.write(path, state)
  data = path.read_bytes()
  pickled = range(data.index(b"\x80\x02"), data.index(b"PK", 30))
  directory = range(data.index(b"PK\x01\x02"), len(data))
  # The configuration fills most of the pickle, and any text will do there.
  config = range(data.index(b"xp.cfg") + 20, data.index(b"version"))
  places = sorted({*pickled, *directory}.difference(config))
  draw = random.Random(0)
  outcomes = []
  with open(path, "r+b") as file:
    for place in draw.choices(places, k=600):
      file.seek(place)
      file.write(bytes([data[place] ^ draw.randrange(1, 256)]))
      file.flush()
      try:
        for tensor in tensors(torch_file.read(path)):
          assert tensor.read().nbytes == tensor.nbytes
        outcomes.append("read")
      except errors.InputError:
        outcomes.append("refused")
      file.seek(place)
      file.write(data[place : place + 1])
  assert outcomes.count("read") > 50 and outcomes.count("refused") > 50


def test_other_files_are_refused(tmp_path):
  refused(tmp_path / "absent.bin", "No such file")
  refused(tmp_path, "directory")
  path = tmp_path / "a.bin"
  path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
  refused(path, "torch>=1.6")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("readme", "hello")
  refused(path, "0 data.pkl")
  refused(craft(path, view(), byteorder=b"big"), "byte order")
  refused(craft(path, view(), zipfile.ZIP_DEFLATED), "compressed")


def test_a_file_replaced_meanwhile_is_noticed(tmp_path):
  path = tmp_path / "a.bin"
  torch_file.write(path, array("float32", (4,)))
  tensor = torch_file.read(path)
  for change in (lambda: torch_file.write(path, {}), path.unlink):
    change()
    with pytest.raises(errors.InputError, match="changed or gone"):
      tensor.read()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_given_back(tmp_path):
  path = tmp_path / "a.bin"
  block = np.zeros(1 << 20, np.float32)
  torch_file.write(path, [block + i for i in range(60)])
  # Not ru_maxrss: that of a child begins at the size of the process it forked
  # from, so growth below this one's own size would go unseen.
  program = """
    import sys
    from audiogen_jax.convert import torch_file
    def peak():
      with open("/proc/self/status") as file:
        return next(int(s.split()[1]) for s in file if s.startswith("VmHWM"))
    tensors = torch_file.read(sys.argv[1])
    before = peak()
    for i, tensor in enumerate(tensors):
      assert tensor.read().sum() == i * 2**20
    print(peak() - before)
  """
  command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
  growth = int(subprocess.check_output(command, cwd=TESTS.parent))
  assert growth < 40 << 10  # KiB; all tensors together have 240 MiB


def lazy(shape, read) -> types.SimpleNamespace:
  return types.SimpleNamespace(shape=shape, dtype=np.dtype("f4"), read=read)


def test_a_leaf_is_read_and_stored_once(tmp_path):
  calls = iter([np.ones(3, np.float32)])
  leaf = lazy((3,), lambda: next(calls))
  value = array("float32", (4,))
  torch_file.write(tmp_path / "a.bin", {"a": leaf, "b": [leaf, value, value]})
  a, (b, c, d) = torch_file.read(tmp_path / "a.bin").values()
  assert a == b != c == d and b.read().tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, OSError])
@pytest.mark.parametrize("existed", [False, True])
def test_an_interrupted_write_leaves_nothing(tmp_path, kind, existed):
  def fail():
    raise kind

  path = tmp_path / "a.bin"
  if existed:
    torch_file.write(path, {"old": 1})
  with pytest.raises(errors.InputError if kind is OSError else kind):
    torch_file.write(path, [array("int64", (9,)), lazy((2,), fail)])
  assert list(tmp_path.iterdir()) == [path] * existed
  assert not existed or torch_file.read(path) == {"old": 1}


@pytest.mark.parametrize("obj", [{1}, b"x", np.array("a"), np.zeros(2, ">f4")])
def test_what_torch_cannot_hold_is_not_written(tmp_path, obj):
  with pytest.raises(errors.InputError, match="cannot write"):
    torch_file.write(tmp_path / "a.bin", {"x": obj})
  with pytest.raises(errors.InputError, match="declared"):
    torch_file.write(tmp_path / "a.bin", lazy((3,), lambda: np.ones(3)))
  with pytest.raises(errors.InputError, match="cannot be written"):
    torch_file.write(tmp_path / "absent" / "a.bin", {})
  assert not list(tmp_path.iterdir())


def numpy_of(tensor) -> np.ndarray:
  if (
    str(tensor.dtype) == "torch.bfloat16"
  ):  # which torch does not turn to numpy
    return tensor.float().numpy().astype(ml_dtypes.bfloat16)
  return tensor.detach().numpy()


@pytest.mark.torch
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_opens_what_we_write(tmp_path, mmap):
  torch = pytest.importorskip("torch")
  arrays = {
    f"{dtype} {shape}": array(dtype, shape)
    for dtype in DTYPES
    for shape in [(), (0, 2), (3,), (2, 3)]
  }
  plain = {"text": "grüße", "list": [1, -(2**40), 0.1, None, (True, ())]}
  torch_file.write(tmp_path / "a.bin", {"arrays": arrays, **plain})
  loaded = torch.load(tmp_path / "a.bin", weights_only=True, mmap=mmap)
  for name, expected in arrays.items():
    found = numpy_of(loaded["arrays"][name])
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
    assert found.tobytes() == expected.tobytes(), name
  assert {name: loaded[name] for name in plain} == plain


@pytest.mark.torch
def test_reads_what_torch_writes(tmp_path):
  torch = pytest.importorskip("torch")
  base = torch.arange(24.0).reshape(4, 6)
  saved = {
    **{dtype: base.to(getattr(torch, dtype)) for dtype in DTYPES},
    **{"scalar": torch.tensor(3.5), "empty": torch.zeros(2, 0)},
    **{"transposed": base.T, "slice": base[1:3, ::2], "shared": base},
    "parameter": torch.nn.Parameter(base[0]),
  }
  torch.save(saved, tmp_path / "a.bin")
  read = torch_file.read(tmp_path / "a.bin")
  assert list(read) == list(saved)
  for name, expected in saved.items():
    found, expected = read[name].read(), numpy_of(expected)
    assert found.dtype == expected.dtype, name
    np.testing.assert_array_equal(found, expected, err_msg=name)
  assert read["transposed"].start == read["shared"].start
  assert read["slice"].read().base.nbytes == (6 + 5) * 4  # and no more


@pytest.mark.torch
def test_reads_state_dicts_but_no_modules(tmp_path):
  torch = pytest.importorskip("torch")
  model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
  state = model.state_dict()
  assert type(state) is not dict and state._metadata
  plain = {"size": torch.Size([2, 3]), "dtype": torch.bfloat16, "ones": [1]}
  path = tmp_path / "a.bin"
  torch.save({"state": state, **plain, "device": torch.device("cpu")}, path)
  read = torch_file.read(path)
  assert type(read["state"]) is dict and list(read["state"]) == list(state)
  for name, tensor in state.items():
    np.testing.assert_array_equal(read["state"][name].read(), tensor.numpy())
  assert read["size"] == (2, 3) and read["ones"] == [1]
  assert read["dtype"] == ml_dtypes.bfloat16 and read["device"] == "cpu"
  torch.save(model, path)
  refused(path, "asks for code, 'torch.nn.modules.container.Sequential'")
