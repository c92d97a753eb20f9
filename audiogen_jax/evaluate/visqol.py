"""ViSQOL (Chinen et al., 2020), if its program is there: a listener's mark.

It is built with Bazel and stays a program of its own: github.com/google/visqol.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError

_RATE_HZ = 48_000  # of its audio mode, whatever the rate of the sounds
_PATIENCE_S = 300


class NoMark(Exception):
  """ViSQOL gave a pair no mark: too short, say, or silent."""


class Visqol:
  """Marks pairs of sounds from 1, bad, to about 4.75 (MOS-LQO, audio mode)."""

  def __init__(self, program: str | os.PathLike) -> None:
    # Not resolved: bazel-bin is a link, and the model lies beside the link.
    self._program = Path(os.path.abspath(program))
    if not os.access(self._program, os.X_OK) or self._program.is_dir():
      raise InputError(
        f"{program} is not a program that can be run; --visqol names ViSQOL's"
        " binary, such as visqol/bazel-bin/visqol"
      )

  @classmethod
  def find(cls, program: str | os.PathLike | None = None) -> "Visqol | None":
    """The program given, else `visqol` on PATH, else None."""
    program = program or shutil.which("visqol")
    return None if program is None else cls(program)

  def mark(
    self,
    real: Float[np.ndarray, "n c"],
    fake: Float[np.ndarray, "n c"],
    rate_hz: int,
  ) -> float:
    """The mark of one pair; its authors advise about 8 to 10 s of sound.

    Raises:
      NoMark: If there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
      paths = Path(folder, "reference.wav"), Path(folder, "degraded.wav")
      for path, audio in zip(paths, (real, fake), strict=True):
        audio = io.convert_channels(audio, 1)
        io.write(path, io.resample(audio, rate_hz, _RATE_HZ), _RATE_HZ)
      command = [self._program, "--reference_file", paths[0]]
      command += ["--degraded_file", paths[1]]
      try:
        run = subprocess.run(
          command,
          capture_output=True,
          text=True,
          errors="replace",
          cwd=self._home,
          timeout=_PATIENCE_S,
        )
      except (OSError, subprocess.TimeoutExpired) as error:
        raise NoMark(str(error)) from error
    # Its exit status is 0 even for a pair that it could not mark.
    score = re.search(r"^MOS-LQO:\s*([\d.]+)", run.stdout, re.MULTILINE)
    if score is None:
      lines = (run.stderr or run.stdout).split("\n")
      lines = [line.strip() for line in lines if line.strip()]
      raise NoMark(lines[-1] if lines else f"exit status {run.returncode}")
    return float(score[1])

  @property
  def _home(self) -> Path | None:
    """Where it finds its model: it looks into `model` where it is run."""
    for folder in list(self._program.parents)[:2]:
      if (folder / "model").is_dir():
        return folder
    return None
