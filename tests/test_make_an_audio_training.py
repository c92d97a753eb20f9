"""Training the parts of a Make-An-Audio by their command, in processes."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import recordings
import tiny_make_an_audio as tiny
from signals import noise
from test_codec_training import SHOT, figures
from virtual_pod import keeping

from audiogen_jax.convert import make_an_audio_parts, make_an_audio_rooms
from audiogen_jax.data.spec import SoundSpec

ROOT = pathlib.Path(__file__).parents[1]
ALL = {
  "average_every": 1,
  "data.batch": 4,
  "data.eval_batch": 4,
  "loop.steps": 10,
  "loop.log_every": 1,
  "loop.eval_every": 10,
  "loop.save_every": 5,
  "loop.samples": 1,
  "mesh.data": 1,
}
VOCODER = {
  "vocoder.filters": 8,
  "vocoder.kernels": "(3,)",
  "vocoder.dilations": "((1,),)",
  "adversary.filters": 2,
  "adversary.periods": "(2,)",
  "adversary.resolutions": "((256,50,120),)",
  "data.duration_s": 0.1,
  "data.eval_duration_s": 0.1,
}
AUTOENCODER = {
  "autoencoder.multipliers": "(1,1)",
  "autoencoder.attention": "()",
  "adversary.filters": 2,
  "adversary.layers": 1,
  "adversary.windows": "(8,)",
  "adversary.window_filters": 2,
  "adversary_start": 3,
  "data.duration_s": 0.16,
  "data.eval_duration_s": 0.16,
}
DIFFUSION = {
  "unet.filters": 32,
  "unet.multipliers": "(1,)",
  "unet.attention": "(0,)",
  "scale_batches": 1,
  "data.duration_s": 0.2,
  "data.eval_duration_s": 0.2,
}
KINDS = {
  "vocoder": VOCODER,
  "autoencoder": AUTOENCODER,
  "diffusion": DIFFUSION,
}
# What the kinds measure, and what they leave behind.
MEASURED = {
  "vocoder": {"train/adv_mpd", "train/feat_mrd", "eval/mel_distance"},
  "autoencoder": {"train/adv_patch", "train/r1", "eval/mel_l1"},
  "diffusion": {"train/loss", "eval/loss"},
}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
  made = tmp_path_factory.mktemp("made")
  recordings.dataset(
    made / "data",
    [3200] * 24,
    splits=("train", "validation"),
    spec=SoundSpec(16_000),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )

  make_an_audio_parts.write_orbax(made / "model", tiny.parts(), tiny.words())

  def run(
    kind,
    workdir,
    *,
    script=("-m", "audiogen_jax.train"),
    env=(),
    **changes,
  ):
    settings = ALL | KINDS[kind] | {"data.folders": made / "data"} | changes
    if kind == "diffusion":
      settings["model"] = made / "model"
    flags = [f"--config.{k}={v}" for k, v in settings.items()]
    return subprocess.run(
      [sys.executable, *script, f"--config=configs/maa_{kind}.py:tiny"]
      + [f"--workdir={workdir}", *flags],
      cwd=ROOT,
      env=os.environ | keeping(made / "cache") | dict(env),
      capture_output=True,
      text=True,
      timeout=500,
    )

  return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_is_uninterrupted(train, tmp_path, kind):
  """Bit for bit, discriminators, draws and the scale of latents included."""
  whole, shot = tmp_path / "whole", tmp_path / "shot"
  done = train(kind, whole)
  assert done.returncode == 0, done.stderr
  killed = train(
    kind, shot, script=("-c", SHOT), env={"SIGNAL": str(int(signal.SIGKILL))}
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  done = train(kind, shot)
  assert done.returncode == 0, done.stderr
  assert "going on from step 5" in done.stderr
  assert figures(shot) == figures(whole)
  assert set().union(*figures(whole)) >= MEASURED[kind]
  if kind == "diffusion":
    make_an_audio_parts.open_parts(whole / "export")
    return
  part = make_an_audio_rooms.read(whole / "export", kind)
  assert part.config.filters == {"vocoder": 8, "autoencoder": 32}[kind]
  again = train(kind, whole, **{f"{kind}.mel.hop": 128})
  last = again.stderr.splitlines()[-1]
  assert again.returncode == 2 and "hop" in last
