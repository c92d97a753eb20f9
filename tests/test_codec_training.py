"""Training a codec by its command, as users do; a very small one.

In processes of their own: the checker of shapes makes tracing slow.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import haste
import jax
import numpy as np
import pytest
import recordings
from signals import noise
from virtual_pod import keeping

from audiogen_jax.convert.loading import load_codec
from audiogen_jax.core.checkpoints import Checkpoints
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.train import configuration
from configs import codec_16khz

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 10
SMALL = {
  "encodec.seanet.filters": 2,
  "encodec.seanet.width": 8,
  "encodec.rvq.width": 8,
  "encodec.rvq.size": 16,
  "adversary.filters": 2,
  "adversary.n_ffts": (128, 64),
  "init_batches": 2,
  "optim.lr": 3e-4,  # as released
  "data.duration_s": 0.25,
  "data.eval_duration_s": 0.5,
  "loop.steps": STEPS,
  "loop.log_every": 1,
  "loop.eval_every": STEPS,
  "loop.save_every": 5,
  "loop.samples": 1,
  "mesh.data": 1,
}
# A signal at the eighth step, once the checkpoint of the fifth is written.
SHOT = textwrap.dedent("""
  import os, pathlib, runpy, time
  from audiogen_jax.train import metrics

  scalars = metrics.Log.scalars
  def shoot(self, step, values):
    scalars(self, step, values)
    if step == 8:
      while not (pathlib.Path(self._folder) / "checkpoints" / "5").exists():
        time.sleep(0.01)
      os.kill(os.getpid(), int(os.environ["SIGNAL"]))

  metrics.Log.scalars = shoot
  runpy.run_module("audiogen_jax.train", run_name="__main__")
