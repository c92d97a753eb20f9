"""The PyTorch originals of networks that judge, with random weights.

Waveforms in, embeddings out: each with the front end that it was published
with.  They need PyTorch, which nothing else here does.
"""

import contextlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from audiogen_jax.audio import mel
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding.vggish import GOOGLE, VGGishConfig

_LAION_HZ, _MICROSOFT_HZ = 48_000, 44_100
Hear = Callable[[Any], Any]  # from a tensor `b n` to one `b d`


class Rival:
  """A `Listener` of `benchmark.extractors`."""

  def __init__(self, name: str, hear: Hear) -> None:
    import torch

    torch.set_num_threads(1)
    self.name, self._torch, self._hear = name, torch, hear

  def hear(self, sounds: Float[np.ndarray, "b n"]) -> None:
    """Embeds clips, all at once; the time counts, and nothing is kept."""
    with self._torch.inference_mode():
      self._hear(self._torch.from_numpy(sounds))


class Original(NamedTuple):
  """Where an original comes from.

  Attributes:
    title: What it is, where that is more than its package.
    packages: That it imports, its own one first, as pip knows them.
    open: Makes it.
  """

  title: str
  packages: Sequence[str]
  open: Callable[[], Hear]


def open_rival(name: str) -> Rival:
  """The original of a network of `extractors.RANDOM`.

  Raises:
    InputError: If packages are missing, with what to install.
  """
  title, packages, opened = ORIGINALS[name]
  missing = [each for each in packages if not _installed(each)]
  advice = f"pip install --no-deps {' '.join(missing or packages)}"
  if missing:
    raise InputError(f"not installed: {advice}")
  package = packages[0]
  version = importlib.metadata.version(package)
  try:
    # What they print on the way would be taken for figures.
    with contextlib.redirect_stdout(sys.stderr):
      hear = opened()
  except (ImportError, OSError, RuntimeError) as error:
    told = " ".join(str(error).split())[:100]
    raise InputError(f"{package} {version}: {told}; {advice}") from None
  return Rival(f"{title or package} {version}", hear)


def _installed(package: str) -> bool:
  try:
    importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def _vggish() -> Hear:
  """What torchvggish computes, which is no package, written as it would be."""
  import torch
  from torch import nn

  config = VGGishConfig()
  layers, channels = [], 1
  for block in config.blocks:
    for wider in block:
      layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU(True)]
      channels = wider
    layers.append(nn.MaxPool2d(2))
  convolutions = nn.Sequential(*layers).eval()
  layers, width = [], config.flattened
  for wider in config.widths:
    layers += [nn.Linear(width, wider), nn.ReLU(True)]
    width = wider
  dense = nn.Sequential(*layers[:-1]).eval()
  c = config.mel
  filters = torch.from_numpy(mel.filters(c).copy())
  window = torch.hann_window(c.window_length)

  def hear(sounds: torch.Tensor) -> torch.Tensor:
    windows = sounds.unfold(1, GOOGLE.samples, GOOGLE.hop).flatten(0, 1)
    frames = windows.unfold(1, c.window_length, c.hop)[:, : config.frames]
    spectra = torch.fft.rfft(frames * window, c.n_fft).abs()
    patches = torch.log(spectra @ filters + c.floor)
    seen = convolutions(patches[:, None])
    return dense(seen.permute(0, 2, 3, 1).flatten(1))

  return hear


def _cnn14() -> Hear:
  from msclap.models.audio import Cnn14

  return Cnn14(16_000, 512, 160, 64, 50, 8_000, 527, 2048).eval()


def _passt() -> Hear:
  from hear21passt.models.passt import get_model
  from hear21passt.models.preprocess import AugmentMelSTFT

  net = get_model(arch="passt_s_swa_p16_128_ap476", pretrained=False).eval()
  bands = AugmentMelSTFT(fmax=15_000.0, freqm=0, timem=0).eval()
  return lambda sounds: net(bands(sounds)[:, None])[1]


