"""A judge that is quick and plain, and folders of sounds for it to hear."""

import numpy as np
import soundfile

from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding.extractor import Heard

RATE = 8_000
BANDS = 6


class Judge:
  """Hears log-powers of bands in windows of half a second."""

  def __init__(self, name="judge", sha256="ab" * 32, rate_hz=RATE):
    self.name, self.sha256, self.sample_rate_hz = name, sha256, rate_hz
    self.heard = []

  def embed(self, sounds):
    made = [self._one(sound) for sound in sounds]
    self.heard += [len(sound) for sound in sounds]
    return made

  def _one(self, sound):
    size = self.sample_rate_hz // 2
    if len(sound) < size:
      raise InputError(f"{self.name} needs {size} samples, got {len(sound)}")
    windows = sound[: len(sound) // size * size].reshape(-1, size)
    power = np.abs(np.fft.rfft(windows)) ** 2
    parts = np.array_split(power, BANDS, axis=1)
    bands = np.stack([np.log(part.mean(axis=1) + 1e-9) for part in parts], 1)
    return Heard(bands.astype(np.float32), bands[:, ::-1].astype(np.float32))

  def embed_texts(self, texts):
    rows = [np.random.default_rng(len(t)).normal(size=BANDS) for t in texts]
    return np.array(rows, np.float32)


def sound(seed, seconds=1.0, rate_hz=RATE, channels=1, colour=0.0):
  """Noise whose colour differs from clip to clip."""
  numbers = np.random.default_rng(seed)
  n = round(seconds * rate_hz)
  spectrum = np.fft.rfft(numbers.normal(size=(n, channels)), axis=0)
  tilt = np.linspace(0, colour + numbers.normal(), len(spectrum))
  audio = np.fft.irfft(spectrum * np.exp(tilt)[:, None], n, axis=0)
  return (0.3 * audio / np.abs(audio).max()).astype(np.float32)


def folder(path, count=12, *, start=0, suffix=".wav", **options):
  path.mkdir(parents=True, exist_ok=True)
  rate_hz = options.get("rate_hz", RATE)
  for i in range(count):
    audio = sound(start + i, **options)
    soundfile.write(path / f"clip{i:02d}{suffix}", audio, rate_hz)
  return path
