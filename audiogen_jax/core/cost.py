"""How much a function computes, counted before any compiler has seen it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core


def flops(function: Callable, *arguments: Any) -> float:
  """Floating-point operations of matrix products and convolutions.

  Two for each multiplication and addition; all else is small beside them.
  XLA's own analysis counts the body of a loop once; here that of a scan counts
  as often as it runs.  Of branches the dearest counts; a `while_loop`, whose
  trips nobody knows, counts once.

  Args:
    function: What `jax.make_jaxpr` can trace.
    *arguments: Arrays or abstract arrays.
  """
  return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: core.Jaxpr) -> float:
  total = 0.0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == "dot_general":
      total += _of_product(equation)
    elif name == "conv_general_dilated":
      total += _of_convolution(equation)
    elif name == "scan":
      trips = equation.params["length"]
      total += trips * sum(map(_of, _inner(equation)))
    elif name == "cond":
      total += max(map(_of, _inner(equation)))
    else:
      total += sum(map(_of, _inner(equation)))
  return total


def _inner(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
  """Every jaxpr that an equation holds, whatever the parameter is called."""
  for value in equation.params.values():
    for part in value if isinstance(value, tuple | list) else (value,):
      if isinstance(part, core.ClosedJaxpr):
        yield part.jaxpr
      elif isinstance(part, core.Jaxpr):
        yield part


def _of_product(equation: core.JaxprEqn) -> float:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left, out = equation.invars[0].aval, equation.outvars[0].aval
  depth = np.prod([left.shape[axis] for axis in contracted], dtype=float)
  return 2 * depth * np.prod(out.shape, dtype=float)


def _of_convolution(equation: core.JaxprEqn) -> float:
  """Zeros that `lhs_dilation` puts between samples are not counted."""
  kernel, out = equation.invars[1].aval, equation.outvars[0].aval
  numbers = equation.params["dimension_numbers"]
  outputs = kernel.shape[numbers.rhs_spec[0]]
  taps = np.prod(kernel.shape, dtype=float) / outputs
  spread = np.prod(equation.params["lhs_dilation"], dtype=float)
  return 2 * taps * np.prod(out.shape, dtype=float) / spread
