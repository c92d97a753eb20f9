"""MAGNeT's first training steps against the published solver's."""

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest

from audiogen_jax.convert import audiocraft, opening, torch_file
from audiogen_jax.convert.opening import Parts
from audiogen_jax.lm import masked_training
from audiogen_jax.text import tokenizer
from audiogen_jax.train.lm_sources import TextConfig
from audiogen_jax.train.masked_task import MaskedTask
from audiogen_jax.train.optimiser import OptimiserConfig


@pytest.fixture(scope="module")
def want(magnet_pack):
  return packs.arrays(magnet_pack / "expected.npz")


@pytest.fixture(scope="module")
def count(want):
  return len({k.split("/")[0] for k in want if k.startswith("train_step")})


@pytest.fixture(scope="module")
def task(magnet_pack):
  """The published recipe, as the pack was made: a warm-up of two steps."""
  parts = opening.open_parts(
    magnet_pack, family=opening.MASKED, text_encoder=magnet_pack / "t5"
  )
  task = MaskedTask(
    lm=parts.lm,
    encodec=parts.codec,
    init_from=str(magnet_pack),
    cached_codes=True,
    text=TextConfig(encoder=parts.text, source=str(magnet_pack / "t5")),
    text_dropout=0.0,
    mask_text_padding=False,
    masking=parts.masking,
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


def hidden_of(want, i, span):
  angle = want[f"train_step{i}/uniform_rate"] * np.pi / 2
  order = jnp.asarray(want[f"train_step{i}/uniform_rank"])
  return masked_training.hidden_frames(jnp.cos(angle), order, span)


def test_how_many_spans_hide_a_share(want):
  tables = [name for name in want if name.startswith("rate_to_spans/")]
  assert tables
  for name in tables:
    frames, span = (int(x[1:]) for x in name.split("/")[1].split("_"))
    ours = masked_training.spans_for_rates(frames, span)
    np.testing.assert_array_equal(ours, want[name])


def test_masks_and_inputs(want, task, count):
  for i in range(count):
    codes = jnp.asarray(want[f"train_step{i}/codes"], jnp.int32)
    book = jnp.int32(want[f"train_step{i}/stage"])
    hidden = hidden_of(want, i, task.masking.span)
    np.testing.assert_array_equal(hidden, want[f"train_step{i}/mask"])
    ours = masked_training.example(codes, book, hidden, task.lm.size)
    np.testing.assert_array_equal(ours.steps, want[f"train_step{i}/input"])


@pytest.fixture(scope="module")
def trained(task, want, count):
  """The state after all steps, and what each said."""
  key = jax.random.key(0)
  state = task.prepare(jax.jit(task.init)(key), iter([]), key)
  ids, mask = tokenizer.pad(
    task.tokenizer(), [str(text) for text in want["train_prompts"]]
  )

  def step(state, batch, book, hidden):
    with pytest.MonkeyPatch.context() as patched:
      patched.setattr(
        masked_training,
        "drawn",
        lambda codes, key, *, span, special: masked_training.example(
          codes, book, hidden, special
        ),
      )
      return task.train_step(state, batch, key)

  step, said = jax.jit(step), []
  for i in range(count):
    codes = jnp.asarray(want[f"train_step{i}/codes"], jnp.int32)
    batch = {"codes": codes, "text_ids": ids, "text_mask": mask}
    book = jnp.int32(want[f"train_step{i}/stage"])
    hidden = hidden_of(want, i, task.masking.span)
    state, values = step(state, batch, book, hidden)
    said.append(values)
  return state, said


def test_losses_and_norms(trained, want):
  for i, ours in enumerate(trained[1]):
    for name, theirs, rtol in (
      ("loss", "ce", 1e-5),
      ("grad_norm", "grad_norm", 1e-3),
      ("lr", "lr", 1e-6),
    ):
      value = float(want[f"train_step{i}/{theirs}"])
      assert float(ours[name]) == pytest.approx(value, rel=rtol), (i, name)


def test_parameters_after_all_steps(trained, task, want, tmp_path):
  """By way of a checkpoint in the published format."""
  parts = Parts(
    codec=task.encodec,
    codec_tree=trained[0].extra["codec"],
    lm=task.lm,
    lm_tree=trained[0].params["lm"],
    text_name="t5",
    masking=task.masking,
  )
  audiocraft.write(tmp_path, parts)
  written = torch_file.read(tmp_path / audiocraft.LM_FILE)["best_state"]
  names = [n for n in want if n.startswith("train_after/")]
  assert names
  for name in names:
    theirs = want[name]
    ours = written[name.partition("/")[2]].read()
    np.testing.assert_allclose(
      *(ours, theirs), rtol=0, atol=1e-3 * np.abs(theirs).max(), err_msg=name
    )
