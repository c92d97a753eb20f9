"""What a diffusion model is trained on: latents of sounds, tokens of texts."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from audiogen_jax.audio import mel
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig, Posterior
from audiogen_jax.text import tower
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.text.tower import TowerConfig


def spec(
  config: AutoencoderConfig,
  *,
  cached: bool,
  rows: int,
  seconds: float,
  tokens: int,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of a batch, by name.

  Args:
    config: The autoencoder, whose recipe has the sample rate.
    cached: Whether rows are posteriors, `latents b w z e`, not `audio b n 1`.
    rows: Rows of the batch.
    seconds: Seconds of a row.
    tokens: Tokens of the text of a row.
  """
  samples = round(seconds * config.mel.rate_hz)
  if cached:
    wide = max(1, round(samples / (config.ratio * config.mel.hop)))
    shape = (rows, wide, config.rows, 2 * config.channels)
    sound = {"latents": jax.ShapeDtypeStruct(shape, jnp.float32)}
  else:
    sound = {"audio": jax.ShapeDtypeStruct((rows, samples, 1), jnp.float32)}
  return sound | {
    "text_ids": jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
    "text_mask": jax.ShapeDtypeStruct((rows, tokens), jnp.bool_),
  }


def samples(config: AutoencoderConfig, batch: Mapping[str, Array]) -> int:
  """Samples of a row of a batch."""
  if "audio" in batch:
    return batch["audio"].shape[1]
  return batch["latents"].shape[1] * config.ratio * config.mel.hop


def columns(config: AutoencoderConfig, samples: int, unit: int) -> int:
  """Whole columns of the latent of a sound, a multiple of `unit`.

  Args:
    config: The autoencoder.
    samples: Of the sound.
    unit: What the U-Net divides them by.

  Raises:
    InputError: If there is none.
  """
  size = config.ratio * config.mel.hop * unit
  count = samples // size
  if not count:
    rate = config.mel.rate_hz
    raise InputError(
      f"rows of {samples / rate:g} s hold no column of a latent; make"
      f" data.duration_s {size / rate:g} or more"
    )
  return count * unit


def posterior(
  config: AutoencoderConfig,
  params: Tree,
  batch: Mapping[str, Array],
  unit: int,
) -> Posterior:
  """What the latents of a batch may be, not scaled, of whole columns.

  Args:
    config: The frozen autoencoder.
    params: Its parameters.
    batch: Sounds, or posteriors that are cached.
    unit: What the U-Net divides columns by.

  Raises:
    InputError: If rows are shorter than that.
  """
  wide = columns(config, samples(config, batch), unit)
  if "latents" in batch:
    both = sharding.constrain(batch["latents"], "batch", None, None, None)
    return Posterior.of(both[:, :wide])
  audio = sharding.constrain(batch["audio"], "batch", None, None)
  found = mel.log_spectrogram(config.mel, audio[..., 0])
  made = autoencoder.encode(config, params, found[:, : wide * config.ratio])
  return jax.lax.stop_gradient(made)


def context(
  config: TowerConfig,
  params: Tree,
  words: Tokenizer,
  batch: Mapping[str, Array],
  dropped: Bool[Array, " b"],
) -> Float[Array, "b l d"]:
  """States of the texts of a batch; of those dropped, of no text.

  Args:
    config: The frozen text tower.
    params: Its parameters.
    words: Its tokenizer.
    batch: With `text_ids` and `text_mask`.
    dropped: Which are left out.
  """
  nothing = tower.network(config).token_ids(config, words, [None])
  absent = dropped | ~batch["text_mask"].any(axis=1)
  ids = jnp.where(absent[:, None], nothing, batch["text_ids"])
  return jax.lax.stop_gradient(tower.encode(config, params, ids))


def scale(found: Iterable[Float[Array, "b w z c"]]) -> Float[Array, ""]:
  """1 over the standard deviation of latents, of all batches together.

  The published program takes its first batch's alone.

  Raises:
    InputError: If they do not vary, or are not finite.
  """
  each = [
    [*(float(sharding.fetch(x)) for x in _sums(batch)), float(batch.size)]
    for batch in found
  ]
  total, squares, count = np.sum(each, axis=0)
  spread = (squares - total**2 / count) / (count - 1)
  if not 0 < spread < np.inf:
    raise InputError(
      f"latents have a variance of {spread:g}: the autoencoder does not suit"
      " these sounds"
    )
  return jnp.float32(spread**-0.5)


@jax.jit
def _sums(x: Float[Array, "b w z c"]) -> tuple[Array, Array]:
  return jnp.sum(x), jnp.sum(jnp.square(x))
