"""VGGish (Hershey et al., ICASSP 2017): windows of a second -> 128 numbers.

    sound -> windows -> log-mel b t m -> convolutions -> dense layers -> b d

The Fréchet audio distance (Kilgour et al., Interspeech 2019) is one of these
vectors.  Its implementations agree on the network, without the last ReLU, and
not on the windows: see `Windows`.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core import winograd
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import batching
from audiogen_jax.embedding.extractor import Heard

_MOST = 1 << 19  # samples of a batch: 32 windows
_LEAST_PEAK = 0.1 / 32768  # the original's 0.1, of 16-bit integers


@dataclasses.dataclass(frozen=True)
class VGGishConfig:
  """Shape of the network; the defaults are the published one's.

  Attributes:
    blocks: Channels of the convolutions, in blocks that end in a pooling.
    widths: Of the dense layers; the last is the embedding's.
    frames: Of a patch, which is what the network sees.
    mel: Its recipe: magnitudes, which are not squared.
  """

  blocks: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512))
  widths: tuple[int, ...] = (4096, 4096, 128)
  frames: int = 96
  mel: MelConfig = MelConfig(
    16_000,
    n_fft=512,
    hop=160,
    window_length=400,
    n_mels=64,
    f_min_hz=125.0,
    f_max_hz=7500.0,
    straight="mel",
    magnitude=True,
    padding="window",
    log="ln",
    floor=0.01,
  )

  @property
  def flattened(self) -> int:
    """Numbers that the first dense layer sees."""
    cells = (self.frames >> len(self.blocks)) * (
      self.mel.n_mels >> len(self.blocks)
    )
    return cells * self.blocks[-1][-1]


@dataclasses.dataclass(frozen=True)
class Windows:
  """How a clip is cut and levelled, in which implementations differ.

  Attributes:
    samples: Of a window; its first `frames` frames are the patch.
    hop: From one window to the next.
    to_peak: Whether a clip is divided by its largest positive sample.
  """

  samples: int
  hop: int
  to_peak: bool = False


# google-research's frechet_audio_distance, so audiocraft's: a second each half.
GOOGLE = Windows(16_000, 8_000, to_peak=True)
# torchvggish's, so audioldm_eval's and fadtk's: 96 frames end to end.
PATCHES = Windows(15_600, 15_360)


class VGGish(nn.Module):
  """Log-mel patches `b t m` -> embeddings `b d`."""

  config: VGGishConfig

  @nn.compact
  def __call__(self, patches: Float[Array, "b t m"]) -> Float[Array, "b d"]:
    x = patches[..., None]
    for i, block in enumerate(self.config.blocks):
      for j, channels in enumerate(block):
        x = nn.relu(winograd.Conv(channels, name=f"conv_{i}_{j}")(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
    x = x.reshape(len(x), -1)  # time, band, channel
    *inner, last = self.config.widths
    for i, width in enumerate(inner):
      x = nn.relu(nn.Dense(width, name=f"dense_{i}")(x))
    return nn.Dense(last, name=f"dense_{len(inner)}")(x)


def init(config: VGGishConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  patches = jnp.zeros((1, config.frames, config.mel.n_mels))
  return VGGish(config).init(key, patches)["params"]


def log_mel(
  config: VGGishConfig, windows: Float[Array, "b n"]
) -> Float[Array, "b t m"]:
  """The patch of each window."""
  return mel.log_spectrogram(config.mel, windows)[:, : config.frames]


def hear(
  config: VGGishConfig, variables: Tree, windows: Float[Array, "b n"]
) -> Float[Array, "b d"]:
  """Windows of sound -> embeddings, in float32."""
  with jax.default_matmul_precision("highest"):
    return VGGish(config).apply(variables, log_mel(config, windows))


_hear = jax.jit(hear, static_argnames="config")


class Extractor:
  """A VGGish with its weights: an `extractor.Extractor`, a row a window.

  Attributes:
    name: `vggish`.
    sample_rate_hz: Of the sounds that it takes.
    sha256: Of the published file that holds its weights.
    config: Its shape.
    params: Its parameters, as `init` makes them.
    windows: How clips are cut and levelled.
  """

  name = "vggish"

  def __init__(
    self,
    config: VGGishConfig,
    params: Tree,
    *,
    sha256: str,
    windows: Windows = GOOGLE,
  ) -> None:
    self.config, self.params, self.windows = config, params, windows
    self.sample_rate_hz, self.sha256 = config.mel.rate_hz, sha256
    self._variables = winograd.variables(params)

  def embed(self, sounds: Sequence[Float[np.ndarray, " _"]]) -> list[Heard]:
    """See `extractor.Extractor`."""
    rows = [self._cut(sound) for sound in sounds]
    made = batching.in_batches(
      [window for windows in rows for window in windows],
      lambda batch, _: (_hear(self.config, self._variables, batch),),
      padded=lambda n: n,
      most=_MOST,
    )
    embeddings = iter(made)
    return [
      Heard(np.stack([next(embeddings)[0] for _ in windows]))
      for windows in rows
    ]

  def _cut(
    self, sound: Float[np.ndarray, " n"]
  ) -> list[Float[np.ndarray, " window"]]:
    w = self.windows
    if len(sound) < w.samples:
      raise InputError(
        f"{self.name} needs {w.samples} samples, a window at"
        f" {self.sample_rate_hz} Hz, got {len(sound)}: pad the sound or leave"
        " it out"
      )
    if w.to_peak:
      sound = sound / np.float32(max(_LEAST_PEAK, sound.max()))
    starts = range(0, len(sound) - w.samples + 1, w.hop)
    return [sound[start : start + w.samples] for start in starts]
