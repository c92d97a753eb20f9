"""The balancer of loss gradients (Défossez et al., 2022, §3.4)."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class BalancerState(NamedTuple):
  """Running norms of each loss's gradient.

  Attributes:
    total: Of each, the decayed sum of its norms.
    count: The decayed number of them: the first steps then mean something.
  """

  total: dict[str, Float[Array, ""]]
  count: Float[Array, ""]


class Balanced(NamedTuple):
  """What the balancer makes of several gradients.

  Attributes:
    gradient: The sum of them, scaled.
    state: For the next step.
    scales: What each was multiplied by.
    ratios: Each one's share of the running norms.
  """

  gradient: Float[Array, "b n c"]
  state: BalancerState
  scales: dict[str, Float[Array, ""]]
  ratios: dict[str, Float[Array, ""]]


def init(names: Mapping[str, float]) -> BalancerState:
  """The state before the first step."""
  return BalancerState({name: jnp.float32(0) for name in names}, jnp.float32(0))


def balance(
  gradients: Mapping[str, Float[Array, "b n c"]],
  weights: Mapping[str, float],
  state: BalancerState,
  *,
  total_norm: float = 1.0,
  decay: float = 0.999,
) -> Balanced:
  """Weights decide how much each loss moves the output, whatever its scale.

  Défossez et al. (2022), §3.4: each gradient with respect to the decoder's
  output is divided by the running mean of its norm, so that its share of the
  step is its weight's share of all weights.  Norms are taken for each row and
  averaged over the batch: under `jax.jit` over the global one.

  Args:
    gradients: Gradient of each loss with respect to the output.
    weights: Weight of each loss, by the same names.
    state: From the step before.
    total_norm: Norm of the sum, if gradients did not point apart.
    decay: Decay of the running means of norms.
  """
  count = decay * state.count + 1
  total, means = {}, {}
  for name, gradient in gradients.items():
    norm = jnp.mean(jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2))))
    total[name] = decay * state.total[name] + norm
    means[name] = total[name] / count
  weight = sum(weights[name] for name in gradients)
  scales = {
    name: weights[name] / weight * total_norm / (1e-12 + mean)
    for name, mean in means.items()
  }
  everything = jnp.maximum(sum(means.values()), 1e-12)
  return Balanced(
    gradient=sum(scales[name] * gradients[name] for name in gradients),
    state=BalancerState(total, count),
    scales=scales,
    ratios={name: mean / everything for name, mean in means.items()},
  )
