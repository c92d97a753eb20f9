"""EnCodec (Défossez et al., 2022): sound <-> codes.

`Encodec` is the door to this room: numpy in, numpy out, any length.  Lengths
are padded to buckets inside, and cut again, so that nearby ones share a
compilation.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.codec import layers, rvq, seanet
from audiogen_jax.codec.rvq import Codebooks, RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, TokenSpec, Tree, bucket

_LEAST_FRAMES = 64  # the smallest bucket: about a second

# The tree is {"params": {"encoder": …, "decoder": …}, "codebooks": …}.
AXES = {f"params/{rule}": axes for rule, axes in layers.AXES.items()} | {
  f"codebooks/({rule})": axes for rule, axes in rvq.AXES.items()
}


@dataclasses.dataclass(frozen=True)
class EncodecConfig:
  """A codec; the defaults are that of AudioGen-medium: 16 kHz, 50 Hz, 4 x 2048.

  Attributes:
    sample_rate_hz: Of the sound.
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

  def __post_init__(self):
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
    """What a language model needs to know."""
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
  """The same codec without weight norm, which is only needed to train it."""
  if config.seanet.norm != "weight_norm":
    return config
  plain = dataclasses.replace(config.seanet, norm="none")
  return dataclasses.replace(config, seanet=plain)


