"""Training of language models: the reference's first steps, and invariants."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import packs
import published
import pytest

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert import audiocraft, opening, torch_file
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh, path_name
from audiogen_jax.core.types import Cond
from audiogen_jax.lm import loss, masks, model
from audiogen_jax.lm.lora import LoRAConfig
from audiogen_jax.lm.model import LM, LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.text import tokenizer
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.train import state as states
from audiogen_jax.train import text_masks
from audiogen_jax.train.lm_sources import TextConfig
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.optimiser import OptimiserConfig


@pytest.fixture(scope="module")
def reference(pack):
  if not (pack / "training.npz").is_file():
    pytest.skip(f"{pack} has no training.npz")
  return packs.arrays(pack / "training.npz")


@pytest.fixture(scope="module")
def task(pack, reference):
  """The released recipe, as the pack was made: a warm-up of two steps."""
  parts = opening.open_parts(pack)
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
    np.testing.assert_allclose(
      *(ours, theirs), rtol=0, atol=1e-3 * np.abs(theirs).max(), err_msg=name
    )


CODEC = EncodecConfig(
  seanet=SEANetConfig(width=6, filters=2, ratios=(3, 2), lstm_layers=1),
  rvq=RVQConfig(codebooks=3, size=24, width=6),
)
RULES = {
  "batch": ("data", "fsdp"),
  "embed": ("fsdp",),
  "heads": ("tensor",),
  "ff": ("tensor",),
  "vocab": ("tensor",),
}


def small(**changes):
  """A model of two layers, with a text encoder trained along."""
  given = dict(
    lm=LMConfig(
      codebooks=3,
      size=24,
      transformer=TransformerConfig(width=32, layers=2, heads=2, ff=48),
      pattern=Pattern("delay"),
      text_width=8,
    ),
    encodec=CODEC,
    cached_codes=True,
    text=TextConfig(
      encoder=T5Config(
        vocabulary=259, width=8, layers=1, heads=2, head_size=4, ff=16
      ),
      trained=True,
      length=10,
    ),
    optim=OptimiserConfig(lr=1e-3, b1=0.9, b2=0.95, weight_decay=0.1, clip=1.0),
    average_every=2,
    dtype="float32",
  )
  return LMTask(**given | changes)


def batches(count=5, rows=8, frames=12):
  draw = np.random.default_rng(0)
  for _ in range(count):
    length = draw.integers(1, 11, rows)
    yield {
      "codes": draw.integers(0, 24, (rows, 3, frames), np.int32),
      "text_ids": draw.integers(3, 259, (rows, 10), np.int32),
      "text_mask": np.arange(10) < length[:, None],
    }


@functools.cache
def fresh():
  """What all start from; compiling this takes longer than the rest."""
  return jax.jit(small().init)(jax.random.key(0))


def start(task):
  """The same for a task that differs in its optimiser, or not at all."""
  state = fresh()
  return state._replace(optimiser=jax.jit(task._tx.init)(state.params))


def trained(task, mesh=None, steps=5):
  """State and metrics after some steps, on one device or a mesh."""
  sizes = {"data": 1, "fsdp": 1, "tensor": 1} | (mesh or {})
  placement = Placement.make(make_mesh(**sizes), RULES)
  key = jax.random.key(0)
  like = jax.eval_shape(task.init, key)
  places = states.shardings(like, task.axes, placement)

  def within(function):
    def call(*arguments):
      with placement.active():
        return function(*arguments)

    return call

  state = jax.device_put(start(task), places)
  step = jax.jit(
    within(task.train_step), out_shardings=(places, placement.sharding())
  )
  told = []
  for i, batch in enumerate(batches(steps)):
    batch = jax.device_put(batch, placement.sharding("batch"))
    state, values = step(state, batch, jax.random.fold_in(key, i))
    told.append(jax.tree.map(float, values))
  return state, told


@pytest.fixture(scope="module")
def one():
  return trained(small())


def close(a, b, rtol=1e-5):
  for mine, theirs in zip(a, b, strict=True):
    for name in mine:
      assert theirs[name] == pytest.approx(mine[name], rel=rtol), name


def test_eight_devices_equal_one(one):
  state, told = trained(small(), {"data": 2, "fsdp": 2, "tensor": 2})
  close(one[1], told)
  kernel = state.params["lm"]["layers"]["up"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape) == (2, 16, 24)
  moments = state.optimiser[1][0].mu["lm"]["layers"]["up"]["kernel"]
  assert moments.sharding == kernel.sharding


def test_accumulated_gradients_equal_the_large_batch(one):
  close(one[1], trained(small(accumulate=4))[1])
  on_mesh = trained(small(accumulate=2), {"data": 2, "fsdp": 2})
  close(one[1], on_mesh[1])


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_nothing(one, remat):
  close(one[1], trained(small(remat=remat))[1])


def test_scanning_changes_nothing():
  """Loss and gradient, layers stacked and apart."""
  task = small()
  params = fresh().params["lm"]
  (batch,) = batches(1)
  steps, shown = loss.steps_of(
    jnp.asarray(batch["codes"]), task.lm.pattern, task.lm.size
  )
  cond = Cond(jnp.ones((8, 10, 32)), jnp.asarray(batch["text_mask"]))

  def of(stacked):
    def value(params):
      lm = LM(task.lm, stacked=stacked)
      mask = masks.causal(steps.shape[2] - 1)
      said = lm.apply({"params": params}, steps[:, :, :-1], cond, mask)
      return jnp.mean(loss.cross_entropy(steps, said, shown))

    return jax.jit(jax.value_and_grad(value))

  apart = model.unstack(dict(params))
  (scanned, whole), (plain, parts) = of(True)(params), of(False)(apart)
  assert float(scanned) == pytest.approx(float(plain), rel=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
    whole,
    model.stack(parts),
  )


def test_what_is_masked_does_not_matter():
  """Padding of texts; the text of a row without one; cells without a code."""
  task = small(text_dropout=0.0)
  state = start(task)
  (batch,) = batches(1)
  step = jax.jit(task.train_step)
  key = jax.random.key(1)
  before = step(state, batch, key)[1]
  other = dict(batch)
  other["text_ids"] = np.where(batch["text_mask"], batch["text_ids"], 7)
  assert float(step(state, other, key)[1]["loss"]) == float(before["loss"])
  # The last frames of delayed codebooks are never fed.
  changed = batch["codes"].copy()
  changed[:, 2, -2:] = (changed[:, 2, -2:] + 1) % 24
  found = step(state, batch | {"codes": changed}, key)[1]
  assert float(found["loss"]) == float(before["loss"])
  changed[:, 2, -3] = (changed[:, 2, -3] + 1) % 24
  found = step(state, batch | {"codes": changed}, key)[1]
  assert float(found["loss"]) != float(before["loss"])


def test_texts_are_dropped():
  mask = jnp.ones((4000, 3), bool)
  keys = jax.random.split(jax.random.key(0), 300)
  kept = text_masks.dropped(mask, keys[0], share=0.25, unit="example")
  assert float(jnp.mean(kept)) == pytest.approx(0.75, abs=0.03)
  assert np.all(kept == kept[:, :1])
  batches = [
    text_masks.dropped(mask[:5], key, share=0.25, unit="batch") for key in keys
  ]
  whole = [bool(each.all()) for each in batches]
  empty = [not bool(each.any()) for each in batches]
  assert all(a != b for a, b in zip(whole, empty, strict=True))
  assert np.mean(empty) == pytest.approx(0.25, abs=0.08)


def test_the_average_is_the_published_one(one):
  """Every second step; unbiased, so that its first is the model itself."""
  task = small()
  step, key = jax.jit(task.train_step), jax.random.key(0)
  state = start(task)
  seen = []
  for i, batch in enumerate(batches(4)):
    state, _ = step(state, batch, jax.random.fold_in(key, i))
    seen.append((state.params["lm"]["embed"], state.average["lm"]["embed"]))
  for own, average in seen[:2]:
    np.testing.assert_allclose(average, own, rtol=1e-6)
  np.testing.assert_array_equal(seen[2][1], seen[1][1])
  share = 1 / 1.99
  want = (1 - share) * seen[1][0] + share * seen[3][0]
  np.testing.assert_allclose(seen[3][1], want, rtol=1e-5, atol=1e-7)


def test_evaluation_sums_what_counts():
  """Rows that fill the last batch do not; entropies are those of the codes."""
  task = small()
  state = start(task)
  (batch,) = batches(1)
  evaluate = jax.jit(task.eval_step)
  some = np.arange(8) < 5
  part = {k: v[:5] for k, v in batch.items()} | {"valid": some[:5]}
  found = task.summary(jax.device_get(evaluate(state, batch | {"valid": some})))
  alone = task.summary(jax.device_get(evaluate(state, part)))
  assert found == pytest.approx(alone, rel=1e-5)
  share = np.bincount(batch["codes"][:5, 1].ravel(), minlength=24) / 60
  entropy = -sum(p * np.log(p) for p in share if p)
  assert found["unigram_1"] == pytest.approx(entropy, rel=1e-6)
  assert found["loss"] == pytest.approx(
    np.mean([found["ce_0"], found["ce_1"], found["ce_2"]])
  )


def test_muon_knows_every_matrix():
  task = small(optim=OptimiserConfig(name="muon", lr=1e-3, b1=0.9, b2=0.95))
  state, told = trained(task, {"data": 2, "fsdp": 2, "tensor": 2}, steps=3)
  assert told[-1]["loss"] < told[0]["loss"]
  names = [
    path_name(path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params["lm"])
    if leaf.ndim > 2 and path_name(path).startswith("layers")
  ]
  assert names and all(
    any(re.fullmatch(rule, name) for rule in model.MATRICES) for name in names
  )


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"text_dropout": 1.0}, "text_dropout 1.0"),
    ({"accumulate": 0}, "accumulate 0"),
    ({"encodec": EncodecConfig()}, "4 codebooks of 2048, the language model 3"),
    ({"text": TextConfig(trained=True)}, "states of 1024, lm.text_width is 8"),
    ({"lora": LoRAConfig(rank=2)}, "give init_from"),
  ],
)
def test_what_cannot_be(changes, said):
  with pytest.raises(InputError, match=said):
    small(**changes).check_parts()


def test_sources_that_are_missing_or_differ(tmp_path):
  with pytest.raises(InputError, match="no codec: give --config.codec"):
    small().opened()
  opening.write_orbax(tmp_path / "codec", published.parts_of(lm=None))
  codec = str(tmp_path / "codec")
  with pytest.raises(InputError, match="writes 4 codebooks of 10"):
    small(codec=codec).opened()
  text = dataclasses.replace(small().text, trained=False)
  with pytest.raises(InputError, match="no text encoder: give"):
    small(codec=codec, text=text).opened()
  with pytest.raises(InputError, match="none does not exist"):
    small(init_from=str(tmp_path / "none")).opened()
  with pytest.raises(InputError, match="has no language model"):
    small(init_from=codec).opened()


def test_batches_and_meshes_that_do_not_divide():
  with pytest.raises(InputError, match="batch 8 does not divide .* = 3"):
    trained(small(accumulate=3), steps=1)
  wide = dataclasses.replace(
    small().lm, transformer=TransformerConfig(width=33 * 2, heads=3, layers=1)
  )
  with pytest.raises(InputError, match="cannot be split over the mesh"):
    trained(small(lm=wide), {"tensor": 2}, steps=1)
  with pytest.raises(InputError, match="3 does not divide the 8 devices"):
    make_mesh(data=3, fsdp=-1)
