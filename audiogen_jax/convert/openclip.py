"""CLIP as OpenCLIP and as Hugging Face publish it, read and written.

    open_clip_*.safetensors, .bin    OpenCLIP's; open_clip_config.json beside it
    model.safetensors, config.json   Hugging Face's CLIPModel, or one tower

Make-An-Audio's model for pictures holds OpenCLIP's tensors, under a prefix.
Sizes are read from the tensors' shapes.  Those do not tell the number of heads:
where no configuration does, heads have the sizes that OpenCLIP publishes.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiogen_jax.convert import engine, huggingface, published
from audiogen_jax.convert.clap_parts import Tensors
from audiogen_jax.convert.clip_layouts import (
  HUGGING_FACE,
  OPENCLIP,
  LayerNames,
  Layout,
  table,
)
from audiogen_jax.convert.engine import Stored
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import State
from audiogen_jax.core.config import read_json
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.text import clip, pictures
from audiogen_jax.text.clip import ClipConfig, ClipTextConfig
from audiogen_jax.text.clip_image import ClipImageConfig
from audiogen_jax.text.clip_layers import TransformerConfig

SETTINGS = "open_clip_config.json"
# Of the tower that looks, by its width: ViT-H, ViT-g and ViT-bigG.
_HEAD_SIZES = {1280: 80, 1408: 88, 1664: 104}
_HEAD_SIZE = 64  # of all others, and of every tower that reads
_SCALE = "logit_scale"
_ONE_TOWER = "clip_vision_model", "clip_text_model"  # model types
# Constants, and what stands beside the tensors of the towers.
_IGNORED = (
  rf"{_SCALE}$|attn_mask$|(text|vision)_model\.embeddings\.position_ids$"
)


class _Told(NamedTuple):
  """What the tensors of a tower do not tell."""

  heads: int
  activation: str
  epsilon: float = 1e-5


def read(path: Path) -> tuple[ClipConfig, Tree]:
  """A published CLIP, no weights read yet.

  Args:
    path: Its folder, or the file of its weights in it.

  Returns:
    Its shape, with None for a tower that is not there, and its parameters as
    lazy arrays.

  Raises:
    InputError: If files are missing or damaged, or hold no such model.
  """
  folder = path if path.is_dir() else path.parent
  state, where = _stored(path)
  if any(re.match(r"(text|vision)_model\.", name) for name in state):
    cfg = huggingface.config_of(folder, "clip", *_ONE_TOWER)
    return _read_huggingface(state, where, cfg)
  beside = folder / SETTINGS
  said = read_json(beside) if beside.is_file() else {}
  return read_openclip(state, where, Keys(said, str(beside)))


def read_openclip(
  state: State, where: str, settings: Keys
) -> tuple[ClipConfig, Tree]:
  """OpenCLIP's tensors, no weights read yet.

  Args:
    state: The tensors by their names, without any prefix.
    where: Their file, for messages.
    settings: What `open_clip_config.json` says; it may be empty.

  Raises:
    InputError: If they are those of another network, or not all of them.
  """
  cfg = settings.group("model_cfg", {})
  settings.group("preprocess_cfg", {}).only("mean", list(pictures.MEAN))
  looks, reads = cfg.group("vision_cfg", {}), cfg.group("text_cfg", {})
  activation = "quick_gelu" if cfg.flag("quick_gelu", False) else "gelu"
  width = published.size(state, OPENCLIP.image["positions"], 1280, axis=1)
  size = _HEAD_SIZES.get(width, _HEAD_SIZE)
  size = looks.whole("head_width", "head_size", size)
  image = _Told(_heads(width, size, where), activation)
  if "heads" in reads:
    heads = reads.whole("heads", "heads")
  else:
    width = published.size(state, OPENCLIP.text["positions"], 1024, axis=1)
    heads = _heads(width, _HEAD_SIZE, where)
  return _read(Tensors(state, where), OPENCLIP, image, _Told(heads, activation))


def tensors(config: ClipConfig, tree: Tree) -> dict[str, Stored | np.ndarray]:
  """OpenCLIP's tensors, from a tree of arrays."""
  made = dict(engine.export(tree, table(config, OPENCLIP)))
  if config.logit_scale is not None:
    made[_SCALE] = np.asarray(config.logit_scale, np.float32)
  return made


