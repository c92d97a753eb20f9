"""Networks that judge, by name: where their weights are, or are to be had."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from audiogen_jax.convert import clap, extractors, sfx
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import passt, vggish
from audiogen_jax.embedding.extractor import Extractor


@dataclasses.dataclass(frozen=True)
class Weights:
  """A published file.

  Attributes:
    file: Where it belongs, in the folder of weights.
    source: Its address, or the command that fetches it.
    licence: That it is published under.
    sha256: How its hash begins, as far as that is published.
    tokenizer: Repository of the tokenizer of a network that reads; its folder,
      of the same name, belongs beside the file.
  """

  file: str
  source: str
  licence: str
  sha256: str = ""
  tokenizer: str = ""


@dataclasses.dataclass(frozen=True)
class Judge:
  """A network with its windows.

  Attributes:
    weights: Name of its weights, in `WEIGHTS`.
    load: From the path of the file to the network.
  """

  weights: str
  load: Callable[[Path], Extractor]


@dataclasses.dataclass(frozen=True)
class Found:
  """A file of weights that is here.

  Attributes:
    path: Where.
    sha256: Its hash.
  """

  path: Path
  sha256: str


_PASST = "passt-s-f128-p16-s10-ap.476-swa.pt"
_CNN14 = "Cnn14_16k_mAP=0.438.pth"
_VGGISH = "vggish-10086976.pth"
_LAION, _MICROSOFT = (
  "music_audioset_epoch_15_esc_90.14.pt",
  "CLAP_weights_2022.pth",
)
_MAKE_AN_AUDIO_S = 9.0  # its copy of Microsoft's CLAP hears so much

WEIGHTS: Mapping[str, Weights] = MappingProxyType(
  {
    "sfx": Weights(
      f"{sfx.PACKAGE}/{sfx.FILE}", sfx.SOURCE, sfx.LICENCE, sfx.SHA256
    ),
    # The release's names hold the first digits of their hashes.
    "vggish": Weights(
      _VGGISH,
      extractors.PUBLISHED["vggish"].files[_VGGISH],
      "Apache-2.0",
      "10086976",
    ),
    "cnn14": Weights(
      _CNN14, extractors.PUBLISHED["cnn14"].files[_CNN14], "CC BY 4.0"
    ),
    "passt": Weights(
      _PASST, extractors.PUBLISHED["passt"].files[_PASST], "Apache-2.0"
    ),
    "clap, laion music": Weights(
      _LAION,
      f"https://huggingface.co/lukewys/laion_clap/resolve/main/{_LAION}",
      "CC0-1.0",
      "fae3e9c0",
      tokenizer="roberta-base",
    ),
    "clap, microsoft 2022": Weights(
      _MICROSOFT,
      f"https://huggingface.co/microsoft/msclap/resolve/main/{_MICROSOFT}",
      "MIT; ms-pl on its page",
      tokenizer="bert-base-uncased",
    ),
  }
)

JUDGES: Mapping[str, Judge] = MappingProxyType(
  {
    "sfx": Judge("sfx", sfx.load_sfx),
    "vggish, seconds": Judge(
      "vggish",
      functools.partial(
        extractors.load_extractor, "vggish", windows=vggish.GOOGLE
      ),
    ),
    "vggish, patches": Judge(
      "vggish",
      functools.partial(
        extractors.load_extractor, "vggish", windows=vggish.PATCHES
      ),
    ),
    "cnn14": Judge(
      "cnn14", functools.partial(extractors.load_extractor, "cnn14")
    ),
    "passt": Judge(
      "passt",
      functools.partial(
        extractors.load_extractor, "passt", pieces=passt.END_TO_END
      ),
    ),
    "passt, halves": Judge(
      "passt",
      functools.partial(
        extractors.load_extractor, "passt", pieces=passt.HALVES
      ),
    ),
    "clap, laion music": Judge("clap, laion music", clap.load_clap),
    "clap, microsoft 2022": Judge(
      "clap, microsoft 2022",
      functools.partial(clap.load_clap, window_s=_MAKE_AN_AUDIO_S),
    ),
  }
)


def folder() -> Path:
  """Where weights are looked for if no folder is named."""
  home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(home) / "audiogen_jax" / "weights"


def load(name: str, weights: Path | None = None) -> Extractor:
  """A network that is ready to judge.

  Args:
    name: One of `JUDGES`.
    weights: The folder of weights; None for `folder()`.

  Raises:
    InputError: If its weights are missing, with what to get from where and
      where to put it; or of another version than the published ones.
  """
  judge = JUDGES[name]
  published = WEIGHTS[judge.weights]
  extractor = judge.load(_locate(judge.weights, weights or folder()))
  if not extractor.sha256.startswith(published.sha256):
    raise InputError(
      f"the weights of {judge.weights} have the hash {extractor.sha256[:16]}…,"
      f" the published ones {published.sha256[:16]}…: another version, or"
      f" damaged; get them again: {published.source}"
    )
  return extractor


def check(name: str, weights: Path | None = None) -> None:
  """Raises InputError, as `load`, if the weights of a judge are missing."""
  _locate(JUDGES[name].weights, weights or folder())


def is_here(name: str, weights: Path | None = None) -> bool:
  """Whether a file of `WEIGHTS` is here."""
  try:
    _locate(name, weights or folder())
  except InputError:
    return False
  return True


def find(name: str, weights: Path | None = None) -> Found | None:
  """A file of `WEIGHTS`, if it is here."""
  if not is_here(name, weights):
    return None
  path = _locate(name, weights or folder())
  with path.open("rb") as file:
    return Found(path, hashlib.file_digest(file, "sha256").hexdigest())


def _locate(name: str, weights: Path) -> Path:
  path = weights / WEIGHTS[name].file
  if path.is_file():
    return path
  if name == "sfx":  # its package may be installed
    return sfx.locate()
  raise InputError(
    f"the weights of {name} are missing: download {WEIGHTS[name].source} and"
    f" put it at {path}"
  )
