"""Training of a masked model: what holds whatever the published solver does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import audiogen_jax as ag
from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert import opening
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.lm import masked_training
from audiogen_jax.lm.masked_sampling import MaskedSampling, Masking
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.text import tokenizer
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.train import configuration
from audiogen_jax.train import state as states
from audiogen_jax.train.lm_sources import TextConfig
from audiogen_jax.train.masked_task import MaskedTask
from audiogen_jax.train.optimiser import OptimiserConfig

BOOKS, SIZE, FRAMES = 3, 24, 12
RULES = {"batch": ("data", "fsdp"), "embed": ("fsdp",), "heads": ("tensor",)}
RULES |= {"ff": ("tensor",), "vocab": ("tensor",)}


def small(**changes):
  given = dict(
    lm=LMConfig(
      codebooks=BOOKS,
      size=SIZE,
      transformer=TransformerConfig(width=32, layers=2, heads=2, ff=48),
      pattern=Pattern("parallel"),
      text_width=8,
    ),
    encodec=EncodecConfig(
      seanet=SEANetConfig(width=6, filters=2, ratios=(3, 2), lstm_layers=1),
      rvq=RVQConfig(codebooks=BOOKS, size=SIZE, width=6),
    ),
    cached_codes=True,
    text=TextConfig(
      encoder=T5Config(
        vocabulary=259, width=8, layers=1, heads=2, head_size=4, ff=16
      ),
      trained=True,
      length=10,
    ),
    masking=Masking(
      context=2, span=3, sampling=MaskedSampling(decoding_steps=(3, 2, 2))
    ),
    optim=OptimiserConfig(lr=1e-3, clip=1.0),
    average_every=2,
    dtype="float32",
  )
  return MaskedTask(**given | changes)


def batches(count, rows=8):
  draw = np.random.default_rng(0)
  for _ in range(count):
    length = draw.integers(1, 11, rows)
    yield {
      "codes": draw.integers(0, SIZE, (rows, BOOKS, FRAMES), np.int32),
      "text_ids": draw.integers(3, 259, (rows, 10), np.int32),
      "text_mask": np.arange(10) < length[:, None],
    }


@functools.cache
def fresh():
  return jax.jit(small().init)(jax.random.key(0))


def trained(task, mesh=None, steps=3):
  sizes = {"data": 1, "fsdp": 1, "tensor": 1} | (mesh or {})
  placement = Placement.make(make_mesh(**sizes), RULES)
  places = states.shardings(fresh(), task.axes, placement)

  def within(*arguments):
    with placement.active():
      return task.train_step(*arguments)

  step = jax.jit(within, out_shardings=(places, placement.sharding()))
  state, losses = jax.device_put(fresh(), places), []
  for i, batch in enumerate(batches(steps)):
    batch = jax.device_put(batch, placement.sharding("batch"))
    key = jax.random.fold_in(jax.random.key(0), i)
    state, values = step(state, batch, key)
    losses.append(float(values["loss"]))
  return state, losses


def test_eight_devices_equal_one():
  alone, losses = trained(small())
  spread, others = trained(small(), {"data": 2, "fsdp": 2, "tensor": 2})
  np.testing.assert_allclose(others, losses, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    jax.device_get(spread.params["lm"]),
    jax.device_get(alone.params["lm"]),
  )


def test_only_what_is_hidden_and_before_is_read():
  """Neither the hidden codes, nor later codebooks, nor rows past their end."""
  codes = jnp.asarray(next(batches(1))["codes"])
  book = jnp.int32(1)
  hidden = jnp.zeros((8, FRAMES), bool).at[:, 3:6].set(True)
  codes = codes.at[0, :, 5:].set(SIZE)  # a row that has ended
  one = masked_training.example(codes, book, hidden, SIZE)
  other = codes.at[:, 1, 3:6].set(0).at[:, 2].set(0)
  two = masked_training.example(other, book, hidden, SIZE)
  np.testing.assert_array_equal(one.steps, two.steps)
  assert np.all(one.steps[:, 2] == SIZE) and np.all(
    one.steps[:, 0] == codes[:, 0]
  )
  assert not np.any(one.hidden[0, 5:]) and np.all(one.hidden[0, 3:5])


@pytest.mark.parametrize("span", [1, 3])
def test_as_much_is_hidden_as_asked_for(span):
  rows, frames = 400, 100
  order = jax.random.uniform(jax.random.key(0), (rows, frames))
  for rate in (0.1, 0.5, 0.9):
    hidden = masked_training.hidden_frames(jnp.full(rows, rate), order, span)
    share = float(jnp.mean(hidden))
    # Spans are counted so that they hide as much or a little more on average.
    assert rate - 0.01 <= share <= rate + 0.02, (rate, share)
  least = masked_training.hidden_frames(jnp.zeros(rows), order, span)
  assert np.all(np.sum(least, axis=1) >= 1)
  assert np.all(np.sum(least, axis=1) <= span)


def test_each_step_draws_another_codebook_and_other_spans():
  codes = jnp.asarray(next(batches(1))["codes"])
  draw = functools.partial(masked_training.drawn, span=3, special=SIZE)
  drawn = [draw(codes, jax.random.key(i)) for i in range(30)]
  assert {int(each.book[0]) for each in drawn} == set(range(BOOKS))
  assert all(len(set(each.book.tolist())) == 1 for each in drawn)
  shares = {float(jnp.mean(each.hidden)) for each in drawn}
  assert len(shares) > 10
  rows = np.asarray(drawn[0].hidden)
  assert len({row.tobytes() for row in rows}) > 1


def test_evaluation_counts_valid_rows_and_every_codebook():
  task, state = small(), fresh()
  (batch,) = batches(1)
  evaluate = jax.jit(task.eval_step)
  valid = np.arange(8) < 5
  sums = evaluate(state, batch | {"valid": valid})
  again = batch | {"valid": valid}
  again["codes"] = batch["codes"].copy()
  again["codes"][5:] = 0
  jax.tree.map(np.testing.assert_array_equal, sums, evaluate(state, again))
  figures = task.summary(jax.device_get(sums))
  assert {f"ce_{k}" for k in range(BOOKS)} <= figures.keys()
  # Nothing has been learnt: about the log of the number of entries; 0.44 more.
  assert figures["loss"] == pytest.approx(np.log(SIZE), abs=1.5)
  assert figures["unigram_0"] <= np.log(SIZE) + 1e-6


def test_it_learns():
  """One batch again and again."""
  task, state = small(optim=OptimiserConfig(lr=1e-2, clip=1.0)), fresh()
  (batch,) = batches(1, rows=4)
  batch = jax.tree.map(jnp.asarray, batch | {"valid": np.ones(4, bool)})
  step, evaluate = jax.jit(task.train_step), jax.jit(task.eval_step)
  losses = []
  for i in range(60):
    if i in (0, 59):
      sums = jax.device_get(evaluate(state, batch))
      losses.append(task.summary(sums)["loss"])
    state, _ = step(state, batch, jax.random.key(i))
  assert losses[1] < losses[0] - 0.5, losses


def test_from_training_to_sounds(tmp_path):
  """Samples in the loop, then an export that the family's page opens."""
  task, state = small(), fresh()
  codec = encodec.init(task.encodec, jax.random.key(1))
  state = state._replace(extra=state.extra | {"codec": codec})
  (batch,) = batches(1, rows=2)
  sounds = jax.jit(task.samples)(state, batch)["generated"]
  assert sounds.shape == (2, FRAMES * 6, 1)
  assert np.all(np.isfinite(sounds))
  with pytest.MonkeyPatch.context() as patched:
    # Without a codec's source: what is exported is in the state.
    origins = type(task._origins)
    patched.setattr(
      origins, "export", lambda self, folder, parts: _write(folder, parts)
    )
    task.export(state, epath.Path(tmp_path / "export"))
  model = ag.load(tmp_path / "export", dtype="float32")
  assert isinstance(model, ag.MAGNeT) and model.window_s == task.window_s
  assert model.masking == task.masking
  codes = model.generate_codes(["rain"], frames=FRAMES)
  assert codes.shape == (1, BOOKS, FRAMES)


def _write(folder, parts):
  opening.write_orbax(folder, parts, tokenizer=tokenizer.load(None))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (
      {"lm": dataclasses.replace(small().lm, pattern=Pattern("delay"))},
      "set it to 'parallel'",
    ),
    (
      {"masking": Masking(sampling=MaskedSampling(decoding_steps=(3, 2)))},
      "are for 2 codebooks, and the model has 3",
    ),
  ],
)
def test_what_does_not_fit(changes, said):
  with pytest.raises(InputError, match=said):
    small(**changes).check_parts()


def test_a_causal_model_is_no_start():
  task = dataclasses.replace(small(), init_from="nano")
  with pytest.raises(InputError, match="not a MAGNeT"):
    task.opened()


@pytest.mark.parametrize(
  "name", ["magnet_300m.py:tiny", "nano_magnet.py", "magnet_1p5b.py"]
)
def test_configurations(name):
  _, task = configuration.parse(configuration.load(f"configs/{name}"))
  assert isinstance(task, MaskedTask)
  task.check_parts()
  assert task.masking.span == 3 and task.masking.context == 5
