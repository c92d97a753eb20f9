"""EnCodec (Défossez et al., 2022): sound <-> codes, as pure functions.

`codec.Encodec` is the interface of this room.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiogen_jax.codec import layers, rvq, seanet
from audiogen_jax.codec.rvq import Codebooks, RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core import weight_norm
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import TokenSpec, Tree

# The tree is {"params": {"encoder": …, "decoder": …}, "codebooks": …}.
AXES = {f"params/{rule}": axes for rule, axes in layers.AXES.items()} | {
  f"codebooks/({rule})": axes for rule, axes in rvq.AXES.items()
}


@dataclasses.dataclass(frozen=True)
class EncodecConfig:
  """A codec; the defaults are that of AudioGen-medium: 16 kHz, 50 Hz, 4 x 2048.

  Attributes:
    sample_rate_hz: Sample rate of the sound.
    seanet: Encoder and decoder.
    rvq: Quantiser.
    stereo_codes: Encode left and right apart with a mono model, codebooks in
      the order 1L, 1R, 2L, 2R, … (MusicGen's stereo models).
    renormalise: Scale every chunk to unit power; the scale is kept beside the
      codes.
    chunk_s: Encode chunks of this many seconds; None for the whole at once.
    overlap: Share of a chunk that the next one repeats.
  """

  sample_rate_hz: int = 16000
  seanet: SEANetConfig = SEANetConfig()
  rvq: RVQConfig = RVQConfig()
  stereo_codes: bool = False
  renormalise: bool = False
  chunk_s: float | None = None
  overlap: float = 0.0

  def __post_init__(self) -> None:
    if self.rvq.width != self.seanet.width:
      raise InputError(
        f"rvq.width = {self.rvq.width} must equal seanet.width ="
        f" {self.seanet.width}"
      )

  @property
  def hop(self) -> int:
    """Samples a frame."""
    return self.seanet.hop

  @property
  def channels(self) -> int:
    """Channels of the sound that goes in and comes out."""
    return 2 if self.stereo_codes else self.seanet.channels

  @property
  def tokens(self) -> TokenSpec:
    """Codebooks, codebook size and frame rate, as a language model needs."""
    return TokenSpec(
      codebooks=self.rvq.codebooks * (2 if self.stereo_codes else 1),
      size=self.rvq.size,
      frame_rate_hz=self.sample_rate_hz // self.hop,
    )

  @property
  def bitrate(self) -> float:
    """Bits a second with all codebooks."""
    frames = self.sample_rate_hz / self.hop
    return self.tokens.codebooks * math.log2(self.tokens.size) * frames


def init(config: EncodecConfig, key: jax.Array) -> Tree:
  """Fresh variables: random parameters, empty codebooks."""
  one = jnp.ones((1,), jnp.int32)
  keys = jax.random.split(key)
  c = config.seanet
  encoder, decoder = seanet.Encoder(c), seanet.Decoder(c)
  down = encoder.init(keys[0], jnp.zeros((1, c.hop, c.channels)), one)
  up = decoder.init(keys[1], jnp.zeros((1, 1, c.width)), one)
  return {
    "params": {"encoder": down["params"], "decoder": up["params"]},
    "codebooks": rvq.init(config.rvq)._asdict(),
  }


def folded(config: EncodecConfig) -> EncodecConfig:
  """The configuration for inference: weight norm, if any, becomes none.

  Only training needs direction and length of a kernel apart; `fold` multiplies
  them.
  """
  if config.seanet.norm != "weight_norm":
    return config
  plain = dataclasses.replace(config.seanet, norm="none")
  return dataclasses.replace(config, seanet=plain)


def fold(variables: Tree) -> Tree:
  """Variables for `folded(config)`: a kernel for each direction and length."""
  params = weight_norm.fold(variables["params"])
  return {**variables, "params": params}


def encode(
  config: EncodecConfig,
  variables: Tree,
  audio: Float[Array, "b n c"],
  length: Int[Array, " b"],
) -> tuple[Int[Array, "b k t"], Float[Array, " b"]]:
  """Codes of padded rows, and the scale that renormalisation divided by.

  Args:
    config: The codec.
    variables: Its parameters and codebooks.
    audio: Rows; what lies at and beyond `length` is ignored.
    length: Real samples of each row, at least 1.

  Returns:
    Codes, meaningful for the first ⌈length / hop⌉ frames of each row, and
    scales (ones unless the codec renormalises).
  """
  with jax.default_matmul_precision("highest"):
    scale = jnp.ones(audio.shape[0])
    if config.renormalise:
      real = jnp.arange(audio.shape[1])[None] < length[:, None]
      mono = jnp.where(real, jnp.mean(audio, axis=-1), 0)
      power = jnp.sum(jnp.square(mono), axis=1) / length
      scale = 1e-8 + jnp.sqrt(power)
      audio = audio / scale[:, None, None]
    audio, length = rows_of_sound(config, audio, length)
    encoder = seanet.Encoder(config.seanet)
    latents, _ = encoder.apply(
      {"params": variables["params"]["encoder"]}, audio, length
    )
    codes = rvq.encode(latents, Codebooks(**variables["codebooks"]))
    return codes_of_rows(config, codes), scale


def decode(
  config: EncodecConfig,
  variables: Tree,
  codes: Int[Array, "b k t"],
  length: Int[Array, " b"],
  scale: Float[Array, " b"],
) -> Float[Array, "b n c"]:
  """Sound of padded rows of codes; `length` counts each row's real frames."""
  with jax.default_matmul_precision("highest"):
    codes, length = rows_of_codes(config, codes, length)
    latents = rvq.decode(codes, Codebooks(**variables["codebooks"]))
    decoder = seanet.Decoder(config.seanet)
    audio, _ = decoder.apply(
      {"params": variables["params"]["decoder"]}, latents, length
    )
    return sound_of_rows(config, audio) * scale[:, None, None]


# A mono model codes left and right as rows of their own: L, R, L, R, …


def rows_of_sound(
  config: EncodecConfig,
  audio: Float[Array, "b n c"],
  length: Int[Array, " b"],
) -> tuple[Float[Array, "bb n _"], Int[Array, " bb"]]:
  """Rows as the encoder takes them."""
  if not config.stereo_codes:
    return audio, length
  b, n, _ = audio.shape
  audio = audio.swapaxes(1, 2).reshape(2 * b, n, 1)
  return audio, jnp.repeat(length, 2)


def sound_of_rows(
  config: EncodecConfig, audio: Float[Array, "bb n _"]
) -> Float[Array, "b n c"]:
  """Stereo sound from pairs of mono rows; undoes `rows_of_sound`."""
  if not config.stereo_codes:
    return audio
  return audio[..., 0].reshape(len(audio) // 2, 2, -1).swapaxes(1, 2)


def rows_of_codes(
  config: EncodecConfig, codes: Int[Array, "b k t"], length: Int[Array, " b"]
) -> tuple[Int[Array, "bb _ t"], Int[Array, " bb"]]:
  """Codes as the decoder takes them."""
  if not config.stereo_codes:
    return codes, length
  b, kk, t = codes.shape
  codes = codes.reshape(b, kk // 2, 2, t).swapaxes(1, 2)
  return codes.reshape(2 * b, kk // 2, t), jnp.repeat(length, 2)


def codes_of_rows(
  config: EncodecConfig, codes: Int[Array, "bb k t"]
) -> Int[Array, "b _ t"]:
  """Codes of stereo sound from pairs of rows; undoes `rows_of_codes`."""
  if not config.stereo_codes:
    return codes
  bb, k, t = codes.shape
  codes = codes.reshape(bb // 2, 2, k, t).swapaxes(1, 2)
  return codes.reshape(bb // 2, 2 * k, t)
