"""Optimisers by name, from optax."""

import dataclasses
from typing import Literal

import optax

from audiogen_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
  """Adam (Kingma & Ba, 2015) and its schedule.

  Attributes:
    lr: Learning rate, the highest of the schedule.
    b1: Decay of the first moment.
    b2: Decay of the second.
    schedule: Of the rate after warm-up: constant, or a half cosine to 0 at the
      last step.
    warmup: Steps over which the rate rises from 0.
    steps: Length of the schedule; a cosine needs it.
    clip: Longest gradient, over all parameters; 0 for any.
  """

  lr: float = 3e-4
  b1: float = 0.5
  b2: float = 0.9
  schedule: Literal["constant", "cosine"] = "constant"
  warmup: int = 0
  steps: int = 0
  clip: float = 0.0

  def __post_init__(self):
    if not 0 < self.lr < float("inf"):
      raise InputError(f"optim.lr {self.lr} must be more than 0")
    for name in ("b1", "b2"):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(f"optim.{name} must lie in [0, 1)")
    if self.schedule == "cosine" and self.steps <= self.warmup:
      raise InputError(
        f"optim.steps {self.steps} of a cosine must be more than"
        f" optim.warmup {self.warmup}"
      )

  def make(self) -> optax.GradientTransformation:
    """The optimiser."""
    rate = optax.constant_schedule(self.lr)
    if self.schedule == "cosine":
      rate = optax.cosine_decay_schedule(self.lr, self.steps - self.warmup)
    if self.warmup:
      rise = optax.linear_schedule(0.0, self.lr, self.warmup)
      rate = optax.join_schedules([rise, rate], [self.warmup])
    parts = [optax.clip_by_global_norm(self.clip)] if self.clip else []
    parts += [optax.adam(rate, self.b1, self.b2)]
    return optax.chain(*parts)
