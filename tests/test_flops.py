"""What training asks for, by formula, against the program's own count."""

import dataclasses

import jax
import pytest

from audiogen_jax.core import cost
from audiogen_jax.text import t5
from audiogen_jax.train import configuration, lm_flops

SMALL = (
  "lm.transformer.width=64",
  "lm.transformer.layers=2",
  "lm.transformer.heads=2",
  "lm.transformer.ff=256",
  "text.encoder.layers=1",
  "text.encoder.ff=16",
  "text.encoder.vocabulary=99",
  "cached_codes=True",
  "remat='none'",
)
PREPENDED = ("lm.transformer.cross_attention=False", "lm.prepend_text=True")


def of(name, *changes):
  words = [f"--config.{change}" for change in (*SMALL, *changes)]
  run, task = configuration.parse(
    configuration.changed(f"configs/{name}", words)
  )
  return task, run.data.duration_s


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("lm_300m.py", ()),
    ("lm_300m.py", PREPENDED),
    ("magnet_300m.py", ()),
    ("paper_lm.py", ("window_s=1.0",)),
    ("paper_lm.py:4", ("window_s=1.0",)),
  ],
)
def test_the_formula_is_the_program(name, changes):
  """Forward and backward, without the frozen text encoder."""
  task, seconds = of(name, *changes)
  key = jax.random.key(0)
  like = jax.eval_shape(task.init, key)
  batch = task.batch_spec(3, seconds)
  step = cost.flops(task.train_step, like, batch, key)
  encoder = cost.flops(
    lambda params, ids, mask: t5.encode(task.text.encoder, params, ids, mask),
    *(like.extra["text"], batch["text_ids"], batch["text_mask"]),
  )
  # Measured: equal, to the last operation; 3 % is what is promised.
  assert task.model_flops(3, seconds) == step - encoder


def test_text_is_read_once():
  """Keys and values of cross-attention do not grow with the sound."""
  task, _ = of("lm_300m.py")
  short, long = (lm_flops.forward(task.lm, s, 64, 4) for s in (100, 200))
  more = long["cross-attention"] - short["cross-attention"]
  assert more == 2 * 2 * 100 * 2 * 64 * 64  # queries and output, two layers
  text = 2 * 2 * 64 * 2 * 64 * 64
  assert short["cross-attention"] == more + text


def test_what_is_not_known():
  """Adapters leave most weights alone."""
  task, seconds = of("lm_300m.py", "init_from='a model'", "lora.rank=2")
  assert task.model_flops(3, seconds) == 0
  trained = dataclasses.replace(task.text, trained=True)
  frozen, _ = of("lm_300m.py")
  whole = dataclasses.replace(frozen, text=trained)
  more = whole.model_flops(3, seconds) - frozen.model_flops(3, seconds)
  assert more == 3 * 2 * 64 * 1024 * 64  # the gradient of what T5 said
