"""FLOPs against numbers worked out by hand, and against XLA's."""

import jax
import jax.numpy as jnp
import pytest

from audiogen_jax.core import cost

A, B = jnp.zeros((3, 5)), jnp.zeros((5, 7))
PRODUCT = 2 * 3 * 5 * 7


def conv(x, w, **options):
  return jax.lax.conv_general_dilated(
    x,
    w,
    options.pop("stride", (1,)),
    [(0, 0)],
    dimension_numbers=("NWC", "WIO", "NWC"),
    **options,
  )


X, W = jnp.zeros((2, 20, 4)), jnp.zeros((3, 4, 6))


@pytest.mark.parametrize(
  ("function", "arguments", "count"),
  [
    (jnp.dot, (A, B), PRODUCT),
    (jax.jit(jnp.dot), (A, B), PRODUCT),
    (
      lambda a: jnp.einsum("bij,bjk->bik", a, a),
      (jnp.zeros((4, 6, 6)),),
      4 * 2 * 6**3,
    ),
    (conv, (X, W), 2 * 2 * 18 * 6 * 3 * 4),
    (lambda x, w: conv(x, w, stride=(2,)), (X, W), 2 * 2 * 9 * 6 * 3 * 4),
    (
      lambda x, w: conv(x, w, rhs_dilation=(4,)),
      (X, W),
      2 * 2 * 12 * 6 * 3 * 4,
    ),
    # Between two samples stands a zero: half of the taps meet one.
    (
      lambda x, w: conv(x, w, lhs_dilation=(2,)),
      (X, W),
      2 * 2 * 37 * 6 * 3 * 4 / 2,
    ),
    (
      lambda x, w: conv(x, w, feature_group_count=2),
      (X, jnp.zeros((3, 2, 6))),
      2 * 2 * 18 * 6 * 3 * 2,
    ),
    # The loss, and a product for each argument's gradient.
    (
      jax.value_and_grad(lambda a, b: jnp.sum(a @ b) ** 2, argnums=(0, 1)),
      (A, B),
      3 * PRODUCT,
    ),
    (
      lambda a, b: jax.lax.scan(
        lambda c, _: (c + a @ b, None), 0.0 * (a @ b), length=9
      ),
      (A, B),
      10 * PRODUCT,
    ),
    (
      lambda a, b: jax.lax.cond(
        a.sum() > 0, jnp.dot, lambda a, b: a @ b + a @ b, a, b
      ),
      (A, B),
      2 * PRODUCT,
    ),
  ],
)
def test_by_hand(function, arguments, count):
  assert cost.flops(function, *arguments) == count


def test_what_is_computed_again_counts_again():
  def loss(a, b):
    return jnp.sum(jnp.sin(a @ b) ** 2)

  once = cost.flops(jax.grad(loss), A, B)
  again = cost.flops(jax.grad(jax.checkpoint(loss)), A, B)
  assert again == once + PRODUCT


def test_beside_the_compiler():
  """Without loops both count alike, but for what is no product."""
  a = jnp.zeros((64, 256))
  w = jnp.zeros((256, 256))

  def layers(a, w):
    return (jnp.tanh(a @ w) @ w).sum()

  # With the value, or the compiler leaves the last product away.
  function = jax.value_and_grad(layers, argnums=1)
  compiled = jax.jit(function).lower(a, w).compile()
  theirs = compiled.cost_analysis()["flops"]
  assert abs(cost.flops(function, a, w) / theirs - 1) < 0.02
