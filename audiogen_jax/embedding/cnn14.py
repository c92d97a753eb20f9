"""Cnn14 of PANNs (Kong et al., 2020): a clip -> an embedding and 527 tags.

    log-mel b t m -> blocks of convolutions -> mean over bands
                  -> max over time + mean over time -> embedding -> logits

A clip is heard whole, at its own length.  In a batch shorter ones are padded;
what lies behind a clip's end is set to zero before each convolution, which is
what the convolution would see beyond the end.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core import winograd
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import batching
from audiogen_jax.embedding.extractor import Heard

_MOST_S = 80  # seconds of sound in a batch
_LEAST_FRAMES = 128  # the smallest bucket of a clip's length
_DECIBELS = 10.0  # of a factor of ten in power


def recipe(
  rate_hz: int, n_fft: int, hop: int, f_max_hz: float, n_mels: int = 64
) -> MelConfig:
  """PANNs' mel recipe at a rate; `log_mel` makes decibels of it."""
  return MelConfig(
    rate_hz,
    n_fft=n_fft,
    hop=hop,
    n_mels=n_mels,
    f_min_hz=50.0,
    f_max_hz=f_max_hz,
    scale="slaney",
    area_norm=True,
    padding="center",
    floor=1e-10,
    clamp=True,
  )


# The published ones.
RATE_8K = recipe(8_000, 256, 80, 4_000.0)
RATE_16K = recipe(16_000, 512, 160, 8_000.0)
RATE_32K = recipe(32_000, 1024, 320, 14_000.0)


@dataclasses.dataclass(frozen=True)
class Cnn14Config:
  """Shape of the network; the defaults are the published one's at 16 kHz.

  Attributes:
    channels: Of the blocks.
    width: Of the embedding.
    classes: Of the tags: AudioSet's.
    mel: Its recipe.
    epsilon: Added to variances.
  """

  channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
  width: int = 2048
  classes: int = 527
  mel: MelConfig = RATE_16K
  epsilon: float = 1e-5

  @property
  def least_frames(self) -> int:
    """Frames of which a block before the last leaves one."""
    return 1 << (len(self.channels) - 1)

  @property
  def least_samples(self) -> int:
    """Samples that have so many frames."""
    return (self.least_frames - 1) * self.mel.hop


class Norm(nn.Module):
  """Batch norm by the statistics that training left, over the last axis."""

  epsilon: float

  @nn.compact
  def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    shape = x.shape[-1:]
    around = (1,) * (x.ndim - 1) + shape
    scale, bias, mean, variance = (
      self.param(name, start, shape).reshape(around)
      for name, start in (
        ("scale", nn.initializers.ones),
        ("bias", nn.initializers.zeros),
        ("mean", nn.initializers.zeros),
        ("variance", nn.initializers.ones),
      )
    )
    return (x - mean) * (scale * jax.lax.rsqrt(variance + self.epsilon)) + bias


class Cnn14(nn.Module):
  """Log-mel `b t m`, of which `frames` are real -> embeddings and logits."""

  config: Cnn14Config

  @nn.compact
  def __call__(
    self, bands: Float[Array, "b t m"], frames: Int[Array, " b"]
  ) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
    c = self.config
    x = Norm(c.epsilon, name="norm")(bands)[..., None]
    for i, channels in enumerate(c.channels):
      for j in range(2):
        x = jnp.where(_real(x, frames), x, 0.0)
        name = f"conv_{i}_{j}"
        conv = winograd.Conv(channels, bias=False, name=name)
        x = nn.relu(Norm(c.epsilon, name=f"norm_{i}_{j}")(conv(x)))
      if i < len(c.channels) - 1:
        x, frames = nn.avg_pool(x, (2, 2), (2, 2)), frames // 2
    x = jnp.mean(x, axis=2, keepdims=True)  # over bands
    real = _real(x, frames)
    most = jnp.max(jnp.where(real, x, -jnp.inf), axis=(1, 2))
    total = jnp.sum(jnp.where(real, x, 0.0), axis=(1, 2))
    x = most + total / frames[:, None]
    x = nn.relu(nn.Dense(c.width, name="embedding")(x))
    return x, nn.Dense(c.classes, name="classes")(x)


def _real(
  x: Float[Array, "b t m c"], frames: Int[Array, " b"]
) -> Bool[Array, "b t 1 1"]:
  times = jnp.arange(x.shape[1])[None, :, None, None]
  return times < frames[:, None, None, None]


def init(config: Cnn14Config, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  c = config
  bands = jnp.zeros((1, c.least_frames, c.mel.n_mels))
  return Cnn14(c).init(key, bands, jnp.array([c.least_frames]))["params"]


def log_mel(
  config: MelConfig, reflected: Float[Array, "b n"]
) -> Float[Array, "b t m"]:
  """Decibels, of sounds whose ends have been reflected (`reflect`)."""
  config = dataclasses.replace(config, padding="none")
  return _DECIBELS * mel.log_spectrogram(config, reflected)


def reflect(
  config: MelConfig, sound: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " p"]:
  """Mirrors a sound at its own ends, before it is padded to a bucket."""
  return np.pad(sound, config.n_fft // 2, mode="reflect")


def hear(
  config: Cnn14Config,
  variables: Tree,
  reflected: Float[Array, "b n"],
  lengths: Int[Array, " b"],
) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
  """Reflected sounds of these lengths -> embeddings and logits, in float32."""
  c = config.mel
  frames = (lengths - c.n_fft) // c.hop + 1
  with jax.default_matmul_precision("highest"):
    bands = log_mel(c, reflected)
    return Cnn14(config).apply(variables, bands, frames)


_hear = jax.jit(hear, static_argnames="config")


class Extractor:
  """A Cnn14 with its weights: an `extractor.Extractor`, a row a clip.

  Attributes:
    name: `cnn14`.
    sample_rate_hz: Of the sounds that it takes.
    sha256: Of the published file that holds its weights.
    config: Its shape.
    params: Its parameters, as `init` makes them.
  """

  name = "cnn14"

  def __init__(self, config: Cnn14Config, params: Tree, *, sha256: str) -> None:
    self.config, self.params = config, params
    self.sample_rate_hz, self.sha256 = config.mel.rate_hz, sha256
    self._variables = winograd.variables(params)

  def embed(self, sounds: Sequence[Float[np.ndarray, " _"]]) -> list[Heard]:
    """See `extractor.Extractor`."""
    c = self.config
    for sound in sounds:
      if len(sound) < c.least_samples:
        raise InputError(
          f"{self.name} needs {c.least_samples} samples at"
          f" {self.sample_rate_hz} Hz, {c.least_frames} frames, got"
          f" {len(sound)}: pad the sound or leave it out"
        )
    made = batching.in_batches(
      [reflect(c.mel, sound) for sound in sounds],
      lambda batch, lengths: _hear(c, self._variables, batch, lengths),
      padded=lambda n: batching.whole_frames(c.mel, n, least=_LEAST_FRAMES),
      most=_MOST_S * self.sample_rate_hz,
    )
    return [Heard(embedding[None], logits[None]) for embedding, logits in made]
