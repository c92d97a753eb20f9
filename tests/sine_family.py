"""A family of its own: a sine for every prompt.

Registers by an entry point, as a package of another author would.
"""

import dataclasses

import numpy as np

from audiogen_jax import families
from audiogen_jax.convert import formats, orbax
from audiogen_jax.core import options, sharding
from audiogen_jax.core.options import option


@dataclasses.dataclass(frozen=True)
class Tone:
  """How a sine sounds."""

  pitch_hz: float = option(440.0, "Of the sine.", most=4000, ends=(20, 4000))

  def __post_init__(self):
    options.check(self)


class Sine:
  """A sine, whatever is asked for."""

  options = Tone
  sample_rate_hz, channels, window_s = 16_000, 1, 5.0

  def __init__(self, pitch_hz: float):
    self.pitch_hz = pitch_hz
    self.placement = sharding.Placement.make(None)

  @classmethod
  def from_pretrained(cls, source):
    return cls(cls.describe(source).sampling.pitch_hz)

  @classmethod
  def describe(cls, source):
    pitch_hz = orbax.read(formats.locate(source)).settings["pitch_hz"]
    rows = [("pitch", f"{pitch_hz:g} Hz")]
    return families.Description(Tone(pitch_hz), lambda: rows)

  def generate(
    self, texts, *, duration_s, sampling=None, seed=0, progress=None
  ):
    if progress:
      progress(1, 1)
    sampling = sampling or Tone(self.pitch_hz)
    rate_hz = self.sample_rate_hz
    at_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave = 0.5 * np.sin(2 * np.pi * sampling.pitch_hz * at_s)
    return np.stack([wave[:, None].astype(np.float32)] * len(texts))

  def save(self, folder):
    settings = {"pitch_hz": self.pitch_hz}
    orbax.write(folder, orbax.Export("sine", {}, settings))


families.register("sine", Sine)
