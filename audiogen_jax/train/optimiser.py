"""Optimisers and schedules by name, from optax."""

import dataclasses
import re
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Matrices, Tree

# Schedules that fall over a length, which changes the rate at each step.
ENDING = ("cosine", "wsd")


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
  """An optimiser and its schedule.

  Attributes:
    name: AdamW (Loshchilov & Hutter, 2019), which is Adam without decay;
      Adafactor (Shazeer & Stern, 2018), which keeps rows and columns of second
      moments; Muon (Jordan, 2024) for the matrices of a transformer, with AdamW
      for all else, updates brought to AdamW's size (Liu et al., 2025).
    lr: Learning rate, the highest of the schedule.
    b1: Decay of the first moment; of Muon's momentum, too.
    b2: Decay of the second.
    weight_decay: Decoupled decay of all parameters, times the learning rate.
    schedule: The rate after warm-up: constant; a half cosine to 0 at the
      last step; inverse square root of the step; constant and then straight
      to 0 over the last `decay` steps (WSD, Hu et al., 2024); or exponential,
      `decay_rate` times as high after each `decay` steps.
    warmup: Steps over which the rate rises from 0.
    steps: Length of the schedules `cosine` and `wsd`; 0 for that of training,
      which `configuration.parse` puts here: `loop.steps`.
    decay: Steps of the final decay of `wsd`; of `exponential`, those after
      which the rate is `decay_rate` times as high, falling at each of them.
    decay_rate: Of `exponential`, in (0, 1].
    clip: Longest gradient, over all parameters; 0 for any.
  """

  name: Literal["adamw", "adafactor", "muon"] = "adamw"
  lr: float = 3e-4
  b1: float = 0.5
  b2: float = 0.9
  weight_decay: float = 0.0
  schedule: Literal[
    "constant", "cosine", "inverse_sqrt", "wsd", "exponential"
  ] = "constant"
  warmup: int = 0
  steps: int = 0
  decay: int = 0
  decay_rate: float = 1.0
  clip: float = 0.0

  def __post_init__(self) -> None:
    if not 0 < self.lr < float("inf"):
      raise InputError(f"optim.lr {self.lr} must be more than 0")
    for name in ("b1", "b2"):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(f"optim.{name} must lie in [0, 1)")
    if self.schedule == "cosine" and self.steps <= self.warmup:
      raise InputError(
        f"the {self.steps} steps of a cosine (loop.steps, or optim.steps) must"
        f" be more than optim.warmup {self.warmup}"
      )
    if self.schedule == "wsd" and not (
      0 < self.decay <= self.steps - self.warmup
    ):
      raise InputError(
        f"optim.decay {self.decay} of wsd must lie in 1 to its steps"
        f" (loop.steps, or optim.steps) less optim.warmup,"
        f" {self.steps - self.warmup}"
      )
    if self.schedule == "inverse_sqrt" and self.warmup < 1:
      raise InputError("optim.warmup of inverse_sqrt must be 1 or more")
    if self.schedule == "exponential" and self.decay < 1:
      raise InputError(
        f"optim.decay {self.decay} of exponential must be 1 or more, such as"
        " the steps of an epoch"
      )
    if not 0 < self.decay_rate <= 1:
      raise InputError(f"optim.decay_rate {self.decay_rate} must lie in (0, 1]")

  def rate(self) -> optax.Schedule:
    """The learning rate by the number of updates made so far."""
    if self.schedule == "inverse_sqrt":
      # The published schedule counts the first update as step 1.
      return lambda done: (
        self.lr
        * jnp.minimum(
          (done + 1) / self.warmup, (self.warmup / (done + 1)) ** 0.5
        )
      )
    rate = optax.constant_schedule(self.lr)
    if self.schedule == "cosine":
      rate = optax.cosine_decay_schedule(self.lr, self.steps - self.warmup)
    if self.schedule == "wsd":
      fall = optax.linear_schedule(self.lr, 0.0, self.decay)
      flat = self.steps - self.warmup - self.decay
      rate = optax.join_schedules([rate, fall], [flat])
    if self.schedule == "exponential":
      rate = optax.exponential_decay(self.lr, self.decay, self.decay_rate)
    if self.warmup:
      rise = optax.linear_schedule(0.0, self.lr, self.warmup)
      rate = optax.join_schedules([rise, rate], [self.warmup])
    return rate

  def make(
    self, matrices: Matrices | None = None
  ) -> optax.GradientTransformation:
    """The optimiser.

    Args:
      matrices: What Muon is for: expressions on the paths of parameters.
    """
    parts = [optax.clip_by_global_norm(self.clip)] if self.clip else []
    rate, decay = self.rate(), self.weight_decay
    if self.name == "adamw":
      parts += [optax.adamw(rate, self.b1, self.b2, weight_decay=decay)]
    elif self.name == "adafactor":
      parts += [
        optax.adafactor(
          rate,
          multiply_by_parameter_scale=False,
          momentum=self.b1 or None,
          weight_decay_rate=None,
        )
      ]
      if decay:
        parts += [_decoupled(rate, decay)]
    else:
      parts += [
        optax.contrib.muon(
          rate,
          beta=self.b1,
          weight_decay=decay,
          adam_b1=self.b1,
          adam_b2=self.b2,
          adam_weight_decay=decay,
          muon_weight_dimension_numbers=lambda params: _numbers(
            params, matrices or {}
          ),
          consistent_rms=0.2,
        )
      ]
    return optax.chain(*parts)


def _numbers(params: Tree, matrices: Matrices) -> Tree:
  """Muon's dimension numbers of each matrix; None for other parameters."""

  def one(path, _):
    name = sharding.path_name(path)
    for rule, (reads, writes) in matrices.items():
      if re.fullmatch(rule, name):
        return optax.contrib.MuonDimensionNumbers(reads, writes)
    return None

  return jax.tree_util.tree_map_with_path(one, params)


def _decoupled(
  rate: optax.Schedule, decay: float
) -> optax.GradientTransformation:
  """Weight decay times the learning rate, which optax's Adafactor lacks."""

  def update(updates, state, params):
    factor = rate(state.count) * decay
    updates = jax.tree.map(lambda u, p: u - factor * p, updates, params)
    return updates, optax.ScaleByScheduleState(count=state.count + 1)

  def init(params):
    del params
    return optax.ScaleByScheduleState(count=jnp.int32(0))

  return optax.GradientTransformation(init, update)
