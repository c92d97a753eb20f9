"""Shapes of Make-An-Audio's rooms, of numbers that a stranger's file says.

Each number lies in its range, which `Keys` and `config.build` see to.  Many of
them together could still ask for a network that takes hours to be looked at.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax.numpy as jnp

from audiogen_jax.convert.engine import Stored
from audiogen_jax.core import config
from audiogen_jax.core.errors import InputError
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.vocoder.generator import VocoderConfig

T = TypeVar("T")


def built(make: Callable[..., T], where: str, **values: Any) -> T:
  """A configuration of these values, checked.

  Args:
    make: Its class, or what else makes it.
    where: The file that they come from, for messages.
    **values: As `make` takes them, each in its range.

  Raises:
    InputError: If they do not belong together; the message names the file.
  """
  try:
    made = make(**values)
  except InputError as error:
    raise InputError(f"{where}: {error}") from None
  return checked(made, where)


def checked(made: T, where: str) -> T:
  """The same configuration, once it is found to be of no absurd size.

  Raises:
    InputError: If it has more parts than can be meant, or none.
  """
  for name, count, most in _counts(made):
    config.check_range(
      f"the number of {name}", count, 1, most, where=f"{where}: "
    )
  return made


def check_weights(name: str, tensor: Stored, where: str) -> None:
  """Raises InputError for a tensor of whole or complex numbers, or of bools."""
  if not jnp.issubdtype(tensor.dtype, jnp.floating):
    raise InputError(
      f"{where}: {name} holds {tensor.dtype} where weights belong; get it as"
      " it was published, in float32, bfloat16 or float16"
    )


def _counts(made: Any) -> Iterator[tuple[str, int, int]]:
  """What there are many of, how many, and some ten times the most published."""
  match made:
    case UNetConfig():
      levels = len(made.multipliers)
      blocks = levels * (made.residual_layers + 1) * made.layers
      yield "levels of the U-Net", levels, 16
      yield "transformer blocks on the way up", blocks, 256
    case AutoencoderConfig():
      yield "levels of the autoencoder", len(made.multipliers), 16
    case VocoderConfig():
      dilated = len(made.ratios) * sum(map(len, made.dilations))
      yield "dilated convolutions of the vocoder", dilated, 512
