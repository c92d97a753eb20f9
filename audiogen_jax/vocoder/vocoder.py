"""A vocoder with its weights and devices: mel spectrograms -> sounds."""

import functools

import numpy as np
from jaxtyping import Float

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import AnyArray, Tree
from audiogen_jax.vocoder import generator, pieces
from audiogen_jax.vocoder.generator import VocoderConfig


class Vocoder:
  """A vocoder that can be run.

  Attributes:
    config: Its shape, as it was read.
    params: Its parameters, as `generator.init` makes them.
  """

  def __init__(
    self, config: VocoderConfig, params: Tree, placement: Placement
  ) -> None:
    self.config = config
    self.params = params
    self._placement = placement

  @functools.cached_property
  def _folded(self) -> tuple[VocoderConfig, Tree]:
    """Configuration and parameters for sampling, weight norm folded."""
    return generator.folded(self.config, self.params)

  def __call__(
    self, mel: Float[AnyArray, "b t m"]
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds within ±1, `config.mel.hop` samples of each frame.

    Args:
      mel: By the recipe `config.mel`.  Rows go in groups of as many as the mesh
        splits a batch into, long ones in pieces.
    """
    groups = sharding.grouped(self._placement, mel)
    made = [pieces.synthesize(*self._folded, group) for group in groups]
    return np.concatenate(made)[: len(mel)]
