"""Which tokens of a text a model in training may look at."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def dropped(
  mask: Bool[Array, "b l"],
  key: jax.Array,
  *,
  share: float,
  unit: Literal["example", "batch"],
) -> Bool[Array, "b l"]:
  """The mask with some rows emptied, for classifier-free guidance.

  Args:
    mask: Tokens of each text.
    key: Key of the random draw.
    share: Share of texts that are left out, in [0, 1).
    unit: Whether texts are dropped one by one, or all of a batch together as
      the released code does.
  """
  rows = mask.shape[0] if unit == "example" else 1
  return mask & ~jax.random.bernoulli(key, share, (rows, 1))


def visible(
  mask: Bool[Array, "b l"], *, mask_padding: bool
) -> Bool[Array, "b l"]:
  """The positions that attention looks at; without text, one zero vector.

  Args:
    mask: Tokens of each text.
    mask_padding: Whether padding is skipped; the released code looks at it.
  """
  if not mask_padding:
    return jnp.ones_like(mask)
  return mask.at[:, 0].set(True)
