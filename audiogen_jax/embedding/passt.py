"""PaSST (Koutini et al., Interspeech 2022): pieces of a clip -> 527 tags.

    sound -> pieces -> log-mel b t m -> patches b (f p) d -> transformer
                                     -> mean of its two tokens -> logits

Patches overlap: 16 x 16 every 10.  A piece is heard at its own length.  In a
batch shorter ones are padded, and nothing attends to what lies behind the end.
"""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import batching
from audiogen_jax.embedding.extractor import Heard

_MOST_S = 80  # seconds of sound in a batch
_LEAST_FRAMES = 64  # the smallest bucket of a piece's length
_EMPHASIS = np.float32(0.97)
_SHIFT, _SCALE = 4.5, 5.0  # to log-mel of about mean 0 and width 1


@dataclasses.dataclass(frozen=True)
class PaSSTConfig:
  """Shape of the network; the defaults are those of `passt-s-f128-p16-s10`.

  Attributes:
    width: Of a token.
    layers: How many.
    heads: Of an attention.
    ff: Of the feed-forward layers.
    classes: Of the tags: AudioSet's.
    patch: Bands, and frames, of a patch.
    stride: From one patch to the next, of either.
    times: Patches that a piece has at most: those with a position.
    mel: Its recipe.
    epsilon: Added to variances, but for those of the head.
    head_epsilon: Of the head's norm.
  """

  width: int = 768
  layers: int = 12
  heads: int = 12
  ff: int = 3072
  classes: int = 527
  patch: tuple[int, int] = (16, 16)
  stride: tuple[int, int] = (10, 10)
  times: int = 99
  mel: MelConfig = MelConfig(
    32_000,
    n_fft=1024,
    hop=320,
    window_length=800,
    symmetric=True,
    n_mels=128,
    f_max_hz=15_000.0,
    straight="mel",
    padding="center",
    log="ln",
    floor=1e-5,
  )
  epsilon: float = 1e-6
  head_epsilon: float = 1e-5

  @property
  def bands(self) -> int:
    """Patches over the bands."""
    return (self.mel.n_mels - self.patch[0]) // self.stride[0] + 1

  @property
  def least_samples(self) -> int:
    """Samples that have a whole patch; pre-emphasis takes one of them."""
    return (self.patch[1] - 1) * self.mel.hop + 1

  @property
  def piece(self) -> int:
    """Samples, whole seconds of them, that the positions are made for."""
    seconds = self.times * self.stride[1] * self.mel.hop / self.mel.rate_hz
    return max(round(seconds), 1) * self.mel.rate_hz


@dataclasses.dataclass(frozen=True)
class Pieces:
  """How a clip is cut, in which the evaluations differ.

  Attributes:
    hop: From one piece to the next, as a share of a piece.
    fill_s: Pieces that are longer, in seconds, are filled with zeros.
  """

  hop: float = 1.0
  fill_s: float = math.inf


# audiocraft's: end to end, the last one at its own length.
END_TO_END = Pieces()
# stable-audio-metrics': overlapping, and the last one filled.
HALVES = Pieces(hop=0.5, fill_s=1.5)


class Block(nn.Module):
  """One layer: attention and a perceptron, each behind a norm."""

  config: PaSSTConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], seen: Bool[Array, "b l"]
  ) -> tuple[Float[Array, "b l d"], None]:
    c = self.config
    shape = (3, c.heads, c.width // c.heads)
    y = _norm(c.epsilon, "attention_norm")(x)
    q, k, v = jnp.moveaxis(nn.DenseGeneral(shape, name="qkv")(y), 2, 0)
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(shape[-1])
    scores = jnp.where(seen[:, None, None], scores, -jnp.inf)
    y = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores), v)
    x = x + nn.DenseGeneral(c.width, axis=(-2, -1), name="out")(y)
    y = nn.Dense(c.ff, name="up")(_norm(c.epsilon, "ff_norm")(x))
    y = jax.nn.gelu(y, approximate=False)
    return x + nn.Dense(c.width, name="down")(y), None


