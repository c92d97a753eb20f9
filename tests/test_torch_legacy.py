"""Files of torch from before 1.6: read like the others, and never obeyed."""

import pickle
import random

import numpy as np
import pytest
from test_torch_file import STAND_IN, WAYS, push, refused, storage, tensors

from audiogen_jax.convert import torch_file, torch_legacy
from audiogen_jax.core import errors

MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}


def tensor(key="7", shape=(2, 3), count=6, view=b"N", kind="FloatStorage"):
  """The instructions for a tensor as torch 1.4 wrote them."""
  held = push("storage") + f"ctorch\n{kind}\n".encode() + push(key)
  held = b"(" + held + push("cpu") + push(count) + view + b"tQ"
  strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
  sizes = push(0) + push(shape) + push(strides)
  hooks = push(False) + STAND_IN + b")R"
  return b"ctorch._utils\n_rebuild_tensor_v2\n(" + held + sizes + hooks + b"tR"


def legacy(path, program, storages=None, keys=None, protocol=1001, **machine):
  """A file with this object and, unless told otherwise, six floats."""
  if storages is None:
    storages = {"7": np.arange(6, dtype="<f4")}
  heads = [protocol, MACHINE | machine]
  data = torch_legacy.START + b"".join(pickle.dumps(h, 2) for h in heads)
  data += b"\x80\x02" + program + b"."
  data += pickle.dumps(list(storages) if keys is None else keys, 2)
  for values in storages.values():
    data += len(values).to_bytes(8, "little") + values.tobytes()
  path.write_bytes(data)
  return path


def items(*pairs):
  body = b"".join(push(name) + program for name, program in pairs)
  return b"}(" + body + b"u"


def test_tensors_of_two_storages(tmp_path):
  long = tensor("9", (2,), 2, kind="LongStorage")
  program = items(("x", tensor()), ("n", long), ("last", tensor(shape=(1, 3))))
  held = {"9": np.array([5, 6]), "7": np.arange(6, dtype="<f4")}
  read = torch_file.read(legacy(tmp_path / "a.pth", program, held))
  assert read["n"].read().tolist() == [5, 6]
  np.testing.assert_array_equal(read["x"].read(), [[0, 1, 2], [3, 4, 5]])
  assert read["last"].start == read["x"].start
  torch_file.write(tmp_path / "b.pth", read)  # in today's format
  again = torch_file.read(tmp_path / "b.pth")
  np.testing.assert_array_equal(again["x"].read(), [[0, 1, 2], [3, 4, 5]])


def test_one_tensor_of_a_file_of_gigabytes(tmp_path):
  path, huge = tmp_path / "a.pth", 5 << 30
  program = items(("big", tensor("1", (huge,), huge, kind="ByteStorage")))
  program = program[:-1] + push("x") + tensor() + b"u"
  legacy(path, program, {}, keys=["1", "7"])
  with open(path, "r+b") as file:
    start = file.seek(0, 2)
    file.write(huge.to_bytes(8, "little"))
    file.seek(start + 8 + huge)  # a hole: takes no room on the disk
    file.write((6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes())
  read = torch_file.read(path)
  assert read["big"].nbytes == huge
  np.testing.assert_array_equal(read["x"].read(), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("way", ["os.system", *WAYS])
def test_nothing_runs(tmp_path, way):
  mark = tmp_path / "mark"
  code = b"cos\nsystem\n(" + push(f"touch {mark}") + b"tR"
  program = code if way == "os.system" else WAYS[way]
  refused(legacy(tmp_path / "a.pth", program, {"0": np.zeros(8, "<f4")}))
  assert not mark.exists()


def test_nothing_runs_beside_the_object(tmp_path):
  code = b"\x80\x02cos\nsystem\n(" + push(f"touch {tmp_path / 'm'}") + b"tR."
  whole = legacy(tmp_path / "a.pth", tensor()).read_bytes()
  protocol, keys = pickle.dumps(1001, 2), pickle.dumps(["7"], 2)
  path = tmp_path / "b.pth"
  for part in (protocol, keys):
    path.write_bytes(whole.replace(part, code))
    refused(path, "asks for code, 'os.system'")
  path.write_bytes(whole.replace(protocol, b"\x80\x02" + storage() + b"."))
  refused(path, "names storage '0' in its head")
  assert not (tmp_path / "m").exists()


WRONG = {
  "two types or sizes": {"program": items(("a", tensor()), ("b", tensor(
    count=7)))},
  "lists 0 storages where its tensors name 1": {"keys": []},
  "lists 2 storages where its tensors name 1": {"keys": ["7", "7"]},
  "lists 1 storages": {"keys": ["8"]},
  "has 5 values where tensors name 6": {
    "storages": {"7": np.zeros(5, "<f8")}
  },
  "bytes; it is cut short or damaged": {"storages": {"7": np.zeros(2, "<f4")}},
  "unknown way": {"program": tensor(view=push(("7", 0, 6)))},
  "its protocol is 1000, not 1001": {"protocol": 1000},
  "its byte order not little": {"little_endian": False},
  "does not fit": {"program": tensor(shape=(3, 3))},
  "impossible size": {"program": tensor(count=-1)},
  "no whole file": {"keys": 5},
}  # fmt: skip


@pytest.mark.parametrize("match", WRONG)
def test_what_does_not_agree_is_refused(tmp_path, match):
  refused(legacy(tmp_path / "a.pth", **{"program": tensor()} | WRONG[match]),
          match)  # fmt: skip


@pytest.mark.parametrize("part", [0, 2, 8, 14, 15, 30, 0.5, 0.8, -30, -8, -1])
def test_a_file_cut_short_is_refused(tmp_path, part):
  whole = legacy(tmp_path / "a.pth", tensor()).read_bytes()
  cut = whole[: int(part * len(whole)) if isinstance(part, float) else part]
  path = tmp_path / "b.pth"
  path.write_bytes(cut)
  refused(path, f"{len(cut)} bytes")


def test_a_length_that_is_claimed_costs_nothing(tmp_path):
  program = b"X" + (2**32 - 1).to_bytes(4, "little")  # a text of 4 GiB
  refused(legacy(tmp_path / "a.pth", program), "no whole file")


def test_flipped_bytes_never_raise_another_error(tmp_path):
  path = legacy(tmp_path / "a.pth", items(("x", tensor()), ("y", push(1.5))))
  data = path.read_bytes()
  draw = random.Random(0)
  outcomes = []
  for _ in range(600):
    damaged = bytearray(data)
    damaged[draw.randrange(len(data))] ^= draw.randrange(1, 256)
    path.write_bytes(damaged)
    try:
      for found in tensors(torch_file.read(path)):
        assert found.read().nbytes == found.nbytes
      outcomes.append("read")
    except errors.InputError as error:
      assert "\n" not in str(error)
      outcomes.append("refused")
  assert outcomes.count("read") > 50 and outcomes.count("refused") > 50


@pytest.mark.torch
def test_reads_what_torch_writes_that_way(tmp_path):
  torch = pytest.importorskip("torch")
  base = torch.arange(24.0).reshape(4, 6)
  saved = {"base": base, "slice": base[1:3, ::2], "long": torch.arange(3)}
  saved |= {"half": base.to(torch.bfloat16), "none": torch.zeros(2, 0)}
  path = tmp_path / "a.pth"
  torch.save(saved, path, _use_new_zipfile_serialization=False)
  read = torch_file.read(path)
  assert list(read) == list(saved)
  for name, expected in saved.items():
    np.testing.assert_array_equal(
      read[name].read().astype(np.float32), expected.float().numpy()
    )
