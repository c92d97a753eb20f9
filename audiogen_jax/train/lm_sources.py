"""Where the parts of a language model's training come from, and go to."""

import dataclasses
import functools
from typing import Any, NamedTuple

from etils import epath

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import engine, hub, opening, placing
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import config, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import model
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.text import t5, tokenizer
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """The text encoder.

  Attributes:
    source: Hub id or folder of a T5.  Empty for the one that comes with
      `init_from`, or a new one that reads bytes.
    encoder: What it is.  Read from the source before training, if there is one.
    trained: Whether it is trained along.
    length: Tokens of a row; longer texts are cut.
  """

  source: str = ""
  encoder: T5Config = T5Config()
  trained: bool = False
  length: int = 64


class Weights(NamedTuple):
  """What sources hold, on the devices; None for what starts at random."""

  codec: Tree
  text: Tree | None
  lm: Tree | None


@dataclasses.dataclass(frozen=True)
class Origins:
  """Sources, by name.

  Attributes:
    family: Family of the model, as exports name it.
    init_from: Source of a model to start from, or empty.
    codec: Source of the codec; empty for that of `init_from`.
    text: Source of the text encoder.
    trained: Whether the text encoder is trained.
  """

  family: str
  init_from: str
  codec: str
  text: str
  trained: bool

  def opened(self, lm: LMConfig) -> tuple[EncodecConfig, T5Config | None]:
    """What codec and text encoder are; reads no weights.

    Raises:
      InputError: If a source is missing, or holds another model than `lm`.
    """
    sources = _open(self)
    if sources.start is not None and sources.start.lm != lm:
      raise InputError(
        f"init_from {self.init_from} is another model than the configuration's:"
        f" {_differences(sources.start.lm, lm)}; take the configuration of its"
        " size, or set these keys"
      )
    return sources.codec.codec, sources.text and sources.text[0]

  def tokenizer(self) -> Tokenizer:
    """What makes ids of captions: the text encoder's own, or bytes."""
    sources = _open(self)
    if sources.text is None:
      return tokenizer.load(None)
    described, _, folder = sources.text
    return tokenizer.load(folder, rows=described.vocabulary)

  def weights(self, lm: LMConfig) -> Weights:
    """All weights that there are, in float32, where the mesh wants them."""
    sources, placement = _open(self), sharding.current()

    def read(tree, init, described, axes):
      abstract = engine.abstract(init, described)
      return placing.realise(tree, abstract, axes, placement)

    codec = sources.codec
    text = start = None
    if sources.text is not None:
      described, tree, _ = sources.text
      text = read(tree, t5.init, described, t5.AXES)
    if sources.start is not None:
      start = read(sources.start.lm_tree, model.init, lm, model.AXES)
    return Weights(
      read(codec.codec_tree, encodec.init, codec.codec, encodec.AXES),
      text,
      start,
    )

  def export(self, folder: epath.Path, parts: Parts) -> None:
    """Writes a whole model.

    A frozen text encoder of the hub is not written: it can be had again.
    """
    sources = _open(self)
    outside = sources.text is not None and hub.holds(sources.text[2])
    if outside and not self.trained:
      parts = dataclasses.replace(
        parts, text_tree=None, text_name=sources.text_name
      )
    opening.write_orbax(folder, parts, tokenizer=self.tokenizer())


class _Opened(NamedTuple):
  """Everything that sources hold, not read yet."""

  start: Parts | None  # of `init_from`
  codec: Parts
  text: tuple[T5Config, Tree, str | None] | None  # its tokenizer's folder
  text_name: str | None


@functools.lru_cache(maxsize=4)
def _open(origins: Origins) -> _Opened:
  start, init_from = None, origins.init_from
  if init_from:
    start = opening.open_parts(
      init_from, family=origins.family, text_encoder=origins.text or None
    )
    if start.lm is None:
      raise InputError(f"init_from {init_from} has no language model")
  if origins.codec:
    codec = opening.open_parts(origins.codec, need_text=False)
  elif start is not None:
    codec = start
  else:
    raise InputError(
      "no codec: give --config.codec=SOURCE, a hub id or the export of a"
      " codec's training"
    )
  if start is not None and start.text is not None:
    words = (start.text, start.text_tree, start.tokenizer)
    return _Opened(start, codec, words, origins.text or start.text_name)
  if origins.text:
    return _Opened(start, codec, opening.open_text(origins.text), origins.text)
  if not origins.trained:
    raise InputError(
      "no text encoder: give --config.text.source=t5-large or a folder, or"
      " train a new one with --config.text.trained=True"
    )
  return _Opened(start, codec, None, None)


def _differences(theirs: Any, ours: Any) -> str:
  """Keys of two configurations that differ."""
  differences = []

  def walk(a, b, where):
    for name in a:
      if isinstance(a[name], dict):
        walk(a[name], b[name], f"{where}{name}.")
      elif a[name] != b[name]:
        differences.append(
          f"{where}{name} is {a[name]} there and {b[name]} here"
        )

  walk(config.as_dict(theirs), config.as_dict(ours), "lm.")
  return ", ".join(differences)


def check_parts(
  lm: LMConfig, name: str, codec: EncodecConfig, text: TextConfig
) -> None:
  """Raises InputError where codec, text encoder and model do not fit.

  Args:
    lm: The language model.
    name: Name of the codec, for the message.
    codec: What the codec is.
    text: The text encoder.
  """
  theirs, ours = codec.tokens, lm
  if (theirs.codebooks, theirs.size) != (ours.codebooks, ours.size):
    raise InputError(
      f"the codec {name} writes {theirs.codebooks} codebooks of"
      f" {theirs.size}, the language model {ours.codebooks} of {ours.size};"
      f" set lm.codebooks={theirs.codebooks} and lm.size={theirs.size}"
    )
  if text.encoder.width != lm.text_width:
    raise InputError(
      f"the text encoder {text.source} has states of"
      f" {text.encoder.width}, lm.text_width is {lm.text_width};"
      " the two must be equal"
    )
