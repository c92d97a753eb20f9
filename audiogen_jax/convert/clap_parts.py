"""What every publisher's CLAP is read into, before any weight is."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert.published import State
from audiogen_jax.core import word_pieces
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding.clap import ClapConfig

_CLOSE = 1e-5  # of filters of which the highest is 0.03


class ClapParts(NamedTuple):
  """A CLAP on disk.

  Attributes:
    config: Its shape.
    tree: Its parameters, as lazy arrays.
    scale: What its loss multiplies cosines by.
    name: Of the checkpoint.
    weights: The published files that hold them.
    tokenizer: The folder of its tokenizer.
    hub_id: Where that tokenizer can be had.
    kind: Whose rules it follows.
    limit: The most ids of a sentence.
    behind: Added to each sentence.
    marks: Pieces that are no part of longer ones.
  """

  config: ClapConfig
  tree: Tree
  scale: float
  name: str
  weights: tuple[Path, ...]
  tokenizer: Path
  hub_id: str
  kind: word_pieces.Kind
  limit: int
  behind: str = ""
  marks: tuple[str, ...] = ()


class Tensors(NamedTuple):
  """Tensors of one file, by name.

  Attributes:
    stored: Each of them.
    where: The file, for messages.
  """

  stored: State
  where: str

  def shape(self, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there, with so many axes.

    Raises:
      InputError: If it is missing or has others.
    """
    if name not in self.stored:
      raise InputError(f"{self.where} lacks {name}; get the file again")
    shape = tuple(self.stored[name].shape)
    if len(shape) != axes or not all(shape):
      raise InputError(
        f"{self.where}: {name} has shape {list(shape)}; it should have {axes}"
        " axes and values"
      )
    return shape

  def scale(self, name: str) -> float:
    """What multiplies cosines, of which its logarithm is stored.

    Raises:
      InputError: If it is missing or not finite.
    """
    self.shape(name, 0)
    value = math.exp(min(float(self.stored[name].read()), 100.0))
    if not value < math.inf:
      raise InputError(f"{self.where}: {name} is not finite; get it again")
    return value

  def check_filters(self, name: str, recipe: MelConfig) -> None:
    """Compares the mel filters in the file, if any, with those made here.

    Raises:
      InputError: If they differ: sounds would not be heard as in training.
    """
    if name not in self.stored:
      return
    theirs, ours = self.stored[name].read(), mel.filters(recipe)
    same = theirs.shape == ours.shape
    if not same or np.abs(theirs - ours).max() > _CLOSE:
      raise InputError(
        f"{self.where}: its mel filters {list(theirs.shape)} are not those of"
        f" {recipe.n_mels} bands from {recipe.f_min_hz:g} to"
        f" {recipe.f_max_hz:g} Hz at {recipe.rate_hz} Hz; name its recipe in a"
        " config.json beside it"
      )

  def count(self, stem: str) -> int:
    """How many of `stem`.0, `stem`.1 and so on there are.

    Raises:
      InputError: If there are none.
    """
    pattern = re.compile(re.escape(stem) + r"\.(\d{1,4})\.")
    found = {m[1] for name in self.stored if (m := pattern.match(name))}
    if not found:
      raise InputError(f"{self.where} lacks {stem}.0; get the file again")
    return len(found)
