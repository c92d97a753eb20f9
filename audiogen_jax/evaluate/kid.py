"""The kernel distance between two sets of embeddings (KID)."""

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError

_SEED = 2020


def kid(
  generated: Float[np.ndarray, "n d"],
  reference: Float[np.ndarray, "m d"],
  *,
  subsets: int = 100,
  size: int = 1000,
) -> tuple[float, float]:
  """Squared maximum mean discrepancy (Bińkowski et al., 2018).

  As in audioldm_eval: the kernel is (x.y / d + 1)^3; subsets are drawn from
  either set without replacement by numpy's legacy generator, seed 2020.

  Args:
    subsets: How many are drawn.
    size: Rows of a subset at most; sets that have fewer are taken whole.

  Returns:
    Mean and deviation over the subsets.

  Raises:
    InputError: If a set has fewer than two rows.
  """
  m = min(size, len(generated), len(reference))
  if m < 2:
    raise InputError(
      f"a kernel distance needs two embeddings of each set, there are"
      f" {len(generated)} and {len(reference)}; take more clips"
    )
  if m == len(generated) == len(reference):
    subsets = 1  # they would all be the same
  draws = np.random.RandomState(_SEED)
  found = []
  for _ in range(subsets):
    x = generated[draws.choice(len(generated), m, replace=False)]
    y = reference[draws.choice(len(reference), m, replace=False)]
    found.append(_discrepancy(x.astype(np.float64), y.astype(np.float64)))
  return float(np.mean(found)), float(np.std(found))


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased in the terms within a set, whose diagonals are left out."""
  m, d = x.shape
  within = 0.0
  for rows in (x, y):
    kernel = (rows @ rows.T / d + 1) ** 3
    within += kernel.sum() - np.trace(kernel)
  across = (x @ y.T / d + 1) ** 3
  return float(within / (m * (m - 1)) - 2 * across.mean())
