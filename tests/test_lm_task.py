"""Training of language models: the reference's first steps, and invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.convert import audiocraft, torch_file
from audiogen_jax.convert.engine import Parts
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.text import tokenizer
from audiogen_jax.train.lm_sources import TextConfig
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.optimiser import OptimiserConfig


@pytest.fixture(scope="module")
def reference(pack):
  if not (pack / "training.npz").is_file():
    pytest.skip(f"{pack} has no training.npz")
  return dict(np.load(pack / "training.npz"))


@pytest.fixture(scope="module")
def task(pack, reference):
  """The released recipe, as the pack was made: a warm-up of two steps."""
  from audiogen_jax.convert import sources

  parts = sources.open_parts(pack)
  assert isinstance(parts.lm, LMConfig)
  task = LMTask(
    lm=parts.lm,
    encodec=parts.codec,
    init_from=str(pack),
    cached_codes=True,
    text=TextConfig(encoder=parts.text),
    text_dropout=0.0,
    mask_text_padding=False,
    optim=OptimiserConfig(
      lr=5e-4,
      b1=0.9,
      b2=0.95,
      weight_decay=0.1,
      schedule="inverse_sqrt",
      warmup=2,
      clip=1.0,
    ),
    average_every=0,
    dtype="float32",
  )
  return task.opened()


@pytest.fixture(scope="module")
def steps(task, reference):
  """States after each step, and what the steps say."""
  key = jax.random.key(0)
  state = task.prepare(jax.jit(task.init)(key), iter([]), key)
  texts = [str(text) for text in reference["lm_prompts"]]
  ids, mask = tokenizer.pad(task.tokenizer(), texts)
  step, told = jax.jit(task.train_step), []
  for i in range(3):
    codes = jnp.asarray(reference[f"lm_step{i}/codes"], jnp.int32)
    batch = {"codes": codes, "text_ids": ids, "text_mask": mask}
    state, values = step(state, batch, key)
    told.append(values)
  return state, told


def test_losses_and_norms_of_the_reference(steps, reference):
  for i, ours in enumerate(steps[1]):
    theirs = {
      "loss": reference[f"lm_step{i}/ce"],
      "grad_norm": reference[f"lm_step{i}/grad_norm"],
      "lr": reference[f"lm_step{i}/lr"],
    }
    for k, value in enumerate(reference[f"lm_step{i}/ce_per_codebook"]):
      theirs[f"ce_{k}"] = value
    for name, value in theirs.items():
      assert float(ours[name]) == pytest.approx(float(value), rel=1e-3), name


def test_parameters_of_the_reference(steps, task, reference, tmp_path):
  """After three steps, by way of a checkpoint in the published format."""
  parts = Parts(
    codec=task.encodec,
    codec_tree=steps[0].extra["codec"],
    lm=task.lm,
    lm_tree=steps[0].params["lm"],
    text_name="t5",
  )
  audiocraft.write(tmp_path, parts)
  written = torch_file.read(tmp_path / audiocraft.LM_FILE)["best_state"]
  names = [n for n in reference if n.startswith("lm_after/")]
  assert names
  for name in names:
    theirs = reference[name]
    ours = written[name.partition("/")[2]].read()
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error <= 1e-3, (name, error)
