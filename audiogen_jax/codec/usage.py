"""How much of its codebooks a codec uses."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from audiogen_jax.core.types import AnyArray


def count(codes: Int[np.ndarray, "k t"], size: int) -> Int[np.ndarray, "k v"]:
  """How often each entry occurs in each level, on the host."""
  return np.stack([np.bincount(row, minlength=size) for row in codes])


def code_statistics(
  counts: Num[AnyArray, "k v"],
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
  """Usage and entropy of each level, from how often each entry occurred.

  Args:
    counts: Numbers of occurrences, or running means of them.

  Returns:
    The share of entries that occurred at all, and the entropy in bits: log2(v)
    if all occurred alike, 0 if only one did, or none.  From few codes the
    entropy comes out too low, being at most the logarithm of their number.
  """
  counts = jnp.asarray(counts, jnp.float32)
  share = counts / jnp.maximum(jnp.sum(counts, axis=1, keepdims=True), 1e-12)
  bits = share * jnp.log2(jnp.where(share > 0, share, 1))
  # 0 - x where -x would print as -0.
  return jnp.mean(counts > 0, axis=1), 0 - jnp.sum(bits, axis=1)
