"""Self-attention masks: which steps a language model attends to at each step.

A mask is an argument of `model.LM`, never a property of it: an autoregressive
model passes `causal`, a masked one (MAGNeT, Ziv et al., 2024, §3.1) lets its
first codebook attend to all steps and the others to a band.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool


def causal(steps: int) -> Bool[Array, "1 s s"]:
  """The mask under which each step attends to itself and those before."""
  return jnp.tri(steps, dtype=bool)[None]


def with_text(
  mask: Bool[Array, "#b s s"], text_mask: Bool[Array, "b l"]
) -> Bool[Array, "b q q"]:
  """A mask of steps, for prepended text and steps together (q = l + s).

  Text attends to itself causally, as in the published code, and never to steps,
  so that its states are the same whatever follows.  Steps attend to all of the
  text that `text_mask` shows, and to steps as `mask` says:

              l      s
        l [ causal | none ]
        s [  all   | mask ]
  """
  b, length = text_mask.shape
  steps = mask.shape[-1]
  of_text = jnp.concatenate(
    [jnp.tri(length, dtype=bool), jnp.ones((steps, length), bool)]
  )
  of_text = of_text[None] & text_mask[:, None]
  of_steps = jnp.concatenate(
    [
      jnp.zeros((b, length, steps), bool),
      jnp.broadcast_to(mask, (b, steps, steps)),
    ],
    axis=1,
  )
  return jnp.concatenate([of_text, of_steps], axis=2)
