"""Mel spectrograms: one configuration for every recipe in the project.

    audio -> padding -> STFT -> power or magnitude -> mel bands -> logarithm

Published systems differ in each of these; `MelConfig` names the differences,
with the defaults of EnCodec's losses (Défossez et al., 2022, §3.4).
"""

import dataclasses
import functools
import math
import warnings
from typing import Literal

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.audio import dsp
from audiogen_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class MelConfig:
  """A mel recipe.

  Attributes:
    rate_hz: Sample rate.
    n_fft: Samples of a frame; n_fft // 2 + 1 frequencies.
    hop: Samples from one frame to the next.
    window_length: Samples under the Hann window, which sits in the middle of
      the frame; None for `n_fft`.
    symmetric: Whether that window is symmetric; otherwise periodic.
    n_mels: Mel bands.
    f_min_hz: Where the lowest band begins.
    f_max_hz: Where the highest band ends; None for half the rate.
    scale: `htk`, 2595 log10(1 + f / 700), or `slaney`, linear below 1 kHz.
    straight: Where the sides of triangles are straight: in `hz`, or in `mel`.
    area_norm: Whether triangles have one area (Slaney) or one height.
    magnitude: Whether bands sum magnitudes, not powers.
    normalized: Divides spectra by the window's energy, sqrt(sum(window ** 2)).
    padding: `frames` reflects (n_fft - hop) // 2 samples at either end, which
      centres frame t on sample (t + 1/2) hop, and fills the last frame with
      zeros: ceil(n / hop) frames.  `hops` does not fill it: n // hop frames.
      `center` reflects n_fft // 2, which centres frame t on sample t hop:
      n // hop + 1 frames; `zeros` has zeros there.  `none` sees whole frames
      alone, and `window` whole windows, with zeros around them to fill the
      frames: (n - window_length) // hop + 1.
    log: Base of the logarithm: `log10`, or `ln`.
    floor: Keeps the logarithm finite.
    clamp: Whether what is below the floor is raised to it; otherwise the floor
      is added.
    clip: Whether samples beyond ±1 are brought back to it first.
    under_root: Added to powers of which magnitudes are the roots.
    range_db: Lowest and highest level that become 0 and 1; what lies beyond is
      cut.  None where the logarithm stays as it is.
  """

  rate_hz: int
  n_fft: int = 1024
  hop: int = 256
  window_length: int | None = None
  symmetric: bool = False
  n_mels: int = 64
  f_min_hz: float = 0.0
  f_max_hz: float | None = None
  scale: Literal["htk", "slaney"] = "htk"
  straight: Literal["hz", "mel"] = "hz"
  area_norm: bool = False
  magnitude: bool = False
  normalized: bool = False
  padding: Literal["frames", "hops", "center", "zeros", "none", "window"] = (
    "frames"
  )
  log: Literal["log10", "ln"] = "log10"
  floor: float = 1e-5
  clamp: bool = False
  clip: bool = False
  under_root: float = 0.0
  range_db: tuple[float, float] | None = None

  def __post_init__(self) -> None:
    if not 0 < self.hop <= self.n_fft:
      raise InputError(
        f"hop must be at most n_fft = {self.n_fft}, got {self.hop}"
      )
    top_hz = self.rate_hz / 2 if self.f_max_hz is None else self.f_max_hz
    if not 0 <= self.f_min_hz < top_hz <= self.rate_hz / 2:
      raise InputError(
        f"mel bands from {self.f_min_hz:g} to {top_hz:g} Hz do not lie in 0 to"
        f" {self.rate_hz / 2:g} Hz, half the rate"
      )
    plain = self.scale == "htk" and not self.area_norm
    if self.straight == "mel" and not plain:
      raise InputError(
        "triangles that are straight in mel are on the htk scale and of one"
        f" height, got {self.scale} and area_norm = {self.area_norm}"
      )
    if self.range_db is not None and self.log != "log10":
      raise InputError(f"levels in dB are of log10, got {self.log}")


# What both generations of Make-An-Audio (Huang et al., 2023) make sounds of.
# `maa1_full.ckpt` and its BigVGAN have the first, `ta40multi`, `ta54`,
# `inpaint7` and theirs the second, which is SpecVQGAN's.
MAKE_AN_AUDIO = MelConfig(
  16_000,
  n_mels=80,
  f_max_hz=8_000.0,
  scale="slaney",
  area_norm=True,
  magnitude=True,
  padding="hops",
  clamp=True,
  clip=True,
  under_root=1e-9,
)
MAKE_AN_AUDIO_OLDER = MelConfig(
  16_000,
  n_mels=80,
  f_min_hz=125.0,
  f_max_hz=7_600.0,
  scale="slaney",
  area_norm=True,
  magnitude=True,
  padding="zeros",
  clamp=True,
  range_db=(-80.0, 20.0),
)


