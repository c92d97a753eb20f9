"""Tags and annotations -> captions."""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable

from audiogen_jax.core.errors import InputError

_SPEECH = re.compile("speech", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CaptionRules:
  """What is done to every caption, all of it off unless asked for.

  AudioGen's paper drops stop words and numbers and lemmatises ("a dog is
  barking at the park" becomes "dog bark park", §4.1, remembered); the released
  model was trained on whole captions in lower case.

  Attributes:
    lower: Lower case.
    stop_words: Leave out "a", "the", "is" and their like.
    lemmas: Words as in a dictionary; needs the extra `lemmas`.
  """

  lower: bool = False
  stop_words: bool = False
  lemmas: bool = False

  def apply(self, caption: str) -> str:
    """The caption by these rules.

    Raises:
      InputError: If lemmas are asked for and simplemma is not installed.
    """
    if self.lower:
      caption = caption.lower()
    if not (self.stop_words or self.lemmas):
      return caption
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", caption)
    if self.stop_words:
      # Half a second to import, and few ask for it.
      from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

      words = [w for w in words if w.lower() not in ENGLISH_STOP_WORDS]
    if self.lemmas:
      words = [_lemma(word) for word in words]
    return " ".join(words)


@functools.cache
def _lemma(word: str) -> str:
  try:
    import simplemma
  except ImportError:
    raise InputError(
      "lemmas need simplemma: pip install 'audiogen_jax[lemmas]'"
    ) from None
  # "barking" alone is a noun to the dictionary, and stays; greedy looks on.
  return simplemma.lemmatize(word, lang="en", greedy=True)


def clean(text: str) -> str:
  """One line: no control characters, single spaces, composed letters."""
  text = unicodedata.normalize("NFC", text)
  kept = (" " if unicodedata.category(c) == "Cc" else c for c in text)
  return " ".join("".join(kept).split())


def of_tags(tags: Iterable[str]) -> str:
  """The paper's pseudo-sentence: "dog bark", "park" become "dog bark park"."""
  words = " ".join(tags).replace(",", " ").replace("_", " ")
  return clean(re.sub(r"[()]", " ", words)).lower()


def of_file_name(stem: str) -> str:
  """What the name of a file says: "DOG_Barks-Angry 02" is "dog barks angry".

  Numbers, single letters and words with digits in them are takes, catalogue
  numbers and rates.
  """
  stem = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)  # CamelCase
  words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", stem)
  spoken = [w.lower() for w in words if w.isalpha() or "'" in w or "’" in w]
  return " ".join(w for w in spoken if len(w) > 1 or not w.isascii())


def is_about_speech(caption: str, tags: Iterable[str]) -> bool:
  """The paper's filter (§4.1, remembered): "speech" in a tag or the caption."""
  return any(_SPEECH.search(text) for text in (caption, *tags))