def _laion() -> Hear:
  """HTSAT-base, and what follows it in its CLAP."""
  import torch
  from torch import nn

  # Where its own modules look for one another; to import the package itself
  # would download a tokenizer.
  (folder,) = importlib.util.find_spec("laion_clap").submodule_search_locations
  sys.path.append(folder)
  from clap_module.htsat import create_htsat_model

  settings = types.SimpleNamespace(
    model_name="base",
    class_num=527,
    sample_rate=_LAION_HZ,
    clip_samples=10 * _LAION_HZ,
    mel_bins=64,
    window_size=1024,
    hop_size=480,
    fmin=50,
    fmax=14_000,
  )
  net = create_htsat_model(settings).eval()
  projection = nn.Sequential(
    nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 512)
  )

  def hear(sounds: torch.Tensor) -> torch.Tensor:
    samples = settings.clip_samples
    sounds = sounds[:, :samples]
    sounds = sounds.repeat(1, samples // sounds.shape[1])
    sounds = nn.functional.pad(sounds, (0, samples - sounds.shape[1]))
    told = {"waveform": sounds, "longer": torch.zeros(len(sounds), 1) > 0}
    heard = net(told, device="cpu")["embedding"]
    return nn.functional.normalize(projection(heard), dim=-1)

  return hear


def _microsoft(network: str, width: int, top_hz: int, seconds: int) -> Hear:
  from msclap.models.clap import AudioEncoder

  net = AudioEncoder(
    *(network, width, 1024, _MICROSOFT_HZ, 1024, 320, 64, 50, top_hz, 527)
  ).eval()
  samples = seconds * _MICROSOFT_HZ

  def hear(sounds: Any) -> Any:
    times = -(-samples // sounds.shape[1])
    return net(sounds.repeat(1, times)[:, :samples])[0]

  return hear


def _sfx() -> Hear:
  """Its network; in front of it, for Essentia, the same spectra by PyTorch."""
  import torch
  from aisfx.models.cnn2d import EmbeddingNet

  net = EmbeddingNet("max", 3, 1, 64).eval()
  numbers = torch.Generator().manual_seed(0)
  weights = torch.rand(1025, 96, generator=numbers)  # of bands
  window = torch.hann_window(2048, periodic=False)

  def hear(sounds: torch.Tensor) -> torch.Tensor:
    spectra = torch.stft(
      *(sounds, 2048, 1024),
      window=window,
      pad_mode="constant",
      return_complex=True,
    )
    power = spectra.real**2 + spectra.imag**2
    bands = torch.log10(1e4 * power.transpose(1, 2) @ weights + 1)
    windows = bands.unfold(1, 100, 50).flatten(0, 1)
    return net(windows.transpose(1, 2))

  return hear


_MICROSOFT = (
  *("msclap", "torch", "torchlibrosa", "torchaudio", "transformers"),
  "PyYAML",
)
ORIGINALS: Mapping[str, Original] = MappingProxyType(
  {
    "vggish": Original("torchvggish's network in PyTorch", ("torch",), _vggish),
    "cnn14": Original("Cnn14 of msclap", _MICROSOFT, _cnn14),
    "passt": Original(
      "", ("hear21passt", "torch", "timm", "torchvision", "torchaudio"), _passt
    ),
    "clap-laion": Original(
      "",
      (
        *("laion_clap", "torch", "torchlibrosa", "torchvision", "transformers"),
        *("ftfy", "h5py"),
      ),
      _laion,
    ),
    "clap-microsoft-2022": Original(
      "", _MICROSOFT, lambda: _microsoft("Cnn14", 2048, 14_000, 5)
    ),
    "clap-microsoft-2023": Original(
      "", _MICROSOFT, lambda: _microsoft("HTSAT", 768, 8_000, 7)
    ),
    "sfx": Original("", ("aisfx", "torch"), _sfx),
  }
)
