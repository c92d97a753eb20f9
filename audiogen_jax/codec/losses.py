"""What a codec is trained to make small, and how the parts are balanced.

Losses take `(real, fake)` and are means over all their elements.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.audio import distances, dsp

_SCALES = range(6, 11)  # windows of 64 to 1024 samples
_PAPER_SCALES = range(5, 12)  # 32 to 2048
_MELS = 64
_F_MIN_HZ = 64.0


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Shares of the balanced gradient; the defaults are the released recipe's.

  A loss of weight 0 is not computed.

  Attributes:
    adversarial: Of each kind of discriminator.
    feature: Likewise.
    l1: In time.
    l2: In time.
    msspec: Mel and log-mel at several scales.
    mel: Log-mel at one scale.
    paper_mel: As the papers have it.
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
  real, fake = (dsp.log_mel(_channels(x), rate_hz) for x in (real, fake))
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
    mels = [_mel(x, rate_hz, 2**scale) for x in (real, fake)]
    logs = [jnp.log10(dsp.LOG_FLOOR + mel) for mel in mels]
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
    apart = _mel(real, rate_hz, 2**scale) - _mel(fake, rate_hz, 2**scale)
    square = jnp.mean(jnp.square(apart), axis=(1, 2, 3))
    # A root has no gradient at 0, where both are silent.
    total += jnp.mean(jnp.abs(apart)) + jnp.mean(jnp.sqrt(square + 1e-12))
  return total / len(_PAPER_SCALES)


def negative_si_snr(
  real: Float[Array, "b n c"], fake: Float[Array, "b n c"], rate_hz: int
) -> Float[Array, ""]:
  """Minus the scale-invariant signal-to-noise ratio in dB."""
  return -jnp.mean(distances.si_snr(real, fake, rate_hz))


def _channels(audio):
  """B n c -> b c n, time last, as `dsp` has it."""
  return jnp.moveaxis(audio, -1, 1)


def _mel(audio, rate_hz: int, window: int):
  return dsp.mel_spectrogram(
    _channels(audio),
    rate_hz,
    n_fft=window,
    hop=window // 4,
    n_mels=_MELS,
    f_min_hz=_F_MIN_HZ,
    normalized=True,
  )


class Balance(NamedTuple):
  """Running norms of each loss's gradient.

  Attributes:
    total: Of each, the decayed sum of its norms.
    count: The decayed number of them: the first steps then mean something.
  """

  total: dict[str, Float[Array, ""]]
  count: Float[Array, ""]


class Balanced(NamedTuple):
  """What the balancer makes of several gradients.

  Attributes:
    gradient: The sum of them, scaled.
    state: For the next step.
    scales: What each was multiplied by.
    ratios: Each one's share of the running norms.
  """

  gradient: Float[Array, "b n c"]
  state: Balance
  scales: dict[str, Float[Array, ""]]
  ratios: dict[str, Float[Array, ""]]


def init_balance(names: Mapping[str, float]) -> Balance:
  """Nothing seen so far."""
  return Balance({name: jnp.float32(0) for name in names}, jnp.float32(0))


def balance(
  gradients: Mapping[str, Float[Array, "b n c"]],
  weights: Mapping[str, float],
  state: Balance,
  *,
  total_norm: float = 1.0,
  decay: float = 0.999,
) -> Balanced:
  """Weights decide how much each loss moves the output, whatever its scale.

  Défossez et al. (2022), §3.4: each gradient with respect to the decoder's
  output is divided by the running mean of its norm, so that its share of the
  step is its weight's share of all weights.  Norms are taken for each row and
  averaged over the batch: under `jax.jit` over the global one.

  Args:
    gradients: Of each loss, with respect to the output.
    weights: Of the same names.
    state: From the step before.
    total_norm: Norm of the sum, if gradients did not point apart.
    decay: Of the running means.
  """
  count = decay * state.count + 1
  total, means = {}, {}
  for name, gradient in gradients.items():
    norm = jnp.mean(jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2))))
    total[name] = decay * state.total[name] + norm
    means[name] = total[name] / count
  weight = sum(weights[name] for name in gradients)
  scales = {
    name: weights[name] / weight * total_norm / (1e-12 + mean)
    for name, mean in means.items()
  }
  everything = jnp.maximum(sum(means.values()), 1e-12)
  return Balanced(
    gradient=sum(scales[name] * gradients[name] for name in gradients),
    state=Balance(total, count),
    scales=scales,
    ratios={name: mean / everything for name, mean in means.items()},
  )
