"""Published CLAPs -> what judges: LAION's, Hugging Face's and Microsoft's."""

import re
from pathlib import Path

from audiogen_jax.convert import (
  clap_huggingface,
  clap_laion,
  clap_microsoft,
  published,
)
from audiogen_jax.convert.clap_parts import ClapParts
from audiogen_jax.convert.keys import Keys
from audiogen_jax.core import checkpoint, word_pieces
from audiogen_jax.core.config import read_json
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import LONGEST_S, Seconds
from audiogen_jax.embedding.clap import Clap

_LAION, _MICROSOFT = "lukewys/laion_clap", "microsoft/msclap"
# Repositories and what lies in them, the usual file first.
_FILES = {
  ".pt": (
    _LAION,
    "music_audioset_epoch_15_esc_90.14.pt",  # audiocraft's
    "630k-audioset-best.pt",
    "630k-best.pt",
    "music_speech_audioset_epoch_15_esc_89.98.pt",
    "music_speech_epoch_15_esc_89.25.pt",
  ),
  ".pth": (_MICROSOFT, "CLAP_weights_2023.pth", "CLAP_weights_2022.pth"),
}


def load_clap(
  path: str | Path, *, quantise: bool = False, window_s: Seconds | None = None
) -> Clap:
  """A CLAP with its weights and its tokenizer, ready to judge.

  Args:
    path: A `.pt` file of LAION's, a `.pth` file of Microsoft's (each with its
      tokenizer's folder beside it), or a folder of Hugging Face's.
    quantise: See `Clap`.
    window_s: How much of a clip is heard, in seconds; None for what is
      published with the weights.

  Raises:
    InputError: If files are missing or damaged, with what to download from
      where and where to put it.
  """
  if window_s is not None and not 0 < window_s <= LONGEST_S:
    raise InputError(
      f"a window of {window_s} s; it must be longer than 0 and at most"
      f" {LONGEST_S} s"
    )
  path = Path(path)
  parts = _parts(path, window_s)
  try:
    words = word_pieces.load(
      parts.tokenizer,
      parts.kind,
      limit=parts.limit,
      behind=parts.behind,
      marks=parts.marks,
    )
  except InputError as error:
    whole, *_ = word_pieces.FILES[parts.kind]
    raise InputError(
      f"{error}: hf download {parts.hub_id} {whole} --local-dir"
      f" {parts.tokenizer}"
    ) from None
  return Clap(
    parts.config,
    published.arrays(parts.tree),
    words,
    name=parts.name,
    scale=parts.scale,
    sha256=published.sha256(*parts.weights),
    quantise=quantise,
  )


def _parts(path: Path, window_s: Seconds | None) -> ClapParts:
  """What a file or a folder holds, by whoever published it."""
  if path.is_dir():
    if not (path / checkpoint.CONFIG).is_file():
      raise InputError(
        f"{path} lacks {checkpoint.CONFIG}, so it is no CLAP of Hugging Face's"
        " (hf download laion/clap-htsat-unfused --local-dir DIR); of LAION and"
        f" Microsoft name the file itself, {' or '.join(_FILES)}"
      )
    return clap_huggingface.read(path, window_s)
  if not path.is_file():
    raise InputError(_missing(path))
  state = published.tensors(path)
  if any(re.match(r"(module\.)?audio_branch\.", name) for name in state):
    settings, read = checkpoint.CONFIG, clap_laion.read
  elif any(name.startswith("audio_encoder.") for name in state):
    settings = f"config_{clap_microsoft.year(state)}.json"
    read = clap_microsoft.read
  else:
    raise InputError(
      f"{path} holds {len(state)} tensors, but none of a CLAP; name a file of"
      f" {_LAION} or {_MICROSOFT}"
    )
  beside = path.with_name(settings)
  said = read_json(beside) if beside.is_file() else {}
  return read(path, state, Keys(said, str(beside)), window_s)


def _missing(path: Path) -> str:
  """What to do about a file that is not there."""
  if path.suffix in _FILES:
    hub_id, usual, *others = _FILES[path.suffix]
    name = path.name if path.name in others else usual
    return (
      f"{path} is missing: hf download {hub_id} {name} --local-dir"
      f" {path.parent}"
    )
  return (
    f"{path} is neither a file nor a folder: hf download"
    f" laion/clap-htsat-unfused --local-dir {path}, or name a file of {_LAION}"
    f" or {_MICROSOFT}"
  )
