"""Tags and annotations -> captions."""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable

from audiogen_jax.core.errors import InputError

_SPEECH = re.compile("speech", re.IGNORECASE)
# CatID[-UserCategory]_FXName_CreatorID_SourceID[_UserData]
_UCS = re.compile(
  r"[A-Z]{3,6}[a-z]{1,5}(?:-[^_]+)?_([^_]+)_[^_]+_[^_]+(?:_.*)?"
)
_PARTICLES = frozenset("by off out up".split())  # "flies by"
_JOINING = _PARTICLES | set(
  "and at for from in no of on over the to with".split()
)


@dataclasses.dataclass(frozen=True)
class CaptionRules:
  """What is done to every caption, all of it off unless asked for.

  AudioGen's paper drops stop words and numbers and lemmatises ("a dog is
  barking at the park" becomes "dog bark park", §4.1, remembered); the released
  model was trained on whole captions in lower case.  Length is not limited
  here: the loader cuts token ids, and keeps the whole text beside them.

  Attributes:
    lower: Lower case.
    stop_words: Leave out "a", "the", "is" and their like, and numbers.
    lemmas: Words as in a dictionary; needs the extra `lemmas`.
    bare: Keep sounds that have neither a caption nor tags.
  """

  lower: bool = False
  stop_words: bool = False
  lemmas: bool = False
  bare: bool = False

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

      words = [
        word
        for word in words
        if word.lower() not in ENGLISH_STOP_WORDS and not word.isnumeric()
      ]
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
  if not (text.isascii() and text.isprintable()):  # few are not: 5 times faster
    text = unicodedata.normalize("NFC", text)
    # Cs: halves of characters, which JSON can hold and UTF-8 cannot.
    text = "".join(
      " " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text
    )
  return " ".join(text.split())


def of_tags(tags: Iterable[str]) -> str:
  """The paper's pseudo-sentence: "dog bark", "park" become "dog bark park"."""
  words = " ".join(tags).replace(",", " ").replace("_", " ")
  return clean(re.sub(r"[()]", " ", words)).lower()


def of_file_name(stem: str) -> str:
  """What the name of a file says: "DOG_Barks-Angry 02" is "dog barks angry".

  Numbers, single letters and words with digits in them are takes, catalogue
  numbers and rates.  Of a name in the Universal Category System, such as
  "DOORWood_Creaky Slow Open_ABC_LIB01", only the second field speaks.
  """
  fields = _UCS.fullmatch(stem)
  stem = fields[1] if fields else stem
  stem = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)  # CamelCase
  words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", stem)
  spoken = [w.lower() for w in words if w.isalpha() or "'" in w or "’" in w]
  return " ".join(w for w in spoken if len(w) > 1 or not w.isascii())


def of_title(label: str, title: str) -> str:
  """The label, then what the title of a recording adds to it.

  "Dog barking at night 02.wav" adds "at night" to "dog bark": what repeats the
  label, inflected or in one word with another, adds nothing.
  """
  # "waves" -> "wave", "crackling" -> "crackl": what inflected forms share.
  stems = [re.sub(r"(?<=\w{3})(ing|[esy])$", "", w) for w in label.split()]

  def repeats(word: str) -> bool:
    rest = word
    for stem in stems:
      rest = rest.replace(stem, "", 1)
    return word.startswith(tuple(stems)) and len(rest) <= len("ing")

  words = of_file_name(re.sub(r"\.\w{3,4}$", "", title)).split()
  # Other short words are initials and abbreviations, in ASCII at least.
  words = [w for w in words if len(w) > 2 or w in _JOINING or not w.isascii()]
  new = list(dict.fromkeys(w for w in words if not repeats(w)))
  while new and new[0] == "the":
    del new[0]
  while new and new[-1] in _JOINING - _PARTICLES:
    del new[-1]
  return " ".join([label, *new])


def is_about_speech(caption: str, tags: Iterable[str]) -> bool:
  """The paper's filter (§4.1, remembered): "speech" in a tag or the caption."""
  return any(_SPEECH.search(text) for text in (caption, *tags))
