"""AudioGen-medium at its real size, with random weights."""

import math
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import full_size
import jax
import numpy as np
import pytest
from etils import epath

from audiogen_jax.codec import encodec
from audiogen_jax.convert import (
  audiocraft,
  audiocraft_yaml,
  opening,
  seanet,
  torch_file,
)
from audiogen_jax.core import checkpoint
from audiogen_jax.lm import model

_CONVERT = """
import sys
from audiogen_jax.convert import export
export.convert(sys.argv[1], sys.argv[2])
peak = [x for x in open("/proc/self/status") if x.startswith("VmHWM")]
print(int(peak[0].split()[1]) * 1024)
"""


@pytest.fixture
def published(tmp_path):
  """A full-size checkpoint in the published format: 3.7 GB and 0.24 GB."""
  if shutil.disk_usage(tmp_path).free < 9e9:
    pytest.skip("needs 9 GB of free disk")
  parts = opening.Parts(
    encodec.EncodecConfig(), None, model.LMConfig(), text_name="t5-large"
  )
  for name, table, dtype, config in (
    (
      audiocraft.LM_FILE,
      audiocraft.lm_table(parts.lm, "description"),
      np.float16,
      audiocraft_yaml.language_model(parts),
    ),
    (
      audiocraft.CODEC_FILE,
      seanet.table(parts.codec, seanet.AUDIOCRAFT),
      np.float32,
      audiocraft_yaml.codec(parts.codec),
    ),
  ):
    (tmp_path / "in").mkdir(exist_ok=True)
    audiocraft.save(
      tmp_path / "in" / name, full_size.random(table, dtype), config
    )
  yield tmp_path / "in"
  shutil.rmtree(tmp_path)


@pytest.mark.full
@pytest.mark.skipif(
  not Path("/proc/self/status").exists(), reason="peak memory is read on Linux"
)
def test_conversion_stays_within_memory(published):
  target = published.parent / "out"
  size = (published / audiocraft.LM_FILE).stat().st_size
  # 588 tensors in float16; the published file is reported as 3,678,455,287.
  assert size == pytest.approx(3_678_455_287, rel=1e-4)
  done = subprocess.run(
    [sys.executable, "-c", _CONVERT, str(published), str(target)],
    capture_output=True,
    text=True,
    check=True,
  )
  peak = int(done.stdout) / size  # measured: 1.11
  print(f"peak memory: {peak:.3f} times the file of {size:,} bytes")
  assert peak < 1.3, f"peak memory is {peak:.2f} times the file"

  stored = checkpoint.Folder(epath.Path(target / "lm")).abstract()
  sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(stored)]
  assert sum(sizes) == 1_839_131_136
  state = torch_file.read(published / audiocraft.LM_FILE)["best_state"]
  kernel = state["transformer.layers.47.linear1.weight"].read()
  layers = _restore(epath.Path(target / "lm"), stored)["layers"]
  restored = layers["up"]["kernel"]
  assert restored.dtype == np.float16
  np.testing.assert_array_equal(np.asarray(restored[47]), kernel.T)


def _restore(folder, stored):
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return checkpoint.Folder(folder).restore(
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored
    )
  )


_FULL_SIZE = textwrap.dedent("""
  import resource, sys
  import jax, jax.numpy as jnp
  from audiogen_jax.train.codec_task import CodecTask

  task = CodecTask()
  state = jax.jit(task.init)(jax.random.key(0))
  audio = jnp.zeros((4, 16_000, 1))
  step = jax.jit(task.train_step, donate_argnums=0)
  for _ in range(2):
    state, values = step(state, {"audio": audio}, jax.random.key(1))
    jax.block_until_ready(state)
  print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
""")


@pytest.mark.full
def test_memory_of_a_step_of_the_codec():
  """Four rows of a second; of the whole process, compiler included."""
  done = subprocess.run(
    [sys.executable, "-c", _FULL_SIZE],
    env=os.environ | {"XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  assert float(done.stdout) < 8  # GiB
