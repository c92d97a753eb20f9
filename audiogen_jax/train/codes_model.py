"""What a kind of model that writes codes adds to `codes_task.CodesTask`."""

import abc
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Shaped

from audiogen_jax.core.types import Tree
from audiogen_jax.train.state import TrainState


class CodesModel(abc.ABC):
  """A model that writes a codec's codes: its loss, its sampler, its notes."""

  @abc.abstractmethod
  def rows(
    self, codes: Int[Array, "b k t"], key: jax.Array
  ) -> tuple[Shaped[Array, "b ..."], ...]:
    """What the loss reads of codes, row by row; `key` is the step's."""

  @abc.abstractmethod
  def loss(
    self, params: Tree, state: TrainState, *rows: Shaped[Array, "b ..."]
  ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """What is made small, and further metrics by name.

    Args:
      params: What is trained.
      state: Which holds the rest.
      *rows: From `rows`, then the text's states or ids and its mask.
    """

  @property
  @abc.abstractmethod
  def noted(self) -> dict[str, Any]:
    """What an export notes of the model besides: fields of `opening.Parts`."""

  @abc.abstractmethod
  def sampled(
    self,
    params: Tree,
    states: Float[Array, "b l e"],
    mask: Bool[Array, "b l"],
    visible: Bool[Array, "b l"],
    seeds: Int[Array, " b"],
    frames: int,
  ) -> Int[Array, "b k _"]:
    """Codes for some texts.

    Args:
      params: The language model.
      states: Of the text encoder.
      mask: Tokens of each text.
      visible: Positions that attention looks at.
      seeds: Of each row.
      frames: How many to make.
    """
