"""A dataset of which something is missing, cut or changed: one line says so."""

import json
import shutil

import numpy as np
import pytest
from recordings import SPEC, dataset

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import summary
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.rows import LoaderConfig

NAMES = ("dataset_info.json", "features.json", "metadata.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole") / "sounds"
  dataset(folder, range(200, 240), splits=("train",), spec=SPEC)
  return folder


def cut(data):
  return data[: len(data) // 2]


def flip(data):
  """Bytes of the middle, where records are, turned over."""
  middle = slice(len(data) // 3, 2 * len(data) // 3)
  return data[: middle.start] + bytes(255 - b for b in data[middle]) + data[
    middle.stop :
  ]  # fmt: skip


def other_type(data):
  """All values of a JSON object, as numbers."""
  return json.dumps(dict.fromkeys(json.loads(data), 5)).encode()


DAMAGES = {
  "gone": None,
  "empty": lambda data: b"",
  "cut": cut,
  "flipped": flip,
  "zeros": lambda data: bytes(len(data)),
  "list": lambda data: b"[]",
  "null": lambda data: b"null",
  "object": lambda data: b"{}",
  "types": other_type,
  "nested": lambda data: b"[" * 50_000,
}
CASES = [
  (name, damage)
  for name in (*NAMES, "*.array_record-00000*")
  for damage in DAMAGES
  if not (name[0] == "*" and damage in ("list", "null", "types", "nested"))
]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_one_line_for_each(whole, tmp_path, name, damage):
  folder = tmp_path / "a"
  shutil.copytree(whole, folder)
  (path,) = folder.glob(name)
  data = path.read_bytes()
  path.unlink()
  if DAMAGES[damage] is not None:
    path.write_bytes(DAMAGES[damage](data))
  calls = (
    lambda: summary.summarise(folder),
    lambda: list(read(folder)),
  )
  for call in calls:
    with pytest.raises(InputError) as raised:
      call()
    error = str(raised.value)
    assert len(error) < 700 and "\n" not in error and str(folder) in error


def read(folder):
  config = LoaderConfig(batch=8, duration_s=0.01, mix=None, epochs=1, workers=0)
  loader = Loader([Part(str(folder))], config)
  for batch in loader.batches():
    yield np.asarray(batch["audio"])


def test_the_whole_one_is_read(whole):
  assert len(list(read(whole))) == 5