def _stored(path: Path) -> tuple[State, str]:
  """The tensors of a file, or of the weights in a folder, and its name."""
  if path.is_dir():
    patterns = "open_clip_*.safetensors", "open_clip_*.bin"
    found = [file for each in patterns for file in sorted(path.glob(each))]
    if not found:
      return huggingface.stored(path), str(path)
    path = found[0]
  if not path.is_file():
    raise InputError(
      f"{path} is missing: hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
      f" open_clip_model.safetensors {SETTINGS} --local-dir {path.parent}"
    )
  if path.suffix == ".safetensors":
    return huggingface.stored_in(path), str(path)
  return published.tensors(path), str(path)


def _read_huggingface(
  state: State, where: str, cfg: Keys
) -> tuple[ClipConfig, Tree]:
  # A folder with one tower says of it what others say in a group.
  one = cfg.only("model_type", "clip", *_ONE_TOWER) != "clip"

  def told(group: str, heads: int) -> _Told:
    of = cfg if one else cfg.group(group, {})
    return _Told(
      of.whole("num_attention_heads", "heads", heads),
      of.only("hidden_act", "quick_gelu", "gelu"),
      of.number("layer_norm_eps", "epsilon", 1e-5),
    )

  return _read(
    Tensors(state, where),
    HUGGING_FACE,
    told("vision_config", 12),  # transformers' defaults
    told("text_config", 8),
  )


def _read(
  tensors: Tensors, layout: Layout, image: _Told, text: _Told
) -> tuple[ClipConfig, Tree]:
  state, where = tensors
  looks, reads = _any(state, layout.image), _any(state, layout.text)
  if not (looks or reads):
    raise InputError(
      f"{where} holds {len(state)} tensors, but none of a CLIP; name a file of"
      " OpenCLIP's, or a folder of Hugging Face's"
    )
  config = ClipConfig(
    _image_config(tensors, layout, image) if looks else None,
    _text_config(tensors, layout, text) if reads else None,
    _logit_scale(tensors),
  )
  tree = engine.load(
    state,
    table(config, layout),
    engine.abstract(clip.init, config),
    where=where,
    ignored=_IGNORED,
  )
  return config, tree


def _any(state: State, names: Mapping[str, str]) -> bool:
  """Whether there is any tensor of a tower."""
  stems = tuple(names.values())
  return any(name.startswith(stems) for name in state)


def _image_config(
  tensors: Tensors, layout: Layout, told: _Told
) -> ClipImageConfig:
  names = layout.image
  *_, patch = tensors.shape(names["patches"], 4)
  rows, _ = tensors.shape(names["positions"], 2)
  return ClipImageConfig(
    transformer=_transformer(tensors, layout.layer, names, told),
    width=_width(tensors, names),
    image=math.isqrt(rows - 1) * patch,
    patch=patch,
  )


def _text_config(
  tensors: Tensors, layout: Layout, told: _Told
) -> ClipTextConfig:
  names = layout.text
  vocabulary, _ = tensors.shape(names["words"], 2)
  length, _ = tensors.shape(names["positions"], 2)
  return ClipTextConfig(
    transformer=_transformer(tensors, layout.layer, names, told),
    width=_width(tensors, names),
    vocabulary=vocabulary,
    length=length,
  )


def _transformer(
  tensors: Tensors, layer: LayerNames, names: Mapping[str, str], told: _Told
) -> TransformerConfig:
  first = f"{names['layers']}.0.{layer.up}.weight"
  ff, width = tensors.shape(first, 2)
  return TransformerConfig(
    width=width,
    layers=tensors.count(names["layers"]),
    heads=told.heads,
    ff=ff,
    activation=told.activation,
    epsilon=told.epsilon,
  )


def _width(tensors: Tensors, names: Mapping[str, str]) -> int:
  """Size of the embedding."""
  name = names["projection"]
  return tensors.shape(name, 2)[0 if name.endswith(".weight") else 1]


def _logit_scale(tensors: Tensors) -> float | None:
  if _SCALE not in tensors.stored:
    return None
  tensors.scale(_SCALE)  # raises
  return float(tensors.stored[_SCALE].read())


def _heads(width: int, size: int, where: str) -> int:
  """How many heads of a size there are.

  Raises:
    InputError: If they do not fill the width.
  """
  if width % size:
    raise InputError(
      f"{where}: width {width} is no multiple of {size}, the size of its heads;"
      f" put the {SETTINGS} beside it that it was published with"
    )
  return width // size
