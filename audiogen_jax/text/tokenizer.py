"""Sentences -> token ids, padded to a common length."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from audiogen_jax.core import checkpoint, config
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import bucket

# Any of them will do; the first alone needs nothing else.
_FILES = ("tokenizer.json", "spiece.model")
# Rows of ByT5, spare tokens included: encoders of bytes have no more.
BYTE_ROWS = 384
_LONGEST = 512  # what T5 was trained on


@runtime_checkable
class Tokenizer(Protocol):
  """Anything that turns one sentence into ids, its end mark included."""

  pad_id: int
  vocabulary: int  # ids lie below

  def ids(self, text: str) -> list[int]:
    """Token ids of `text`."""

  def save(self, folder: Path) -> None:
    """Writes what `load` needs into `folder`."""


class ByteTokenizer:
  """UTF-8 bytes, as in ByT5 (Xue et al., 2022): needs no files.

  0 is padding, 1 the end, 2 unknown; byte x is 3 + x.
  """

  pad_id = 0
  vocabulary = 259

  def ids(self, text: str) -> list[int]:
    """Token ids of `text`, ending with 1."""
    return [3 + byte for byte in text.encode()] + [1]

  def save(self, folder: Path) -> None:
    """There is nothing to write."""


class FileTokenizer:
  """A tokenizer in the Hugging Face format, read by `transformers`."""

  def __init__(self, folder: str | Path) -> None:
    present = [name for name in _FILES if (Path(folder) / name).is_file()]
    if not present:
      # transformers would make one of nothing, in which all words are unknown.
      raise InputError(
        f"{folder} holds no tokenizer; it should hold {' or '.join(_FILES)}"
      )
    sentencepiece = importlib.util.find_spec("sentencepiece") is not None
    if _FILES[0] not in present and not sentencepiece:
      raise InputError(
        f"{folder} holds {present[0]} without {_FILES[0]}, which needs"
        " sentencepiece: pip install 'audiogen_jax[sentencepiece]'"
      )
    # transformers takes seconds to import; the byte tokenizer never needs it.
    # It advises at once to install PyTorch, which tokenizers do not need.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer, logging

    # It warns of the special token of every published MusicGen.
    loud = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
      self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # of damaged files it raises whatever it likes
      reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
      raise InputError(
        f"no tokenizer can be read from {folder} ({reason}); it should hold"
        f" {' or '.join(_FILES)}"
      ) from None
    finally:
      logging.set_verbosity(loud)
    self.pad_id = self._tokenizer.pad_token_id or 0
    self.vocabulary = 1 + max(self._tokenizer.get_vocab().values(), default=-1)

  def ids(self, text: str) -> list[int]:
    """Token ids of `text` with its end mark."""
    # Longer than the tokenizer's own limit is reported by `pad`, in our words.
    return self._tokenizer(text, verbose=False)["input_ids"]

  def save(self, folder: Path) -> None:
    """Writes the tokenizer's files into `folder`."""
    self._tokenizer.save_pretrained(str(folder))


def load(folder: str | Path | None, *, rows: int | None = None) -> Tokenizer:
  """The tokenizer whose files lie in `folder`; bytes where there is none.

  Args:
    folder: Where, on a disk or in a bucket.
    rows: Rows of the text encoder's embedding, where they are known.

  Raises:
    InputError: If the files are missing or damaged, or make ids that the
      encoder has no row for.
  """
  with _here(folder) as files:
    if files is None or _reads_bytes(files):
      words: Tokenizer = ByteTokenizer()
    else:
      words = FileTokenizer(files)
  if rows is not None and words.vocabulary > rows:
    raise InputError(
      f"the tokenizer of {folder or 'bytes'} has {words.vocabulary} tokens, its"
      f" text encoder {rows} rows; give the tokenizer that it was trained with"
    )
  return words


@contextlib.contextmanager
def _here(folder: str | Path | None) -> Iterator[Path | None]:
  """The folder; a copy for as long as it is read, where it is in a bucket."""
  if "://" not in str(folder):
    yield folder and Path(folder)
    return
  with tempfile.TemporaryDirectory() as copy:
    for path in checkpoint.path_of(folder).iterdir():
      (Path(copy) / path.name).write_bytes(path.read_bytes())
    yield Path(copy)


def _reads_bytes(folder: Path) -> bool:
  """Whether the files describe what `ByteTokenizer` does without them."""
  path = folder / "tokenizer_config.json"
  if not path.is_file():
    return False
  return config.read_json(path).get("tokenizer_class") == "ByT5Tokenizer"


def pad(
  tokenizer: Tokenizer,
  texts: Sequence[str | None],
  *,
  rows: int = 0,
  least: int = 0,
) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
  """Ids of all texts, padded at the end, and where they have one.

  None and "" mean "no text": an empty mask, and one position at least, as in
  the published code.

  Args:
    tokenizer: Makes the ids.
    texts: Sentences.
    rows: Rows of the result, at least; further ones are without text.
    least: The smallest bucket of the length; 0 for the longest text's length.

  Raises:
    InputError: For a text of more than 512 tokens.
  """
  ids = [_short(tokenizer, text) for text in texts]
  length = max([1, *map(len, ids)])
  length = bucket(length, least=least) if least else length
  ids += [[]] * (rows - len(ids))
  return padded(tokenizer, ids, length)


def padded(
  tokenizer: Tokenizer, ids: Sequence[Sequence[int]], length: int
) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
  """Rows of ids, padded at the end to a length, and where they have one."""
  made = np.full((len(ids), length), tokenizer.pad_id, np.int32)
  mask = np.zeros(made.shape, bool)
  for i, row in enumerate(ids):
    made[i, : len(row)] = row
    mask[i, : len(row)] = True
  return made, mask


def _short(tokenizer: Tokenizer, text: str | None) -> list[int]:
  """The ids of one text; raises InputError for more than 512."""
  ids = tokenizer.ids(text) if text else []
  if len(ids) > _LONGEST:
    raise InputError(
      f"prompt {text[:40]!r}… has {len(ids)} tokens; at most {_LONGEST} are"
      " allowed: shorten it"
    )
  return ids
