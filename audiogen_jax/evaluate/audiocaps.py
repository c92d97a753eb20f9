"""AudioCaps' test set: whose list of its clips, their captions, their sounds.

The sounds cannot be shipped.  `audiocaps_test.csv.gz` holds the 975 videos with
their five captions each (github.com/cdjkim/audiocaps, dataset/test.csv; MIT,
2019, the AudioCaps authors), in that file's order, and for each published list
which caption it takes of a clip; none if it leaves the clip out.
"""

import csv
import dataclasses
import functools
import gzip
import io
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import listings
from audiogen_jax.evaluate import sound_sets
from audiogen_jax.evaluate.sound_sets import SoundSet

_FILE = "audiocaps_test.csv.gz"
_ID = 11  # characters of YouTube's
# What may stand behind it: where the clip starts, and where it ends.
_TIMES = re.compile(r"_(\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?")
_MILLISECONDS = 1000
_LONGEST_NAME = 150  # characters of a file's, without suffix
DURATION_S = 10.0  # of every clip


class Clip(NamedTuple):
  """A clip of a list.

  Attributes:
    youtube_id: Of the video, 11 characters.
    start_s: Where it starts there, in whole seconds.
    caption: The one that the list takes.
  """

  youtube_id: str
  start_s: int
  caption: str


# By name, as `--list` takes it: what it is.
LISTS: Mapping[str, str] = MappingProxyType(
  {
    "all": "AudioCaps' test set: all 975 clips, the first caption of each",
    "audioldm": "audioldm_eval c9e936e,"
    " example/AudioCaps/audiocaps_test_nonrepeat_subset_2.json: its 964 clips,"
    " with the caption that it has of each",
    "tango": "Tango 34ecd38, data/test_audiocaps_subset.json: its 886 clips,"
    " with the caption that it has of each",
    "make-an-audio": "Make-An-Audio 0d84177, data/audiocaps_test.tsv: its 900"
    " clips; sounds were made of all five captions there, here of the first",
    "stable-audio": "stable-audio-metrics fd55536: the 881 clips that"
    " examples/audiocaps_no-audio.py does not leave out; sounds were made of"
    " all five captions there, here of the first",
  }
)


def usual_list(protocol: str) -> str:
  """The list of the protocol's own authors, or all clips."""
  return protocol if protocol in LISTS else "all"


def read(name: str) -> tuple[Clip, ...]:
  """The clips of a list, in the order of AudioCaps' own file.

  Raises:
    InputError: If there is no such list.
  """
  if name not in LISTS:
    raise InputError(f"there is no list {name}; take {', '.join(LISTS)}")
  clips = []
  for row in _rows():
    taken = "1" if name == "all" else row[name]
    if taken:
      caption = row[f"caption_{taken}"]
      clips.append(Clip(row["youtube_id"], int(row["start_s"]), caption))
  return tuple(clips)


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
  packed = resources.files(__package__).joinpath(_FILE).read_bytes()
  text = io.StringIO(gzip.decompress(packed).decode())
  return tuple(csv.DictReader(text))


def find(root: Path, clips: Sequence[Clip]) -> dict[str, Path]:
  """Recordings of clips, by the ids of their videos.

  A file is called after the id, at any depth; before it may stand a Y, behind
  it where the clip starts, in s or ms, and where it ends: `Y7fmOlUlwoNg_20`.  A
  file that starts elsewhere is another clip.

  Raises:
    InputError: If there is no such folder, or two files for one clip.
  """
  if not root.is_dir():
    raise InputError(f"{root} is not a folder; name that of AudioCaps' sounds")
  wanted = {clip.youtube_id: clip.start_s for clip in clips}
  found: dict[str, Path] = {}
  for path in sorted(root.rglob("*")):
    if path.suffix.lower() not in listings.SOUNDS:
      continue
    name = _named(path.stem, wanted)
    if name in found:
      raise InputError(
        f"{path} and {found[name]} are both called after {name}; take one away"
      )
    if name is not None:
      found[name] = path
  return found


def _named(stem: str, wanted: Mapping[str, int]) -> str | None:
  """The clip that a file is called after, if it is one of these."""
  for first in (0, 1) if stem.startswith("Y") else (0,):
    name, rest = stem[first : first + _ID], stem[first + _ID :]
    if name not in wanted:
      continue
    if not rest:
      return name
    times, start_s = _TIMES.fullmatch(rest), wanted[name]
    if times and float(times[1]) in (start_s, start_s * _MILLISECONDS):
      return name
  return None


def recordings(
  root: Path, name: str, *, only_found: bool = False
) -> tuple[SoundSet, tuple[str, ...]]:
  """The recordings of a list, with their captions.

  Args:
    root: The folder with AudioCaps' sounds.
    name: Of the list.
    only_found: Whether some may be missing.

  Returns:
    The set, its clips called after the ids, and the ids of those missing.

  Raises:
    InputError: As `find` and `read`; if there are fewer than two, or any are
      missing that may not.
  """
  clips = read(name)
  files = find(root, clips)
  missing = [c.youtube_id for c in clips if c.youtube_id not in files]
  if len(files) < 2:
    raise InputError(
      f"{root} holds {len(files)} of the {len(clips)} clips of list {name}; its"
      " files must be called after their videos, such as"
      f" {clips[0].youtube_id}.wav or Y{clips[0].youtube_id}.wav"
    )
  if missing and not only_found:
    raise InputError(
      f"{len(missing)} of the {len(clips)} clips of list {name} are missing in"
      f" {root}: {sound_sets.some(missing)}; --only-found goes on without them"
    )
  captions = {c.youtube_id: c.caption for c in clips if c.youtube_id in files}
  return sound_sets.of_files(str(root), root, files, captions), tuple(missing)


def of_dataset(path: Path, split: str | None = None) -> SoundSet:
  """The clips of a dataset, called so that files can be.

  Raises:
    InputError: As `SoundSet.open`; if a clip has no caption, or two would have
      one name.
  """
  held = SoundSet.open(path, split=split)
  lacking = [n for n in held.names if not held.captions.get(n, "").strip()]
  if lacking:
    raise InputError(
      f"{len(lacking)} of {len(held.items)} clips of {held.title} have no"
      f" caption: {sound_sets.some(lacking)}; a sound is made of each"
    )
  safe = {n: re.sub(r"[^\w.-]", "-", n)[:_LONGEST_NAME] for n in held.names}
  if len(set(safe.values())) < len(safe):
    raise InputError(
      f"clips of {held.title} have names that make one name of a file; give"
      " them ids of letters, digits, - and _"
    )
  order = sorted(held.names, key=safe.__getitem__)
  return dataclasses.replace(
    held,
    items={safe[name]: held.items[name] for name in order},
    captions={safe[name]: held.captions[name] for name in order},
  )


def some(held: SoundSet, most: int) -> SoundSet:
  """So many clips of a set at most, evenly spread over its names."""
  names = held.names
  places = np.linspace(0, len(names) - 1, min(most, len(names)), dtype=int)
  items = {names[i]: held.items[names[i]] for i in places}
  return dataclasses.replace(held, items=items)