def fold(variables: Tree) -> Tree:
  """Variables for `folded(config)`."""
  params = layers.fold_weight_norm(variables["params"])
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
    variables: Its variables.
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
    if config.stereo_codes:
      audio = _split_stereo(audio)
      length = jnp.repeat(length, 2)
    encoder = seanet.Encoder(config.seanet)
    latents, _ = encoder.apply(
      {"params": variables["params"]["encoder"]}, audio, length
    )
    codes = rvq.encode(latents, Codebooks(**variables["codebooks"]))
    if config.stereo_codes:
      bb, k, t = codes.shape
      codes = codes.reshape(bb // 2, 2, k, t).swapaxes(1, 2)
      codes = codes.reshape(bb // 2, 2 * k, t)
    return codes, scale


def decode(
  config: EncodecConfig,
  variables: Tree,
  codes: Int[Array, "b k t"],
  length: Int[Array, " b"],
  scale: Float[Array, " b"],
) -> Float[Array, "b n c"]:
  """Sound of padded rows of codes; `length` counts each row's real frames."""
  with jax.default_matmul_precision("highest"):
    if config.stereo_codes:
      b, kk, t = codes.shape
      codes = codes.reshape(b, kk // 2, 2, t).swapaxes(1, 2)
      codes = codes.reshape(2 * b, kk // 2, t)
      length = jnp.repeat(length, 2)
    latents = rvq.decode(codes, Codebooks(**variables["codebooks"]))
    decoder = seanet.Decoder(config.seanet)
    audio, _ = decoder.apply(
      {"params": variables["params"]["decoder"]}, latents, length
    )
    if config.stereo_codes:
      audio = audio[..., 0].reshape(codes.shape[0] // 2, 2, -1)
      audio = audio.swapaxes(1, 2)
    return audio * scale[:, None, None]


def _split_stereo(audio: Float[Array, "b n 2"]) -> Float[Array, "bb n 1"]:
  """Rows L, R, L, R, … of a mono codec."""
  b, n, _ = audio.shape
  return audio.swapaxes(1, 2).reshape(2 * b, n, 1)


_encode = jax.jit(encode, static_argnames="config")
_decode = jax.jit(decode, static_argnames="config")
_fold = jax.jit(fold)


class Encodec:
  """A codec with its weights: what users and pipelines hold.

  Attributes:
    config: What it is.
    variables: Its parameters and codebooks, weight norm still unfolded.
  """

  def __init__(
    self,
    config: EncodecConfig,
    variables: Tree,
    placement: sharding.Placement | None = None,
  ):
    self.config = config
    self.variables = variables
    self._placement = placement

  @functools.cached_property
  def _folded(self) -> tuple[EncodecConfig, Tree]:
    """Configuration and variables for inference, made once."""
    return folded(self.config), _fold(self.variables)

  @property
  def tokens(self) -> TokenSpec:
    """The contract with the language model."""
    return self.config.tokens

  def encode(
    self,
    audio: Float[AnyArray, "b n c"],
    *,
    lengths: Int[np.ndarray, "b"] | None = None,
  ) -> Int[np.ndarray, "b k t"]:
    """Codes of whole sounds; t = ⌈n / hop⌉.

    Args:
      lengths: Samples of each sound, if they differ: what lies beyond is not
        looked at, and codes of frames beyond mean nothing.

    Raises:
      InputError: For no samples, other channels, or values that are not finite;
        for a codec that scales chunks, which needs `encode_chunks`.
    """
    self._refuse_chunks("encode")
    audio = self._checked(audio)
    codes, _ = self._run_encode(audio, lengths)
    return codes

  def decode(
    self,
    codes: Int[AnyArray, "b k t"],
    *,
    lengths: Int[np.ndarray, "b"] | None = None,
  ) -> Float[np.ndarray, "b n c"]:
    """Sound of codes, `n = t hop` samples, not limited to ±1.

    Fewer codebooks than the codec has give a coarser sound.

    Args:
      lengths: Frames of each row, if they differ: what lies beyond is not
        looked at, and sound beyond means nothing.

    Raises:
      InputError: For no frames, too many codebooks or codes out of range.
    """
    self._refuse_chunks("decode")
    ones = np.ones(len(codes), np.float32)
    return self._run_decode(codes, ones, lengths)

  def encode_chunks(
    self, audio: Float[AnyArray, "b n c"]
  ) -> tuple[Int[np.ndarray, "b m k t"], Float[np.ndarray, "b m"]]:
    """Codes and scales of `m` overlapping chunks (one, if `chunk_s` is None).

    A last chunk that is shorter is filled with zeros; `decode_chunks` knows
    from the length where it ends.
    """
    audio = self._checked(audio)
    b, n, _ = audio.shape
    chunk, starts = self.chunks(n)
    t = -(-chunk // self.config.hop)
    shape = (b, len(starts), self.tokens.codebooks, t)
    codes, scales = np.zeros(shape, np.int32), np.ones(shape[:2], np.float32)
    for i, start in enumerate(starts):
      part, scales[:, i] = self._run_encode(audio[:, start : start + chunk])
      codes[:, i, :, : part.shape[-1]] = part
    return codes, scales

  def decode_chunks(
    self,
    codes: Int[AnyArray, "b m k t"],
    scales: Float[AnyArray, "b m"],
    length: int,
  ) -> Float[np.ndarray, "b n c"]:
    """Sound of `length` samples from what `encode_chunks` returned.

    Chunks are joined by a weighted mean, each weighted by a triangle (EnCodec,
    §3.1, "1 % overlap").

    Raises:
      InputError: If the number of chunks does not belong to that length.
    """
    chunk, starts = self.chunks(length)
    want = len(starts), -(-chunk // self.config.hop)
    if (codes.shape[1], codes.shape[3]) != want:
      raise InputError(
        f"{length} samples are {want[0]} chunks of {want[1]} frames; the codes"
        f" are {codes.shape[1]} of {codes.shape[3]}"
      )
    ramp = np.linspace(0, 1, chunk + 2, dtype=np.float32)[1:-1]
    ramp = (0.5 - np.abs(ramp - 0.5))[None, :, None]
    total = np.zeros((len(codes), length, self.config.channels), np.float32)
    weight = np.zeros((1, length, 1), np.float32)
    for i, start in enumerate(starts):
      size = min(chunk, length - start)
      t = -(-size // self.config.hop)
      part = self._run_decode(codes[:, i, :, :t], np.asarray(scales)[:, i])
      total[:, start : start + size] += part[:, :size] * ramp[:, :size]
      weight[:, start : start + size] += ramp[:, :size]
    return total / weight

  def chunks(self, length: int) -> tuple[int, range]:
    """Samples of a chunk, and where each chunk of `length` samples starts."""
    if self.config.chunk_s is None:
      return length, range(1)
    chunk = int(self.config.chunk_s * self.config.sample_rate_hz)
    stride = max(1, int((1 - self.config.overlap) * chunk))
    return chunk, range(0, length, stride)

  def _refuse_chunks(self, verb: str) -> None:
    if self.config.renormalise or self.config.chunk_s is not None:
      raise InputError(
        f"this codec scales each chunk of sound; use {verb}_chunks, which keeps"
        " the scales"
      )

  def _checked(self, audio: AnyArray) -> np.ndarray:
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 3 or audio.shape[2] != self.config.channels:
      raise InputError(
        f"audio must be [batch, samples, {self.config.channels}]; its shape is"
        f" {audio.shape}"
      )
    if not audio.size:
      raise InputError(f"audio of shape {audio.shape} holds no samples")
    bad = audio.size - np.count_nonzero(np.isfinite(audio))
    if bad:
      raise InputError(f"audio holds {bad} samples that are NaN or infinite")
    return audio

  def _run_encode(
    self, audio: np.ndarray, lengths: np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Pads to a bucket of frames, encodes, cuts."""
    b, n, _ = audio.shape
    hop = self.config.hop
    t = -(-n // hop)
    room = bucket(t, least=_LEAST_FRAMES) * hop - n
    audio = self._placed(np.pad(audio, ((0, 0), (0, room), (0, 0))))
    config, variables = self._folded
    length = np.full(b, n, np.int32)
    if lengths is not None:
      length = np.asarray(lengths, np.int32)
    codes, scale = _encode(config, variables, audio, length)
    return np.asarray(codes)[:, :, :t], np.asarray(scale)

  def _run_decode(
    self,
    codes: AnyArray,
    scale: np.ndarray,
    lengths: np.ndarray | None = None,
  ) -> np.ndarray:
    """Pads to a bucket of frames, decodes, cuts."""
    codes = np.asarray(codes, np.int32)
    b, k, t = codes.shape
    if not b or not t or not 0 < k <= self.tokens.codebooks:
      raise InputError(
        f"codes of shape {codes.shape} must have at least one row, one frame"
        f" and 1 to {self.tokens.codebooks} codebooks"
      )
    if codes.min() < 0 or codes.max() >= self.tokens.size:
      raise InputError(
        f"codes lie in [{codes.min()}, {codes.max()}]; this codec's lie in"
        f" [0, {self.tokens.size - 1}]"
      )
    room = bucket(t, least=_LEAST_FRAMES) - t
    codes = self._placed(np.pad(codes, ((0, 0), (0, 0), (0, room))))
    config, variables = self._folded
    length = np.full(b, t, np.int32)
    if lengths is not None:
      length = np.asarray(lengths, np.int32)
    audio = _decode(config, variables, codes, length, scale)
    return np.asarray(audio)[:, : t * self.config.hop]

  def _placed(self, rows: np.ndarray) -> jax.Array:
    """Rows spread over the mesh where it divides them, else on every device."""
    if self._placement is None:
      return jnp.asarray(rows)
    even = len(rows) % self._placement.ways("batch") == 0
    axes = ("batch" if even else None, None, None)
    return jax.device_put(rows, self._placement.sharding(*axes))
