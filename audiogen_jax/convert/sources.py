"""Any source -> the parts of a model.

A source is an embedded name, a hub id, a folder or a gs:// URI; a folder is in
our own format, in the published one, or Hugging Face's.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import jax
from etils import epath

from audiogen_jax import __version__
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import (
  audiocraft,
  engine,
  finite,
  hub,
  huggingface,
  keys,
)
from audiogen_jax.convert.engine import Parts
from audiogen_jax.core import checkpoint, config, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.rules import Sampling
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import ByteTokenizer, Tokenizer

FORMAT, VERSION = "audiogen_jax", 1
_BYTE_ROWS = 384  # ByT5's, spare tokens included

_ASSETS = Path(__file__).parents[1] / "assets"


@dataclasses.dataclass(frozen=True)
class _Config:
  """`config.json` of our own format."""

  codec: EncodecConfig
  lm: LMConfig | None = None
  text: T5Config | None = None
  text_name: str | None = None
  tokenizer: Literal["bytes", "files"] | None = None
  window_s: float = 10.0
  guidance: float = Sampling.guidance
  format: str = FORMAT
  version: int = VERSION
  written_by: str = ""


def locate(source: str | Path) -> epath.Path:
  """The folder that `source` stands for, downloaded if it is a hub id.

  What comes with the package goes before a folder that happens to have its
  name; such a folder is `./nano`.

  Raises:
    InputError: If there is no such folder, name or hub id, or no network.
  """
  text = str(source)
  if re.fullmatch(r"\w{1,64}", text) and (_ASSETS / text).is_dir():
    return epath.Path(_ASSETS / text)
  folder = checkpoint.place(text)
  try:
    exists = "://" in text or folder.exists()
  except (OSError, ValueError) as error:  # too long, or no name
    raise InputError(
      f"{config.shown(text)} is no name of a folder: {str(error)[:60]}"
    ) from None
  if exists:
    if not folder.is_dir():
      raise InputError(f"{text} is not a folder with a model")
    return folder
  if text.startswith((".", "/", "~")) or text.count("/") > 1:
    raise InputError(f"{text} does not exist")
  return epath.Path(hub.download(text))


def kind(folder: epath.Path) -> str:
  """`orbax`, `audiocraft`, `musicgen`, `encodec` or `t5`.

  Raises:
    InputError: If the folder is of no kind that is known.
  """
  path = folder / checkpoint.CONFIG
  if (folder / audiocraft.LM_FILE).exists():
    return "audiocraft"
  if (folder / audiocraft.CODEC_FILE).exists():
    return "audiocraft"
  if path.exists():
    cfg = checkpoint.read_config(folder)
    if cfg.get("format") == FORMAT:
      return "orbax"
    if cfg.get("model_type") in ("musicgen", "encodec", "t5"):
      return cfg["model_type"]
    described = config.shown(cfg.get("model_type") or "something")
    raise InputError(
      f"{path} describes {described}, which is not an AudioGen, MusicGen,"
      " EnCodec or T5 model"
    )
  raise InputError(
    f"{folder} holds no model: neither {audiocraft.LM_FILE} nor"
    f" {audiocraft.CODEC_FILE} nor {checkpoint.CONFIG}"
  )


def open_parts(
  source: str | Path,
  *,
  text_encoder: str | Path | None = None,
  need_text: bool = True,
) -> Parts:
  """The parts of a model, nothing of their values read yet.

  Args:
    source: See above.
    text_encoder: Source of the text encoder, where it does not come along or
      another one is wanted.
    need_text: Whether a text encoder that has to be fetched is fetched.

  Raises:
    InputError: For anything that is missing, damaged or of the wrong kind.
  """
  folder = locate(source)
  which = kind(folder)
  if which != "orbax":
    _check_local(folder, which)
  parts = _READERS[which](folder)
  if parts.lm is None:
    return parts
  beside = Path(folder) / "t5"
  if text_encoder is None and parts.text is None:
    if "://" not in str(folder) and beside.is_dir():
      text_encoder = beside
    elif need_text:
      text_encoder = parts.text_name
  if text_encoder is not None:
    parts = _with_text(parts, text_encoder)
  elif parts.text is None and need_text:
    raise InputError(f"{source} names no text encoder; give one")
  return parts


def _check_local(folder: epath.Path, which: str) -> None:
  """Refuses formats in buckets whose readers map files into memory."""
  if "://" in str(folder):
    raise InputError(
      f"{folder} is in the {which} format, and only our own is read from a"
      " bucket; copy it to a disk, or audiogen convert it once"
    )


def realise(
  tree: Tree, abstract: Tree, table: Mapping[str, Axes], placement: Placement
) -> Tree:
  """Arrays on the devices of `placement`, in the types of `abstract`.

  Where the mesh is that of several processes, each reads what its own devices
  hold.

  Args:
    tree: A tree of `Parts`.
    abstract: Shapes and wanted types.
    table: The room's `AXES`.
    placement: Where to.

  Raises:
    InputError: If weights are damaged, or not finite in the wanted type.
  """
  targets = sharding.shardings(abstract, table, placement)
  if isinstance(tree, checkpoint.Folder):
    wanted = jax.tree.map(
      lambda leaf, to: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=to
      ),
      abstract,
      targets,
    )
    made = tree.restore(wanted)
    finite.check(made, tree)
    return made
  dtypes, places = (
    {
      sharding.path_name(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(each)
    }
    for each in (jax.tree.map(lambda leaf: leaf.dtype, abstract), targets)
  )

  def place(path: str, leaf: engine.Lazy) -> jax.Array:
    dtype, to = dtypes[path], places[path]
    if to.is_fully_addressable:
      return jax.device_put(leaf.read().astype(dtype, copy=False), to)
    return jax.make_array_from_callback(
      leaf.shape, to, lambda where: leaf.part(where).astype(dtype, copy=False)
    )

  made = engine.realise(tree, place)
  finite.check(made, tree)
  return made


def write_orbax(
  folder: str | os.PathLike,
  parts: Parts,
  tokenizer: Tokenizer | None = None,
  ready: Callable[[Tree], Tree] = lambda tree: tree,
) -> None:
  """Writes our own format, one room at a time.

  Args:
    folder: Where; must not exist yet.
    parts: Configurations and trees.
    tokenizer: Written along with the text encoder, if that is among them.
    ready: Makes JAX arrays of a tree of `parts` when its turn comes.

  Raises:
    InputError: If the folder exists or cannot be written.
  """
  # The largest first, while memory is whole.
  rooms = {"lm": parts.lm_tree, "text": parts.text_tree}
  rooms["codec"] = parts.codec_tree
  rooms = {room: tree for room, tree in rooms.items() if tree is not None}
  described = _Config(
    codec=parts.codec,
    lm=parts.lm,
    text=parts.text if "text" in rooms else None,
    text_name=parts.text_name,
    tokenizer=_kind_of(tokenizer) if "text" in rooms else None,
    window_s=parts.window_s,
    guidance=parts.guidance,
    written_by=f"audiogen_jax {__version__}",
  )

  def extras(work: Path) -> None:
    if "text" in rooms and tokenizer is not None:
      tokenizer.save(work / "tokenizer")

  trees = ((room, ready(tree)) for room, tree in rooms.items())
  checkpoint.export(folder, config.as_dict(described), trees, extras)


def _kind_of(words: Tokenizer | None) -> str:
  return "bytes" if isinstance(words, ByteTokenizer | None) else "files"


def _open_orbax(folder: epath.Path) -> Parts:
  values = checkpoint.read_config(folder)
  version = values.get("version")
  if version != VERSION:
    raise InputError(
      f"{folder} has format version {config.shown(version)}; this is"
      f" audiogen_jax {__version__}, which reads version {VERSION}: use the"
      f" release that wrote it ({config.shown(values.get('written_by'))})"
    )
  where = str(folder / checkpoint.CONFIG)
  try:
    described = config.build(_Config, values, ranges=keys.RANGES)
  except InputError as error:
    raise InputError(f"{where}: {error}") from None
  keys.check_codec(described.codec, where)
  if described.lm:
    keys.check_lm(described.lm, where)
  return Parts(
    codec=described.codec,
    codec_tree=checkpoint.Folder(folder / "codec"),
    lm=described.lm,
    lm_tree=checkpoint.Folder(folder / "lm") if described.lm else None,
    text=described.text,
    text_tree=checkpoint.Folder(folder / "text") if described.text else None,
    tokenizer=_words(folder, described),
    text_name=described.text_name,
    window_s=described.window_s,
    guidance=described.guidance,
  )


def _words(folder: epath.Path, described: _Config) -> str | None:
  """The folder of the tokenizer; None for bytes.

  Raises:
    InputError: If the one that the text encoder was trained with is gone.
  """
  words = folder / "tokenizer"
  if described.text is None:
    return None
  keys.check_text(described.text, str(folder / checkpoint.CONFIG))
  if words.exists() and described.tokenizer != "bytes":
    return str(words)
  # Older exports do not say; encoders of bytes have few rows.
  few = described.text.vocabulary <= _BYTE_ROWS
  if described.tokenizer == "files" or not (described.tokenizer or few):
    raise InputError(
      f"{words} is missing, the tokenizer that this text encoder of"
      f" {described.text.vocabulary} rows was trained with; copy the whole"
      " export again"
    )
  return None


def _open_audiocraft(source: epath.Path) -> Parts:
  folder = Path(source)
  codec = audiocraft.read_codec(folder)
  if isinstance(codec, str):
    # The pointer names a hub id, or a folder beside this one.
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", codec):
      raise InputError(
        f"{folder / audiocraft.CODEC_FILE} names {config.shown(codec)} as its"
        " codec, which is neither a hub id nor a folder beside it"
      )
    beside = folder / codec
    codec = huggingface.read_encodec(
      Path(locate(beside if beside.is_dir() else codec))
    )
  if not (folder / audiocraft.LM_FILE).is_file():
    return Parts(*codec)
  lm, lm_tree, extra = audiocraft.read_lm(folder)
  described, tree = audiocraft.first_codebooks(
    *codec, extra.pop("codec_codebooks")
  )
  stereo = extra.pop("stereo_codes")
  parts = Parts(
    dataclasses.replace(described, stereo_codes=stereo),
    tree,
    lm=lm,
    lm_tree=lm_tree,
    **extra,
  )
  tokens = parts.codec.tokens
  if (lm.codebooks, lm.size) != (tokens.codebooks, tokens.size):
    raise InputError(
      f"{folder}: the language model writes {lm.codebooks} codebooks of"
      f" {lm.size}, the codec reads {tokens.codebooks} of {tokens.size}"
    )
  return parts


def _open_musicgen(folder: epath.Path) -> Parts:
  return huggingface.read_musicgen(Path(folder))


def _open_encodec(folder: epath.Path) -> Parts:
  return Parts(*huggingface.read_encodec(Path(folder)))


def _open_t5(folder: epath.Path) -> Parts:
  raise InputError(f"{folder} is a text encoder, not an audio model")


_READERS = {
  "orbax": _open_orbax,
  "audiocraft": _open_audiocraft,
  "musicgen": _open_musicgen,
  "encodec": _open_encodec,
  "t5": _open_t5,
}


def open_text(source: str | Path) -> tuple[T5Config, Tree, str]:
  """A text encoder: what it is, its parameters, the folder of its tokenizer.

  Raises:
    InputError: If there is none, or it is damaged.
  """
  try:
    folder = locate(source)
    which = kind(folder)
    if which != "t5":
      raise InputError(f"{folder} is a {which} model, not a T5")
    _check_local(folder, which)
  except InputError as error:
    raise InputError(f"text encoder: {error}") from None
  return *huggingface.read_t5(Path(folder)), str(folder)


def _with_text(parts: Parts, source: str | Path) -> Parts:
  text, tree, folder = open_text(source)
  if text.width != parts.lm.text_width:
    raise InputError(
      f"text encoder {source} has states of {text.width}; the model was trained"
      f" with {parts.lm.text_width}"
      + (f" ({parts.text_name})" if parts.text_name else "")
    )
  return dataclasses.replace(
    parts,
    text=text,
    text_tree=tree,
    tokenizer=folder,
    text_name=parts.text_name or str(source),
  )
