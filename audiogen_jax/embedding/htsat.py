"""HTSAT (Chen et al., ICASSP 2022): a Swin transformer that hears log-mels.

    sound -> log-mel b t m -> bands normed -> stretched -> image b y x
          -> patches b y x d -> four stages, each of half the grid -> mean b d

The blocks are those of Swin (Liu et al., ICCV 2021): attention within windows,
which every second block shifts by half a window.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, Tree
from audiogen_jax.embedding.cnn14 import Norm

_CUBIC = -0.75  # the slope of the cubic at distance 1
_APART = -100.0  # added to scores across the edge of a shifted image


@dataclasses.dataclass(frozen=True)
class HTSATConfig:
  """Shape of the network; the defaults are those of HTSAT-tiny.

  Attributes:
    mel: Recipe of the log-mel, which is in decibels here; its bands times a
      whole number are the rows of the image.
    width: Of a token of the first stage; each further stage doubles it.
    depths: Blocks of each stage.
    heads: Attention heads of each stage.
    window: Tokens along a side of a window.
    image: Rows, and columns, of the image.
    patch: Rows, and columns, that become one token.
    mlp: Width of a block's hidden layer, in widths of its tokens.
    epsilon: Added to variances in the norms.
  """

  mel: MelConfig
  width: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  heads: tuple[int, ...] = (4, 8, 16, 32)
  window: int = 8
  image: int = 256
  patch: int = 4
  mlp: int = 4
  epsilon: float = 1e-5

  def __post_init__(self) -> None:
    if len(self.depths) != len(self.heads):
      raise InputError(
        f"{len(self.depths)} stages have {len(self.heads)} numbers of heads"
      )
    if self.image % self.mel.n_mels:
      raise InputError(
        f"{self.mel.n_mels} mel bands do not fill {self.image} rows of the"
        " image, several times over; take a divisor"
      )
    sides = [self.image // self.patch >> i for i in range(len(self.depths))]
    whole = self.patch * 2 ** (len(self.depths) - 1)
    if self.image % whole or any(s % min(s, self.window) for s in sides):
      raise InputError(
        f"an image of {self.image} rows in patches of {self.patch} makes grids"
        f" of {sides} tokens, which windows of {self.window} do not fill"
      )
    for i, heads in enumerate(self.heads):
      if (self.width << i) % heads:
        raise InputError(
          f"stage {i} has width {self.width << i} for {heads} heads"
        )

  @property
  def stretched(self) -> int:
    """Frames that the image holds: of a log-mel, at most."""
    return self.image * (self.image // self.mel.n_mels)

  @property
  def out_width(self) -> int:
    """Of what is heard."""
    return self.width << (len(self.depths) - 1)


def log_mel(
  config: MelConfig, sounds: Float[Array, "b n"]
) -> Float[Array, "b t m"]:
  """Power in mel bands, in decibels; centred frames."""
  return 10.0 * mel.log_spectrogram(config, sounds)


@functools.cache
def stretching(frames: int, stretched: int) -> Float[np.ndarray, "t s"]:
  """Weights that make `stretched` frames of fewer, the first and last kept.

  Cubic convolution (Keys, 1981) over four frames, those at the ends repeated,
  with slope -0.75.  `jax.image.resize` has -0.5, and keeps edges, not centres.
  """
  # In float32, as the published network places them.
  step = np.float32((frames - 1) / (stretched - 1))
  place = np.arange(stretched, dtype=np.float32) * step
  before = np.floor(place)
  weights = np.zeros((frames, stretched), np.float32)
  for tap in range(-1, 3):
    frame = np.clip(before.astype(int) + tap, 0, frames - 1)
    weight = _cubic(np.abs(place - before - np.float32(tap)))
    np.add.at(weights, (frame, np.arange(stretched)), weight)
  weights.flags.writeable = False
  return weights


def _cubic(x: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
  near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
  far = ((x - 5) * x + 8) * x * _CUBIC - 4 * _CUBIC
  return np.where(x <= 1, near, far)


def to_image(
  config: HTSATConfig, bands: Float[Array, "b t m"]
) -> Float[Array, "b y x"]:
  """Stretches a mel spectrogram, and lays its quarters one below the other.

  time ->                          columns: time within a segment
  [ 0 | 1 | 2 | 3 ] bands    ->    rows: segment 0's bands, segment 1's …
  """
  weights = jnp.asarray(stretching(bands.shape[1], config.stretched))
  bands = jnp.einsum("btm,ts->bms", bands, weights)
  b, m, s = bands.shape
  image = bands.reshape(b, m, s // config.image, config.image)
  return image.swapaxes(1, 2).reshape(b, config.image, config.image)


@functools.cache
def _pairs(window: int) -> Int[np.ndarray, "t t"]:
  """The row of the bias table for each query and key of a window."""
  y, x = np.divmod(np.arange(window**2), window)
  span = 2 * window - 1
  down = y[:, None] - y[None, :] + window - 1
  along = x[:, None] - x[None, :] + window - 1
  return down * span + along


@functools.cache
def _edges(side: int, window: int, shift: int) -> Float[np.ndarray, "w t t"]:
  """Keeps apart, in windows of a shifted image, what comes from two edges."""
  at = np.arange(side)
  strip = np.where(at < side - window, 0, np.where(at < side - shift, 1, 2))
  part = 3 * strip[:, None] + strip[None, :]
  part = _windows(part[None, :, :, None], window)[0, :, :, 0]
  same = part[:, :, None] == part[:, None, :]
  return np.where(same, 0.0, _APART).astype(np.float32)


def _windows(tokens: AnyArray, window: int) -> AnyArray:
  """Tokens `b y x d` -> windows of them `b w t d`."""
  b, y, x, d = tokens.shape
  rows, columns = y // window, x // window
  tokens = tokens.reshape(b, rows, window, columns, window, d)
  tokens = tokens.transpose(0, 1, 3, 2, 4, 5)
  return tokens.reshape(b, rows * columns, window * window, d)


def _joined(windows: Float[Array, "b w t d"], side: int) -> Array:
  """What `_windows` cut, tokens `b y x d` again."""
  b, _, t, d = windows.shape
  window = round(t**0.5)
  count = side // window
  tokens = windows.reshape(b, count, count, window, window, d)
  return tokens.transpose(0, 1, 3, 2, 4, 5).reshape(b, side, side, d)


class _Attention(nn.Module):
  """Attention within windows, with a bias for each distance."""

  heads: int
  window: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b w t d"],
    edges: Float[np.ndarray, "w t t"] | None,
  ) -> Float[Array, "b w t d"]:
    d, h = x.shape[-1], self.heads
    qkv = nn.DenseGeneral((3, h, d // h), name="qkv")(x)
    q, k, v = (qkv[..., i, :, :] for i in range(3))
    distances = (2 * self.window - 1) ** 2
    table = self.param("bias", nn.initializers.normal(0.02), (distances, h))
    bias = table[_pairs(self.window)].transpose(2, 0, 1)[None, None]
    scores = jnp.einsum("bwqhe,bwkhe->bwhqk", q * (d // h) ** -0.5, k) + bias
    if edges is not None:
      scores = scores + jnp.asarray(edges)[None, :, None]
    weights = jax.nn.softmax(scores, axis=-1)
    y = jnp.einsum("bwhqk,bwkhe->bwqhe", weights, v)
    return nn.DenseGeneral(d, axis=(-2, -1), name="out")(y)


class _Block(nn.Module):
  """Attention within windows and a hidden layer, each on the normed input."""

  config: HTSATConfig
  heads: int
  shifted: bool

  @nn.compact
  def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b y x d"]:
    c, side, d = self.config, x.shape[1], x.shape[-1]
    window = min(side, c.window)
    # One window is the whole image, and cannot be shifted.
    shift = window // 2 if self.shifted and side > window else 0
    y = _norm(c, "attention_norm")(x)
    y = _windows(jnp.roll(y, (-shift, -shift), (1, 2)), window)
    edges = _edges(side, window, shift) if shift else None
    y = _Attention(self.heads, window, name="attention")(y, edges)
    x = x + jnp.roll(_joined(y, side), (shift, shift), (1, 2))
    y = nn.Dense(c.mlp * d, name="up")(_norm(c, "mlp_norm")(x))
    y = jax.nn.gelu(y, approximate=False)
    return x + nn.Dense(d, name="down")(y)


class HTSAT(nn.Module):
  """Log-mel `b t m` in decibels -> what is heard `b d`."""

  config: HTSATConfig

  @nn.compact
  def __call__(self, bands: Float[Array, "b t m"]) -> Float[Array, "b d"]:
    c = self.config
    image = to_image(c, Norm(c.epsilon, name="bands")(bands))
    b, side = image.shape[0], c.image // c.patch
    patches = image.reshape(b, side, c.patch, side, c.patch)
    patches = patches.transpose(0, 1, 3, 2, 4)  # b y x, rows and columns
    x = nn.DenseGeneral(c.width, axis=(-2, -1), name="patches")(patches)
    x = _norm(c, "patches_norm")(x)
    for i, (depth, heads) in enumerate(zip(c.depths, c.heads, strict=True)):
      for j in range(depth):
        name = f"stage_{i}_block_{j}"
        x = _Block(c, heads, shifted=j % 2 == 1, name=name)(x)
      if i < len(c.depths) - 1:
        quarters = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = _norm(c, f"stage_{i}_norm")(jnp.concatenate(quarters, axis=-1))
        width = x.shape[-1] // 2
        x = nn.Dense(width, use_bias=False, name=f"stage_{i}_down")(x)
    return jnp.mean(_norm(c, "out_norm")(x), axis=(1, 2))


def _norm(config: HTSATConfig, name: str) -> nn.LayerNorm:
  return nn.LayerNorm(config.epsilon, use_fast_variance=False, name=name)


def init(config: HTSATConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  bands = jnp.zeros((1, config.stretched, config.mel.n_mels))
  return HTSAT(config).init(key, bands)["params"]
