"""Convolutions by 3 x 3, with fewer multiplications on a processor.

Winograd's F(2 x 2, 3 x 3) (Lavin and Gray, CVPR 2016): 16 products of matrices
give what takes 36 otherwise, for each square of 2 x 2 values:

    squares of 4 x 4, every 2 -> B.T d B -> x kernels G g G.T -> A.T m A

Adding is what it costs, so it is for many channels, and for images whose
squares a cache holds.  A TPU or a GPU has its own ways with convolutions.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from audiogen_jax.core.types import Tree

_LEAST = 256  # channels from which on it was faster; with 128 it was slower
_MOST = 2**25  # bytes of an image's squares: twice as many were slower
_KERNELS = np.array(
  [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32
)
_TILES = "tiles"  # the collection with the kernels


class Conv(nn.Module):
  """`nn.Conv` by 3 x 3, zeros around, with its parameters.

  Kernels that are in the collection of `tiles`, too, are taken from there.

  Attributes:
    channels: That come out.
    bias: Whether one is added.
    dtype: Type of products.
    kernel_init: What kernels start from.
  """

  channels: int
  bias: bool = True
  dtype: jnp.dtype = jnp.dtype(jnp.float32)
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x k"]:
    shape = 3, 3, x.shape[-1], self.channels
    kernel = self.param("kernel", self.kernel_init, shape)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    if self.has_variable(_TILES, "kernel") and 4 * x[0].nbytes <= _MOST:
      x = _convolve(x, self.get_variable(_TILES, "kernel"))
    else:
      x = jax.lax.conv_general_dilated(
        *(x, kernel, (1, 1), "SAME"), dimension_numbers=("NHWC", "HWIO", "NHWC")
      )
    if self.bias:
      start = nn.initializers.zeros
      bias = self.param("bias", start, shape[-1:])
      x = x + bias.astype(self.dtype)[None, None, None]
    return x


def variables(params: Tree, dtype: jnp.dtype = Conv.dtype) -> dict[str, Tree]:
  """What `apply` takes: on a processor with `tiles`, which are made once.

  Not so where products are of another `dtype` than float32: sums of what is
  rounded are worse.
  """
  made: dict[str, Tree] = {"params": params}
  if jax.default_backend() == "cpu" and dtype == jnp.float32:
    made[_TILES] = tiles(params)
  return made


def tiles(params: Tree) -> Tree:
  """G g G.T of kernels that have channels enough: 16 values instead of 9."""
  made: dict[str, Tree] = {}
  for name, value in params.items():
    if isinstance(value, Mapping):
      if below := tiles(value):
        made[name] = below
    elif name == "kernel" and _is_large(value.shape):
      made[name] = _transformed(value)
  return made


def _is_large(shape: tuple[int, ...]) -> bool:
  return len(shape) == 4 and shape[:2] == (3, 3) and shape[2] >= _LEAST


@jax.jit
def _transformed(kernel: Float[Array, "3 3 c k"]) -> Float[Array, "16 c k"]:
  made = jnp.einsum(
    "ui,vj,ijck->uvck", _KERNELS, _KERNELS, kernel, precision="highest"
  )
  return made.reshape(16, *kernel.shape[2:])


def _convolve(
  x: Float[Array, "b y x c"], kernels: Float[Array, "16 c k"]
) -> Float[Array, "b y x k"]:
  b, height, width, c = x.shape
  rows, columns = -(-height // 2), -(-width // 2)
  below, right = 2 * rows - height + 1, 2 * columns - width + 1
  x = jnp.pad(x, ((0, 0), (1, below), (1, right), (0, 0)))
  squares = [
    part for row in _split(x, 1, rows) for part in _split(row, 2, columns)
  ]
  squares = jnp.stack(squares).reshape(16, -1, c)
  made = jnp.einsum("snc,sck->snk", squares, kernels)
  made = made.reshape(4, 4, b, rows, columns, -1)
  pairs = [jnp.stack(_join(row), axis=3) for row in _join(made)]
  made = jnp.stack(pairs, axis=2)  # b, rows, 2, columns, 2, k
  made = made.reshape(b, 2 * rows, 2 * columns, -1)
  return made[:, :height, :width]


def _split(x: Array, axis: int, count: int) -> list[Array]:
  """B.T d: of every second four neighbours."""
  a, b, c, d = (
    jax.lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(4)
  )
  return [a - c, b + c, c - b, b - d]


def _join(made: Array) -> list[Array]:
  """A.T m, over the first axis."""
  a, b, c, d = made
  return [a + b + c, b - c - d]
