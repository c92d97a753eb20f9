"""The families: whatever turns sentences into sound, behind one protocol.

The command line, the page, evaluation and benchmarks speak `TextToAudio` alone.
A family is a page such as `audiogen.py`; others install themselves by an entry
point of the group `audiogen_jax.families`, whose module calls `register` (and
`convert.formats.register` for the folders that it reads).
"""

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float

from audiogen_jax.convert import formats
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Seconds

# Steps done, steps in all.
Progress: TypeAlias = Callable[[int, int], None]

# Each registers when imported.
_BUILT_IN = (
  "audiogen_jax.audiogen",
  "audiogen_jax.magnet",
  "audiogen_jax.make_an_audio",
)
_GROUP = "audiogen_jax.families"


class Description(NamedTuple):
  """What a folder says of its model, before weights are read.

  Making one asks JAX for nothing: processes need not have joined yet.

  Attributes:
    sampling: The options that suit the model: an instance of its `options`.
    rows: Makes names and values for people, which may trace the model.
  """

  sampling: Any
  rows: Callable[[], Sequence[tuple[str, str]]]


@runtime_checkable
class TextToAudio(Protocol):
  """A model that turns sentences into sound.

  What a family can do besides, it says by having the method or the argument:
  `stream`; `inpaint(sound, keep, texts)` and, for a hole, `outside(from_s,
  to_s)`; `vary(sound, amount, texts)`; `prompt=` and `stride_s=` of `generate`,
  to continue sounds, and its `negative=`, what is not wanted;
  `generate_from(embeddings)`, sounds of pictures, with `clip`, which embeds
  them where the model looks; `check(sampling)`, which raises InputError for
  options that this model cannot follow; `text_lengths(texts)`, by which batches
  are sorted; `codec`; `ranges`, narrower ends of options for this model.

  Attributes:
    options: A frozen dataclass made with `core.options`.
    sample_rate_hz: Sample rate of the sounds.
    channels: Channels of the sounds.
    window_s: Seconds of the sounds trained on.
    placement: The devices; of several processes' on a mesh of all.
  """

  options: type
  sample_rate_hz: int
  channels: int
  window_s: Seconds
  placement: Placement

  @classmethod
  def from_pretrained(cls, source: str | Path) -> "TextToAudio":
    """Loads a model; further arguments are the family's own."""

  @classmethod
  def describe(cls, source: str | Path) -> Description:
    """What a source says of its model; reads no weights."""

  def generate(
    self,
    texts: Sequence[str | None],
    *,
    duration_s: Seconds,
    sampling: Any = None,
    seed: int | Sequence[int] = 0,
    progress: Progress | None = None,
  ) -> Float[np.ndarray, "b n c"]:
    """Sounds from sentences, prompt i with seed + i, or one seed for each."""

  def save(self, folder: str | Path) -> None:
    """Writes our own format into a folder that does not exist yet."""


_families: dict[str, type] = {}


def register(name: str, family: type) -> None:
  """Makes a family known; one of the same name is replaced.

  Args:
    name: Name of the family, as exports have it.
    family: A class that follows `TextToAudio`.
  """
  _families[name] = family


def known() -> dict[str, type]:
  """All families, by name."""
  _discover()
  return dict(_families)


@functools.cache
def _discover() -> None:
  for module in _BUILT_IN:
    importlib.import_module(module)
  for entry in importlib.metadata.entry_points(group=_GROUP):
    entry.load()


def of(source: str | Path) -> tuple[str, type]:
  """The family of a model: its name, and the class that opens it.

  Raises:
    InputError: If there is no such model, or its family is not known.
  """
  families = known()
  folder = formats.locate(source)
  found = formats.recognise(folder)
  name = found.family(folder)
  if name is None:
    raise InputError(f"{folder} holds a {found.name}, which makes no sounds")
  if name not in families:
    raise InputError(
      f"{folder} holds a model of the family {name}; known are"
      f" {', '.join(sorted(families))}: install the package that brings it"
    )
  return name, families[name]


def load(source: str | Path, **options: Any) -> TextToAudio:
  """Loads a model of any family.

  Args:
    source: An embedded name, a hub id, a folder or a gs:// URI.
    **options: As for `from_pretrained` of the model's family, such as `dtype`,
      `mesh`, `adapters`; None for its default.

  Raises:
    InputError: For whatever is missing, damaged, or an option that the family
      lacks.
  """
  return _called(source, "from_pretrained", options)


def describe(source: str | Path, **options: Any) -> Description:
  """What a source says of its model; no weights are read.

  Args:
    source: As for `load`.
    **options: As for `describe` of the model's family, such as `adapters`.

  Raises:
    InputError: As `load`.
  """
  return _called(source, "describe", options)


def takes(model: type | TextToAudio, argument: str) -> bool:
  """Whether `generate` of a family has an argument, such as `prompt`."""
  return argument in inspect.signature(model.generate).parameters


def check(model: TextToAudio, sampling: Any) -> None:
  """Has a model refuse options that suit its family and not itself.

  A family that can tell so before it makes a sound has a method `check`.

  Raises:
    InputError: As that method does, such as for a `top_k` above the codebooks.
  """
  refuse = getattr(model, "check", None)
  if refuse is not None:
    refuse(sampling)


def _called(source: str | Path, method: str, options: dict[str, Any]) -> Any:
  name, family = of(source)
  call = getattr(family, method)
  given = {key: value for key, value in options.items() if value is not None}
  for key in given:
    if key not in inspect.signature(call).parameters:
      raise InputError(f"{source} is of the family {name}, which has no {key}")
  return call(source, **given)
