"""What the packs of judging networks hold, and weights that a rule makes."""

import functools
import math
import os
import zlib
from pathlib import Path

import numpy as np
import packs
import pytest

from audiogen_jax.audio import io, sinc
from audiogen_jax.convert.engine import Lazy

_PACKS = Path(__file__).parent / "golden"
SETS = ("reference", "generated")


class Pack:
  """A pack, from the folder that `AUDIOGEN_PACKS` names."""

  def __init__(self, name):
    self.folder = Path(os.environ.get("AUDIOGEN_PACKS", _PACKS)) / name
    if not (self.folder / "expected.npz").is_file():
      pytest.skip(f"{self.folder} is no parity pack")
    self.want = packs.arrays(self.folder / "expected.npz")
    self.names = [str(name) for name in self.want["names"]]

  def path(self, name):
    """A file, which other packs need not have."""
    if not (self.folder / name).is_file():
      pytest.skip(f"{self.folder} has no {name}")
    return self.folder / name

  @functools.cached_property
  def full(self):
    """What the network of the published size made of one clip."""
    return np.load(self.path("full.npz"))

  def kept(self, quantity):
    """`SET/FILE` of the clips of which a quantity of many numbers is kept."""
    start = f"{quantity}/"
    return [n.removeprefix(start) for n in self.want if n.startswith(start)]

  def read(self, clip):
    """A clip `SET/FILE`, be it WAV or FLAC, and its rate."""
    path = self.folder / "audio" / clip
    (found,) = path.parent.glob(f"{path.stem}.*")
    return io.read(found)

  def of_audiocraft(self, clip, rate_hz):
    """A clip as audiocraft resamples it."""
    audio, from_hz = self.read(clip)
    return sinc.resample(sinc.JULIUS, audio, from_hz, rate_hz).mean(axis=1)

  def of_audioldm_eval(self, clip, rate_hz):
    """A clip's first channel, its mean taken off, resampled, at least 32,000.

    That many samples it gets, whatever the rate.
    """
    audio, from_hz = self.read(clip)
    audio = audio[:, :1] - audio[:, :1].mean()
    sound = sinc.resample(sinc.HANN, audio, from_hz, rate_hz)[:, 0]
    return np.pad(sound, (0, max(0, 32_000 - len(sound))))

  def clips(self, which):
    """`SET/FILE` of each clip of a set."""
    return [f"{which}/{name}" for name in self.names]

  def by_rule(self, gains, edit=lambda state: None):
    """The published size's tensors, which nobody stores."""
    full, state = self.full, {}
    for name, shape in zip(
      full["tensor_names"], full["tensor_shapes"], strict=True
    ):
      shape = tuple(int(n) for n in str(shape).split(","))
      state[str(name)] = ruled(int(full["seed"]), str(name), shape, gains)
    edit(state)
    heads = [values.flat[:4] for values in state.values()]
    np.testing.assert_allclose(heads, full["tensor_heads"], rtol=1e-5)
    sums = [values.sum(dtype=np.float64) for values in state.values()]
    np.testing.assert_allclose(sums, full["tensor_sums"], rtol=1e-5, atol=1e-3)
    return {
      name: Lazy(values.shape, values.dtype, lambda values=values: values)
      for name, values in state.items()
    }


def ruled(seed, name, shape, gains):
  """A tensor of the published size, which its name alone decides."""
  bits = np.random.PCG64([seed, zlib.crc32(name.encode())])
  n = np.random.Generator(bits).standard_normal(shape, np.float32)
  last = name.rpartition(".")[2]
  norm = "norm" in name.lower() or ".bn" in name or ".ln_" in name
  norm = norm or name.startswith(("bn", "head.0"))
  if last == "running_mean":
    return np.float32(0.1) * n
  if last == "running_var":
    return np.float32(0.75) + np.float32(0.25) * np.tanh(n)
  if norm and last == "weight":
    return 1 + np.float32(0.1) * n
  if last == "bias" or last.endswith("_bias"):
    return np.float32(0.05) * n
  if len(shape) > 1:
    gain = [1.0] + [gain for text, gain in gains.items() if text in name]
    return n * np.float32(gain[-1] / math.sqrt(math.prod(shape[1:])))
  return np.float32(0.05) * n
