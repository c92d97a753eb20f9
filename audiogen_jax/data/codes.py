"""Codes of a dataset's sounds, made once by a codec; see `encoding`."""

import dataclasses
import os
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt16

from audiogen_jax.codec.codec import Encodec
from audiogen_jax.data import encoding, witness
from audiogen_jax.data.encoding import TokenizeConfig
from audiogen_jax.data.shards import BuildReport
from audiogen_jax.data.spec import CodeSpec

__all__ = ["TokenizeConfig", "tokenize"]


class _Codes:
  """A codec, as a `Coder`."""

  field = "codes"

  def __init__(self, codec: Encodec) -> None:
    self._codec = codec
    self.spec = CodeSpec(**dataclasses.asdict(codec.tokens))
    self.rate_hz = codec.config.sample_rate_hz
    self.channels = codec.config.channels
    self.hop = codec.config.hop

  def made_by(self) -> dict[str, str]:
    """Its codes of a test sound."""
    return {witness.KEY: witness.of(self._codec)}

  def encode(
    self, audio: Float[np.ndarray, "b n c"], lengths: Int[np.ndarray, " b"]
  ) -> UInt16[np.ndarray, "b t k"]:
    """Codes, a frame for each hop."""
    codes = self._codec.encode(audio, lengths=lengths)
    return codes.astype(np.uint16).swapaxes(1, 2)


def tokenize(
  dataset: str | os.PathLike,
  codec: Encodec,
  folder: str | os.PathLike,
  **options: Any,
) -> BuildReport | None:
  """Writes the codes of a dataset, or goes on with doing so.

  Args:
    dataset: Of sounds.
    codec: On this process's own devices.
    folder: Where; new, or one where this was killed.
    **options: As for `encoding.encode`.

  Raises:
    InputError: As `encoding.encode` does.
  """
  return encoding.encode(dataset, _Codes(codec), folder, **options)
