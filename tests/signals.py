"""Sounds to test with."""

import numpy as np


def sine(hz, rate_hz, duration_s, level_dbfs=0.0, channels=1):
  t = np.arange(int(duration_s * rate_hz)) / rate_hz
  wave = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * t)
  return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def noise(*shape, scale=0.1, seed=0):
  values = np.random.default_rng(seed).standard_normal(shape)
  return (scale * values).astype(np.float32)
