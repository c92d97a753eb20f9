"""Clips -> what a network hears in each, kept on disk in pieces.

    clip -> level, cut -> channels, rate, peak, 16 bits -> network -> .npz

A piece holds what was heard in sixteen clips.  Its name is a hash of all that
it depends on, the clips' contents among it: a piece is never stale, and an
evaluation that was killed goes on with the first that is missing.
"""

import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from audiogen_jax.audio import io
from audiogen_jax.core import writing
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding.extractor import Extractor, Heard
from audiogen_jax.embedding.hearing import levelled, prepare
from audiogen_jax.embedding.protocols import Hearing
from audiogen_jax.evaluate.sound_sets import SoundSet

_PIECE = 16  # clips
_VERSION = (
  1  # of what is kept; changes when the same clips would sound different
)
_KEPT = 256  # pieces in memory: 4,096 clips

Progress = Callable[[str, int, int], None]


def folder() -> Path:
  """Where what was heard is kept."""
  home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(home) / "audiogen_jax" / "evaluate"


@dataclasses.dataclass(frozen=True)
class Piece:
  """What was heard in some clips.

  Attributes:
    embeddings: Of all their windows.
    logits: Likewise; None if the network has no classes.
    counts: Windows of each clip.
  """

  embeddings: Float[np.ndarray, "w d"]
  logits: Float[np.ndarray, "w k"] | None
  counts: Int[np.ndarray, " clips"]


class Listened:
  """What one network has heard in a set; read piece by piece.

  Attributes:
    names: Of the clips, in order.
    extractor: The network.
  """

  def __init__(
    self, names: Sequence[str], extractor: Extractor, pieces: Sequence[Path]
  ) -> None:
    self.names, self.extractor = tuple(names), extractor
    self._pieces = tuple(pieces)

  def __iter__(self) -> Iterator[tuple[range, Piece]]:
    """Numbers of clips, and what was heard in them."""
    for i, path in enumerate(self._pieces):
      start = i * _PIECE
      stop = min(start + _PIECE, len(self.names))
      yield range(start, stop), _read(path)

  def rows(
    self, times: Int[np.ndarray, " clips"] | None = None
  ) -> Iterator[Float[np.ndarray, "w d"]]:
    """Embeddings, each clip's so many times (or once), piece by piece."""
    for numbers, piece in self:
      if times is None:
        yield piece.embeddings
      else:
        repeats = np.repeat(times[numbers.start : numbers.stop], piece.counts)
        yield np.repeat(piece.embeddings, repeats, axis=0)

  def logits(self) -> list[Float[np.ndarray, "w k"]]:
    """Of each clip.

    Raises:
      InputError: If the network has no classes.
    """
    found = []
    for _, piece in self:
      if piece.logits is None:
        raise InputError(
          f"{self.extractor.name} has no classes; take a network that has some"
        )
      found += np.split(piece.logits, np.cumsum(piece.counts)[:-1])
    return found

  def means(self) -> Float[np.ndarray, "clips d"]:
    """The mean embedding of each clip."""
    return np.concatenate(
      [
        np.add.reduceat(
          piece.embeddings.astype(np.float64),
          np.cumsum(piece.counts) - piece.counts,
        )
        / piece.counts[:, None]
        for _, piece in self
      ]
    )


def listen(
  clips: SoundSet,
  hearing: Hearing,
  extractor: Extractor,
  *,
  level_lufs: float | None = None,
  lengths_s: Mapping[str, float] | None = None,
  kept: Path | None = None,
  progress: Progress | None = None,
) -> Listened:
  """Hears every clip, or finds what was heard in it before.

  Args:
    clips: The set.
    hearing: What is done to a clip before the network.
    extractor: The network.
    level_lufs: What clips are brought to first.
    lengths_s: What clips are cut to, by name.
    kept: The folder for what was heard; None for `folder()`.
    progress: Called as clips are done.

  Raises:
    InputError: For a clip that is silent, too short for the network, or not to
      be read: with its name.
  """
  kept = kept or folder()
  with writing.explained(kept):
    kept.mkdir(parents=True, exist_ok=True)
  names, paths = clips.names, []
  for start in range(0, len(names), _PIECE):
    some = names[start : start + _PIECE]
    if progress:
      progress(f"{extractor.name}: {clips.title}", start, len(names))
    cuts = [lengths_s[name] if lengths_s else None for name in some]
    key = {
      "version": _VERSION,
      "extractor": [extractor.name, extractor.sha256],
      "hearing": dataclasses.asdict(hearing),
      "level": level_lufs,
      "clips": [
        [clips.items[name].digest(), cut]
        for name, cut in zip(some, cuts, strict=True)
      ],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    path = kept / f"{digest.hexdigest()}.npz"
    if _read(path, whole=False) is None:
      sounds = [
        _prepared(clips, name, hearing, extractor, level_lufs, cut)
        for name, cut in zip(some, cuts, strict=True)
      ]
      _write(path, _heard(extractor, sounds, some))
    paths.append(path)
  return Listened(names, extractor, paths)


def _heard(
  extractor: Extractor, sounds: Sequence[np.ndarray], names: Sequence[str]
) -> list[Heard]:
  try:
    return extractor.embed(sounds)
  except InputError:
    for name, sound in zip(names, sounds, strict=True):
      try:
        extractor.embed([sound])
      except InputError as error:
        raise InputError(f"clip {name}: {error}") from None
    raise


def _prepared(
  clips: SoundSet,
  name: str,
  hearing: Hearing,
  extractor: Extractor,
  level_lufs: float | None,
  cut_s: float | None,
) -> Float[np.ndarray, " n"]:
  audio, rate_hz = clips.items[name].read()
  if not np.abs(audio).max(initial=0):
    raise InputError(
      f"clip {name} of {clips.title} is silent; leave it out (--only names"
      " those to take)"
    )
  if cut_s is not None:
    audio = audio[: max(round(cut_s * rate_hz), 1)]
  if level_lufs is not None:
    audio = levelled(audio, rate_hz, level_lufs)
  return prepare(hearing, audio, rate_hz, extractor.sample_rate_hz)


def _write(path: Path, heard: Sequence[Heard]) -> None:
  arrays = {
    "embeddings": np.concatenate([each.embeddings for each in heard]),
    "counts": np.array([len(each.embeddings) for each in heard]),
  }
  if all(each.logits is not None for each in heard):
    arrays["logits"] = np.concatenate([each.logits for each in heard])
  with (
    writing.explained(path.parent),
    io.whole(path) as part,
    part.open("wb") as file,
  ):
    np.savez(file, **arrays)


@functools.lru_cache(_KEPT)
def _cached(path: Path) -> Piece:
  with path.open("rb") as opened, np.load(opened) as file:
    logits = file["logits"] if "logits" in file.files else None
    return Piece(file["embeddings"], logits, file["counts"])


def _read(path: Path, *, whole: bool = True) -> Piece | None:
  """A piece; without `whole`, None for one that is missing or damaged."""
  try:
    return _cached(path)
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    if not whole:
      return None
    raise InputError(
      f"{path} is gone or damaged; run the evaluation again"
    ) from None
