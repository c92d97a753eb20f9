"""What a run carries from step to step, and how it is spread over a mesh."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree

# Arrays by name, whose first axis is the rows, as `data.loader.Loader` lists
# them: `audio` or `codes`, `text_ids`, `text_mask`, `valid`.
Batch: TypeAlias = Mapping[str, jax.Array]


class TrainState(NamedTuple):
  """The state of training: one pytree, saved and restored as it is.

  Attributes:
    step: Updates made so far.
    params: What optimisers move.
    optimiser: Their own state.
    extra: What a task keeps beside parameters, such as codebooks.
    average: The EMA (exponential moving average) of what the task evaluates and
      exports.
  """

  step: Int[Array, ""]
  params: Tree
  optimiser: Tree
  extra: Tree
  average: Tree


def shardings(
  state: TrainState, axes: Mapping[str, Axes], placement: Placement
) -> TrainState:
  """Where every array of a state lives.

  Optimisers and averages repeat the tree of the parameters (as moments, for
  example), under a prefix of their own.  A leaf there lives where the parameter
  lives whose path ends alike, if it has the same shape; the rest, counters and
  the like, is kept whole.

  Args:
    state: Arrays or abstract arrays.
    axes: Meanings for `params/…` and `extra/…`.
    placement: The mesh.

  Raises:
    KeyError: If a parameter has no rule; the message has its path.
    InputError: If the mesh does not divide an axis, or a rule is about nothing.
  """
  _check_rules(axes, placement)
  whole = placement.sharding()
  leaves = {"params": state.params, "extra": state.extra}
  placed = sharding.shardings(leaves, axes, placement)
  shapes, places = _by_name(leaves), _by_name(placed)
  # The longest ending first: `conv_in/bias` alone is in encoder and decoder.
  endings = {}
  for name in shapes:
    parts = name.split("/")
    for start in range(len(parts)):
      endings.setdefault("/".join(parts[start:]), name)

  def like(path, leaf):
    parts = sharding.path_name(path).split("/")
    for start in range(len(parts)):
      name = endings.get("/".join(parts[start:]))
      if name is not None:
        return places[name] if shapes[name].shape == leaf.shape else whole
    return whole

  def spread(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(like, tree)

  return TrainState(
    step=whole,
    params=placed["params"],
    optimiser=spread(state.optimiser),
    extra=placed["extra"],
    average=spread(state.average),
  )


def _check_rules(axes: Mapping[str, Axes], placement: Placement) -> None:
  """Raises InputError for a rule of no axis, or to an axis the mesh lacks."""
  meanings = {"batch"}.union(*axes.values()) - {None}
  names = placement.mesh.axis_names
  for meaning, targets in placement.rules:
    if meaning not in meanings:
      raise InputError(
        f"rule {meaning!r} is about no axis of the parameters; they have"
        f" {', '.join(sorted(meanings))}"
      )
    for target in (targets,) if isinstance(targets, str) else targets or ():
      if target not in names:
        raise InputError(
          f"rule {meaning!r} sends to {target!r}; the mesh has"
          f" {', '.join(names)}"
        )


def ema_step(ema: Tree, new: Tree, decay: float | Float[Array, ""]) -> Tree:
  """One update of an EMA: `decay ema + (1 - decay) new`, leaf by leaf."""
  return jax.tree.map(lambda a, b: a * decay + b * (1 - decay), ema, new)


def published_ema(
  state: TrainState, params: Tree, *, decay: float, every: int
) -> tuple[Tree, Float[Array, ""]]:
  """The EMA and its weight so far, as the published code has them.

  Early values weigh what there was: up to and with its first update the EMA is
  the parameters themselves.

  Args:
    state: Before the step; `extra["averaged"]` is the weight so far.
    params: After it.
    decay: Decay of the EMA, in [0, 1).
    every: Steps between its updates; 0 for no EMA.
  """
  weight = state.extra["averaged"]
  if not every:
    return state.average, weight
  due = (state.step + 1) % every == 0
  weight = jnp.where(due, weight * decay + 1, weight)
  moves = due | (weight == 0)
  share = jnp.where(moves, 1 / jnp.maximum(weight, 1), 0)
  return ema_step(state.average, params, 1 - share), weight


def _by_name(tree: Tree) -> dict[str, Any]:
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {sharding.path_name(path): leaf for path, leaf in flat}
