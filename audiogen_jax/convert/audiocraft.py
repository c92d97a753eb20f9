"""The published format of AudioGen, MAGNeT and MusicGen, read and written.

A folder with `state_dict.bin` (the language model) and
`compression_state_dict.bin` (the codec, or the name of one), each a saved
dictionary of `best_state` (tensors by name) and `xp.cfg` (the training's whole
configuration as YAML).
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import yaml
from etils import epath

from audiogen_jax import __version__
from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import (
  audiocraft_config,
  audiocraft_yaml,
  engine,
  formats,
  huggingface,
  opening,
  seanet,
  torch_file,
)
from audiogen_jax.convert.engine import (
  Stored,
  Table,
  array,
  linear,
  vector,
)
from audiogen_jax.convert.keys import RANGES, Keys
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.config import check_range, shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import model
from audiogen_jax.lm.model import LMConfig

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"

_PROJECTION = "condition_provider.conditioners.{}.output_proj"


def read_lm(folder: Path) -> tuple[LMConfig, Any, dict[str, Any]]:
  """The language model, its parameters and what else its configuration says.

  Returns:
    Configuration, stacked parameters, and `text_name`, `window_s`,
    `stereo_codes`, `codec_codebooks`; of a MAGNeT also `masking`.

  Raises:
    InputError: If the file is missing, broken, or asks for something else than
      this library builds; the message names it.
  """
  path = folder / LM_FILE
  saved, cfg = _open(path)
  condition, config, extra = audiocraft_config.lm_config(cfg)
  state = {
    # Saved with PyTorch's own attention, the same tensors lie one level deeper.
    name.replace(".mha.", "."): tensor
    for name, tensor in saved["best_state"].items()
  }
  # The YAML names the text encoder; how wide it is only the weights tell.
  name = _PROJECTION.format(condition) + ".weight"
  if name not in state or len(state[name].shape) != 2:
    raise InputError(f"{path} lacks {name[:100]}, a matrix")
  width = state[name].shape[1]
  check_range("width of the text", width, *RANGES["width"], where=f"{path}: ")
  config = dataclasses.replace(config, text_width=width)
  abstract = engine.abstract(model.init, config)
  table = lm_table(config, condition)
  tree = engine.load(state, table, abstract, where=str(path))
  return config, tree, extra


def read_codec(folder: Path) -> tuple[EncodecConfig, Any] | str:
  """The codec and its variables, or the name of a codec that lies elsewhere."""
  path = folder / CODEC_FILE
  saved, cfg = _open(path, pointer=True)
  if cfg is None:
    return saved["pretrained"]
  config = audiocraft_config.codec_config(cfg)
  table = seanet.table(config, seanet.AUDIOCRAFT)
  state = {
    name.replace("parametrizations.weight.original0", "weight_g").replace(
      "parametrizations.weight.original1", "weight_v"
    ): tensor
    for name, tensor in saved["best_state"].items()
  }
  abstract = engine.abstract(encodec.init, config)
  return config, engine.load(state, table, abstract, where=str(path))


def first_codebooks(
  codec: EncodecConfig, tree: Tree, count: int | None
) -> tuple[EncodecConfig, Tree]:
  """A codec of which a language model writes the first codebooks alone.

  Raises:
    InputError: If the codec has fewer.
  """
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


def write(folder: Path, parts: Parts) -> None:
  """Writes both files, so that audiocraft can load what was trained here."""
  # Both configurations first: what the format cannot hold leaves no file.
  codec_cfg = audiocraft_yaml.codec(parts.codec)
  lm_cfg = audiocraft_yaml.language_model(parts) if parts.lm else None
  table = seanet.table(parts.codec, seanet.AUDIOCRAFT)
  save(folder / CODEC_FILE, engine.export(parts.codec_tree, table), codec_cfg)
  if parts.lm:
    table = lm_table(parts.lm, "description")
    save(folder / LM_FILE, engine.export(parts.lm_tree, table), lm_cfg)


def lm_table(config: LMConfig, condition: str) -> Table:
  """Every tensor of the language model."""
  t, d = config.transformer, config.transformer.width
  heads = (t.heads, t.head_size)
  own, other = (("qkv", (3,)),), (("q", ()), ("kv", (2,)))
  made: dict[str, list] = {}

  def norm(theirs, ours, index=()):
    made[f"{theirs}.weight"] = [vector(f"{ours}/scale", d, index=index)]
    made[f"{theirs}.bias"] = [vector(f"{ours}/bias", d, index=index)]

  def attention(theirs, ours, index, parts):
    made[f"{theirs}.in_proj_weight"] = [
      linear(f"{ours}/{name}/kernel", (*shape, *heads), (d,), index)
      for name, shape in parts
    ]
    made[f"{theirs}.out_proj.weight"] = [
      linear(f"{ours}/out/kernel", (d,), heads, index)
    ]
    if t.attention_bias:
      made[f"{theirs}.in_proj_bias"] = [
        vector(f"{ours}/{name}/bias", *shape, *heads, index=index)
        for name, shape in parts
      ]
      made[f"{theirs}.out_proj.bias"] = [
        vector(f"{ours}/out/bias", d, index=index)
      ]

  stem = _PROJECTION.format(condition)
  made[f"{stem}.weight"] = [
    linear("text_proj/kernel", (d,), (config.text_width,))
  ]
  made[f"{stem}.bias"] = [vector("text_proj/bias", d)]
  for k in range(config.codebooks):
    rows = config.size + 1
    made[f"emb.{k}.weight"] = [array("embed", rows, d, index=(k,))]
    head = linear("heads/kernel", (config.size,), (d,), (k,))
    made[f"linears.{k}.weight"] = [head]
    if config.head_bias:
      bias = vector("heads/bias", config.size, index=(k,))
      made[f"linears.{k}.bias"] = [bias]
  for i in range(t.layers):
    theirs, index = f"transformer.layers.{i}", (i,)
    norm(f"{theirs}.norm1", "layers/self_norm", index)
    norm(f"{theirs}.norm2", "layers/ff_norm", index)
    attention(f"{theirs}.self_attn", "layers/self_attn", index, own)
    if t.cross_attention:
      norm(f"{theirs}.norm_cross", "layers/cross_norm", index)
      attention(f"{theirs}.cross_attention", "layers/cross_attn", index, other)
    for name, ours, out, into in (
      ("linear1", "up", t.ff, d),
      ("linear2", "down", d, t.ff),
    ):
      made[f"{theirs}.{name}.weight"] = [
        linear(f"layers/{ours}/kernel", (out,), (into,), index)
      ]
      if t.ff_bias:
        made[f"{theirs}.{name}.bias"] = [
          vector(f"layers/{ours}/bias", out, index=index)
        ]
  norm("out_norm", "out_norm")
  return made


def _open(
  path: Path, *, pointer: bool = False
) -> tuple[dict[str, Any], Keys | None]:
  """A saved dictionary and its configuration, None of a mere name.

  Args:
    path: The file.
    pointer: Whether it may name another model instead of holding one.
  """
  saved = torch_file.read(path)
  if not isinstance(saved, dict):
    raise InputError(f"{path} holds no dictionary; is it a checkpoint?")
  if pointer and isinstance(saved.get("pretrained"), str):
    return saved, None
  for name, kind in (("best_state", dict), ("xp.cfg", str)):
    if not isinstance(saved.get(name), kind):
      raise InputError(
        f"{path} lacks {name!r}; an exported AudioGen or MusicGen checkpoint"
        " has it (audiocraft's export_lm or export_encodec write one)"
      )
  for name, tensor in saved["best_state"].items():
    if not isinstance(tensor, Stored) or not isinstance(name, str):
      raise InputError(f"{path}: {shown(name)} in best_state is no tensor")
  return saved, audiocraft_config.parse(saved["xp.cfg"], str(path))


def save(path: Path, state: Mapping[str, Any], cfg: dict[str, Any]) -> None:
  """Writes one file: tensors by foreign name, and the configuration."""
  text = yaml.safe_dump(cfg, sort_keys=False)
  saved = {"best_state": dict(state), "xp.cfg": text, "exported": True}
  torch_file.write(path, saved | {"version": f"audiogen_jax {__version__}"})


def _open_folder(source: epath.Path) -> Parts:
  folder = Path(source)
  codec = read_codec(folder)
  if isinstance(codec, str):
    # The pointer names a hub id, or a folder beside this one.
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", codec):
      raise InputError(
        f"{folder / CODEC_FILE} names {shown(codec)} as its"
        " codec, which is neither a hub id nor a folder beside it"
      )
    beside = folder / codec
    codec = huggingface.read_encodec(
      Path(formats.locate(beside if beside.is_dir() else codec))
    )
  if not (folder / LM_FILE).is_file():
    return Parts(*codec)
  lm, lm_tree, extra = read_lm(folder)
  described, tree = first_codebooks(*codec, extra.pop("codec_codebooks"))
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


def _family(folder: epath.Path) -> str:
  """Whose page opens it; the tensors of both families have the same names."""
  path = Path(folder) / LM_FILE
  if not path.is_file():  # a codec alone
    return opening.FAMILY
  _, cfg = _open(path)
  masked = audiocraft_config.is_masked(cfg)
  return opening.MASKED if masked else opening.FAMILY


formats.register(
  formats.Format(
    name="audiocraft",
    recognise=lambda folder: any(
      (folder / name).exists() for name in (LM_FILE, CODEC_FILE)
    ),
    family=_family,
    open=_open_folder,
    wanted=lambda names: [LM_FILE, CODEC_FILE] if LM_FILE in names else None,
  )
)
