"""Gradients of large batches, a part of the batch at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import constrain
from audiogen_jax.core.types import Tree


def accumulated(
  loss: Callable[..., tuple[jax.Array, Any]],
  params: Tree,
  rows: tuple[jax.Array, ...],
  parts: int,
) -> tuple[tuple[jax.Array, Any], Tree]:
  """Value, what comes with it, and gradient: means over parts of a batch.

  Where the loss is a mean over rows that all weigh alike, this is what the
  whole batch at once would give, in the memory of a part.

  Args:
    loss: Function of `(params, *rows)`; returns a value and further figures.
    params: What the gradient is taken of.
    rows: Arrays whose first axis is the batch.
    parts: How many; 1 for the batch at once.

  Raises:
    InputError: If the batch does not divide into so many.
  """
  gradient = jax.value_and_grad(loss, has_aux=True)
  return averaged(gradient, params, rows, parts)


def averaged(
  function: Callable[..., Tree],
  params: Tree,
  rows: tuple[jax.Array, ...],
  parts: int,
) -> Tree:
  """What a function gives for a batch: means over parts of the batch.

  Args:
    function: Of `(params, *rows)`; gives a tree of arrays.
    params: Its first argument.
    rows: Arrays whose first axis is the batch.
    parts: How many; 1 for the batch at once.

  Raises:
    InputError: If the batch does not divide into so many.
  """
  if parts == 1:
    return function(params, *rows)
  if rows[0].shape[0] % parts:
    raise InputError(
      f"batch {rows[0].shape[0]} does not divide into accumulate = {parts}"
    )

  def split(x):
    # Every device keeps its rows: a part takes its share of each device's.
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x, None, "batch", *[None] * (x.ndim - 2))

  def add(total, part):
    return jax.tree.map(jnp.add, total, function(params, *part)), None

  batches = tuple(map(split, rows))
  like = jax.eval_shape(function, params, *(x[0] for x in batches))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
  total, _ = jax.lax.scan(add, zeros, batches)
  return jax.tree.map(lambda x: x / parts, total)
