"""The sound effects network of Ma and Lerch (ISMIR 2022): windows -> vectors.

    44.1 kHz -> log-mel, 100 frames a window, every 50 -> convolutions
             -> mean over bands, max over time -> 512 values

It was trained to tell categories of nine libraries of sound effects ("Represen-
tation Learning for the Automatic Indexing of Sound Effects Libraries", model
X-Sequential-CE), and its weights come with a package: of the networks here it
is the one that needs no download of its own.
"""

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core import winograd
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import batching
from audiogen_jax.embedding.extractor import Heard

NAME = "sfx"
# Essentia's spectra, as in the paper: windows centred on every 1,024th sample,
# zeros beyond the ends.
_MEL = MelConfig(
  44_100,
  n_fft=2048,
  hop=1024,
  symmetric=True,
  n_mels=96,
  straight="mel",
  padding="none",
)
_SHIFT, _SCALE = 1.0, 1e4  # log10(1e4 power + 1)
_LOUDEST = 9.457798957824707  # of the libraries' spectra
_FRAMES, _HOP = 100, 50  # of a window
_WINDOW = (_FRAMES - 1) * _MEL.hop + _MEL.n_fft  # samples
_MOST = 16  # windows in a batch


@dataclasses.dataclass(frozen=True)
class SfxConfig:
  """Shape of the network; the default is the published one's.

  Attributes:
    channels: Of the blocks; the last one's are the embedding.
  """

  channels: tuple[int, ...] = (64, 128, 256, 512)


class SfxNet(nn.Module):
  """Log-mel `b t m` -> embeddings; norms are in the convolutions' weights."""

  config: SfxConfig

  @nn.compact
  def __call__(self, bands: Float[Array, "b t m"]) -> Float[Array, "b d"]:
    x = bands[..., None]
    for i, channels in enumerate(self.config.channels):
      for j in range(2):
        x = nn.relu(winograd.Conv(channels, name=f"conv_{i}_{j}")(x))
      if i < len(self.config.channels) - 1:
        x = nn.max_pool(x, (2, 2), (2, 2))
    return jnp.max(jnp.mean(x, axis=2), axis=1)


def init(config: SfxConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  bands = jnp.zeros((1, _FRAMES, _MEL.n_mels))
  return SfxNet(config).init(key, bands)["params"]


@functools.partial(jax.jit, static_argnums=0)
def _hear(
  config: SfxConfig,
  variables: Tree,
  windows: Float[Array, "b n"],
  lengths: Int[Array, " b"],
) -> tuple[Float[Array, "b d"]]:
  """Embeddings of windows whose samples behind `lengths` are no sound."""
  # Each band is the mean power under its triangle.
  weights = mel.filters(_MEL).sum(axis=0)[None, None]
  power = mel.spectrogram(_MEL, windows) / weights
  bands = jnp.log10(_SCALE * power + _SHIFT) / _LOUDEST
  frames = -(-(lengths - _MEL.n_fft // 2) // _MEL.hop)
  real = jnp.arange(_FRAMES)[None, :, None] < frames[:, None, None]
  bands = jnp.where(real, bands, 0.0)
  with jax.default_matmul_precision("highest"):
    return (SfxNet(config).apply(variables, bands),)


class Sfx:
  """The network as an `Extractor`."""

  name = NAME
  sample_rate_hz = _MEL.rate_hz

  def __init__(self, config: SfxConfig, params: Tree, *, sha256: str) -> None:
    """Takes the weights, and the hash of the file that they come from."""
    self.sha256 = sha256
    self._config, self._variables = config, winograd.variables(params)

  def embed(self, sounds: Sequence[Float[np.ndarray, " _"]]) -> list[Heard]:
    """One embedding a window of 2.3 s, windows every 1.2 s.

    A window that a clip does not fill is dropped, but for a clip's only one,
    which is filled with silence.

    Raises:
      InputError: For a clip of 1.2 s or less.
    """
    rows, counts = [], []
    for sound in sounds:
      frames = -(-len(sound) // _MEL.hop)
      if frames <= _HOP:
        least = _HOP * _MEL.hop + 1
        raise InputError(
          f"{len(sound):,} samples at {self.sample_rate_hz} Hz are too short"
          f" for {self.name}, which needs {least:,}: leave out clips of less"
          f" than {least / self.sample_rate_hz:.2f} s"
        )
      count = max((frames - _FRAMES) // _HOP + 1, 1)
      padded = np.pad(sound.astype(np.float32), (_MEL.n_fft // 2, 0))
      starts = range(0, count * _HOP * _MEL.hop, _HOP * _MEL.hop)
      rows += [padded[start : start + _WINDOW] for start in starts]
      counts.append(count)
    heard = batching.in_batches(
      rows,
      functools.partial(_hear, self._config, self._variables),
      padded=lambda _: _WINDOW,
      most=_MOST * _WINDOW,
    )
    embeddings = np.array([embedding for (embedding,) in heard])
    ends = np.cumsum(counts)[:-1]
    return [Heard(part) for part in np.split(embeddings, ends)]
