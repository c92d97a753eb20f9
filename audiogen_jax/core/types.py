"""What the rooms share: arrays, the token contract, conditions, dtypes.

Axis letters, everywhere: `b` batch, `n` samples, `c` channels, `t` codec
frames, `k` codebooks, `s` LM steps, `l` text tokens, `d` width, `h` heads, `e`
head size, `f` feed-forward, `v` codebook size.  Channels come last.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.core.errors import InputError

AnyArray: TypeAlias = jax.Array | np.ndarray
Tree: TypeAlias = Any  # a pytree of arrays
Seconds: TypeAlias = float | int
# Path -> axes that a matrix reads, axes that it writes; the rest are a batch.
Matrices: TypeAlias = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

LONGEST_S = 3600  # of a generated sound: 230 MB at 16 kHz

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class TokenSpec:
  """All that the language model knows of the codec.

  Attributes:
    codebooks: Integers a frame, K.
    size: Entries of one codebook, V; codes lie in [0, V).
    frame_rate_hz: Frames a second, rounded down to an integer.
  """

  codebooks: int
  size: int
  frame_rate_hz: int

  def frames(self, duration_s: Seconds) -> int:
    """Whole frames in `duration_s` seconds, rounded down.

    The published code takes `int(duration * rate)`, which turns 2.3 s at 50 Hz
    into 114 frames because the product is 114.99…; a millionth of a frame of
    slack gives the 115 that was meant.
    """
    return math.floor(duration_s * self.frame_rate_hz + 1e-6)

  def some_frames(self, name: str, duration_s: Seconds) -> int:
    """Whole frames in `duration_s` seconds, rounded down; at least one.

    Args:
      name: What lasts so long, such as "window", for the message.
      duration_s: From one frame to an hour.

    Raises:
      InputError: For no number, or one that is out of this range.
    """
    if not isinstance(duration_s, numbers.Real):
      raise InputError(f"{name} {str(duration_s)[:50]!r} must be a number")
    # As they stand: a whole number may be too large for a float.
    if not 1 / self.frame_rate_hz <= duration_s < math.inf:
      raise InputError(
        f"{name} {duration_s} s must be at least one frame,"
        f" {1 / self.frame_rate_hz:g} s"
      )
    if duration_s > LONGEST_S:
      raise InputError(
        f"{name} {min(duration_s, 1e300):g} s is more than an hour; ask for"
        f" {LONGEST_S:g} s at most, and continue the result for more"
      )
    return self.frames(duration_s)

  def check_frames(self, frames: int) -> None:
    """Raises InputError unless `frames` is a whole number, up to an hour's."""
    most = LONGEST_S * self.frame_rate_hz
    if not isinstance(frames, numbers.Integral) or not 0 < frames <= most:
      raise InputError(
        f"frames {str(frames)[:50]!r} must be a whole number from 1 to"
        f" {most:,}, an hour"
      )

  def checked(self, codes: np.ndarray) -> Int[np.ndarray, "b k t"]:
    """Codes on the host, as int32.

    Raises:
      InputError: If they are no integers, have other axes, or lie outside of
        [0, V).
    """
    if codes.ndim != 3 or codes.dtype.kind not in "iu":
      raise InputError(
        "codes must be integers of shape [batch, codebooks, frames], got"
        f" {codes.dtype} of shape {codes.shape}"
      )
    if codes.size and not 0 <= codes.min() <= codes.max() < self.size:
      raise InputError(
        f"codes lie in [{codes.min()}, {codes.max()}]; this model's lie in"
        f" [0, {self.size - 1}]"
      )
    return codes.astype(np.int32, copy=False)


class Cond(NamedTuple):
  """The text condition of the language model.

  Attributes:
    states: Text states at the model's width; exact zeros where masked.
    mask: The positions that attention may look at.  A prompt without text keeps
      one visible zero vector, as the released code does, so that attention
      always has something to look at.
  """

  states: Float[AnyArray, "b l d"]
  mask: Bool[AnyArray, "b l"]


def resolve_dtype(name: str | None) -> jnp.dtype:
  """Compute type from its name; None means bfloat16 on TPU/GPU, else float32.

  Raises:
    InputError: If the name is neither "float32" nor "bfloat16".
  """
  if name is None:
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  if not isinstance(name, str) or name not in _DTYPES:
    raise InputError(f"dtype {name!r} is not one of {', '.join(_DTYPES)}")
  return jnp.dtype(_DTYPES[name])


def sampling_dtype(name: str | None) -> jnp.dtype:
  """Type of the weights in sampling, from its name.

  Args:
    name: "float32", "bfloat16" or "int8"; None means bfloat16 on TPU/GPU, else
      float32.

  Raises:
    InputError: If the name is none of the three.
  """
  if name == "int8":
    return jnp.dtype(jnp.int8)
  try:
    return resolve_dtype(name)
  except InputError:
    raise InputError(
      f"dtype {name!r} is not one of {', '.join(_DTYPES)}, int8"
    ) from None


def float_of(dtype: jnp.dtype) -> jnp.dtype:
  """The floating-point type beside `dtype`: of norms, scales and caches.

  For int8 that of `resolve_dtype(None)`, else `dtype` itself.
  """
  return resolve_dtype(None) if dtype == jnp.int8 else dtype


def precision(dtype: jnp.dtype) -> str:
  """Precision of matrix products for parameters of `dtype`.

  float32 means float32: left alone, TPUs would multiply in bfloat16 and GPUs in
  TF32, and codes and tokens would differ between machines.
  """
  return "highest" if float_of(dtype) == jnp.float32 else "default"


def cast_kernels(params: Tree, dtype: jnp.dtype) -> Tree:
  """Kernels in the type of the products, before they are sent anywhere.

  Scales, biases and embeddings keep theirs: they are added, not multiplied.
  """

  def one(path, leaf):
    return leaf.astype(dtype) if path[-1].key == "kernel" else leaf

  return jax.tree_util.tree_map_with_path(one, params)


def bucket(size: int, *, least: int = 1, parts: int = 1) -> int:
  """The smallest power of two that is at least `size` and `least`.

  Everything that is compiled is padded to such sizes, so that nearby lengths
  share one compilation.

  Args:
    size: What has to fit.
    least: The smallest bucket, a power of two.
    parts: Buckets from one power of two to the next, evenly spread: more of
      them pad less and compile more.
  """
  size = max(size, least)
  above = 1 << (size - 1).bit_length()
  step = max(above // (2 * parts), 1)
  return -(-size // step) * step
