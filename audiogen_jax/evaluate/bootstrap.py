"""How far a figure would move with other clips: a bootstrap over clips."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

REPLICATES = 200
_SEED = 0
_TAILS = 2.5, 97.5


def interval(
  value: float,
  clips: int,
  figure: Callable[[Int[np.ndarray, " clips"]], float],
  *,
  replicates: int = REPLICATES,
) -> tuple[float, float]:
  """A 95 % interval of a figure of several clips (Efron, 1979).

  Clips are drawn with replacement, whole: windows of one clip stay together.
  Sets so drawn hold fewer different clips, which makes distances between them
  larger.  So the replicates' spread counts and not their place: what they
  deviate from their mean is put around the value.

  Args:
    value: The figure of all clips.
    clips: How many.
    figure: The figure of clips of these numbers, some of them more than once.
  """
  draws = np.random.default_rng(_SEED)
  found = np.array(
    [figure(draws.integers(clips, size=clips)) for _ in range(replicates)]
  )
  low, high = np.percentile(found - found.mean(), _TAILS)
  return float(value + low), float(value + high)