class PaSST(nn.Module):
  """Log-mel `b t m`, of which `frames` are real -> features and logits."""

  config: PaSSTConfig

  @nn.compact
  def __call__(
    self, log_mel: Float[Array, "b t m"], frames: Int[Array, " b"]
  ) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
    c, b = self.config, len(log_mel)
    x = nn.Conv(c.width, c.patch, c.stride, padding="VALID", name="patches")(
      jnp.swapaxes(log_mel, 1, 2)[..., None]
    )[:, :, : c.times]  # b f p d
    p = x.shape[2]
    x = x + self._table("times", c.times)[None, None, :p]
    x = x + self._table("bands", c.bands)[None, :, None]
    tokens = self._table("tokens", 2) + self._table("token_positions", 2)
    tokens = jnp.broadcast_to(tokens, (b, 2, c.width))
    x = jnp.concatenate([tokens, x.reshape(b, -1, c.width)], axis=1)
    real = (frames - c.patch[1]) // c.stride[1] + 1
    seen = jnp.arange(p)[None] < real[:, None]  # b p
    seen = jnp.broadcast_to(seen[:, None], (b, c.bands, p)).reshape(b, -1)
    seen = jnp.concatenate([jnp.ones((b, 2), bool), seen], axis=1)
    layers = nn.scan(
      Block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=c.layers,
    )
    x, _ = layers(c, name="layers")(x, seen)
    x = jnp.mean(_norm(c.epsilon, "out_norm")(x[:, :2]), axis=1)
    y = _norm(c.head_epsilon, "head_norm")(x)
    return x, nn.Dense(c.classes, name="classes")(y)

  def _table(self, name: str, rows: int) -> Float[Array, "n d"]:
    start = nn.initializers.normal(0.02)
    return self.param(name, start, (rows, self.config.width))


def _norm(epsilon: float, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon, use_fast_variance=False, name=name)


def init(config: PaSSTConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  frames = config.patch[1]
  log_mel = jnp.zeros((1, frames, config.mel.n_mels))
  return PaSST(config).init(key, log_mel, jnp.array([frames]))["params"]


def log_mel(
  config: PaSSTConfig, reflected: Float[Array, "b n"]
) -> Float[Array, "b t m"]:
  """What the network sees, of pieces that went through `emphasise`."""
  recipe = dataclasses.replace(config.mel, padding="none")
  return (mel.log_spectrogram(recipe, reflected) + _SHIFT) / _SCALE


def emphasise(
  config: PaSSTConfig, piece: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " p"]:
  """Lifts high frequencies, and mirrors a piece at its own ends."""
  lifted = piece[1:] - _EMPHASIS * piece[:-1]
  return np.pad(lifted, config.mel.n_fft // 2, mode="reflect")


def hear(
  config: PaSSTConfig,
  params: Tree,
  reflected: Float[Array, "b n"],
  lengths: Int[Array, " b"],
) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
  """Emphasised pieces of these lengths -> features and logits, in float32."""
  c = config.mel
  frames = (lengths - c.n_fft) // c.hop + 1
  with jax.default_matmul_precision("highest"):
    seen = log_mel(config, reflected)
    return PaSST(config).apply({"params": params}, seen, frames)


_hear = jax.jit(hear, static_argnames="config")


class Extractor:
  """A PaSST with its weights: an `extractor.Extractor`, a row a piece.

  Attributes:
    name: `passt`.
    sample_rate_hz: Of the sounds that it takes.
    sha256: Of the published file that holds its weights.
    config: Its shape; its `piece` is the length that clips are cut to.
    params: Its parameters, as `init` makes them.
    pieces: How they are cut.
  """

  name = "passt"

  def __init__(
    self,
    config: PaSSTConfig,
    params: Tree,
    *,
    sha256: str,
    pieces: Pieces = END_TO_END,
  ) -> None:
    self.config, self.params, self.pieces = config, params, pieces
    self.sample_rate_hz, self.sha256 = config.mel.rate_hz, sha256

  def embed(self, sounds: Sequence[Float[np.ndarray, " _"]]) -> list[Heard]:
    """See `extractor.Extractor`."""
    c = self.config
    rows = [self._cut(sound) for sound in sounds]
    made = iter(
      batching.in_batches(
        [emphasise(c, piece) for pieces in rows for piece in pieces],
        lambda batch, lengths: _hear(c, self.params, batch, lengths),
        padded=lambda n: batching.whole_frames(c.mel, n, least=_LEAST_FRAMES),
        most=_MOST_S * self.sample_rate_hz,
      )
    )
    heard = []
    for pieces in rows:
      features, logits = zip(*(next(made) for _ in pieces), strict=True)
      heard.append(Heard(np.stack(features), np.stack(logits)))
    return heard

  def _cut(
    self, sound: Float[np.ndarray, " n"]
  ) -> list[Float[np.ndarray, " _"]]:
    c, size = self.config, self.config.piece
    if len(sound) < c.least_samples:
      raise InputError(
        f"{self.name} needs {c.least_samples} samples at"
        f" {self.sample_rate_hz} Hz, {c.patch[1]} frames, got {len(sound)}: pad"
        " the sound or leave it out"
      )
    hop = round(self.pieces.hop * size)
    # What the last piece before has heard is not heard alone once more.
    ends = max(len(sound) - (size - hop), 1)
    pieces = [sound[start : start + size] for start in range(0, ends, hop)]
    pieces = [piece for piece in pieces if len(piece) >= c.least_samples]
    return [self._filled(piece) for piece in pieces]

  def _filled(self, piece: Float[np.ndarray, " n"]) -> np.ndarray:
    if len(piece) <= self.pieces.fill_s * self.sample_rate_hz:
      return piece
    return np.pad(piece, (0, self.config.piece - len(piece)))
