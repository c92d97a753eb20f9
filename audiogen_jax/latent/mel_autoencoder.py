"""The autoencoder with weights and devices: mel spectrograms <-> latents."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import AnyArray, Tree
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig, Posterior

_STATIC = ("config", "dtype")
_encode = jax.jit(autoencoder.encode, static_argnames=_STATIC)
_decode = jax.jit(autoencoder.decode, static_argnames=_STATIC)


class MelAutoencoder:
  """An autoencoder that can be run.

  Rows go through it in groups of as many as the mesh splits a batch into: the
  images are large, and no program is compiled for another number of rows.

  Attributes:
    config: Its shape.
    params: Its parameters, as `autoencoder.init` makes them.
    dtype: Type of matrix products.
  """

  def __init__(
    self,
    config: AutoencoderConfig,
    params: Tree,
    placement: Placement,
    dtype: jnp.dtype = autoencoder.Decoder.dtype,
  ) -> None:
    self.config = config
    self.params = params
    self.dtype = dtype
    self._placement = placement

  def encode(self, mel: Float[AnyArray, "b t m"]) -> Posterior:
    """What the latents of mel spectrograms may be, before they are scaled.

    Args:
      mel: By the recipe `config.mel`; frames are a multiple of `config.ratio`.

    Returns:
      numpy arrays of shape `b w z c`.

    Raises:
      InputError: For another number of frames.
    """
    groups = sharding.grouped(self._placement, mel)
    how = self.config, self.params
    found = [_encode(*how, group, dtype=self.dtype) for group in groups]
    mean, log_variance = (
      np.concatenate([sharding.fetch(part) for part in parts])[: len(mel)]
      for parts in zip(*found, strict=True)
    )
    return Posterior(mean, log_variance)

  def decode(
    self, latent: Float[AnyArray, "b w z c"]
  ) -> Float[np.ndarray, "b t m"]:
    """Mel spectrograms of scaled latents."""
    groups = sharding.grouped(self._placement, latent)
    how = self.config, self.params
    made = [_decode(*how, group, dtype=self.dtype) for group in groups]
    return np.concatenate(list(map(sharding.fetch, made)))[: len(latent)]
