"""Where a stranger's configuration becomes ours: typed, bounded, named.

Whatever a published `config.json` or `xp.cfg` says is asked for through `Keys`,
which knows the kind and the range of each value; nothing is built of a value
that has not passed.  Our own `config.json` passes through `config.build` with
the same `RANGES`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core import config
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import patterns
from audiogen_jax.lm.masked_sampling import MOST_STEPS, Masking
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.text.t5 import T5Config

# The least and the most of what is built, by the names of our own fields.  The
# most is some ten times the largest that was ever published.
_SIZE, _DEPTH, _KERNEL = (1, 1 << 17), (1, 1024), (1, 1024)
RANGES: config.Ranges = {
  "vocabulary": (1, 1 << 22),
  "width": _SIZE,
  "text_width": _SIZE,
  "ff": (1, 1 << 20),
  "hidden_scale": (1e-6, 1024),  # the published format's ff / width
  "layers": _DEPTH,
  "rank": (1, 4096),
  "alpha": (-1e6, 1e6),
  "heads": (1, 1024),
  "head_size": (1, 4096),
  "buckets": (4, 4096),
  "far": (1, 1 << 20),
  "epsilon": (0, 1),
  "codebooks": (1, 256),
  "size": (2, 1 << 16),  # codes are kept in two bytes
  "delays": (0, 4096),
  "flattening": (0, 4096),
  "flatten_first": (0, 4096),
  "empty_initial": (0, 4096),
  "sample_rate_hz": (1, 768_000),
  "channels": (1, 64),
  "filters": (1, 4096),
  "ratios": (1, 4096),
  "residual_layers": (0, 32),
  "kernel": _KERNEL,
  "last_kernel": _KERNEL,
  "residual_kernel": _KERNEL,
  "kernels": _KERNEL,
  "ratio_kernels": (1, 8192),
  "dilations": (1, 4096),
  "dilation_base": (1, 64),
  "compress": (1, 4096),
  "lstm_layers": (0, 64),
  "unnormed_outer_blocks": (0, 64),
  "chunk_s": (1e-3, 3600),
  "overlap": (0, 0.99),
  "n_fft": (16, 1 << 16),
  "hop": (1, 1 << 16),
  "hz": (0, 384_000),
  "window": (1, 256),
  "image": (16, 4096),
  "limit": (2, 1 << 16),
  "padding": (0, 1 << 22),
  "window_s": (1e-3, 86_400),
  "guidance": (-1000, 1000),
  "min_guidance": (-1000, 1000),
  "temperature": (0, 10_000),
  "top_k": (0, 1 << 16),
  "top_p": (0, 1),
  "decoding_steps": (1, MOST_STEPS),
  "context": (-1, 1 << 16),
  "span": (1, 4096),
  "span_len": (-1, 4096),  # the published format's; less than 1 is 1
  "version": (0, 1 << 31),
}
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Keys:
  """Keys and values of which only what is asked for is looked at.

  Each of the methods raises InputError, with the file and the key's whole path,
  for a value that is missing without a default, of another kind, or out of the
  range of the field of ours (`ours`) that it is for.

  Attributes:
    values: What was read.
    where: The file, for messages.
    path: Dotted name of `values` within the whole, with a dot at its end.
  """

  values: Mapping[str, Any]
  where: str
  path: str = ""

  def __contains__(self, name: str) -> bool:
    return name in self.values

  def any(self, name: str, default: Any = _MISSING) -> Any:
    """The value, of whatever kind."""
    value = self.values.get(name, default)
    if value is _MISSING:
      raise InputError(f"{self.where} lacks {self.path + name!r}")
    return value

  def whole(self, name: str, ours: str, default: Any = _MISSING) -> int:
    """A value that must be an integer; 64.0 and true are none."""
    value = self.any(name, default)
    if type(value) is not int:
      raise self._wrong(name, value, "a whole number")
    self._check(name, value, ours)
    return value

  def number(self, name: str, ours: str, default: Any = _MISSING) -> float:
    """A value that must be an integer or a float, as a float."""
    value = self.any(name, default)
    if type(value) not in (int, float):
      raise self._wrong(name, value, "a number")
    self._check(name, value, ours)
    return float(value)

  def wholes(self, name: str, ours: str) -> tuple[int, ...]:
    """A list of whole numbers."""
    values = self.any(name)
    whole = isinstance(values, list | tuple) and len(values) <= 256
    if not whole or any(type(value) is not int for value in values):
      raise self._wrong(name, values, "a list of whole numbers, 256 at most")
    for value in values:
      self._check(name, value, ours)
    return tuple(values)

  def lists(self, name: str, ours: str) -> tuple[tuple[int, ...], ...]:
    """A list of lists of whole numbers."""
    values = self.any(name)
    if not isinstance(values, list | tuple) or len(values) > 256:
      raise self._wrong(name, values, "a list of lists, 256 at most")
    rows = {str(i): row for i, row in enumerate(values)}
    below = Keys(rows, self.where, f"{self.path}{name}.")
    return tuple(below.wholes(row, ours) for row in rows)

  def flag(self, name: str, default: Any = _MISSING) -> bool:
    """A value that must be true or false, and no 0 or 1."""
    value = self.any(name, default)
    if type(value) is not bool:
      raise self._wrong(name, value, "true or false")
    return value

  def text(self, name: str) -> str | None:
    """A name; None where there is none."""
    value = self.any(name, None)
    if not isinstance(value, str | None) or len(value or "") > 4096:
      raise self._wrong(name, value, "a text of at most 4,096 characters")
    return value or None

  def names(self, name: str) -> list[str]:
    """A list of names; empty where there is none."""
    values = self.any(name, None) or []
    if not isinstance(values, list | tuple):
      raise self._wrong(name, values, "a list of names")
    if not all(isinstance(value, str) for value in values):
      raise self._wrong(name, values, "a list of names")
    return list(values)

  def names_of_all(self) -> set[str]:
    """All values, which must be names."""
    for name, value in self.values.items():
      if not isinstance(value, str):
        raise self._wrong(shown(name), value, "a name")
    return set(self.values.values())

  def group(self, name: str, default: Any = _MISSING) -> "Keys":
    """Keys below this one; with a default, null counts as absent."""
    value = self.any(name, default)
    if value is None and default is not _MISSING:
      value = default
    if not isinstance(value, Mapping):
      raise self._wrong(name, value, "keys and values")
    return Keys(value, self.where, f"{self.path}{name}.")

  def only(self, name: str, *allowed: Any) -> Any:
    """A value that must be one that is built here; absent, the first one."""
    value = self.any(name, allowed[0])
    if value not in allowed:
      words = " or ".join(map(repr, allowed))
      raise InputError(
        f"{self.where}: {self.path}{name} = {shown(value)} is not supported;"
        f" only {words}"
      )
    return value

  def _wrong(self, name: str, value: Any, kind: str) -> InputError:
    return InputError(
      f"{self.where}: {self.path}{name} = {shown(value)} must be {kind}"
    )

  def _check(self, name: str, value: float | int, ours: str) -> None:
    config.check_range(
      self.path + name, value, *RANGES[ours], where=f"{self.where}: "
    )


def check_codec(codec: EncodecConfig, where: str) -> EncodecConfig:
  """What the numbers of a codec are together.

  Raises:
    InputError: If they ask for more than can be meant, or do not belong
      together.
  """
  c = codec.seanet
  widest = c.filters * 2 ** len(c.ratios)
  reach = c.dilation_base ** max(c.residual_layers - 1, 0)
  for name, value, least, most in (
    ("the number of ratios", len(c.ratios), 1, 16),
    ("channels after the last ratio", widest, 1, 1 << 17),
    ("samples a frame", math.prod(c.ratios), 1, codec.sample_rate_hz),
    ("the widest dilation", reach, 1, 1 << 16),
    ("filters / compress", c.filters // c.compress, 1, 4096),
  ):
    config.check_range(name, value, least, most, where=f"{where}: codec: ")
  return codec


def check_lm(lm: LMConfig, where: str) -> LMConfig:
  """What the numbers of a language model are together; see `check_codec`."""
  try:
    patterns.layout(lm.pattern, lm.codebooks, 1)
  except InputError as error:
    raise InputError(f"{where}: {error}") from None
  return lm


def check_masking(masking: Masking, lm: LMConfig, where: str) -> Masking:
  """Whether its own options suit a masked model; see `check_codec`."""
  try:
    masking.sampling.check(lm.codebooks, lm.size)
  except InputError as error:
    raise InputError(f"{where}: {error}") from None
  return masking


def check_text(text: T5Config, where: str) -> T5Config:
  """What the numbers of a text encoder are together; see `check_codec`."""
  # Distances from a quarter of the buckets up to `far` widen logarithmically.
  least = text.buckets // 4 + 1
  config.check_range(
    "the farthest distance", text.far, least, 1 << 20, where=f"{where}: text: "
  )
  return text
