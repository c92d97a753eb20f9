"""Sounds that training lets one hear: few rows, and nothing gathered for them.

What a mesh does to a model's weights for them is read from the compiled
program.
"""

import dataclasses

import jax
import numpy as np
import pytest

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core.sharding import Placement, make_mesh, path_name
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.plan.hlo import Program
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.lm_sources import TextConfig
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.programs import Programs

ROWS, FRAMES = 8, 4
CODEC = EncodecConfig(
  seanet=SEANetConfig(width=6, filters=2, ratios=(3, 2), lstm_layers=1),
  rvq=RVQConfig(codebooks=2, size=24, width=6),
)
LM_TASK = LMTask(
  lm=LMConfig(
    codebooks=2,
    size=24,
    transformer=TransformerConfig(width=64, layers=2, heads=2, ff=256),
    pattern=dataclasses.replace(LMConfig().pattern, delays=(0, 1)),
    text_width=8,
  ),
  encodec=CODEC,
  text=TextConfig(
    encoder=T5Config(
      vocabulary=99, width=8, layers=1, heads=2, head_size=4, ff=16
    ),
    trained=True,
    length=6,
  ),
  dtype="float32",
)
CODEC_TASK = CodecTask(encodec=CODEC, adversary=DiscriminatorConfig(kinds=()))
RULES = {
  "batch": ("data", "fsdp"),
  "embed": ("fsdp",),
  "heads": ("tensor",),
  "ff": ("tensor",),
  "vocab": ("tensor",),
}
MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def filled(like):
  """A state of such shapes, full of numbers; drawing real ones takes longer."""
  numbers = np.random.default_rng(0)

  def draw(path, leaf):
    name = path_name(path)
    # Large biases, and entries far from the latents, would give all rows the
    # same codes.
    scale = 0.1 if name.endswith("bias") or "codebooks" in name else 1.0
    return numbers.normal(0, scale, leaf.shape).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, like)


def batch_of(task):
  numbers = np.random.default_rng(0)
  samples = FRAMES * CODEC.hop
  made = {"audio": numbers.normal(0, 1, (ROWS, samples, 1))}
  made["audio"] = made["audio"].astype(np.float32)
  if "text_ids" in task.batch_spec(ROWS, 1.0):
    length = numbers.integers(1, 7, ROWS)
    made["text_ids"] = numbers.integers(3, 99, (ROWS, 6), np.int32)
    made["text_mask"] = np.arange(6) < length[:, None]
  return made | {"valid": np.ones(ROWS, bool)}


def heard(task, count, **mesh):
  """Sounds of the first rows, and the program that made them."""
  sizes = {"data": 1, "fsdp": 1, "tensor": 1} | mesh
  rules = RULES if task is not CODEC_TASK else {"batch": RULES["batch"]}
  placement = Placement.make(make_mesh(**sizes), rules)
  programs = Programs(task, placement, 0, count)
  state = jax.device_put(filled(programs.like), programs.places)
  batch = jax.device_put(batch_of(task), placement.sharding("batch"))
  compiled = programs.samples.lower(state, batch).compile()
  return jax.device_get(compiled(state, batch)), compiled


@pytest.fixture(scope="module")
def alone():
  """All rows, on one device, as they were once made for every evaluation."""
  return {task: heard(task, ROWS)[0] for task in (LM_TASK, CODEC_TASK)}


@pytest.mark.slow
@pytest.mark.parametrize("task", [LM_TASK, CODEC_TASK], ids=["lm", "codec"])
def test_eight_devices_make_the_first_rows_of_one(alone, task):
  found, compiled = heard(task, 3, **MESH)
  for name, rows in alone[task].items():
    assert found[name].shape == (3, FRAMES * CODEC.hop, 1)
    assert float(np.std(rows)) > 0 and np.isfinite(rows).all()
    assert not np.array_equal(rows[0], rows[1])  # or little was tested
    # Measured: no difference; parts of a product may be summed otherwise.
    np.testing.assert_allclose(found[name], rows[:3], atol=2e-6)
  if task is LM_TASK:
    gathers_little(compiled)


def gathers_little(compiled):
  """All that is gathered, over all steps, is less than one kernel."""
  traffic = Program(compiled.as_text()).work().traffic
  t = LM_TASK.lm.transformer
  # Measured: 30,360 bytes; with rows split over the mesh 288,920.
  assert traffic["all-gather"] < 4 * t.width * t.ff
