"""Spectra and loudness of sound: pure functions of arrays, safe under jit.

Everything is computed in float32.  Lengths and rates are static, so a sound
that is too short raises `InputError` while tracing, not inside a compiled step.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Complex, Float

from audiogen_jax.core.errors import InputError

_BLOCK_S = 0.4  # BS.1770-4: gating block; successive blocks share 75 %
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_OFFSET_LUFS = -0.691
# Left, right, centre and the two surrounds, which sound louder from behind.
_CHANNEL_WEIGHTS = np.array([1.0, 1.0, 1.0, 1.41, 1.41], np.float32)
_SHELF_HZ = 1500.0
_CEILING = 0.99  # of peaks in files
_QUIET_RMS = 2e-3  # below it a sound counts as silence and is not amplified


# Spectra


def stft(
  audio: Float[Array, "*b n"],
  *,
  n_fft: int,
  hop: int,
  window: Literal["hann", "boxcar"] = "hann",
  window_length: int | None = None,
  symmetric: bool = False,
  center: bool = False,
  normalized: bool = False,
) -> Complex[Array, "*b t f"]:
  """Short-time Fourier transform.

  Frame t covers samples [t * hop, t * hop + n_fft); samples behind the last
  whole frame are not seen.  f = n_fft // 2 + 1.

  Args:
    window: Its kind; a boxcar is 1 throughout.
    window_length: Samples under the window, which sits in the middle of the
      frame; n_fft when None.
    symmetric: Whether the window's last sample equals its first; otherwise it
      is periodic.
    center: Reflects n_fft // 2 samples at either end, so that frame t is
      centred on sample t * hop.
    normalized: Divides by the window's energy, sqrt(sum(window ** 2)).
  """
  length = n_fft if window_length is None else window_length
  weights = _window(window, length, n_fft, symmetric)
  if normalized:
    weights = weights / np.sqrt(np.sum(weights**2))
  audio = audio.astype(jnp.float32)
  if center:
    audio = reflect(audio, n_fft // 2)
  n = audio.shape[-1]
  if n < n_fft:
    raise InputError(
      f"an STFT with n_fft = {n_fft} needs that many samples, got {n}: "
      "pad the sound or use a smaller n_fft"
    )
  frames = _frames(audio, n_fft, hop)
  weights = jnp.asarray(weights, jnp.float32)
  return jnp.fft.rfft(frames * jnp.broadcast_to(weights, frames.shape))


# Loudness


def loudness(audio: Float[Array, "*b n c"], rate_hz: int) -> Float[Array, "*b"]:
  """Integrated loudness in LUFS (ITU-R BS.1770-4); -inf for silence.

  Two details are those of the loudness that AudioGen's recordings are levelled
  with, not of the standard: the K-weighting is a 1500 Hz shelf and a 38 Hz
  high-pass at every rate, and each filter's output is clamped to [-1, 1].

  Args:
    audio: At least 0.4 s of at most 5 channels, ordered L R C Ls Rs.
  """
  n, c = audio.shape[-2:]
  block = round(_BLOCK_S * rate_hz)
  if n < block:
    raise InputError(
      f"loudness needs {_BLOCK_S} s = {block} samples at {rate_hz} Hz, "
      f"got {n}: pad the sound or leave its level alone"
    )
  if c > len(_CHANNEL_WEIGHTS):
    raise InputError(
      f"loudness is defined for at most {len(_CHANNEL_WEIGHTS)} channels, "
      f"got {c}: convert the sound first"
    )
  audio = jnp.moveaxis(audio.astype(jnp.float32), -1, -2)  # *b c n
  for response in _k_weighting(rate_hz):
    audio = jnp.clip(_filter(audio, response), -1.0, 1.0)
  blocks = _frames(audio, block, round(block / 4))  # *b c blocks samples
  power = jnp.mean(jnp.square(blocks), axis=-1)
  power = jnp.einsum(
    "...cj,c->...j",
    power,
    _CHANNEL_WEIGHTS[:c],
    precision=jax.lax.Precision.HIGHEST,
  )
  level = _lufs(power)
  audible = level > _ABSOLUTE_GATE_LUFS
  gate = _lufs(_mean_where(power, audible)) + _RELATIVE_GATE_LU
  return _lufs(_mean_where(power, audible & (level > gate[..., None])))


def normalize_loudness(
  audio: Float[Array, "*b n c"],
  rate_hz: int,
  *,
  target_lufs: float | Float[Array, ""] = -14.0,
) -> Float[Array, "*b n c"]:
  """Amplifies each sound to the same loudness, for a file: no sample clips.

  As AudioGen's documented examples write files (`audio_write` with the strategy
  "loudness" and `loudness_compressor=True`): peaks are bent with tanh, which
  takes a little of the loudness.  Where tanh would flatten them the published
  code clips; here a sound is amplified no further than to a peak of 0.99, so
  that a click in silence stays below the target.

  Sounds whose loudness is undefined or means nothing keep their level, or come
  down to that peak: those shorter than 0.4 s, with an RMS below 0.002, or
  without one audible block (a constant, say).
  """
  audio = audio.astype(jnp.float32)
  keep, gain = _gain(audio, rate_hz, target_lufs)
  peak = jnp.max(jnp.abs(audio), axis=(-2, -1), keepdims=True)
  peak = jnp.maximum(peak, jnp.finfo(jnp.float32).tiny)
  limited = jnp.minimum(1.0, _CEILING / peak) * audio
  most = math.atanh(_CEILING) / peak
  return jnp.where(keep, limited, jnp.tanh(jnp.minimum(gain, most) * audio))


def _gain(
  audio: Float[Array, "*b n c"],
  rate_hz: int,
  target_lufs: float | Float[Array, ""],
) -> tuple[Bool[Array, "*b 1 1"], Float[Array, "*b 1 1"]]:
  """Whether a sound keeps its level, and what brings it to the target."""
  if audio.shape[-2] < round(_BLOCK_S * rate_hz):
    shape = (*audio.shape[:-2], 1, 1)
    return jnp.ones(shape, bool), jnp.ones(shape)
  level = loudness(audio, rate_hz)
  rms = jnp.sqrt(jnp.mean(jnp.square(audio), axis=(-2, -1)))
  keep = (rms < _QUIET_RMS) | jnp.isneginf(level)
  gain = jnp.power(10.0, (target_lufs - level) / 20.0)
  return keep[..., None, None], gain[..., None, None]


def _lufs(power: Float[Array, "*b"]) -> Float[Array, "*b"]:
  return _OFFSET_LUFS + 10.0 * jnp.log10(power)


def _mean_where(
  power: Float[Array, "*b t"], mask: Bool[Array, "*b t"]
) -> Float[Array, "*b"]:
  """Mean over the last axis where mask holds; 0 where it holds nowhere."""
  total = jnp.sum(jnp.where(mask, power, 0.0), axis=-1)
  return total / jnp.maximum(jnp.sum(mask, axis=-1), 1)


@functools.cache
def _k_weighting(rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
  """Impulse responses of the two filters, cut where they fall below 1e-12.

  The coefficients are those of R. Bristow-Johnson's Audio EQ Cookbook: a high
  shelf of +4 dB at 1500 Hz with Q = 1/sqrt(2), a high-pass at 38 Hz with
  Q = 1/2.
  """
  if rate_hz <= 2 * _SHELF_HZ:
    raise InputError(
      f"loudness needs a rate above {2 * _SHELF_HZ:g} Hz, got {rate_hz}: "
      "resample the sound"
    )
  a = 10 ** (4.0 / 40)
  w = 2 * math.pi * _SHELF_HZ / rate_hz
  cos, slope = math.cos(w), math.sqrt(a) * math.sin(w) * math.sqrt(2)
  shelf = (
    [
      a * (a + 1 + (a - 1) * cos + slope),
      -2 * a * (a - 1 + (a + 1) * cos),
      a * (a + 1 + (a - 1) * cos - slope),
    ],
    [
      a + 1 - (a - 1) * cos + slope,
      2 * (a - 1 - (a + 1) * cos),
      a + 1 - (a - 1) * cos - slope,
    ],
  )
  w = 2 * math.pi * 38.0 / rate_hz
  cos, alpha = math.cos(w), math.sin(w)
  high_pass = (
    [(1 + cos) / 2, -(1 + cos), (1 + cos) / 2],
    [1 + alpha, -2 * cos, 1 - alpha],
  )
  impulse = np.zeros(rate_hz)  # one second: both decay in a fifth of it
  impulse[0] = 1.0
  responses = [scipy.signal.lfilter(*f, impulse) for f in (shelf, high_pass)]
  shelf, high_pass = (
    r[: np.flatnonzero(np.abs(r) > 1e-12)[-1] + 1] for r in responses
  )
  return shelf, high_pass


def _filter(
  audio: Float[Array, "*b n"], response: Float[np.ndarray, " taps"]
) -> Float[Array, "*b n"]:
  """Causal convolution with a fixed response; the length stays n.

  A recursive filter is a loop over samples, which no accelerator likes.  FFTs
  of fixed-size pieces (overlap-save) run as one batch, and their size being a
  power of two suits every backend.
  """
  n, taps = audio.shape[-1], len(response)
  size = max(4096, 1 << (4 * taps - 1).bit_length())
  hop = size - taps + 1  # samples of a piece that do not wrap around
  count = -(-n // hop)
  audio = pad(audio, taps - 1, count * hop - n)
  spectrum = jnp.fft.rfft(_frames(audio, size, hop))
  transfer = jnp.asarray(np.fft.rfft(response, size), jnp.complex64)
  pieces = jnp.fft.irfft(
    spectrum * jnp.broadcast_to(transfer, spectrum.shape), size
  )
  pieces = pieces[..., taps - 1 :]
  return pieces.reshape(*pieces.shape[:-2], count * hop)[..., :n]


# Frames


def _window(name: str, length: int, n_fft: int, symmetric: bool) -> np.ndarray:
  """A window in the middle of n_fft samples, float64."""
  if length > n_fft:
    raise InputError(
      f"window_length must be at most n_fft = {n_fft}, got {length}"
    )
  window = scipy.signal.get_window(name, length, fftbins=not symmetric)
  left = (n_fft - length) // 2
  return np.pad(window, (left, n_fft - length - left))


def _frames(
  audio: Float[Array, "*b n"], length: int, hop: int
) -> Float[Array, "*b t {length}"]:
  """Overlapping frames, whole ones only.

  Rows of `hop` samples side by side, for length = 2.5 hop:

      row t | row t + 1 | row t + 2 (first half)

  Slices and one concatenation: a gather would be slow on TPUs, and its gradient
  a scatter.
  """
  n = audio.shape[-1]
  count = 1 + (n - length) // hop
  across = -(-length // hop)
  rows = count + across - 1
  audio = pad(audio[..., : rows * hop], 0, max(0, rows * hop - n))
  audio = audio.reshape(*audio.shape[:-1], rows, hop)
  frames = [audio[..., i : i + count, :] for i in range(across)]
  return jnp.concatenate(frames, axis=-1)[..., :length]


def pad(
  audio: Float[Array, "*b n"], left: int, right: int, mode: str = "constant"
) -> Float[Array, "*b p"]:
  """Pads the last axis; `mode` is one of `jnp.pad`'s."""
  return jnp.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(left, right)], mode)


def reflect(audio: Float[Array, "*b n"], samples: int) -> Float[Array, "*b p"]:
  """Pads both ends of the last axis by their mirror images.

  Raises:
    InputError: For a sound that is not longer than that.
  """
  n = audio.shape[-1]
  if n <= samples:
    raise InputError(
      f"reflecting {samples} samples at the ends needs {samples + 1} samples, "
      f"got {n}: pad the sound or use a smaller n_fft"
    )
  return pad(audio, samples, samples, "reflect")
