"""Where sounds and captions come from: one reader for each kind of source.

    files of a source --read--> records (path, stretch, caption, tags, ...)

The published datasets are in `catalog.py`, one's own in `own.py`.
"""

import dataclasses
import os
from collections.abc import Sequence

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.catalog import PUBLISHED
from audiogen_jax.data.listings import Record, Source, SourceFiles
from audiogen_jax.data.own import OWN
from audiogen_jax.data.shards import LeftOut


@dataclasses.dataclass(frozen=True)
class Reading:
  """What a source gave."""

  records: Sequence[Record]
  left_out: Sequence[LeftOut]


def names() -> list[str]:
  """All sources."""
  return sorted(_SOURCES)


def get(name: str) -> Source:
  """The source of that name.

  Raises:
    InputError: If there is none; the message names them all.
  """
  if name not in _SOURCES:
    raise InputError(f"{name!r} is not one of {', '.join(names())}")
  return _SOURCES[name]


def read(
  name: str,
  root: str | os.PathLike,
  *,
  rules: CaptionRules | None = None,
  drop_speech: bool | None = None,
) -> Reading:
  """Lists the records of a source.

  Args:
    name: One of `names()`.
    root: Where its files lie.
    rules: What is done to captions.
    drop_speech: Whether clips with "speech" in a tag or the caption are left
      out; None for what the source says of itself: only AudioSet is dominated
      by it.

  Raises:
    InputError: If the root lacks what the source ships, or all of its sounds.
  """
  source, rules = get(name), rules or CaptionRules()
  drop_speech = source.drop_speech if drop_speech is None else drop_speech
  records, left_out, seen = [], [], {}
  for row in source.read(SourceFiles(root, source.title, source.homepage)):
    if isinstance(row, LeftOut):
      left_out.append(LeftOut(_legible(row.what), _legible(row.reason)))
      continue
    if not row.path:
      reason = f"no sound file for it below {root}"
      left_out.append(LeftOut(_legible(row.id), reason))
      continue
    if _legible(row.path) != row.path:
      reason = "its name is not UTF-8: rename it"
      left_out.append(LeftOut(_legible(row.path), reason))
      continue
    tags = tuple(filter(None, map(captions.clean, row.tags)))
    caption = captions.clean(row.caption) or captions.of_tags(tags)
    if drop_speech and captions.is_about_speech(caption, tags):
      left_out.append(LeftOut(row.path, 'is about speech ("speech" is in it)'))
      continue
    if not (caption or rules.bare):
      left_out.append(LeftOut(row.path, "has no caption and no tags"))
      continue
    said, caption = caption, rules.apply(caption)
    if said and not caption:
      reason = f"nothing is left of its caption {said!r} by the rules"
      left_out.append(LeftOut(row.path, reason))
      continue
    records.append(
      dataclasses.replace(
        row,
        caption=caption,
        tags=tags,
        source=name,
        id=_unique(captions.clean(row.id), seen),
      )
    )
  if not records:
    example = f"; {left_out[0].what}: {left_out[0].reason}" if left_out else ""
    raise InputError(
      f"{root} holds no sound of {source.title}{example}; is it the folder that"
      f" {source.homepage or 'you mean'} unpacks to?"
    )
  return Reading(records, left_out)


def _legible(text: str) -> str:
  """What cannot be written as UTF-8, as in names from before it, is "?"."""
  return text if text.isascii() else text.encode(errors="replace").decode()


def _unique(name: str, used: dict[str, int]) -> str:
  """A name that no earlier record has: the second "rain" is "rain (2)".

  Args:
    name: As the source has it.
    used: Names so far, and the last number of each; the new one is added.
  """
  number, unique = used.get(name, 0), name
  while unique in used:
    number += 1
    unique = f"{name} ({number})"
  used[name] = max(number, 1)
  used.setdefault(unique, 1)
  return unique


_SOURCES = PUBLISHED | OWN
