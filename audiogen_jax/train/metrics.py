"""What a run tells: a line to read, JSON lines, TensorBoard, Weights & Biases.

TensorBoard's files are written by tensorboardX, in a thread of its own.  CLU's
writers would do the same, but importing them (0.0.12) needs TensorFlow.
"""

import dataclasses
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from audiogen_jax.core.errors import InputError

LINES = "metrics.jsonl"
_WANDB_ID = "wandb_id"


class Log:
  """The logs of a run, written by its first process alone.

  Into a bucket they are copied at every `flush`.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    *,
    primary: bool = True,
    step: int = 0,
    wandb_project: str | None = None,
    config: Mapping[str, Any] | None = None,
  ) -> None:
    """Opens the logs of a new run, or of one that goes on.

    Args:
      folder: The work folder.
      primary: Whether this process writes at all.
      step: From which the run goes on: lines of later steps, which a killed
        run had written, are dropped.
      wandb_project: For Weights & Biases, too.
      config: What Weights & Biases is told of the run.

    Raises:
      InputError: If Weights & Biases is asked for and not installed.
    """
    self._primary, self._folder = primary, epath.Path(folder)
    if not primary:
      return
    self._remote = "://" in str(folder)
    self._local = Path(tempfile.mkdtemp() if self._remote else folder)
    # It imports PyTorch where there is one: two seconds, for those who train.
    import tensorboardX

    lines = self._local / LINES
    if self._remote and (self._folder / LINES).exists():
      lines.write_bytes((self._folder / LINES).read_bytes())
    self._wandb = _wandb(wandb_project, self._folder, self._local, config)
    _drop_after(lines, step)
    self._lines = lines.open("a", encoding="utf-8")
    self._board = tensorboardX.SummaryWriter(
      str(self._local), purge_step=step + 1 if step else None
    )

  def __enter__(self) -> "Log":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Logs numbers, as they stand after `step` updates."""
    if not self._primary:
      return
    line = {"step": step, "time": time.time()} | dict(values)
    self._lines.write(json.dumps(line) + "\n")
    self._lines.flush()
    for name, value in values.items():
      self._board.add_scalar(name, value, step)
    if self._wandb:
      self._wandb.log(dict(values), step=step)

  def audio(
    self, step: int, sounds: Mapping[str, Float[np.ndarray, "b n c"]], rate: int
  ) -> None:
    """Logs sounds at `rate` Hz; samples beyond ±1 are clipped."""
    if not self._primary:
      return
    for name, rows in sounds.items():
      for i, row in enumerate(rows):
        row = np.clip(row, -1, 1)
        self._board.add_audio(f"{name}/{i}", row, step, sample_rate=rate)

  def images(
    self, step: int, pictures: Mapping[str, UInt8[np.ndarray, "b h w 3"]]
  ) -> None:
    """Logs pictures, such as spectrograms, under `NAME_spectrogram`."""
    if not self._primary:
      return
    for name, rows in pictures.items():
      for i, row in enumerate(rows):
        # Beside a sound of the same tag TensorBoard would show neither.
        tag = f"{name}_spectrogram/{i}"
        self._board.add_image(tag, row, step, dataformats="HWC")

  def flush(self) -> None:
    """Writes everything logged so far to the disk, or to the bucket."""
    if not self._primary:
      return
    self._board.flush()
    if self._remote:
      for path in self._local.iterdir():
        if path.is_file():
          (self._folder / path.name).write_bytes(path.read_bytes())

  def close(self) -> None:
    """Ends all writers."""
    if not self._primary:
      return
    self._board.close()
    self.flush()
    self._lines.close()
    if self._wandb:
      self._wandb.finish()
    if self._remote:
      shutil.rmtree(self._local)


def _drop_after(path: Path, step: int) -> None:
  """Removes lines of later steps, and one that a kill has torn."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      if json.loads(line)["step"] <= step and step:
        kept.append(line + "\n")
    except ValueError:
      continue
  part = path.with_suffix(".tmp")
  part.write_text("".join(kept), encoding="utf-8")
  part.replace(path)


def _wandb(
  project: str | None, folder: epath.Path, local: Path, config: Mapping | None
) -> Any:
  """A run of Weights & Biases, resumed if the work folder has one; or None.

  Its id lies in `folder`, the work folder, from the start and not from the
  first `flush`: a run that is killed before is resumed, too.
  """
  if not project:
    return None
  try:
    import wandb
  except ImportError:
    raise InputError(
      "loop.wandb_project is set, but Weights & Biases is not installed; pip"
      " install 'audiogen_jax[wandb]'"
    ) from None
  name = folder / _WANDB_ID
  if not name.exists():
    name.write_text(wandb.util.generate_id())
  return wandb.init(
    project=project,
    id=name.read_text(),
    resume="allow",
    dir=str(local),
    config=dict(config or {}),
  )


def first_not_finite(values: Mapping[str, float]) -> str | None:
  """The name of the first value that is NaN or infinite."""
  bad = (name for name, value in values.items() if not math.isfinite(value))
  return next(bad, None)


@dataclasses.dataclass
class Rate:
  """How fast steps go by, without what the clock is paused for.

  Attributes:
    step: At which the clock was last read.
  """

  step: int
  _since: float = dataclasses.field(default_factory=lambda: time.perf_counter())

  def take(self, step: int) -> float | None:
    """Steps a second since the clock was last read; None where none passed."""
    now = time.perf_counter()
    passed, done = now - self._since, step - self.step
    self.step, self._since = step, now
    return done / max(passed, 1e-9) if done else None

  def resume(self) -> None:
    """Restarts the clock: the time since it was last read does not count."""
    self._since = time.perf_counter()


def progress_line(
  step: int,
  steps: int,
  values: Mapping[str, float],
  *,
  steps_per_s: float | None,
  batch: int,
  flops: float,
) -> str:
  """One line about a run, to be read by a person.

  Args:
    step: Done.
    steps: In all.
    values: The metrics; the first few are shown.
    steps_per_s: Since the last line; None where that is not known.
    batch: Rows of a step.
    flops: Floating-point operations of a step; 0 if they are not known.
  """
  shown = "  ".join(f"{k} {v:.4g}" for k, v in list(values.items())[:6])
  if steps_per_s is None:
    return f"{step:,}/{steps:,}  {shown}"
  left = int((steps - step) / steps_per_s)
  clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
  work = f"  {_flops(flops * steps_per_s)}" if flops else ""
  return (
    f"{step:,}/{steps:,}  {shown}  {1000 / steps_per_s:,.0f} ms"
    f"  {batch * steps_per_s:,.1f} ex/s{work}  {clock} left"
  )


def _flops(per_second: float) -> str:
  for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
    if per_second >= size:
      return f"{per_second / size:.3g} {unit}FLOP/s"
  return f"{per_second / 1e6:.3g} MFLOP/s"