@functools.cache
def filters(config: MelConfig) -> Float[np.ndarray, "f m"]:
  """Triangles, one for each band; read-only, for callers share the array."""
  triangles = _in_mel(config) if config.straight == "mel" else _in_hz(config)
  triangles.flags.writeable = False
  return triangles


def _in_mel(config: MelConfig) -> Float[np.ndarray, "f m"]:
  """Triangles that are straight on the mel scale, as Kaldi has them."""
  c = config
  top_hz = c.rate_hz / 2 if c.f_max_hz is None else c.f_max_hz
  bins = np.log1p(np.arange(c.n_fft // 2 + 1) * c.rate_hz / c.n_fft / 700)
  edges = np.linspace(*np.log1p([c.f_min_hz / 700, top_hz / 700]), c.n_mels + 2)
  rank = (bins[:, None] - edges[0]) / (edges[1] - edges[0])  # f 1
  distance = np.abs(rank - np.arange(1, c.n_mels + 1))
  return np.maximum(1 - distance, 0).astype(np.float32)


def _in_hz(config: MelConfig) -> Float[np.ndarray, "f m"]:
  """Triangles that are straight in Hz, as librosa has them."""
  with warnings.catch_warnings():
    # More filters than bins leaves some empty.  The multi-scale spectral loss
    # does that on purpose: 64 filters on the 33 bins of its shortest window.
    warnings.filterwarnings("ignore", message="Empty filters detected")
    triangles = librosa.filters.mel(
      sr=config.rate_hz,
      n_fft=config.n_fft,
      n_mels=config.n_mels,
      fmin=config.f_min_hz,
      fmax=config.f_max_hz,
      htk=config.scale == "htk",
      norm="slaney" if config.area_norm else None,
    )
  return np.ascontiguousarray(triangles.T)


def spectrogram(
  config: MelConfig, audio: Float[Array, "*b n"]
) -> Float[Array, "*b t m"]:
  """Power, or magnitude, in mel bands.

  Raises:
    InputError: For a sound too short to be reflected at its ends, or to fill a
      frame.
  """
  c, n = config, audio.shape[-1]
  audio = jnp.clip(audio, -1, 1) if c.clip else audio
  if c.padding in ("frames", "hops"):
    audio = dsp.reflect(audio.astype(jnp.float32), (c.n_fft - c.hop) // 2)
  if c.padding == "frames":
    whole = (math.ceil(n / c.hop) - 1) * c.hop + c.n_fft
    audio = dsp.pad(audio, 0, whole - audio.shape[-1])
  if c.padding == "zeros":
    audio = dsp.pad(audio, c.n_fft // 2, c.n_fft // 2)
  if c.padding == "window":
    length = c.n_fft if c.window_length is None else c.window_length
    if n < length:
      raise InputError(
        f"a window of {length} samples needs that many, got {n}: pad the sound"
      )
    left = (c.n_fft - length) // 2
    audio = dsp.pad(audio, left, c.n_fft - length - left)
  spectrum = dsp.stft(
    audio,
    n_fft=c.n_fft,
    hop=c.hop,
    window_length=c.window_length,
    symmetric=c.symmetric,
    center=c.padding == "center",
    normalized=c.normalized,
  )
  if c.magnitude and not c.under_root:
    return to_bands(c, jnp.abs(spectrum))
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  if c.magnitude:
    power = jnp.sqrt(power + c.under_root)
  return to_bands(c, power)


def to_bands(
  config: MelConfig, spectrum: Float[Array, "*b t f"]
) -> Float[Array, "*b t m"]:
  """Sums powers or magnitudes into mel bands."""
  # A TPU would otherwise multiply in bfloat16: three digits.
  return jnp.dot(spectrum, filters(config), precision=jax.lax.Precision.HIGHEST)


def logarithm(
  config: MelConfig, mel: Float[Array, "*b t m"]
) -> Float[Array, "*b t m"]:
  """The logarithm of a mel spectrogram, with floor and range of `config`."""
  mel = jnp.maximum(mel, config.floor) if config.clamp else mel + config.floor
  mel = jnp.log10(mel) if config.log == "log10" else jnp.log(mel)
  if config.range_db is None:
    return mel
  low_db, high_db = config.range_db
  return jnp.clip((20 * mel - low_db) / (high_db - low_db), 0, 1)


def log_spectrogram(
  config: MelConfig, audio: Float[Array, "*b n"]
) -> Float[Array, "*b t m"]:
  """`logarithm` of `spectrogram`, with its errors."""
  return logarithm(config, spectrogram(config, audio))
