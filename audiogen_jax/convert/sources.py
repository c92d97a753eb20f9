"""Any source -> the parts of a model.

A source is an embedded name, a hub id, a folder or a gs:// URI; a folder is in
our own format, in the published one, or Hugging Face's.
"""

import dataclasses
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import huggingface_hub
import jax
from etils import epath

from audiogen_jax import __version__
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import audiocraft, engine, huggingface
from audiogen_jax.convert.engine import Parts
from audiogen_jax.core import checkpoint, config, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.rules import Sampling
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import Tokenizer

FORMAT, VERSION = "audiogen_jax", 1

_ASSETS = Path(__file__).parents[1] / "assets"


@dataclasses.dataclass(frozen=True)
class _Config:
  """`config.json` of our own format."""

  codec: EncodecConfig
  lm: LMConfig | None = None
  text: T5Config | None = None
  text_name: str | None = None
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
  if re.fullmatch(r"\w+", text) and (_ASSETS / text).is_dir():
    return epath.Path(_ASSETS / text)
  folder = checkpoint.place(text)
  if "://" in text or folder.exists():
    if not folder.is_dir():
      raise InputError(f"{text} is not a folder with a model")
    return folder
  if text.startswith((".", "/", "~")) or text.count("/") > 1:
    raise InputError(f"{text} does not exist")
  try:
    path = _download(text)
  except Exception as error:  # the hub's errors have no common ancestor
    reason = " ".join(str(error).split()).split(". ")[0]
    raise InputError(
      f"{text} is neither a folder here nor could it be had from the hub"
      f" ({type(error).__name__}: {textwrap.shorten(reason, 200)}); download it"
      f" elsewhere (hf download {text} --local-dir DIR) and name the folder"
    ) from None
  return epath.Path(path)


def _download(hub_id: str) -> str:
  """The folder with those files of a hub repository that are read here."""
  try:
    found = huggingface_hub.model_info(hub_id, timeout=10).siblings
  except huggingface_hub.errors.HfHubHTTPError:
    raise  # the hub answered, and said no
  except Exception:  # no network: what was downloaded before may do
    return huggingface_hub.snapshot_download(hub_id, local_files_only=True)
  names = [file.rfilename for file in found]
  # Many repositories hold the same weights several times over.
  if audiocraft.LM_FILE in names:
    wanted = [audiocraft.LM_FILE, audiocraft.CODEC_FILE]
  elif any(name.endswith(".safetensors") for name in names):
    wanted = ["*.json", "*.model", "*.safetensors"]
  else:
    wanted = ["*.json", "*.model", "pytorch_model.bin"]
  return huggingface_hub.snapshot_download(hub_id, allow_patterns=wanted)


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
    raise InputError(
      f"{path} describes {cfg.get('model_type') or 'something'!r}, which is not"
      " an AudioGen, MusicGen, EnCodec or T5 model"
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
  try:
    parts = _READERS[kind(folder)](folder)
  except KeyError as error:
    raise InputError(f"{folder}: its configuration lacks {error}") from None
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
    return tree.restore(wanted)
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

  return engine.realise(tree, place)


def write_orbax(
  folder: str | Path,
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
    window_s=parts.window_s,
    guidance=parts.guidance,
    written_by=f"audiogen_jax {__version__}",
  )

  def extras(work: Path) -> None:
    if "text" in rooms and tokenizer is not None:
      tokenizer.save(work / "tokenizer")

  trees = ((room, ready(tree)) for room, tree in rooms.items())
  checkpoint.export(folder, config.as_dict(described), trees, extras)


def _open_orbax(folder: epath.Path) -> Parts:
  values = checkpoint.read_config(folder)
  version = values.get("version")
  if version != VERSION:
    raise InputError(
      f"{folder} has format version {version}; this is audiogen_jax"
      f" {__version__}, which reads version {VERSION}: use the release that"
      f" wrote it ({values.get('written_by')})"
    )
  described = config.build(_Config, values)
  words = folder / "tokenizer"
  return Parts(
    codec=described.codec,
    codec_tree=checkpoint.Folder(folder / "codec"),
    lm=described.lm,
    lm_tree=checkpoint.Folder(folder / "lm") if described.lm else None,
    text=described.text,
    text_tree=checkpoint.Folder(folder / "text") if described.text else None,
    # The byte tokenizer has no files.
    tokenizer=str(words) if words.exists() else None,
    text_name=described.text_name,
    window_s=described.window_s,
    guidance=described.guidance,
  )


def _open_audiocraft(source: epath.Path) -> Parts:
  folder = Path(source)
  codec = audiocraft.read_codec(folder)
  if isinstance(codec, str):
    # The pointer names a hub id, or a folder beside this one.
    beside = folder / codec
    codec = huggingface.read_encodec(
      Path(locate(beside if beside.is_dir() else codec))
    )
  if not (folder / audiocraft.LM_FILE).is_file():
    return Parts(*codec)
  lm, lm_tree, extra = audiocraft.read_lm(folder)
  described, tree = _first_codebooks(*codec, extra.pop("codec_codebooks"))
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


def _first_codebooks(
  codec: EncodecConfig, tree: Tree, count: int | None
) -> tuple[EncodecConfig, Tree]:
  """A codec of which a language model writes the first codebooks alone."""
  have = codec.rvq.codebooks
  if count is None:
    return codec, tree
  if not 0 < count <= have:
    raise InputError(
      f"compression_model_n_q = {count} must lie in 1 to {have}, the codebooks"
      " of the codec"
    )

  def first(leaf):
    shape = (count, *leaf.shape[1:])
    return engine.Lazy(shape, leaf.dtype, lambda: leaf.read()[:count])

  rvq = dataclasses.replace(codec.rvq, codebooks=count)
  books = jax.tree.map(first, tree["codebooks"])
  return dataclasses.replace(codec, rvq=rvq), tree | {"codebooks": books}


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
    folder = Path(locate(source))
  except InputError as error:
    raise InputError(f"text encoder: {error}") from None
  which = kind(epath.Path(folder))
  if which != "t5":
    raise InputError(f"text encoder {folder} is a {which} model, not a T5")
  return *huggingface.read_t5(folder), str(folder)


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
