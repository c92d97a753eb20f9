"""Experts that propose captions of a sound: a bank, its tags, and others.

bank      the sentence of a bank that CLAP hears as nearest to the sound
tags      what the sound is tagged with, as sentences
captions  what somebody's captioner wrote of it
own       the caption that it has
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions, listings, reading

# Sentences of tags; CLAP says which of them is nearest.
TAG_SENTENCES = "the sound of {}", "{} can be heard", "a recording of {}"
_TEXT = ("caption", "prompt", "text")  # keys of a caption in JSON lines
_PIECE = 1024  # sentences of a bank that are read together
_REMEMBERED = 65_536  # sentences that need not be read again


@runtime_checkable
class Listener(Protocol):
  """What hears sounds and reads sentences into one space: a CLAP.

  Attributes:
    identity: What tells it from others.
  """

  identity: str

  def hear(
    self, sounds: Sequence[Float[np.ndarray, "_ c"]], rate_hz: int
  ) -> Float[np.ndarray, "b d"]:
    """One vector a sound."""

  def read(self, texts: Sequence[str]) -> Float[np.ndarray, "m d"]:
    """One vector a sentence."""


@dataclasses.dataclass(frozen=True)
class Proposals:
  """What the experts have to say.

  Attributes:
    bank: Sentences, each once.
    outside: Captions from outside, by the id of a clip.
  """

  bank: tuple[str, ...] = ()
  outside: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )

  def of(
    self, example: Mapping[str, Any], *, own: bool
  ) -> list[tuple[str, str]]:
    """Sentences for one clip, beside those of the bank, and their origins.

    Args:
      example: The clip.
      own: Whether the caption that it has is one of them.
    """
    tags = [captions.of_tags([tag.decode()]) for tag in example["tags"]]
    named = _listed([tag for tag in dict.fromkeys(tags) if tag])
    sentences = [text.format(named) for text in TAG_SENTENCES if named]
    outside = self.outside.get(example["id"].decode(), ())
    caption = [example["caption"].decode()] if own else []
    return [
      (text, origin)
      for origin, texts in (
        ("tags", sentences),
        ("captions", outside),
        ("own", caption),
      )
      for text in texts
      if text
    ]


def _listed(words: Sequence[str]) -> str:
  """Words as a sentence has them: "a, b and c"."""
  if len(words) < 2:
    return "".join(words)
  return f"{', '.join(words[:-1])} and {words[-1]}"


def lacks_caption(example: Mapping[str, Any]) -> bool:
  """Whether a clip has no caption, or only its tags in a row."""
  caption = example["caption"].decode()
  tags = captions.of_tags(tag.decode() for tag in example["tags"])
  return not caption or caption == tags


def bank(sources: Iterable[str | os.PathLike]) -> tuple[str, ...]:
  """The sentences of several sources, each once.

  Args:
    sources: Datasets, CSV files with a column `caption`, JSON lines with
      `caption`, or text files with a sentence a line.

  Raises:
    InputError: If one is missing or damaged, or has no captions.
  """
  found: dict[str, None] = {}
  for source in map(Path, sources):
    some = [text for text in map(captions.clean, _sentences(source)) if text]
    if not some:
      raise InputError(f"the bank {source} holds no captions; name another")
    found |= dict.fromkeys(some)
  return tuple(found)


def _sentences(path: Path) -> Iterator[str]:
  if path.is_dir():
    builder = reading.read(path)
    for split, about in builder.info.splits.items():
      if about.num_examples:
        source = reading.Examples(builder, split)
        for number in range(len(source)):
          yield source[number]["caption"].decode()
    return
  if not path.is_file():
    raise InputError(f"there is no bank at {path}: check the path")
  if path.suffix == ".csv":
    for row in _whole_rows(listings.own_table(path, ("caption",))):
      yield row["caption"]
  elif path.name.endswith((".jsonl", ".jsonl.gz")):
    for row in _whole_rows(listings.json_lines(path)):
      yield _text(row, str(path))
  else:
    try:
      yield from path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
      raise InputError(f"the bank {path} is not UTF-8 text") from None


def outside(path: Path, ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
  """What somebody's captioner wrote, by the ids of clips.

  Args:
    path: JSON lines with `id` or `path`, and `caption`; a clip may have
      several.  A path stands for the clip whose id it ends in, with or without
      the suffix of a sound.
    ids: Of all clips.

  Raises:
    InputError: If it is missing or damaged, or names none of the clips.
  """
  if not path.is_file():
    raise InputError(f"there are no captions at {path}: check the path")
  by_name: dict[str, str] = {}
  for one in ids:
    for name in (one, PurePath(one).name, PurePath(one).stem):
      by_name.setdefault(name, one)
  found: dict[str, list[str]] = {}
  names = []
  for row in _whole_rows(listings.json_lines(path)):
    name = row.get("id", row.get("path"))
    if not isinstance(name, str | int):
      raise InputError(f"{path}: a line lacks its id or path: {str(row)[:60]}")
    names.append(str(name))
    at = PurePath(names[-1])
    clip = next(filter(None, map(by_name.get, (str(at), at.name, at.stem))), "")
    if clip:
      found.setdefault(clip, []).append(captions.clean(_text(row, str(path))))
  if not found:
    example = f", such as {names[0][:60]!r}" if names else ""
    raise InputError(
      f"none of the {len(names)} lines of {path}{example} names a clip of the"
      " dataset by its id"
    )
  return {clip: tuple(filter(None, texts)) for clip, texts in found.items()}


def _whole_rows(
  rows: Iterable[tuple[str, Mapping[str, Any] | str]],
) -> Iterator[Mapping[str, Any]]:
  """Rows, the first damaged one of which ends all."""
  for where, row in rows:
    if isinstance(row, str):
      raise InputError(f"{where}: {row}")
    yield row


def _text(row: Mapping[str, Any], where: str) -> str:
  for key in _TEXT:
    if isinstance(row.get(key), str):
      return row[key]
  raise InputError(f"{where}: a line lacks its caption: {str(row)[:60]}")


class Bank:
  """A bank's sentences and their directions, for the nearest to a sound."""

  def __init__(
    self, sentences: Sequence[str], directions: Float[np.ndarray, "m d"]
  ) -> None:
    self.sentences, self.directions = sentences, directions

  def nearest(self, heard: Float[np.ndarray, "b d"]) -> list[tuple[str, float]]:
    """The sentence nearest to each of some directions, and its cosine."""
    cosines = heard @ self.directions.T
    best = cosines.argmax(axis=1)
    return [
      (self.sentences[at], float(row[at]))
      for at, row in zip(best.tolist(), cosines, strict=True)
    ]


def pieces(sentences: Sequence[str]) -> list[Sequence[str]]:
  """A bank in pieces that are read one after another."""
  starts = range(0, len(sentences), _PIECE)
  return [sentences[start : start + _PIECE] for start in starts]


def directions(vectors: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b d"]:
  """Vectors of unit length, whose products are cosines; zeros stay."""
  vectors = vectors.astype(np.float32)
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(lengths, np.float32(1e-8))


class Reader:
  """Reads sentences, and those that come again only once: tags do."""

  def __init__(self, listener: Listener) -> None:
    self._listener = listener
    self._known: dict[str, Float[np.ndarray, " d"]] = {}

  def cosines(
    self, heard: Float[np.ndarray, "b d"], texts: Sequence[Sequence[str]]
  ) -> list[list[float]]:
    """How near sounds' directions and some sentences of each are: [-1, 1]."""
    if len(self._known) > _REMEMBERED:
      self._known.clear()
    every = dict.fromkeys(text for some in texts for text in some)
    new = [text for text in every if text not in self._known]
    if new:
      found = directions(self._listener.read(new))
      self._known |= dict(zip(new, found, strict=True))
    return [
      [float(vector @ self._known[text]) for text in some]
      for vector, some in zip(heard, texts, strict=True)
    ]
