"""Sentences -> ids of pieces of words, as RoBERTa, BERT and GPT-2 cut them.

The rules lie in `tokenizer.json`; older folders hold a vocabulary alone, and
what the three do with one is told here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from audiogen_jax.core.errors import InputError

Kind: TypeAlias = Literal["roberta", "bert", "gpt2"]

# What a folder holds: the first, or the rest together.
FILES: Mapping[Kind, tuple[str, ...]] = {
  "roberta": ("tokenizer.json", "vocab.json", "merges.txt"),
  "bert": ("tokenizer.json", "vocab.txt"),
  "gpt2": ("tokenizer.json", "vocab.json", "merges.txt"),
}


class WordPieces:
  """What turns a sentence into ids.

  Attributes:
    limit: The most ids of a sentence.
    vocabulary: Ids lie below.
    pad_id: What pads shorter sentences.
  """

  def __init__(
    self, rules: tokenizers.Tokenizer, *, limit: int, behind: str = ""
  ) -> None:
    """Rules, and how they are used.

    Args:
      rules: Of the tokenizer.
      limit: What is longer is cut.  Marks of its end are kept if the rules
        know them, but not what stands `behind` it.
      behind: Added to each sentence before it is cut into pieces.
    """
    rules.no_padding()
    rules.enable_truncation(limit)
    self._rules, self._behind, self.limit = rules, behind, limit
    self.vocabulary = 1 + max(rules.get_vocab().values(), default=-1)
    padding = (rules.token_to_id(mark) for mark in ("[PAD]", "<pad>"))
    self.pad_id = next((mark for mark in padding if mark is not None), 0)

  def save(self, folder: Path) -> None:
    """Writes the rules into a folder, which is made; `load` reads them."""
    folder.mkdir(exist_ok=True)
    self._rules.save(str(folder / "tokenizer.json"))

  def ids(self, text: str) -> list[int]:
    """Ids of a sentence, marks of its beginning and end included."""
    return self._rules.encode(text + self._behind).ids


def load(
  folder: Path,
  kind: Kind,
  *,
  limit: int,
  behind: str = "",
  marks: tuple[str, ...] = (),
) -> WordPieces:
  """The tokenizer whose files lie in `folder`.

  Args:
    folder: With `FILES` of its kind.
    kind: Whose rules a vocabulary without `tokenizer.json` follows.
    limit: See `WordPieces`.
    behind: See `WordPieces`.
    marks: Pieces that are no part of longer ones, wherever they stand.

  Raises:
    InputError: If files are missing or damaged.
  """
  whole, *parts = FILES[kind]
  present = (folder / whole).is_file()
  if not present and not all((folder / part).is_file() for part in parts):
    raise InputError(
      f"{folder} holds no tokenizer of {kind}; it should hold {whole}, or"
      f" {' and '.join(parts)}"
    )
  try:
    if present:
      rules = tokenizers.Tokenizer.from_file(str(folder / whole))
    else:
      rules = _OF_VOCABULARY[kind](*(str(folder / part) for part in parts))
    rules.add_special_tokens(list(marks))
  except Exception as error:  # plain `Exception`, whatever is wrong
    reason = " ".join(str(error).split())[:100]
    raise InputError(
      f"no tokenizer of {kind} can be read from {folder} ({reason}); get its"
      " files again"
    ) from None
  return WordPieces(rules, limit=limit, behind=behind)


def _bytes(vocabulary: str, merges: str) -> tokenizers.Tokenizer:
  """Byte-level BPE (Radford et al., 2019); a space belongs to what follows."""
  rules = tokenizers.Tokenizer(models.BPE.from_file(vocabulary, merges))
  rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  return rules


def _gpt2(vocabulary: str, merges: str) -> tokenizers.Tokenizer:
  rules = _bytes(vocabulary, merges)
  rules.add_special_tokens(["<|endoftext|>"])
  return rules


def _roberta(vocabulary: str, merges: str) -> tokenizers.Tokenizer:
  rules = _bytes(vocabulary, merges)
  rules.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
  last, first = ((mark, rules.token_to_id(mark)) for mark in ("</s>", "<s>"))
  rules.post_processor = processors.RobertaProcessing(
    last, first, add_prefix_space=False
  )
  return rules


def _bert(vocabulary: str) -> tokenizers.Tokenizer:
  """Word pieces of lower-case words (Wu et al., 2016), as in bert-uncased."""
  pieces = models.WordPiece.from_file(vocabulary, unk_token="[UNK]")
  rules = tokenizers.Tokenizer(pieces)
  rules.normalizer = normalizers.BertNormalizer()
  rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  rules.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
  last, first = ((mark, rules.token_to_id(mark)) for mark in ("[SEP]", "[CLS]"))
  rules.post_processor = processors.BertProcessing(last, first)
  return rules


_OF_VOCABULARY = {"roberta": _roberta, "bert": _bert, "gpt2": _gpt2}