""")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return recordings.dataset(
    tmp_path_factory.mktemp("data") / "noise",
    [8000] * 24,
    splits=("train", "validation"),
    spec=SoundSpec(16_000),
    make=lambda i, n: np.int16(2**15 * noise(n, 1, scale=0.05, seed=i)),
  )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  """Programs compiled once for all runs of this file."""
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def train(data, cache):
  def run(workdir, *, script=("-m", "audiogen_jax.train"), env=(), **changes):
    settings = SMALL | {"data.folders": data} | changes
    flags = [f"--config.{k}={v}" for k, v in settings.items()]
    return subprocess.run(
      [sys.executable, *script, "--config=configs/codec_16khz.py:tiny"]
      + [f"--workdir={workdir}", *flags],
      cwd=ROOT,
      env=os.environ | keeping(cache) | dict(env),
      capture_output=True,
      text=True,
      timeout=300,
    )

  return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  done = train(folder)
  assert done.returncode == 0, done.stderr
  return folder


def logged(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def figures(folder):
  """All that is logged but times."""
  return [
    {k: v for k, v in x.items() if k != "time" and "speed" not in k}
    for x in logged(folder)
  ]


def state_at(step, folder, data):
  config = codec_16khz.get_config("tiny")
  config.update_from_flattened_dict(SMALL | {"data.folders": str(data)})
  _, task = configuration.parse(config)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    jax.eval_shape(task.init, jax.random.key(0)),
  )
  checkpoints = Checkpoints(folder / "checkpoints", best=task.best)
  try:
    return checkpoints.restore(step, like)[0]
  finally:
    checkpoints.close()


@pytest.mark.slow
def test_it_leaves_a_codec_that_loads(whole):
  codec = load_codec(whole / "export")
  audio = noise(1, 2000, 1)
  assert codec.encode(audio).shape == (1, 4, 7)
  names = set().union(*logged(whole))
  for name in (
    "train/adversary train/adv_msstft train/feat_msstft train/l1 train/msspec"
    " train/commitment train/ratio_l1 train/grad_norm train/codebook_usage_3"
    " train/codebook_perplexity_3 eval/mel_distance eval/si_snr"
    " eval/codebook_usage_3 eval/kbit_per_s speed/step_s"
  ).split():
    assert name in names, names
  assert list(whole.glob("events.out.*"))


@pytest.mark.slow
def test_stopped_and_resumed_is_uninterrupted(train, whole, data, tmp_path):
  """Bit for bit, adversary and codebooks included: killed, then stopped."""
  for number, status, since in (
    (signal.SIGKILL, -signal.SIGKILL, None),
    (signal.SIGTERM, 128 + signal.SIGTERM, 5),
    (None, 0, 9),
  ):
    shot = number and {
      "script": ("-c", SHOT),
      "env": {"SIGNAL": str(int(number))},
    }
    done = train(tmp_path, **(shot or {}))
    assert done.returncode == status, done.stderr
    assert since is None or f"going on from step {since}" in done.stderr
    assert (tmp_path / "export").exists() == (status == 0)
  assert figures(tmp_path) == figures(whole)
  jax.tree.map(
    np.testing.assert_array_equal,
    state_at(STEPS, tmp_path, data),
    state_at(STEPS, whole, data),
  )


@pytest.mark.slow
def test_one_device_equals_eight(train, whole, tmp_path, data):
  """Losses to 1e-5 over five steps, statistics of the codebooks too."""
  done = train(tmp_path, **{"mesh.data": 8, "loop.steps": 5})
  assert done.returncode == 0, done.stderr
  assert "8 cpu (data 8 x fsdp 1 x tensor 1)" in done.stderr
  one, eight = (
    {x["step"]: x for x in figures(f) if "train/l1" in x}
    for f in (whole, tmp_path)
  )
  # Measured: 5e-6 of losses; 4e-6, of 0.23, of the adversarial one, a mean of
  # logits of both signs; 3.5e-5 of norms of gradients and what they divide.
  # Sums in another order are made larger by Adam's first steps, where only
  # signs of gradients matter.
  norms = ("train/grad_norm", "train/loss", "train/ratio_")
  for step in range(1, 6):
    for name, value in one[step].items():
      near = {"rel": 1e-4 if name.startswith(norms) else 1e-5}
      if name == "train/adv_msstft":
        near["abs"] = 1e-5
      assert eight[step][name] == pytest.approx(value, **near), (step, name)
  one, eight = (state_at(5, f, data).extra for f in (whole, tmp_path))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    one,
    eight,
  )


@pytest.mark.slow
def test_another_configuration_is_one_line(train, whole):
  done = train(whole, **{"rvq.decay": 0.5})
  last = done.stderr.splitlines()[-1]
  assert done.returncode == 2 and "rvq.decay is 0.97 there and 0.5" in last
  assert "Traceback" not in done.stderr


_ONE_STEP = textwrap.dedent("""
  import collections, functools, json
  import jax, jax.numpy as jnp, numpy as np
  from audiogen_jax.codec import seanet
  from audiogen_jax.gan import discriminators
  from audiogen_jax.train import configuration, metrics
  from configs import codec_16khz

  passes = collections.Counter()

  def counted(cls, name):
    call = cls.__call__
    @functools.wraps(call)
    def counting(self, *args, **options):
      jax.debug.callback(lambda: passes.update([name]))
      return call(self, *args, **options)
    cls.__call__ = counting

  config = codec_16khz.get_config("tiny")
  config.update_from_flattened_dict(SETTINGS)
  _, task = configuration.parse(config)
  state = jax.jit(task.init)(jax.random.key(0))
  counted(seanet.Encoder, "encoder")
  counted(seanet.Decoder, "decoder")
  counted(discriminators.STFTDiscriminator, "discriminator")
  names = []

  @jax.jit
  def step(*arguments):
    state, values = task.train_step(*arguments)
    names[:] = values  # jit would sort them
    return state, values

  key = jax.random.key(0)
  audio = 0.1 * jax.random.normal(key, (8, 4000, 1))
  finite = lambda tree: all(np.isfinite(x).all() for x in jax.tree.leaves(tree))

  jax.block_until_ready(step(state, {"audio": audio}, key))
  jax.effects_barrier()
  found = {"passes": dict(passes)}
  quiet, values = step(state, {"audio": 0 * audio}, key)
  quiet, more = step(quiet, {"audio": 0 * audio}, key)
  found["silence"] = finite([quiet, values, more])
  _, values = step(state, {"audio": audio.at[3, 7].set(jnp.nan)}, key)
  found["nan"] = metrics.first_not_finite({k: float(values[k]) for k in names})
  print(json.dumps(found))
""")


@pytest.fixture(scope="module")
def one_step():
  settings = {k: v for k, v in SMALL.items() if k != "mesh.data"}
  script = f"SETTINGS = {settings!r}\n{_ONE_STEP}"
  done = subprocess.run(
    [sys.executable, "-c", script],
    # No number is compared: quickly compiled is good enough.
    env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": haste.FLAGS},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_generator_goes_forward_once(one_step):
  """Two scales: of both sounds to learn, of both to be matched."""
  assert one_step["passes"] == {"encoder": 1, "decoder": 1, "discriminator": 8}


@pytest.mark.slow
def test_silence_trains(one_step):
  assert one_step["silence"]


@pytest.mark.slow
def test_a_bad_sample_is_told_from_divergence(one_step):
  assert one_step["nan"] == "input_rms"
