"""Files of codes: what is read, and what is refused before it is unpacked."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from audiogen_jax.codec import codes_file
from audiogen_jax.codec.codes_file import Codes
from audiogen_jax.core.errors import InputError

GOOD = {
  "codes": np.arange(400, dtype=np.uint16).reshape(1, 4, 100),
  "scales": np.ones(1, np.float32),
  "length": 32_000,
  "sample_rate_hz": 16_000,
}


def test_round_trip(tmp_path):
  path = tmp_path / "a.npz"
  with path.open("wb") as file:
    codes_file.write(file, Codes(**GOOD | {"codes": GOOD["codes"] + 65_000}))
  again = codes_file.read(path)
  np.testing.assert_array_equal(again.codes[0, 0, :3], [65_000, 65_001, 65_002])
  assert (again.length, again.sample_rate_hz) == (32_000, 16_000)


@pytest.mark.parametrize(
  ("name", "value", "words"),
  [
    ("codes", np.zeros((1, 4, 9)), "codes is of type float64"),
    ("codes", np.zeros((4, 9), int), r"shape \(4, 9\)"),
    ("codes", np.zeros((1, 4, 9), bool), "of type bool"),
    ("codes", np.array("2020-01-01", "M8"), "of type datetime64"),
    ("codes", np.array([{}], object), "of type object"),
    ("codes", np.full((1, 4, 9), -1), r"codes lie in \[-1, -1\]"),
    ("codes", np.full((1, 4, 9), 1 << 40), "codes lie in"),
    ("codes", np.zeros((1, 0, 9), int), "codes has 0 values"),
    ("scales", np.ones(3), "1 chunks have 3 scales"),
    ("scales", np.full(1, np.nan), "scales are not finite"),
    ("scales", np.ones(1, int), "scales is of type int"),
    ("length", 0, "0 samples of 1 chunks of 100 frames"),
    ("length", 10**15, "samples of 1 chunks"),
    ("length", 1.5, "length is of type float64"),
    ("sample_rate_hz", np.datetime64("2020-01-01"), "of type datetime64"),
    ("sample_rate_hz", 1 << 62, "sample_rate_hz is 4611686018427387904"),
    ("scales", None, "scales is missing"),
  ],
)
def test_values_that_are_no_codes(tmp_path, name, value, words):
  held = {k: v for k, v in (GOOD | {name: value}).items() if v is not None}
  np.savez(tmp_path / "a.npz", **held)
  words = rf"a.npz holds no codes \(.*{words}.*\); audiogen encode writes them"
  with pytest.raises(InputError, match=words):
    codes_file.read(tmp_path / "a.npz")


def test_little_that_unpacks_to_much(tmp_path):
  header = io.BytesIO()
  much = {"descr": "<u2", "fortran_order": False, "shape": (1, 4, 1 << 27)}
  np.lib.format.write_array_header_1_0(header, much)
  path = tmp_path / "a.npz"
  np.savez_compressed(path, **GOOD)
  with zipfile.ZipFile(path) as old:
    kept = {name: old.read(name) for name in old.namelist()}
  kept["codes.npy"] = header.getvalue() + bytes(1 << 24)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
    for name, data in kept.items():
      new.writestr(name, data)
  del kept
  tracemalloc.start()
  with pytest.raises(InputError, match="codes has 536,870,912 values; at most"):
    codes_file.read(path)
  assert tracemalloc.get_traced_memory()[1] < 1 << 20
  tracemalloc.stop()


def test_damaged_bytes_are_refused_or_read(tmp_path):
  path = tmp_path / "a.npz"
  with path.open("wb") as file:
    codes_file.write(file, Codes(**GOOD))
  whole = path.read_bytes()
  numbers = np.random.default_rng(0)
  for _ in range(400):
    data = bytearray(whole)
    for at in numbers.integers(len(data), size=3):
      data[at] = numbers.integers(256)
    path.write_bytes(bytes(data[: numbers.integers(1, len(data) + 200)]))
    try:
      codes_file.read(path)
    except InputError as error:
      assert len(str(error)) < 400


def test_what_is_no_file(tmp_path):
  with pytest.raises(InputError, match="does not exist"):
    codes_file.read(tmp_path / "a.npz")
  with pytest.raises(InputError, match="is no file"):
    codes_file.read(tmp_path)
