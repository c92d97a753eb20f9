"""Initial parameters of a language model's training: random, or to be read."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import engine
from audiogen_jax.core.sharding import Axes
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import lora, model
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.text import t5
from audiogen_jax.train.lm_sources import TextConfig


def _axes() -> dict[str, Axes]:
  tables = {
    "(params|extra)/lm/": model.AXES,
    "(params|extra)/text/": t5.AXES,
    "params/adapters/": lora.AXES,
    "extra/codec/": encodec.AXES,
    "extra/averaged": {"": ()},
  }
  return {
    prefix + f"({rule})" if rule else prefix: axes
    for prefix, table in tables.items()
    for rule, axes in table.items()
  }


# Meanings of the axes of everything in the task's `TrainState`, by path.
AXES: dict[str, Axes] = _axes()


class Start(NamedTuple):
  """Which parts of a model are read from sources, and which start at random."""

  lm: LMConfig
  text: TextConfig
  codec: EncodecConfig
  init_from: str

  def read(self) -> dict[str, Tree]:
    """Shapes of what `LMTask.prepare` reads, by part."""
    shapes = {"codec": engine.abstract(encodec.init, self.codec)}
    if self.text.source or not self.text.trained:
      shapes["text"] = engine.abstract(t5.init, self.text.encoder)
    if self.init_from:
      shapes["lm"] = engine.abstract(model.init, self.lm)
    return shapes

  def fresh(self, lm_key: jax.Array, text_key: jax.Array) -> dict[str, Tree]:
    """All parts: zeros where something is read, the rest drawn.

    Numbers that are drawn to be thrown away take a compiler long: the codec's
    alone half of what there was to compile.
    """
    trees = {
      name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
      for name, tree in self.read().items()
    }
    if "text" not in trees:
      trees["text"] = t5.init(self.text.encoder, text_key)
    if "lm" not in trees:
      trees["lm"] = model.init(self.lm, lm_key)
    return trees
