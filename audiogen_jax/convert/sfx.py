"""The sound effects network, out of its package `aisfx`, which is not run."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from audiogen_jax.convert import torch_file
from audiogen_jax.convert.torch_file import Tensor
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding.sfx import Sfx, SfxConfig

PACKAGE, VERSION = "aisfx", "0.1.2"
FILE = "models/checkpoint.pth"  # in the package
SHA256 = "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5"
SOURCE = f"pip install --no-deps {PACKAGE}=={VERSION}"
LICENCE = "CC BY 4.0"

_PREFIX = "embedding_net."
_BLOCKS, _LAYERS = 4, 2
_EPSILON = 1e-5  # of PyTorch's batch norm


def locate() -> Path:
  """The file of weights that the installed package holds.

  Raises:
    InputError: If the package is not there, with what to do.
  """
  try:
    distribution = importlib.metadata.distribution(PACKAGE)
  except importlib.metadata.PackageNotFoundError:
    raise InputError(
      f"the weights of sfx come with a package that is not installed: {SOURCE}"
      " (23 MB; none of its code is run)"
    ) from None
  path = Path(str(distribution.locate_file(f"{PACKAGE}/{FILE}")))
  if not path.is_file():
    raise InputError(f"{path} is missing; install it again: {SOURCE}")
  return path


def load_sfx(path: Path) -> Sfx:
  """The network with the weights of a file of the package's format.

  Raises:
    InputError: If the file is damaged, or holds another network.
  """
  saved = torch_file.read(path)
  state = saved[0] if isinstance(saved, tuple) and saved else None
  if not isinstance(state, Mapping):
    raise InputError(
      f"{path} holds {shown(saved)} where a network and its libraries belong;"
      f" take the file of {PACKAGE} {VERSION}"
    )
  params, width, channels = {}, 1, []
  for i in range(_BLOCKS):
    for j in range(_LAYERS):
      params[f"conv_{i}_{j}"] = _folded(state, path, i + 1, j + 1, width)
      width = len(params[f"conv_{i}_{j}"]["bias"])
    channels.append(width)
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return Sfx(SfxConfig(tuple(channels)), params, sha256=digest)


def _folded(
  state: Mapping[str, Tensor], path: Path, block: int, layer: int, width: int
) -> Tree:
  """A convolution with the batch norm behind it in its weights."""
  start = f"{_PREFIX}conv_block{block}."
  kernel = _values(state, path, f"{start}conv{layer}.weight", 4)
  out = len(kernel)
  if kernel.shape != (out, width, 3, 3):
    raise InputError(
      f"{path}: {start}conv{layer}.weight has shape {kernel.shape}, not"
      f" {(out, width, 3, 3)}; take the file of {PACKAGE} {VERSION}"
    )
  scale, bias, mean, variance = (
    _values(state, path, f"{start}bn{layer}.{name}", 1)
    for name in ("weight", "bias", "running_mean", "running_var")
  )
  scale = scale / np.sqrt(variance + _EPSILON)
  kernel = (kernel * scale[:, None, None, None]).transpose(2, 3, 1, 0)
  return {
    "kernel": jnp.asarray(kernel, jnp.float32),
    "bias": jnp.asarray(bias - mean * scale, jnp.float32),
  }


def _values(
  state: Mapping[str, Tensor], path: Path, name: str, axes: int
) -> np.ndarray:
  tensor = state.get(name)
  if not isinstance(tensor, Tensor) or len(tensor.shape) != axes:
    raise InputError(
      f"{path}: {name} is missing, or no tensor of {axes} axes; take the file"
      f" of {PACKAGE} {VERSION}"
    )
  values = tensor.read().astype(np.float64)
  bad = values.size - np.isfinite(values).sum()
  if bad:
    raise InputError(
      f"{path}: {name} holds {bad:,} values that are not finite (NaN or"
      f" infinity); install it again: {SOURCE}"
    )
  return values
