"""Losses of samples and of mel spectra, and their weights.

Losses take `(real, fake)` and are means over all their elements.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.audio import distances, mel
from audiogen_jax.audio.mel import MelConfig

_SCALES = range(6, 11)  # windows of 64 to 1024 samples
_PAPER_SCALES = range(5, 12)  # 32 to 2048
_MELS = 64
_F_MIN_HZ = 64.0


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Shares of the balanced gradient; the defaults are the released recipe's.

  A loss of weight 0 is not computed.

  Attributes:
    adversarial: Adversarial loss, of each kind of discriminator.
    feature: Feature matching, of each kind of discriminator.
    l1: Mean absolute difference of samples.
    l2: Mean squared difference of samples.
    msspec: Mel and log-mel at several scales.
    mel: Log-mel at one scale.
    paper_mel: L1 and L2 of mel spectra, as the papers have it.
    si_snr: Negative scale-invariant SNR.
  """

  adversarial: float = 4.0
  feature: float = 4.0
  l1: float = 0.1
  l2: float = 0.0
  msspec: float = 2.0
  mel: float = 0.0
  paper_mel: float = 0.0
  si_snr: float = 0.0


def l1(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"]
) -> Float[Array, ""]:
  """Mean absolute difference of samples."""
  return jnp.mean(jnp.abs(real - fake))


def l2(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"]
) -> Float[Array, ""]:
  """Mean squared difference of samples."""
  return jnp.mean(jnp.square(real - fake))


def mel_l1(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], rate_hz: int
) -> Float[Array, ""]:
  """Mean absolute difference of log10 mel spectra, one window of 1024.

  Raises:
    InputError: For sounds too short to be reflected at their ends.
  """
  bands = MelConfig(rate_hz, n_mels=_MELS, f_min_hz=_F_MIN_HZ)
  real, fake = (mel.log_spectrogram(bands, _channels(x)) for x in (real, fake))
  return jnp.mean(jnp.abs(real - fake))


def multi_scale_mel(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], rate_hz: int
) -> Float[Array, ""]:
  """The released recipe's `msspec`, over windows of 64 to 1024 samples.

  At each scale the mean absolute difference of mel power and the mean squared
  difference of its logarithm; the sum over the scales divided by their number,
  10, the weights being 1.

  Raises:
    InputError: For sounds too short to be reflected at their ends.
  """
  total = 0.0
  for scale in _SCALES:
    bands = _bands(rate_hz, 2**scale)
    mels = _mels(bands, real, fake)
    logs = [mel.logarithm(bands, each) for each in mels]
    total += jnp.mean(jnp.abs(mels[0] - mels[1]))
    total += jnp.mean(jnp.square(logs[0] - logs[1]))
  return total / (2 * len(_SCALES))


def paper_mel(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], rate_hz: int
) -> Float[Array, ""]:
  """L1 and L2 of mel spectra over windows of 32 to 2048 samples.

  Kreuk et al. (2023), §3.1, and Défossez et al. (2022), eq. 2: 64 bands of a
  normalised STFT, windows 2^5 to 2^11, a quarter of a window apart, both terms
  weighted alike.  Our reading, which the text leaves open: the terms are means
  over elements, L2 is the root of the mean square of each sound, and spectra
  are of power.

  Raises:
    InputError: For sounds too short to be reflected at their ends.
  """
  total = 0.0
  for scale in _PAPER_SCALES:
    of_real, of_fake = _mels(_bands(rate_hz, 2**scale), real, fake)
    apart = of_real - of_fake
    square = jnp.mean(jnp.square(apart), axis=(1, 2, 3))
    # A root has no gradient at 0, where both are silent.
    total += jnp.mean(jnp.abs(apart)) + jnp.mean(jnp.sqrt(square + 1e-12))
  return total / len(_PAPER_SCALES)


def recipe_mel(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], recipe: MelConfig
) -> Float[Array, ""]:
  """The loss of HiFi-GAN (Kong et al., 2020, eq. 5), by a vocoder's recipe.

  Mean absolute difference of log mel spectra.  Logarithms are natural ones and
  bands go up to half the rate, whatever the vocoder reads, as published.
  """
  bands = dataclasses.replace(recipe, f_max_hz=None, log="ln", range_db=None)
  real, fake = (mel.log_spectrogram(bands, _channels(x)) for x in (real, fake))
  return jnp.mean(jnp.abs(real - fake))


def bigvgan_mel(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], rate_hz: int
) -> Float[Array, ""]:
  """The multi-scale mel loss of BigVGAN's second version.

  Mean absolute differences of log10 mel magnitudes, windows of 32 to 2048
  samples with 5 to 320 bands; their sum over the scales.

  Raises:
    InputError: For sounds too short to be reflected at their ends.
  """
  total = 0.0
  for i, scale in enumerate(_PAPER_SCALES):
    bands = MelConfig(
      rate_hz,
      n_fft=2**scale,
      hop=2**scale // 4,
      n_mels=5 * 2**i,
      scale="slaney",
      area_norm=True,
      magnitude=True,
      padding="center",
      clamp=True,
    )
    logs = [mel.log_spectrogram(bands, _channels(x)) for x in (real, fake)]
    total += jnp.mean(jnp.abs(logs[0] - logs[1]))
  return total


def negative_si_snr(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], rate_hz: int
) -> Float[Array, ""]:
  """Minus the scale-invariant signal-to-noise ratio in dB."""
  return -jnp.mean(distances.si_snr(real, fake, rate_hz))


def _mels(
  bands: MelConfig, real: Float[Array, "b n c"], fake: Float[Array, "b n c"]
) -> list[Float[Array, "b c t m"]]:
  """Mel spectra of both."""
  return [mel.spectrogram(bands, _channels(x)) for x in (real, fake)]


def _channels(audio: Float[Array, "b n c"]) -> Float[Array, "b c n"]:
  """Time last, as `mel` has it."""
  return jnp.moveaxis(audio, -1, 1)


def _bands(rate_hz: int, window: int) -> MelConfig:
  """64 bands over windows a quarter apart, normalised by their energy."""
  return MelConfig(
    rate_hz,
    n_fft=window,
    hop=window // 4,
    n_mels=_MELS,
    f_min_hz=_F_MIN_HZ,
    normalized=True,
  )
