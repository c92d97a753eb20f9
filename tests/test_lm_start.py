"""What a language model's training starts from, before anything is read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.convert import engine, opening
from audiogen_jax.lm import model
from audiogen_jax.train import configuration
from audiogen_jax.train.lm_sources import Origins

SMALL = (
  "lm.transformer.width=16",
  "lm.transformer.layers=2",
  "lm.transformer.ff=32",
  "text.encoder.layers=1",
)


def draws(task):
  """How often random bits are drawn for a fresh state."""
  return str(jax.make_jaxpr(task.init)(jax.random.key(0))).count("random_bits")


def test_what_is_read_is_not_drawn():
  """Zeros take its place: drawing numbers takes a compiler long."""
  given = configuration.changed(
    "configs/lm_300m.py:tiny", [f"--config.{each}" for each in SMALL]
  )
  _, task = configuration.parse(given)
  of_lm = str(
    jax.make_jaxpr(lambda key: model.init(task.lm, key))(jax.random.key(0))
  ).count("random_bits")
  frozen = dataclasses.replace(task.text, source="t5", trained=False)
  frozen = dataclasses.replace(task, text=frozen)
  # Text is read; text is drawn; all is read.
  assert draws(frozen) == of_lm > 0
  assert draws(task) > of_lm
  tuned = dataclasses.replace(frozen, init_from="a model")
  assert draws(tuned) == 0
  state = jax.eval_shape(tuned.init, jax.random.key(0))
  assert state.extra["codec"]["codebooks"]["embed"].shape == (4, 256, 32)


def test_the_rest_is_drawn_as_ever():
  """A seed gives the language model that it always gave."""
  given = configuration.changed(
    "configs/lm_300m.py:tiny", [f"--config.{each}" for each in SMALL]
  )
  _, task = configuration.parse(given)
  key = jax.random.key(3)
  fresh = jax.jit(lambda key: task.init(key).params["lm"]["heads"])(key)
  own = jax.random.split(key, 3)[0]
  alone = jax.jit(lambda key: model.init(task.lm, key)["heads"])(own)
  np.testing.assert_array_equal(fresh["kernel"], alone["kernel"])
  assert float(jnp.std(fresh["kernel"])) > 0


def test_a_text_encoder_beside_the_base_comes_along(tiny, tmp_path):
  """Fine-tuned from a folder with `t5/`, the export needs no network."""
  parts = opening.open_parts(tiny)
  read = {
    room: engine.realise(
      getattr(parts, room), lambda _, leaf: jnp.asarray(leaf.read())
    )
    for room in ("codec_tree", "lm_tree", "text_tree")
  }
  parts = dataclasses.replace(parts, **read)
  folder = epath.Path(tmp_path / "export")
  Origins("audiogen", str(tiny), "", "", trained=False).export(folder, parts)
  made = [
    AudioGen.from_pretrained(source, dtype="float32").generate_codes(
      ["a dog"], frames=4
    )
    for source in (tiny, tmp_path / "export")
  ]
  np.testing.assert_array_equal(*made)
