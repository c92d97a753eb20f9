"""What an evaluation says of a model that writes codes."""

import numpy as np
from jaxtyping import Float

from audiogen_jax.codec import usage


def of_codebooks(
  each: Float[np.ndarray, " k"], counts: Float[np.ndarray, "k v"]
) -> dict[str, float]:
  """Loss, and cross-entropies and entropies of each codebook, by name.

  Args:
    each: Cross-entropy of each codebook, in nats.
    counts: How often each code occurs; `unigram_k` is its entropy, in nats:
      what codes drawn alone would have.
  """
  ce = {f"ce_{k}": float(x) for k, x in enumerate(each)}
  _, bits = usage.code_statistics(counts)
  unigram = {f"unigram_{k}": float(x * np.log(2)) for k, x in enumerate(bits)}
  return {"loss": float(each.mean())} | ce | unigram
