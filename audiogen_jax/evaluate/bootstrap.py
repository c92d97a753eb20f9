"""How far a figure would move with other clips: a bootstrap over clips."""

from collections.abc import Callable

import numpy as np

REPLICATES = 100
_SEED = 0
_TAILS = 2.5, 97.5


def interval(
  value: float,
  figure: Callable[[np.random.Generator], float],
  *,
  replicates: int = REPLICATES,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
  """A 95 % interval of a figure of several clips (Efron, 1979).

  Clips are drawn with replacement, whole: windows of one clip stay together.
  Sets so drawn hold fewer different clips, which makes distances between them
  larger.  So the replicates' spread counts and not their place: what they
  deviate from their mean is put around the value.

  Args:
    value: The figure of all clips.
    figure: The figure of clips that it draws.
    replicates: How often.
    progress: Called with how many are done, and how many there are.
  """
  draws = np.random.default_rng(_SEED)
  found = []
  for i in range(replicates):
    found.append(figure(draws))
    if progress:
      progress(i + 1, replicates)
  spread = np.percentile(np.array(found) - np.mean(found), _TAILS)
  low, high = value + spread
  return float(low), float(high)
