"""What a language model is trained to make small."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.lm import patterns
from audiogen_jax.lm.patterns import Pattern


def steps_of(
  codes: Int[Array, "b k t"], pattern: Pattern, special: int
) -> tuple[Int[Array, "b k s"], Bool[np.ndarray, "k s"]]:
  """Codes as training lays them out, and the cells that hold one.

  The last frames of delayed codebooks fall off the end, as published: the model
  reads T steps for T frames.
  """
  layout = patterns.layout(pattern, *codes.shape[1:])
  shown = layout.frame[:, : layout.trained]
  return patterns.interleave(codes, shown, special), shown >= 0


def cross_entropy(
  steps: Int[Array, "b k s"],
  logits: Float[Array, "b k s-1 v"],
  shown: Bool[np.ndarray, "k s"],
  rows: Bool[Array, " b"] | None = None,
) -> Float[Array, " k"]:
  """Cross-entropy of each codebook in nats; what is learnt is their mean.

  Each codebook is averaged over the codes that are predicted of it, so that all
  weigh alike (Copet et al., 2023, §2.2; the released code).

  Args:
    steps: Tokens; what lies in cells without a code is not looked at, nor are
      special tokens, which stand where a row has no code.
    logits: What is said at each step about the next.
    shown: The cells with a code.
    rows: Rows that count; None for all.
  """
  codes = jnp.minimum(steps[:, :, 1:], logits.shape[-1] - 1)
  each = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
  known = steps[:, :, 1:] < logits.shape[-1]
  counted = jnp.asarray(shown[:, 1:])[None] & known
  if rows is not None:
    counted = counted & rows[:, None, None]
  cells = jnp.sum(counted, axis=(0, 2))
  return jnp.sum(each, axis=(0, 2), where=counted) / jnp.maximum(cells, 1)
