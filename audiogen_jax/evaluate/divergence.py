"""What a classifier hears in sounds, compared: KL divergence, inception score.

Both are of the classes' logits, one row a clip or a window.
"""

from typing import Literal

import numpy as np
import scipy
from jaxtyping import Float

from audiogen_jax.core.errors import InputError

_EPSILON = 1e-6  # of the second distribution's logarithm, in every original
_SHUFFLE_SEED = 2020
Squash = Literal["softmax", "sigmoid"]


def kl(
  first: Float[np.ndarray, "n k"],
  second: Float[np.ndarray, "m k"],
  squash: Squash = "softmax",
) -> Float[np.ndarray, " n"]:
  """KL(first || second) of each pair of rows, in nats.

      sum over classes of p (ln p - ln(q + 1e-6))

  Published figures are means of these, and differ in which of the two is the
  reference.  With `sigmoid` (audioldm_eval's `KL_Sigmoid`) p and q are no
  distributions: the sum is large, and may be negative.

  Raises:
    InputError: If there are not as many rows of one as of the other.
  """
  if first.shape != second.shape:
    raise InputError(
      f"KL divergence is of pairs, got logits of shapes {first.shape} and"
      f" {second.shape}; pair clips of one name and one length"
    )
  p, q = _squashed(first, squash), _squashed(second, squash)
  return np.sum(scipy.special.xlogy(p, p) - p * np.log(q + _EPSILON), axis=1)


def inception_score(
  logits: Float[np.ndarray, "n k"], splits: int = 10
) -> tuple[float, float]:
  """Mean and population deviation over splits (Salimans et al., 2016).

  As in audioldm_eval: rows shuffled by numpy's legacy generator with seed 2020,
  splits of as equal a size as whole numbers give.  It grows with the number of
  clips; compare it at one number alone.

  Raises:
    InputError: If there are fewer rows than splits.
  """
  n = len(logits)
  if n < splits:
    raise InputError(
      f"an inception score in {splits} splits needs as many clips, there are"
      f" {n}; take more"
    )
  order = np.random.RandomState(_SHUFFLE_SEED).permutation(n)
  log_p = scipy.special.log_softmax(logits[order].astype(np.float64), axis=1)
  scores = []
  for i in range(splits):
    part = log_p[i * n // splits : (i + 1) * n // splits]
    p = np.exp(part)
    mean = np.log(p.mean(axis=0, keepdims=True))
    scores.append(np.exp(np.mean(np.sum(p * (part - mean), axis=1))))
  return float(np.mean(scores)), float(np.std(scores))


def _squashed(logits: np.ndarray, squash: Squash) -> np.ndarray:
  logits = logits.astype(np.float64)
  if squash == "softmax":
    return scipy.special.softmax(logits, axis=1)
  return scipy.special.expit(logits)
