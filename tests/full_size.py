"""Random weights of published sizes, made when they are read."""

import numpy as np

from audiogen_jax.convert import engine


def random(table, dtype):
  """Tensors of a published checkpoint, made when they are written."""
  numbers = np.random.default_rng(0).normal(0, 0.02, 1 << 20)

  def lazy(name, parts):
    shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
    # Where a tensor starts in the numbers depends on its name alone.
    start = sum(name.encode()) * 7919 % len(numbers)
    rolled = np.roll(numbers, start).astype(dtype)
    return engine.Lazy(shape, np.dtype(dtype), lambda: np.resize(rolled, shape))

  return {name: lazy(name, parts) for name, parts in table.items()}
