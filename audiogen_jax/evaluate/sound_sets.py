"""What is judged: clips by name, of a folder, a dataset or a manifest."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from audiogen_jax.audio import io
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import listings, reading, spec

MANIFEST = "manifest.jsonl"
_SPLITS = "test", "validation"  # the first one that a dataset has
_SHOWN = 5  # names in a message


@dataclasses.dataclass(frozen=True)
class Item:
  """One clip, not read yet.

  Attributes:
    read: Its sound and its rate in Hz.
    digest: SHA-256 of what it is read from.
    length_s: How long it is, in seconds.
  """

  read: Callable[[], tuple[Float[np.ndarray, "n c"], int]]
  digest: Callable[[], str]
  length_s: Callable[[], float]


@dataclasses.dataclass(frozen=True)
class SoundSet:
  """Clips by name, in the order of their names.

  Attributes:
    title: Where they are from.
    items: By name: a path without its suffix, or an example's id.
    captions: By name, as far as there are some.
    place: Unlike that of all other sets.
  """

  title: str
  items: Mapping[str, Item]
  captions: Mapping[str, str]
  place: str

  @classmethod
  def open(
    cls,
    source: str | os.PathLike,
    *,
    split: str | None = None,
    only: Sequence[str] | None = None,
  ) -> "SoundSet":
    """Finds the clips, and reads none yet.

    Args:
      source: A folder of sounds at any depth, a dataset that `audiogen data
        build` wrote, or a `manifest.jsonl` of `audiogen generate`, by itself or
        in a folder; captions come from a dataset or a manifest.
      split: Of a dataset; None for test, or validation, or the only one.
      only: Names of the clips to take, without suffix; None for all.

    Raises:
      InputError: If there are fewer than two, or one that is asked for is
        missing, or two have one name.
    """
    path = Path(source)
    if not path.exists():
      raise InputError(f"there is nothing at {path}: check the path")
    if (path / "dataset_info.json").exists():
      found = _dataset(path, split)
    elif split is not None:
      raise InputError(f"{path} is no dataset, and has no split {split}")
    elif path.name == MANIFEST or (path / MANIFEST).is_file():
      found = _manifest(path if path.is_file() else path / MANIFEST)
    elif path.is_dir():
      found = _folder(path)
    else:
      raise InputError(
        f"{path} is neither a folder of sounds, nor a dataset, nor a {MANIFEST}"
      )
    if only is not None:
      lacking = [name for name in only if name not in found.items]
      if lacking:
        raise InputError(
          f"{found.title} lacks {len(lacking)} of {len(only)} clips that were"
          f" asked for: {some(lacking)}"
        )
      items = {name: found.items[name] for name in sorted(set(only))}
      found = dataclasses.replace(found, items=items)
    if len(found.items) < 2:
      raise InputError(
        f"{found.title} holds {len(found.items)} clip"
        f"{'' if len(found.items) == 1 else 's'}; a set takes two or more"
      )
    return found

  @property
  def names(self) -> tuple[str, ...]:
    """Of all clips."""
    return tuple(self.items)

  @property
  def sha256(self) -> str:
    """Of the list of names: what was judged, whatever its sound."""
    return hashlib.sha256("\n".join(self.items).encode()).hexdigest()


def some(names: Iterable[str]) -> str:
  """The first five of several names."""
  names = list(names)
  shown = ", ".join(name[:60] for name in names[:_SHOWN])
  return shown if len(names) <= _SHOWN else f"{shown}, …"


def read_names(path: Path) -> list[str]:
  """The clips that a file lists, one a line; a suffix of sound is left away.

  Raises:
    InputError: If there is no such file, or nothing in it.
  """
  names = [_stem(line.strip()) for line in _text(path).splitlines()]
  names = [name for name in names if name]
  if not names:
    raise InputError(f"{path} names no clips; put one on each line")
  return names


def read_captions(path: Path) -> dict[str, str]:
  """Captions by name, of a file that somebody has written.

  Args:
    path: A .csv with the columns name and caption, or .jsonl with `file` and
      `prompt` as in a manifest.

  Raises:
    InputError: If it is neither, or a line of it is damaged.
  """
  if not path.is_file():
    raise InputError(f"{path} is not a file with captions")
  if path.suffix == ".jsonl":
    keys, rows = ("file", "prompt"), listings.json_lines(path)
  else:
    keys = "name", "caption"
    rows = listings.own_table(path, keys)
  captions = {}
  for where, row in rows:
    if isinstance(row, str):
      raise InputError(f"{where}, {row}")
    name, caption = (row.get(key) for key in keys)
    if not isinstance(name, str) or not isinstance(caption, str):
      raise InputError(f"{where}, lacks its {' or '.join(keys)} in words")
    captions[_stem(name)] = caption
  return captions


def _text(path: Path) -> str:
  try:
    return path.read_text(encoding="utf-8-sig")
  except OSError as error:
    raise InputError(f"cannot read {path}: {error.strerror}") from None
  except UnicodeDecodeError:
    raise InputError(f"{path} is not UTF-8 text") from None


def _stem(name: str) -> str:
  path = Path(name)
  is_sound = path.suffix.lower() in listings.SOUNDS
  return path.with_suffix("").as_posix() if is_sound else name


def _of_file(path: Path) -> Item:
  def digest() -> str:
    try:
      with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
      raise InputError(f"cannot read {path}: {error.strerror}") from None

  return Item(lambda: io.read(path), digest, lambda: io.length_s(path))


def of_files(
  title: str,
  root: Path,
  files: Mapping[str, Path],
  captions: Mapping[str, str],
) -> SoundSet:
  """A set of sound files, by their names, of which none is read yet."""
  items = {name: _of_file(files[name]) for name in sorted(files)}
  return SoundSet(title, items, captions, str(root.resolve()))


def _folder(root: Path) -> SoundSet:
  files: dict[str, Path] = {}
  for path in sorted(root.rglob("*")):
    if path.suffix.lower() not in listings.SOUNDS or path.name[0] == ".":
      continue
    name = path.relative_to(root).with_suffix("").as_posix()
    if name in files:
      raise InputError(
        f"{path} and {files[name]} have one name; clips are paired by it, so"
        " rename one"
      )
    files[name] = path
  return of_files(str(root), root, files, {})


def _manifest(path: Path) -> SoundSet:
  captions = read_captions(path)
  root = path.parent
  found = {_stem(p.name): p for p in root.iterdir()} if captions else {}
  lacking = [name for name in captions if name not in found]
  if lacking:
    raise InputError(
      f"{path} names {len(lacking)} of {len(captions)} sounds that are not"
      f" beside it: {some(lacking)}"
    )
  files = {name: found[name] for name in captions}
  return of_files(str(root), root, files, captions)


def _dataset(root: Path, split: str | None) -> SoundSet:
  builder = reading.read(root)
  settings = dict(builder.info.metadata)
  kind = spec.kind_of(settings)
  if kind != "sounds":
    raise InputError(
      f"{root} holds {kind}, not sounds; name the dataset they were made of"
    )
  have = list(builder.info.splits)
  split = split or next((s for s in _SPLITS if s in have), have[0])
  source = reading.Examples(builder, split)
  rate_hz = int(settings["rate_hz"])
  items, captions = {}, {}
  for number in range(len(source)):
    example = source[number]
    name = example["id"].decode()
    if name in items:
      raise InputError(f"two examples of {root} are called {name}")
    items[name] = _of_example(source, number, rate_hz)
    captions[name] = example["caption"].decode()
  items = dict(sorted(items.items()))
  place = json.dumps([str(root.resolve()), split])
  return SoundSet(f"{root}, {split}", items, captions, place)


def _of_example(source: reading.Examples, number: int, rate_hz: int) -> Item:
  def samples() -> np.ndarray:
    return source[number]["audio"]

  def digest() -> str:
    audio = np.ascontiguousarray(samples())
    about = f"{audio.shape} {rate_hz}".encode()
    return hashlib.sha256(about + audio.tobytes()).hexdigest()

  return Item(
    lambda: (samples() * np.float32(2**-15), rate_hz),
    digest,
    lambda: len(samples()) / rate_hz,
  )


def check_pairs(generated: SoundSet, reference: SoundSet) -> None:
  """Raises InputError if the names of two sets are not the same."""
  ours, theirs = set(generated.items), set(reference.items)
  parts = [
    f"{len(names)} of {len(of.items)} clips of {of.title} have no {counterpart}"
    f" of their name: {some(sorted(names))}"
    for names, of, counterpart in (
      (ours - theirs, generated, "reference"),
      (theirs - ours, reference, "generated clip"),
    )
    if names
  ]
  if parts:
    raise InputError(
      f"{'; '.join(parts)}; rename them, take --only some, or measures"
      " that are not of pairs"
    )
