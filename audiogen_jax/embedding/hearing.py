"""What is done to a clip before a network hears it, as a protocol says.

clip -> level -> channels, rate, peak, 16 bits
"""

import jax
import jax.numpy as jnp
import numpy as np
import soxr
from jaxtyping import Float

from audiogen_jax.audio import dsp, io, sinc
from audiogen_jax.embedding.protocols import Hearing

_QUIET_RMS = 2e-3  # below it audiocraft leaves a level alone
_loudness = jax.jit(dsp.loudness, static_argnums=1)


def levelled(
  audio: Float[np.ndarray, "n c"], rate_hz: int, lufs: float
) -> Float[np.ndarray, "n c"]:
  """At this loudness, clipped to ±1: audiocraft's way with generated clips.

  What is too short or too quiet to have a loudness stays as it is.
  """
  quiet = np.sqrt(np.mean(np.square(audio, dtype=np.float64))) < _QUIET_RMS
  if quiet or len(audio) < round(0.4 * rate_hz):
    return audio
  have = float(_loudness(jnp.asarray(audio), rate_hz))
  if not np.isfinite(have):
    return audio
  return np.clip(audio * np.float32(10 ** ((lufs - have) / 20)), -1, 1)


def prepare(
  hearing: Hearing,
  audio: Float[np.ndarray, "n c"],
  from_hz: int,
  to_hz: int,
) -> Float[np.ndarray, " m"]:
  """A clip as a network is to get it: one channel at its rate."""
  h = hearing
  if h.channels == "first":
    audio = audio[:, :1]
  elif h.channels == "mean":
    audio = audio.mean(axis=1, keepdims=True)
  if h.centred:
    audio = audio - audio.mean(axis=0, keepdims=True)
  sound = _resampled(h, audio, from_hz, to_hz).T.reshape(-1)
  peak = np.abs(sound).max(initial=0)
  if h.peak_db is not None and peak > 0:
    sound = sound * np.float32(10 ** (h.peak_db / 20) / peak)
  if h.stored:
    sound = io.to_int16(sound) * np.float32(2**-15)
  return np.pad(sound, (0, max(h.least - len(sound), 0))).astype(np.float32)


def _resampled(
  hearing: Hearing, audio: np.ndarray, from_hz: int, to_hz: int
) -> np.ndarray:
  if hearing.resampler == "julius":
    return sinc.resample(sinc.JULIUS, audio, from_hz, to_hz)
  if hearing.resampler == "torchaudio":
    return sinc.resample(sinc.HANN, audio, from_hz, to_hz)
  if hearing.resampler == "torchaudio_module":
    return sinc.resample(sinc.HANN_MODULE, audio, from_hz, to_hz)
  if hearing.resampler == "soxr_vhq" or from_hz == to_hz:
    return io.resample(audio, from_hz, to_hz)
  # librosa's: the length rounded up.
  resampled = soxr.resample(audio, from_hz, to_hz, quality="HQ")
  length = -(-len(audio) * to_hz // from_hz)
  behind = max(length - len(resampled), 0)
  return np.pad(resampled, ((0, behind), (0, 0)))[:length]
