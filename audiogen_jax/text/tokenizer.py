"""Sentences -> token ids, padded to a common length."""

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from audiogen_jax.core.errors import InputError

_LONGEST = 512  # what T5 was trained on


@runtime_checkable
class Tokenizer(Protocol):
  """Anything that turns one sentence into ids, its end mark included."""

  pad_id: int

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

  def __init__(self, folder: str | Path):
    # transformers takes seconds to import; the byte tokenizer never needs it.
    # It advises at once to install PyTorch, which tokenizers do not need.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    try:
      self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
      reason = str(error).splitlines()[0]
      raise InputError(
        f"no tokenizer can be read from {folder} ({reason}); it should hold"
        " tokenizer.json or spiece.model"
      ) from None
    self.pad_id = self._tokenizer.pad_token_id or 0

  def ids(self, text: str) -> list[int]:
    """Token ids of `text` with its end mark."""
    # Longer than the tokenizer's own limit is reported by `pad`, in our words.
    return self._tokenizer(text, verbose=False)["input_ids"]

  def save(self, folder: Path) -> None:
    """Writes the tokenizer's files into `folder`."""
    self._tokenizer.save_pretrained(str(folder))


def load(folder: str | Path | None) -> Tokenizer:
  """The tokenizer whose files lie in `folder`; bytes where there is none."""
  return ByteTokenizer() if folder is None else FileTokenizer(folder)


def pad(
  tokenizer: Tokenizer, texts: list[str | None]
) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
  """Ids of all texts, padded at the end to the longest.

  None and "" mean "no text": one padded position and an empty mask, as in the
  published code.

  Raises:
    InputError: For a text of more than 512 tokens.
  """
  rows = []
  for text in texts:
    ids = tokenizer.ids(text) if text else []
    if len(ids) > _LONGEST:
      raise InputError(
        f"prompt {text[:40]!r}… has {len(ids)} tokens; at most {_LONGEST} are"
        " allowed: shorten it"
      )
    rows.append(ids)
  length = max([1, *map(len, rows)])
  padded = np.full((len(rows), length), tokenizer.pad_id, np.int32)
  mask = np.zeros((len(rows), length), bool)
  for i, ids in enumerate(rows):
    padded[i, : len(ids)] = ids
    mask[i, : len(ids)] = True
  return padded, mask
