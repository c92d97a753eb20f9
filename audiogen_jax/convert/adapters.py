"""Adapters (LoRA) on disk: a folder of our own format beside a model's.

config.json     rank, alpha, where, and the base that they were trained on
adapters/       Orbax: layers.self_attn.qkv/(a|b), see `lm.lora`
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epath

from audiogen_jax.convert import engine, keys, placing
from audiogen_jax.core import checkpoint, config, processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import lora, model
from audiogen_jax.lm.lora import LoRAConfig
from audiogen_jax.lm.model import LMConfig

_ROOM = "adapters"


@dataclasses.dataclass(frozen=True)
class _Config(LoRAConfig):
  """`config.json` of adapters: their configuration, and the model's name."""

  base: str = ""


@dataclasses.dataclass(frozen=True)
class Adapters:
  """Adapters of a model, not read yet.

  Attributes:
    folder: Where they lie.
    config: What they are.
    strength: How strongly they act; 1 is as trained.
  """

  folder: epath.Path
  config: LoRAConfig
  strength: float

  @classmethod
  def open(cls, source: str | Path, lm: LMConfig) -> "Adapters":
    """Adapters for a model.

    Args:
      source: `FOLDER` or `FOLDER@STRENGTH`.
      lm: What the model is.

    Raises:
      InputError: If there are none, or they are another model's, or the
        strength is no number of at most 100.
    """
    name, at, strength = str(source).rpartition("@")
    if not at or checkpoint.path_of(str(source)).exists():
      name, strength = str(source), "1"
    folder = checkpoint.path_of(name)
    if not (folder / _ROOM).is_dir():
      raise InputError(
        f"{name} holds no adapters; training with lora.rank writes them to"
        " `adapters` in its work folder"
      )
    where = str(folder / checkpoint.CONFIG)
    try:
      described = config.build(
        _Config, checkpoint.read_config(folder), ranges=keys.RANGES
      )
    except InputError as error:
      raise InputError(f"{where}: {error}") from None
    adapters = cls(folder, described, lora.strength_of(strength))
    adapters._check(lm, described.base)
    return adapters

  def read(self, lm: LMConfig, placement: Placement) -> Tree:
    """Their parameters, as of `lora.init`.

    Raises:
      InputError: If they are damaged, or not finite.
    """
    wanted = self._abstract(lm)
    tree = checkpoint.Folder(self.folder / _ROOM)
    return placing.realise(tree, wanted, lora.AXES, placement)

  def _abstract(self, lm: LMConfig) -> Tree:
    base = engine.abstract(model.init, lm)

    def adapters():
      key = jax.random.key(0)
      return lora.init(self.config, base, model.MATRICES, key)

    return jax.eval_shape(adapters)

  def _check(self, lm: LMConfig, base: str) -> None:
    if self.config.rank < 1:
      raise InputError(f"{self.folder} has adapters of rank 0: nothing")
    wanted, held = (
      {
        name: {part: tuple(leaf.shape) for part, leaf in each.items()}
        for name, each in tree.items()
      }
      for tree in (
        self._abstract(lm),
        checkpoint.Folder(self.folder / _ROOM).abstract(),
      )
    )
    for name in sorted({*wanted, *held}):
      if wanted.get(name) != held.get(name):
        raise InputError(
          f"the adapters {self.folder} do not fit this model: {name} is"
          f" {held.get(name, 'not adapted')} there,"
          f" {wanted.get(name, 'not adapted')} here; they were trained on"
          f" {config.shown(base)}"
        )


def open_all(
  given: Sequence[str | Path], lm: LMConfig | None
) -> list[Adapters]:
  """Adapters for a model, each as of `Adapters.open`.

  Raises:
    InputError: As there, or if the model is a codec alone.
  """
  if isinstance(given, str | Path):
    given = [given]
  if not isinstance(given, Sequence):
    raise InputError(
      f"adapters must be a list of folders, got {type(given).__name__}"
    )
  if given and lm is None:
    raise InputError(
      f"adapters {given[0]} are for a language model, and this is a codec"
    )
  return [Adapters.open(each, lm) for each in given]


def write(
  folder: epath.Path, adapters: Tree, lora_config: LoRAConfig, base: str
) -> None:
  """Writes adapters, in place of any that are there.

  Raises:
    InputError: If the folder cannot be written.
  """
  processes.agreed(lambda: checkpoint.remove(folder))
  values = config.as_dict(lora_config) | {"base": base}
  checkpoint.export(folder, values, [(_ROOM, adapters)])


def merge(tree: Tree, lm: LMConfig, adapters: list[Adapters]) -> Tree:
  """A model's stacked parameters with adapters merged into them."""
  here = Placement.make(
    jax.sharding.Mesh(
      np.asarray(jax.local_devices(backend="cpu")[:1]), ("data",)
    )
  )
  beside = lora.beside(
    [(each.config, each.read(lm, here), each.strength) for each in adapters]
  )
  return lora.merged(lora.adapted(tree, beside))
