"""What a run tells, and that a kill loses no more than a line."""

import json
import sys
import tempfile

import numpy as np
import pytest
from etils import epath
from tensorboardX.proto import event_pb2

from audiogen_jax.core.errors import InputError
from audiogen_jax.train import metrics
from audiogen_jax.train.metrics import Log


def lines_of(folder):
  text = (folder / metrics.LINES).read_text()
  return [json.loads(line) for line in text.splitlines()]


def events_of(folder):
  """TensorBoard's records: length, checksum, event, checksum."""
  found = []
  for path in sorted(folder.glob("events.out.*")):
    data = path.read_bytes()
    while data:
      size = int.from_bytes(data[:8], "little")
      found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
      data = data[16 + size :]
  return [(e.step, value) for e in found for value in e.summary.value]


def test_what_is_written(tmp_path):
  sound = np.sin(np.arange(400) / 5, dtype=np.float32).reshape(1, 400, 1) * 2
  picture = np.zeros((1, 4, 6, 3), np.uint8)
  with Log(tmp_path) as log:
    log.scalars(3, {"train/loss": 0.5})
    log.audio(3, {"original": sound}, 100)
    log.images(3, {"original": picture})
  (line,) = lines_of(tmp_path)
  assert (line["step"], line["train/loss"]) == (3, 0.5) and line["time"] > 0
  events = {value.tag: (step, value) for step, value in events_of(tmp_path)}
  step, scalar = events["train/loss"]
  assert (step, scalar.simple_value) == (3, 0.5)
  audio = events["original/0"]
  tags = [value.tag for _, value in events_of(tmp_path)]
  # One tag for both, and TensorBoard would show no picture.
  assert len(tags) == len(set(tags)) == 3 and audio[0] == 3
  assert events["original_spectrogram/0"][1].HasField("image")
  clips = [v.audio for _, v in events_of(tmp_path) if v.HasField("audio")]
  assert clips[0].sample_rate == 100 and clips[0].length_frames == 400


def test_another_process_writes_nothing(tmp_path):
  with Log(tmp_path, primary=False) as log:
    log.scalars(1, {"loss": 1.0})
    log.audio(1, {"a": np.zeros((1, 10, 1))}, 100)
    log.images(1, {"a": np.zeros((1, 2, 2, 3), np.uint8)})
    log.flush()
  assert not list(tmp_path.iterdir())


def test_going_on_drops_what_will_come_again(tmp_path):
  with Log(tmp_path) as log:
    for step in (2, 4, 6):
      log.scalars(step, {"loss": float(step)})
  with (tmp_path / metrics.LINES).open("a") as file:
    file.write('{"step": 8, "lo')  # killed while it wrote
  with Log(tmp_path, step=4) as log:
    log.scalars(6, {"loss": 7.0})
  assert [(x["step"], x["loss"]) for x in lines_of(tmp_path)] == [
    (2, 2.0),
    (4, 4.0),
    (6, 7.0),
  ]


def test_a_new_run_begins_with_an_empty_log(tmp_path):
  """One that was killed before its first checkpoint starts from nothing."""
  with Log(tmp_path) as log:
    log.scalars(2, {"loss": 1.0})
  with Log(tmp_path) as log:
    log.scalars(2, {"loss": 3.0})
  assert [x["loss"] for x in lines_of(tmp_path)] == [3.0]


def test_weights_and_biases_is_optional(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(InputError, match=r"pip install 'audiogen_jax\[wandb\]'"):
    Log(tmp_path, wandb_project="sounds")


class Board:
  """Stands for Weights & Biases, which wants a server or half a minute."""

  def __init__(self):
    self.begun, self.told, self.util = [], [], self

  def generate_id(self):
    return f"id{len(self.begun)}"

  def init(self, **options):
    self.begun.append(options)
    return self

  def log(self, values, step):
    self.told.append((step, values))

  def finish(self):
    self.told.append("end")


def test_weights_and_biases_goes_on_with_its_run(tmp_path, monkeypatch):
  board = Board()
  monkeypatch.setitem(sys.modules, "wandb", board)
  for step in (0, 3):
    with Log(
      tmp_path, step=step, wandb_project="sounds", config={"lr": 1}
    ) as log:
      log.scalars(step + 1, {"loss": 2.0})
  assert board.told[0] == (1, {"loss": 2.0}) and board.told.count("end") == 2
  assert [begun["id"] for begun in board.begun] == ["id0", "id0"]
  assert board.begun[0]["config"] == {"lr": 1}


def test_weights_and_biases_knows_a_killed_run_of_a_bucket(
  tmp_path, monkeypatch
):
  """Its logs have not been copied there, its id has."""
  board, bucket = Board(), epath.Path(tmp_path / "bucket")
  bucket.mkdir()
  monkeypatch.setitem(sys.modules, "wandb", board)
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  monkeypatch.setattr(metrics.epath, "Path", lambda _: bucket)
  logs = [Log("gs://bucket", wandb_project="sounds") for _ in range(2)]
  assert not (bucket / metrics.LINES).exists()
  assert [begun["id"] for begun in board.begun] == ["id0", "id0"]
  for log in logs:
    log.close()


def test_a_line_for_people():
  line = metrics.progress_line(
    1500,
    20000,
    {"loss": 0.123456, "l1": 3.0},
    steps_per_s=2.5,
    batch=64,
    flops=2e12,
  )
  assert line == (
    "1,500/20,000  loss 0.1235  l1 3  400 ms  160.0 ex/s  5 TFLOP/s"
    "  2:03:20 left"
  )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_that_is_not_finite(bad):
  assert metrics.first_not_finite({"a": 1.0, "b": bad, "c": bad}) == "b"
  assert metrics.first_not_finite({"a": 1.0}) is None


def test_the_clock_can_be_set_back(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
  rate = metrics.Rate(10)
  now[0] = 5.0
  assert rate.take(20) == 2
  now[0] = 100.0  # an evaluation
  rate.resume()
  now[0] = 101.0
  assert rate.take(24) == 4
