"""How far one sound is from another: pure functions of rows, safe under jit.

Rows of a batch may differ in length: what lies at and beyond `length` counts as
zeros, and frames that begin there are not counted.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.audio import dsp, mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.types import AnyArray

SEGMENT_S = 5.0  # of SI-SNR, as in the published evaluation
_WINDOWS = tuple(2**i for i in range(6, 12))
_MELS = 64
_LSD_WINDOW = 2048
_LSD_FLOOR = 1e-10  # about the noise of 16 bits, 2^-30 / 12


def si_snr(
  real: Float[AnyArray, "b n c"],
  fake: Float[AnyArray, "b n c"],
  rate_hz: int,
  *,
  length: Int[AnyArray, " b"] | None = None,
) -> Float[Array, " b"]:
  """Scale-invariant signal-to-noise ratio in dB, higher is better.

  The mean over channels and over segments of 5 s, each beginning 2.5 s after
  the last, the last ones filled up with zeros: AudioGen's evaluation, whose
  sign is the other one.  Its epsilon, 1.2e-7 a sample, keeps silence finite: a
  silent segment gives 0 dB if `fake` is silent, too, and less the louder it is.
  """
  size = int(SEGMENT_S * rate_hz)
  stride = size // 2
  real, fake, length = _rows(real, fake, length)
  epsilon = size * float(np.finfo(np.float32).eps)
  count = -(-real.shape[-1] // stride)
  padding = (count - 1) * stride + size - real.shape[-1]

  def segments(audio):
    audio = jnp.pad(audio, ((0, 0), (0, 0), (0, padding)))
    parts = [audio[..., i * stride :][..., :size] for i in range(count)]
    parts = jnp.stack(parts, axis=2)  # b c i n
    return parts - jnp.mean(parts, axis=-1, keepdims=True)

  real, fake = segments(real), segments(fake)
  along = jnp.sum(real * fake, axis=-1) / (epsilon + _energy(real))
  along = along[..., None] * real
  ratio = jnp.log10(epsilon + _energy(along))
  ratio = 10 * (ratio - jnp.log10(epsilon + _energy(fake - along)))
  return _mean(jnp.mean(ratio, axis=1), length, stride)


def mel_distance(
  real: Float[AnyArray, "b n c"],
  fake: Float[AnyArray, "b n c"],
  rate_hz: int,
  *,
  length: Int[AnyArray, " b"] | None = None,
) -> Float[Array, " b"]:
  """Mean absolute difference of log10 mel power over six resolutions.

  The unit is a decade of power: 0.1 is 1 dB, and a sound beside itself ten
  times louder gives 2, where it is well above the floor.

  Windows of 64, 128, … 2048 samples, a quarter of a window apart and centred,
  normalised by their energy, which makes the floor of 1e-5 that of white noise
  at -50 dB; 64 bands from 0 Hz, but one for 8 samples of a short window, and
  none without a bin of its own.
  """
  real, fake, length = _rows(real, fake, length)
  distances = []
  for window in _WINDOWS:
    bands = MelConfig(
      rate_hz, n_fft=window, hop=window // 4, n_mels=min(_MELS, window // 8)
    )
    used = mel.filters(bands).any(axis=0)
    one, other = (
      mel.logarithm(bands, mel.to_bands(bands, _power(audio, window)))[
        ..., used
      ]
      for audio in (real, fake)
    )
    apart = jnp.mean(jnp.abs(one - other), axis=(1, 3))
    distances.append(_mean(apart, length, window // 4))
  return jnp.mean(jnp.stack(distances), axis=0)


def log_spectral_distance(
  real: Float[AnyArray, "b n c"],
  fake: Float[AnyArray, "b n c"],
  *,
  length: Int[AnyArray, " b"] | None = None,
) -> Float[Array, " b"]:
  """Log-spectral distance in dB (Gray and Markel, 1976).

  The root mean square over frequencies of the difference of log power spectra,
  averaged over channels and frames.  Windows of 2048 samples, 512 apart, with a
  floor of about the noise of 16 bits.
  """
  real, fake, length = _rows(real, fake, length)
  real, fake = (
    10 * jnp.log10(_LSD_FLOOR + _power(audio, _LSD_WINDOW))
    for audio in (real, fake)
  )
  apart = jnp.sqrt(jnp.mean(jnp.square(real - fake), axis=-1))  # b c t
  return _mean(jnp.mean(apart, axis=1), length, _LSD_WINDOW // 4)


def _rows(
  real: Float[AnyArray, "b n c"],
  fake: Float[AnyArray, "b n c"],
  length: Int[AnyArray, " b"] | None,
) -> tuple[Float[Array, "b c n"], Float[Array, "b c n"], Int[AnyArray, " b"]]:
  """Rows in float32, zero beyond their lengths; and the lengths."""
  b, n, _ = real.shape
  if length is None:
    length = jnp.full(b, n)
  inside = (jnp.arange(n)[None] < length[:, None])[:, None]  # b 1 n
  real, fake = (
    jnp.where(inside, jnp.moveaxis(jnp.asarray(audio, jnp.float32), -1, 1), 0)
    for audio in (real, fake)
  )
  return real, fake, length


def _power(
  audio: Float[Array, "b c n"], window: int
) -> Float[Array, "b c t f"]:
  """Power spectra, frame t centred on sample (t + 1/2) hop.

  Zeros on either side, where `mel.spectrogram` reflects: a row gives the
  same whatever it is padded to, and may be shorter than a window.
  """
  n, hop = audio.shape[-1], window // 4
  left = (window - hop) // 2
  right = (math.ceil(n / hop) - 1) * hop + window - n - left
  audio = jnp.pad(audio, ((0, 0), (0, 0), (left, right)))
  spectrum = dsp.stft(audio, n_fft=window, hop=hop, normalized=True)
  return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def _energy(audio: Float[Array, "*axes n"]) -> Float[Array, "*axes"]:
  """Sum of squares over the last axis."""
  return jnp.sum(jnp.square(audio), axis=-1)


def _mean(
  values: Float[Array, "b t"], length: Int[AnyArray, " b"], hop: int
) -> Float[Array, " b"]:
  """Mean over the frames that begin inside their row."""
  inside = jnp.arange(values.shape[1])[None] * hop < length[:, None]
  total = jnp.sum(jnp.where(inside, values, 0), axis=1)
  return total / jnp.maximum(jnp.sum(inside, axis=1), 1)
