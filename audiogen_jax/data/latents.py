"""Latents of a dataset's sounds, made once by a mel autoencoder.

What is stored is not a draw but the posterior, means and log-variances in 16
bits, so that every epoch draws anew; see `encoding`.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from audiogen_jax.audio import mel
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import encoding, witness
from audiogen_jax.data.shards import BuildReport
from audiogen_jax.data.spec import LatentSpec
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.latent.mel_autoencoder import MelAutoencoder

KEY = "autoencoder"  # of a dataset's settings
_log_spectrogram = jax.jit(mel.log_spectrogram, static_argnames="config")
_ALIKE = 0.05  # of the spread of the test sound's latents


def spec(config: AutoencoderConfig) -> LatentSpec:
  """What an autoencoder makes."""
  return LatentSpec(
    latent_rows=config.rows,
    latent_channels=config.channels,
    column_rate_hz=config.mel.rate_hz / _hop(config),
  )


def tokenize(
  dataset: str | os.PathLike,
  autoencoder: MelAutoencoder,
  folder: str | os.PathLike,
  **options: Any,
) -> BuildReport | None:
  """Writes the latents of a dataset, or goes on with doing so.

  Args:
    dataset: Of sounds.
    autoencoder: On this process's own devices.
    folder: Where; new, or one where this was killed.
    **options: As for `encoding.encode`.

  Raises:
    InputError: As `encoding.encode` does.
  """
  return encoding.encode(dataset, _Latents(autoencoder), folder, **options)


def check(
  autoencoder: MelAutoencoder, settings: Mapping[str, Any], what: str
) -> None:
  """Raises InputError unless the autoencoder made the latents of a dataset.

  Args:
    autoencoder: Which is to be the one.
    settings: Settings of the dataset.
    what: Its name, for messages.
  """
  theirs = np.array(str(settings.get(KEY, "")).split(), float)
  ours = np.array(_witness(autoencoder).split(), float)
  if theirs.shape != ours.shape:
    raise InputError(
      f"{what} does not say by which autoencoder its latents were made: make"
      " them again with audiogen data tokenize"
    )
  apart = float(np.abs(ours - theirs).mean() / (theirs.std() or 1))
  if not apart < _ALIKE:
    raise InputError(
      f"the latents of {what} were made by another autoencoder: those of a test"
      f" sound are {apart:.2f} of their spread apart; name that one, or make"
      " them again with audiogen data tokenize"
    )


class _Latents:
  """An autoencoder, as a `Coder`."""

  field = "latents"
  channels = 1

  def __init__(self, autoencoder: MelAutoencoder) -> None:
    self._autoencoder = autoencoder
    self.spec = spec(autoencoder.config)
    self.rate_hz = autoencoder.config.mel.rate_hz
    self.hop = _hop(autoencoder.config)

  def made_by(self) -> dict[str, str]:
    """Its latents of a test sound."""
    return {KEY: _witness(self._autoencoder)}

  def encode(
    self, audio: Float[np.ndarray, "b n c"], lengths: Int[np.ndarray, " b"]
  ) -> Float[np.ndarray, "b t z e"]:
    """Means and log-variances, a column for each hop."""
    del lengths  # silence behind a sound is part of it
    heard = jnp.asarray(audio[..., 0])
    found = _log_spectrogram(self._autoencoder.config.mel, heard)
    posterior = self._autoencoder.encode(found)
    return np.concatenate(posterior, axis=-1).astype(np.float16)


def _hop(config: AutoencoderConfig) -> int:
  """Samples of a column."""
  return config.mel.hop * config.ratio


def _witness(autoencoder: MelAutoencoder) -> str:
  """Means of the latents of a second of sound."""
  made = _Latents(autoencoder)
  count = made.rate_hz // made.hop * made.hop or made.hop
  heard = np.resize(witness.sound(made.rate_hz, 1), (count, 1))
  latents = made.encode(heard[None], np.array([count]))
  means = latents[0, ..., : made.spec.latent_channels].astype(float)
  return " ".join(f"{x:.3g}" for x in means.mean(axis=0).ravel())
