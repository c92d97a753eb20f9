"""Resampling as published evaluations do it: one windowed sinc, three recipes.

    audio -> padding -> filters, one for each phase of the new rate -> samples

Figures of generated sound depend on the resampler more than on some models.
Each recipe is frozen, and held against the library that it comes from.  For
everything else there is `io.resample`.
"""

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
import scipy
from jaxtyping import Float

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError

_MOST = 50_000_000  # values of all filters: 200 MB


@dataclasses.dataclass(frozen=True)
class SincConfig:
  """A resampling recipe; rates are divided by their common divisor first.

  Attributes:
    zeros: Zero crossings of the sinc on either side.
    rolloff: The cutoff, as a share of half the lower rate.
    window: Over those crossings: `hann`, cos^2, or `kaiser`.
    beta: Of the Kaiser window.
    unit_sum: Whether each phase's filter is divided by its own sum; otherwise
      all have the sinc's own height.
    edges: Repeats the first and the last sample, or takes zeros beyond them.
    rounds_up: Whether the length n new / old is rounded up, not down.
    single: Whether times, at which the sinc is taken, are computed in float32;
      otherwise phases alone are.  In a quiet band it can be heard.
  """

  zeros: int
  rolloff: float
  window: Literal["hann", "kaiser"] = "hann"
  beta: float | None = None
  unit_sum: bool = False
  edges: Literal["edge", "constant"] = "constant"
  rounds_up: bool = True
  single: bool = False


# audiocraft's (julius 0.2, `resample_frac`).
JULIUS = SincConfig(
  zeros=24,
  rolloff=0.945,
  unit_sum=True,
  edges="edge",
  rounds_up=False,
  single=True,
)
# audioldm_eval's (torchaudio's function, by its defaults) and msclap's (the
# same as a module, which makes its filters with more digits).
HANN = SincConfig(zeros=6, rolloff=0.99, single=True)
HANN_MODULE = dataclasses.replace(HANN, single=False)
# fadtk's (torchaudio's match of resampy's `kaiser_best`).
KAISER = SincConfig(
  zeros=64,
  rolloff=0.9475937167399596,
  window="kaiser",
  beta=14.769656459379492,
)


def resample(
  config: SincConfig,
  audio: Float[np.ndarray, "n c"],
  from_hz: int,
  to_hz: int,
) -> Float[np.ndarray, "m c"]:
  """Resamples; sums are of float64, so that no processor's order is heard.

  Raises:
    InputError: For a rate that none is, or rates with so small a divisor in
      common that there would be more than 50 million taps.
  """
  for rate_hz in (from_hz, to_hz):
    io.check_rate(rate_hz)
  if from_hz == to_hz:
    return audio
  divisor = math.gcd(from_hz, to_hz)
  old, new = from_hz // divisor, to_hz // divisor
  reach, filters = _filters(config, old, new)
  n, c = audio.shape
  length = new * n / old
  length = math.ceil(length) if config.rounds_up else math.floor(length)
  padded = np.pad(audio, ((reach, reach + old), (0, 0)), mode=config.edges)
  frames = np.lib.stride_tricks.sliding_window_view(
    padded, len(filters), axis=0
  )[::old]  # frames c taps
  resampled = np.matmul(frames, filters, dtype=np.float64).transpose(0, 2, 1)
  return resampled.reshape(-1, c)[:length].astype(np.float32)


@functools.cache
def _filters(
  config: SincConfig, old: int, new: int
) -> tuple[int, Float[np.ndarray, "taps new"]]:
  """How many samples before its own a frame reaches, and a filter a phase.

  Tap k of phase i weighs sample k - reach of the old rate at the time i / new.
  """
  c = config
  cutoff = min(old, new) * c.rolloff
  reach = math.ceil(c.zeros * old / cutoff)
  if new * (2 * reach + old) > _MOST:
    raise InputError(
      f"resampling {old} samples to {new} takes {new:,} filters of"
      f" {2 * reach + old:,} taps; convert the sounds to a usual rate first"
    )
  kind = np.float32 if c.single else np.float64
  taps = np.arange(-reach, reach + old, dtype=kind) / kind(old)
  phases = (np.arange(new) / new).astype(np.float32)
  times = kind(cutoff) * (taps[:, None] - phases)  # in zero crossings
  times = times.astype(np.float64)
  inside = np.clip(times, -c.zeros, c.zeros)
  if c.window == "hann":
    window = np.cos(np.pi * inside / c.zeros / 2) ** 2
  else:
    share = np.sqrt(np.maximum(1 - (inside / c.zeros) ** 2, 0.0))
    window = scipy.special.i0(c.beta * share) / scipy.special.i0(c.beta)
  filters = np.sinc(inside) * window
  if c.unit_sum:
    filters /= filters.sum(axis=0)
  else:
    filters *= cutoff / old
  filters = filters.astype(np.float32)
  filters.flags.writeable = False
  return reach, filters
