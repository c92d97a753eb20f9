"""Training a vocoder by its command; a very small one, in processes."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import recordings
from signals import noise
from test_codec_training import SHOT, figures
from virtual_pod import keeping

from audiogen_jax.convert import make_an_audio_rooms
from audiogen_jax.data.spec import SoundSpec

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
  "vocoder.filters": 8,
  "vocoder.kernels": "(3,)",
  "vocoder.dilations": "((1,),)",
  "adversary.filters": 2,
  "adversary.periods": "(2,)",
  "adversary.resolutions": "((256,50,120),)",
  "average_every": 1,
  "data.duration_s": 0.1,
  "data.eval_duration_s": 0.1,
  "loop.steps": 10,
  "loop.log_every": 1,
  "loop.eval_every": 10,
  "loop.save_every": 5,
  "loop.samples": 1,
  "mesh.data": 1,
}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
  made = tmp_path_factory.mktemp("made")
  recordings.dataset(
    made / "data",
    [1600] * 24,
    splits=("train", "validation"),
    spec=SoundSpec(16_000),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )

  def run(workdir, *, script=("-m", "audiogen_jax.train"), env=(), **changes):
    settings = SMALL | {"data.folders": made / "data"} | changes
    flags = [f"--config.{k}={v}" for k, v in settings.items()]
    return subprocess.run(
      [sys.executable, *script, "--config=configs/maa_vocoder.py:tiny"]
      + [f"--workdir={workdir}", *flags],
      cwd=ROOT,
      env=os.environ | keeping(made / "cache") | dict(env),
      capture_output=True,
      text=True,
      timeout=500,
    )

  return run


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(train, tmp_path):
  """Bit for bit, the discriminators included."""
  whole, shot = tmp_path / "whole", tmp_path / "shot"
  done = train(whole)
  assert done.returncode == 0, done.stderr
  killed = train(
    shot, script=("-c", SHOT), env={"SIGNAL": str(int(signal.SIGKILL))}
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  done = train(shot)
  assert done.returncode == 0, done.stderr
  assert "going on from step 5" in done.stderr
  assert figures(shot) == figures(whole)
  names = set().union(*figures(whole))
  assert {"train/adv_mpd", "train/feat_mrd", "eval/mel_distance"} <= names
  part = make_an_audio_rooms.read(whole / "export", "vocoder")
  assert part.config.filters == 8
  again = train(whole, **{"vocoder.mel.hop": 128})
  last = again.stderr.splitlines()[-1]
  assert again.returncode == 2 and "a hop of 128" in last
