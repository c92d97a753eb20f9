"""The autoencoder of Make-An-Audio: a mel spectrogram <-> a small latent image.

    mel b t m -> encoder -> mean, log-variance b w z c -> a sample, scaled
    latent b w z c -> decoder -> mel b (8 w) (8 z)

It is that of latent diffusion (Rombach et al., 2022, appendix G): residual
blocks and self-attention in two dimensions, and a normal posterior with a weak
KL penalty (KL-VAE).  Axes: `w` columns of the latent, in time, `z` its rows, in
frequency, `c` its channels.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core import winograd
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, Tree, precision
from audiogen_jax.latent.layers import Attention, Down, Residual, Up, norm

_LEAST, _MOST = -30.0, 20.0  # of a log-variance

# Meanings of the parameters' axes: it runs once a sound, where the U-Net runs a
# hundred times, and is replicated.  Split channels would be summed over devices
# in images that are 64 times as large as a latent.
AXES = {
  r".*/conv(_\w+)?/kernel": (None, None, None, None),
  r".*/(q|k|v|out|shortcut|latent|posterior)/kernel": (None, None),
  ".*/(bias|scale)": (None,),
}


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
  """Shape of the autoencoder; the defaults are those of `maa1_full.ckpt`.

  Attributes:
    mel: The recipe of its mel spectrograms.
    filters: Channels of the first level.
    multipliers: Of `filters`, for each level; between two of them length and
      bands are halved.
    residual_layers: Residual blocks of a level of the encoder; the decoder's
      have one more.
    attention: Levels that attend, after each block.
    middle: Channels that encoder and decoder speak of a latent in.
    channels: Of a latent; a 1x1 convolution leads to `middle`.
    scale: What latents are multiplied by, so that their standard deviation is
      about 1.
  """

  mel: MelConfig = mel.MAKE_AN_AUDIO
  filters: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 4)
  residual_layers: int = 2
  attention: tuple[int, ...] = (2, 3)
  middle: int = 4
  channels: int = 4
  scale: float = 1.0

  def __post_init__(self) -> None:
    widths = [self.filters * m for m in (1, *self.multipliers)]
    if any(width % 32 or not width for width in widths):
      raise InputError(
        f"{self.filters} filters times {self.multipliers} are not all multiples"
        " of the 32 groups of a norm"
      )
    if self.mel.n_mels % self.ratio:
      raise InputError(
        f"{self.mel.n_mels} mel bands cannot be divided by {self.ratio}, as"
        f" {len(self.multipliers)} levels do"
      )
    if not self.scale > 0:
      raise InputError(f"scale {self.scale} must be more than 0")

  @property
  def ratio(self) -> int:
    """Frames of a column of the latent, and bands of a row."""
    return 2 ** (len(self.multipliers) - 1)

  @property
  def rows(self) -> int:
    """Rows of a latent."""
    return self.mel.n_mels // self.ratio


class Posterior(NamedTuple):
  """A normal distribution of each value of a latent, before it is scaled.

  Attributes:
    mean: Its mean.
    log_variance: The logarithm of its variance.
  """

  mean: Float[AnyArray, "b w z c"]
  log_variance: Float[AnyArray, "b w z c"]

  @classmethod
  def of(cls, both: Float[Array, "b w z e"]) -> "Posterior":
    """What an encoder makes of an image, in its two halves."""
    mean, log_variance = jnp.split(both, 2, axis=-1)
    return cls(mean, jnp.clip(log_variance, _LEAST, _MOST))

  def sample(
    self, noise: Float[AnyArray, "b w z c"]
  ) -> Float[Array, "b w z c"]:
    """A draw, of standard normal `noise`."""
    return self.mean + jnp.exp(self.log_variance / 2) * noise

  def kl(self) -> Float[Array, " b"]:
    """KL divergence from the standard normal, summed over a latent."""
    terms = jnp.square(self.mean) + jnp.exp(self.log_variance) - 1
    return jnp.sum(terms - self.log_variance, axis=(1, 2, 3)) / 2


def _middle(
  x: Float[Array, "b w z c"], dtype: jnp.dtype
) -> Float[Array, "b w z c"]:
  x = Residual(x.shape[-1], dtype, name="middle_residual_0")(x)
  x = Attention(dtype, name="middle_attention")(x)
  return Residual(x.shape[-1], dtype, name="middle_residual_1")(x)


def _conv_out(channels: int) -> nn.Conv:
  return nn.Conv(
    channels, (3, 3), dtype=jnp.float32, precision="highest", name="conv_out"
  )


class Encoder(nn.Module):
  """Mel spectrograms as images `b t m 1` -> means and log-variances.

  Attributes:
    config: Shape of the autoencoder.
    dtype: Type of matrix products; norms, softmax and the last layers are
      float32.
  """

  config: AutoencoderConfig
  dtype: jnp.dtype = jnp.dtype(jnp.float32)

  @nn.compact
  def __call__(self, x: Float[Array, "b t m 1"]) -> Float[Array, "b w z e"]:
    c, dtype = self.config, self.dtype
    x = nn.Conv(c.filters, (3, 3), dtype=dtype, name="conv_in")(x)
    for i, multiplier in enumerate(c.multipliers):
      for j in range(c.residual_layers):
        name, features = f"down_{i}_residual_{j}", c.filters * multiplier
        x = Residual(features, dtype, name=name)(x)
        if i in c.attention:
          x = Attention(dtype, name=f"down_{i}_attention_{j}")(x)
      if i < len(c.multipliers) - 1:
        x = Down(dtype, name=f"down_{i}")(x)
    x = jax.nn.silu(norm("norm_out")(_middle(x, dtype)))
    x = _conv_out(2 * c.middle)(x)
    posterior = nn.Dense(
      2 * c.channels, dtype=jnp.float32, precision="highest", name="posterior"
    )
    return posterior(x)


class Decoder(nn.Module):
  """Latents -> mel spectrograms as images `b t m 1`.

  Attributes:
    config: Shape of the autoencoder.
    dtype: As the encoder's.
  """

  config: AutoencoderConfig
  dtype: jnp.dtype = jnp.dtype(jnp.float32)

  @nn.compact
  def __call__(self, x: Float[Array, "b w z c"]) -> Float[Array, "b t m 1"]:
    c, dtype = self.config, self.dtype
    x = nn.Dense(c.middle, dtype=dtype, name="latent")(x)
    first = c.filters * c.multipliers[-1]
    x = nn.Conv(first, (3, 3), dtype=dtype, name="conv_in")(x)
    x = _middle(x, dtype)
    for i, multiplier in reversed([*enumerate(c.multipliers)]):
      for j in range(c.residual_layers + 1):
        name, features = f"up_{i}_residual_{j}", c.filters * multiplier
        x = Residual(features, dtype, name=name)(x)
        if i in c.attention:
          x = Attention(dtype, name=f"up_{i}_attention_{j}")(x)
      if i:
        x = Up(dtype, name=f"up_{i}")(x)
    return _conv_out(1)(jax.nn.silu(norm("norm_out")(x)))


def init(config: AutoencoderConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  c, keys = config, jax.random.split(key)
  bands = jnp.zeros((1, c.ratio, c.mel.n_mels, 1))
  latent = jnp.zeros((1, 1, c.rows, c.channels))
  return {
    "encoder": Encoder(c).init(keys[0], bands)["params"],
    "decoder": Decoder(c).init(keys[1], latent)["params"],
  }


def image(
  config: AutoencoderConfig, mel: Float[Array, "b t m"]
) -> Float[Array, "b t m"]:
  """A mel spectrogram as the networks see it.

  Where the recipe brings levels to 0 … 1 they see -1 … 1.
  """
  return mel if config.mel.range_db is None else 2 * mel - 1


def encode(
  config: AutoencoderConfig,
  params: Tree,
  mel: Float[Array, "b t m"],
  dtype: jnp.dtype = Encoder.dtype,
) -> Posterior:
  """What a latent may be, in float32; frames are a multiple of `ratio`.

  `dtype` is the type of matrix products.

  Raises:
    InputError: For another number of frames.
  """
  frames = mel.shape[1]
  if frames % config.ratio:
    raise InputError(
      f"{frames} frames are no multiple of the {config.ratio} of a column of a"
      " latent; pad or cut the sound"
    )
  mel = image(config, mel)
  with jax.default_matmul_precision(precision(dtype)):
    variables = winograd.variables(params["encoder"], dtype)
    both = Encoder(config, dtype).apply(variables, mel[..., None])
  return Posterior.of(both)


def latent(
  config: AutoencoderConfig,
  posterior: Posterior,
  noise: Float[Array, "b w z c"],
) -> Float[Array, "b w z c"]:
  """A draw from a posterior, scaled: what diffusion is trained on."""
  return config.scale * posterior.sample(noise)


def decode(
  config: AutoencoderConfig,
  params: Tree,
  latent: Float[Array, "b w z c"],
  dtype: jnp.dtype = Decoder.dtype,
) -> Float[Array, "b t m"]:
  """The mel spectrogram of a scaled latent, in float32.

  `dtype` is the type of matrix products.
  """
  with jax.default_matmul_precision(precision(dtype)):
    variables = winograd.variables(params["decoder"], dtype)
    image = Decoder(config, dtype).apply(variables, latent / config.scale)
  if config.mel.range_db is not None:
    image = jnp.clip((image + 1) / 2, 0, 1)
  return image[..., 0]
