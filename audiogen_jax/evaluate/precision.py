"""What fewer bits cost: another type's logits beside those of float32.

Codes are sampled in float32; each type then says, at every place, what it would
have drawn there.  So a difference at one place does not spread to the next.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from audiogen_jax.core.types import Seconds
from audiogen_jax.lm.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Loss:
  """What a type loses.

  Attributes:
    dtype: Its name.
    divergence: Mean Kullback-Leibler divergence from float32, nats a token.
    agreement: Share of places where both have the same likeliest token.
    difference: Root mean square of the differences of logits.
    spread: Standard deviation of float32's logits.
    tokens: Places compared.
  """

  dtype: str
  divergence: float
  agreement: float
  difference: float
  spread: float
  tokens: int


def evaluate(
  load: Callable[[str], Any],
  dtypes: Sequence[str],
  texts: Sequence[str],
  *,
  duration_s: Seconds = 5.0,
  seed: int = 0,
  progress: Callable[[str], None] = lambda what: None,
) -> list[Loss]:
  """Compares types with float32.

  Args:
    load: Gives an `AudioGen` of a type.
    dtypes: The types.
    texts: What is sampled.
    duration_s: Duration of each sound.
    seed: Text i uses seed + i.
    progress: Called with what goes on.
  """
  progress("sampling in float32")
  exact = load("float32")
  codes = exact.generate_codes(
    texts,
    frames=exact.codec.tokens.frames(duration_s),
    sampling=Sampling(),
    seed=seed,
  )
  want, valid = exact.logits(codes, texts)
  del exact  # two models need not fit side by side
  found = []
  for dtype in dtypes:
    progress(f"reading in {dtype}")
    got, _ = load(dtype).logits(codes, texts)
    found.append(_compare(dtype, want, got, valid))
  return found


def _compare(
  dtype: str,
  want: Float[np.ndarray, "b k t v"],
  got: Float[np.ndarray, "b k t v"],
  valid: Bool[np.ndarray, "k t"],
) -> Loss:
  want, got = want[:, valid], got[:, valid]
  p, q = (np.asarray(jax.nn.log_softmax(x)) for x in (want, got))
  return Loss(
    dtype=dtype,
    divergence=float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1))),
    agreement=float(np.mean(want.argmax(-1) == got.argmax(-1))),
    difference=float(np.sqrt(np.mean(np.square(want - got)))),
    spread=float(want.std()),
    tokens=want.shape[0] * want.shape[1],
  )
