"""A codec with its weights, the interface of this room: numpy in and out.

Lengths are padded to buckets inside, and cut again, so that nearby ones share a
compilation.  What is long is done in pieces, so that memory stays bounded.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.audio import checks
from audiogen_jax.codec import encodec, pieces
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.pieces import StreamingCoder
from audiogen_jax.core import fields, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import fetch
from audiogen_jax.core.types import AnyArray, TokenSpec, Tree, bucket

_LEAST_FRAMES = 64  # the smallest bucket: about a second
_PIECE = 2**20  # samples of all rows together: 65 s at 16 kHz

_encode = jax.jit(encodec.encode, static_argnames="config")
_decode = jax.jit(encodec.decode, static_argnames="config")
_fold = jax.jit(encodec.fold)


class Encodec:
  """A codec with its weights: what users and pipelines hold.

  Attributes:
    config: What it is.
    variables: Parameters and codebooks, weight norm still unfolded.
  """

  def __init__(
    self,
    config: EncodecConfig,
    variables: Tree,
    placement: sharding.Placement | None = None,
  ) -> None:
    self.config = config
    self.variables = variables
    self._placement = placement

  @functools.cached_property
  def _folded(self) -> tuple[EncodecConfig, Tree]:
    """Configuration and variables for inference, weight norm folded; cached."""
    return encodec.folded(self.config), _fold(self.variables)

  @property
  def tokens(self) -> TokenSpec:
    """Codebooks, codebook size and frame rate, as a language model needs."""
    return self.config.tokens

  def frames(self, audio: Float[AnyArray, "b n c"]) -> int:
    """How many frames `encode` would give; raises as it does."""
    return -(-self._checked(audio).shape[1] // self.config.hop)

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
    codes = self.tokens.checked(fetch(codes))
    ones = np.ones(len(codes), np.float32)
    return self._run_decode(codes, ones, lengths)

  def decode_changed(
    self,
    codes: Int[AnyArray, "b k t"],
    before: Int[AnyArray, "b k t"],
    changed: Bool[np.ndarray, "b t"],
  ) -> Float[np.ndarray, "b n c"]:
    """Sound of codes of which some frames were others before.

    A decoder's LSTM remembers what is no longer there for a second or more.
    Beyond what its convolutions see of a change the sound is that of `before`,
    and from there to the change one is faded into the other.

    Args:
      codes: What is to be heard.
      before: What there was.
      changed: The frames in which they may differ.

    Raises:
      InputError: As `decode`.
    """
    audio = self.decode(codes)
    stage, lstm, other = pieces.receptive_fields(self.config.seanet, "decoder")
    field = fields.series(stage, other)
    if lstm.bounded or not field.bounded:
      return audio
    made = np.repeat(changed, self.config.hop, axis=1)
    # A sample looks `before` samples back: so long after a change it is heard.
    share = np.maximum(
      _fading(made, field.before), _fading(made[:, ::-1], field.after)[:, ::-1]
    )[..., None]
    old = self.decode(before)
    mixed = np.where(share < 1, old + share * (audio - old), audio)
    return np.where(share > 0, mixed, old).astype(np.float32)

  def decode_stream(
    self,
    so_far: Iterator[Int[np.ndarray, "b k _"]],
    *,
    rows: int,
    frames: int,
    most: int,
  ) -> Iterator[Float[np.ndarray, "b n c"]]:
    """Sound of codes that are still being sampled.

    Args:
      so_far: The codes that there are, each time more of them.
      rows: Sounds.
      frames: Frames of each sound in the end.
      most: Frames that are decoded at once, at most.

    Yields:
      What is certain, after what was certain before: a few frames less than
      there are.  A codec with a norm over time sees the whole first.
    """
    self._refuse_chunks("decode")
    if not pieces.possible(self.config):
      *_, codes = so_far
      yield self.decode(codes)
      return
    config, variables = self._folded
    lengths = np.full(rows, frames, np.int32)
    decoder = StreamingCoder(
      config, variables, "decoder", most=most, lengths=lengths, put=self._placed
    )
    pushed = 0
    for codes in so_far:
      while pushed < codes.shape[2]:
        part = codes[:, :, pushed : pushed + most].swapaxes(1, 2)
        pushed += part.shape[1]
        audio = decoder.push(part, last=pushed == frames)
        if audio is not None:
          yield audio

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
    codes, scales = fetch(codes), fetch(scales)
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
      part = self._run_decode(codes[:, i, :, :t], scales[:, i])
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
    if isinstance(audio, jax.Array):
      audio = fetch(audio)
    audio = checks.samples(audio, "audio")
    if audio.ndim != 3 or audio.shape[2] != self.config.channels:
      raise InputError(
        f"audio must be [batch, samples, {self.config.channels}]; its shape is"
        f" {audio.shape}"
      )
    return audio

  def _run_encode(
    self, audio: np.ndarray, lengths: np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Codes `b k t`, and the scale `b` that renormalisation divided by."""
    b, n, _ = audio.shape
    hop = self.config.hop
    t = -(-n // hop)
    config, variables = self._folded
    length = np.full(b, n, np.int32)
    if lengths is not None:
      length = np.asarray(lengths, np.int32)
    piece = self._piece(b)
    if t > piece:
      codes = pieces.encode(
        config, variables, audio, length, piece, self._placed
      )
      return codes, np.ones(b, np.float32)
    padding = bucket(t, least=_LEAST_FRAMES) * hop - n
    audio = self._placed(np.pad(audio, ((0, 0), (0, padding), (0, 0))))
    codes, scale = _encode(config, variables, audio, length)
    return fetch(codes)[:, :, :t], fetch(scale)

  def _run_decode(
    self,
    codes: np.ndarray,
    scale: np.ndarray,
    lengths: np.ndarray | None = None,
  ) -> np.ndarray:
    """Sound `b n c` of codes, multiplied by the scale of each row."""
    codes = self.tokens.checked(codes)
    b, k, t = codes.shape
    if not b or not t or not 0 < k <= self.tokens.codebooks:
      raise InputError(
        f"codes of shape {codes.shape} must have at least one row, one frame"
        f" and 1 to {self.tokens.codebooks} codebooks"
      )
    config, variables = self._folded
    length = np.full(b, t, np.int32)
    if lengths is not None:
      length = np.asarray(lengths, np.int32)
    piece = self._piece(b)
    if t > piece:
      return pieces.decode(
        config, variables, codes, length, piece, self._placed
      )
    padding = bucket(t, least=_LEAST_FRAMES) - t
    codes = self._placed(np.pad(codes, ((0, 0), (0, 0), (0, padding))))
    audio = _decode(config, variables, codes, length, scale)
    return fetch(audio)[:, : t * self.config.hop]

  def _piece(self, rows: int) -> int | float:
    """Frames that are run at once, for so many rows; `inf` for all of them."""
    if not pieces.possible(self.config):
      return math.inf
    frames = _PIECE // (rows * self.config.hop)
    return max(_LEAST_FRAMES, 1 << (frames.bit_length() - 1))

  def _placed(self, rows: np.ndarray) -> jax.Array:
    """Rows spread over the mesh where it divides them, else on every device."""
    if self._placement is None:
      return jnp.asarray(rows)
    even = len(rows) % self._placement.ways("batch") == 0
    return self._placement.put(rows, "batch" if even else None, None, None)


def _fading(
  made: Bool[np.ndarray, "b n"], length: int
) -> Float[np.ndarray, "b n"]:
  """1 where something is made, falling to 0 within `length` samples after."""
  at = np.arange(made.shape[1])
  last = np.maximum.accumulate(np.where(made, at, -length - 1), axis=1)
  return np.clip(1 - (at - last) / (length + 1), 0, 1)
