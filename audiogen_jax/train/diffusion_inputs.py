"""What a diffusion model is trained on: latents of sounds, tokens of texts."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from audiogen_jax.audio import mel
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import tower
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.text.tower import TowerConfig


def check_settings(task: Any) -> None:
  """Raises InputError where a number of a `DiffusionTask` cannot be."""
  for name in ("text_dropout", "average_decay"):
    if not 0 <= getattr(task, name) < 1:
      raise InputError(f"{name} {getattr(task, name)} must lie in [0, 1)")
  for name in ("accumulate", "scale_batches"):
    if getattr(task, name) < 1:
      raise InputError(f"{name} {getattr(task, name)} must be 1 or more")
  if not 0 <= task.min_snr < float("inf"):
    raise InputError(f"min_snr {task.min_snr} must be 0 or more")
  if task.lora.rank and task.start != "model":
    raise InputError("lora adapts a trained U-Net: give start=model, too")


def spec(
  config: AutoencoderConfig, *, rows: int, seconds: float, tokens: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of a batch, by name.

  Args:
    config: The autoencoder, whose recipe has the sample rate.
    rows: Rows of the batch.
    seconds: Seconds of a row.
    tokens: Tokens of the text of a row.
  """
  shape = (rows, round(seconds * config.mel.rate_hz), 1)
  return {
    "audio": jax.ShapeDtypeStruct(shape, jnp.float32),
    "text_ids": jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
    "text_mask": jax.ShapeDtypeStruct((rows, tokens), jnp.bool_),
  }


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


def latents(
  config: AutoencoderConfig,
  params: Tree,
  audio: Float[Array, "b n 1"],
  noise: Float[Array, "b w z c"],
) -> Float[Array, "b w z c"]:
  """Draws of latents, not scaled, of whole columns.

  Args:
    config: The frozen autoencoder.
    params: Its parameters.
    audio: Sounds, of which `w` columns are looked at.
    noise: By which latents are drawn.
  """
  audio = sharding.constrain(audio, "batch", None, None)
  frames = noise.shape[1] * config.ratio
  found = mel.log_spectrogram(config.mel, audio[..., 0])[:, :frames]
  posterior = autoencoder.encode(config, params, found)
  return jax.lax.stop_gradient(posterior.sample(noise))


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
