"""Hugging Face folders: T5, EnCodec and MusicGen, read.

A folder holds `config.json` and `model.safetensors` (or several of them with an
index, or an old `pytorch_model.bin`).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from audiogen_jax.codec import encodec
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import (
  engine,
  formats,
  huggingface_config,
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
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import checkpoint
from audiogen_jax.core.config import read_json, shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import model
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.sampling import Sampling
from audiogen_jax.text import t5
from audiogen_jax.text.t5 import T5Config

_DTYPES = {
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,  # counters and constants, beside the weights
}
# T5 folders come with the decoder that text-to-text models have.
_T5_IGNORED = r"decoder\.|lm_head\.|encoder\.embed_tokens\."


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A tensor in a safetensors file."""

  path: Path
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self) -> np.ndarray:
    """Reads the values; the file is mapped into memory only meanwhile."""
    with safetensors.safe_open(self.path, framework="numpy") as file:
      return file.get_tensor(self.name)


def config_of(folder: Path, *kinds: str) -> Keys:
  """`config.json` of a folder with a model of one of these kinds.

  Raises:
    InputError: If it is missing, not JSON, or of another kind.
  """
  values = checkpoint.read_config(folder)
  cfg = Keys(values, str(folder / checkpoint.CONFIG))
  cfg.only("model_type", *kinds)
  return cfg


def stored(folder: Path) -> dict[str, Stored]:
  """Every tensor of a folder by its name.

  Raises:
    InputError: If there are no weights, or a file is broken.
  """
  paths = sorted(folder.glob("model*.safetensors"))
  if not paths:
    if (folder / "pytorch_model.bin").is_file():
      return torch_file.read(folder / "pytorch_model.bin")
    raise InputError(f"{folder} lacks model.safetensors")
  index = folder / "model.safetensors.index.json"
  if index.is_file():
    places = Keys(read_json(index), str(index)).group("weight_map")
    wanted = places.names_of_all()
    missing = sorted(wanted - {p.name for p in paths})
    if missing:
      more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
      names = ", ".join(shown(name) for name in missing[:3])
      raise InputError(
        f"{folder} lacks {names}{more}, which {index.name} names"
      )
  tensors: dict[str, Stored] = {}
  for path in paths:
    tensors |= stored_in(path)
  return tensors


def stored_in(path: Path) -> dict[str, Stored]:
  """Every tensor of a safetensors file by its name.

  Raises:
    InputError: If it is broken, or of types that no model has.
  """
  tensors: dict[str, Stored] = {}
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      for name in file.keys():  # noqa: SIM118 - not a mapping
        part = file.get_slice(name)
        dtype = _DTYPES.get(part.get_dtype())
        if dtype is None:
          raise InputError(f"{path}: {name} is of type {part.get_dtype()}")
        shape = tuple(part.get_shape())
        tensors[name] = _Tensor(path, name, shape, np.dtype(dtype))
  except (safetensors.SafetensorError, OSError) as error:
    reason = str(error)[:100]
    raise InputError(f"{path} is truncated or damaged: {reason}") from None
  return tensors


def read_t5(folder: Path) -> tuple[T5Config, Tree]:
  """The encoder of a T5 folder, whether or not its decoder is there too."""
  config = huggingface_config.t5_config(config_of(folder, "t5"))
  abstract = engine.abstract(t5.init, config)
  tree = engine.load(
    stored(folder),
    t5_table(config),
    abstract,
    where=str(folder),
    ignored=_T5_IGNORED,
  )
  return config, tree


def read_encodec(folder: Path) -> tuple[EncodecConfig, Tree]:
  """An EnCodec folder."""
  cfg = config_of(folder, "encodec")
  described = huggingface_config.codec_config(cfg)
  return _load_codec(described, stored(folder), str(folder))


def read_musicgen(folder: Path) -> Parts:
  """A MusicGen folder: text encoder, language model and codec in one."""
  cfg = config_of(folder, "musicgen")
  text = huggingface_config.t5_config(cfg.group("text_encoder"))
  lm = huggingface_config.lm_config(cfg, text.width)
  described = huggingface_config.codec_config(cfg.group("audio_encoder"))
  where, everything = str(folder), stored(folder)
  table = lm_table(lm)
  if "enc_to_dec_proj.weight" not in everything:
    # At equal widths the format leaves the projection out.
    table = {k: v for k, v in table.items() if not k.startswith("enc_to_dec")}
  rooms: dict[str, dict[str, Stored]] = {"text": {}, "codec": {}, "lm": {}}
  for name, tensor in everything.items():
    if name.startswith("text_encoder."):
      rooms["text"][name.removeprefix("text_encoder.")] = tensor
    elif name.startswith("audio_encoder."):
      rooms["codec"][name.removeprefix("audio_encoder.")] = tensor
    else:
      rooms["lm"][name] = tensor
  abstract = engine.abstract(model.init, lm)
  if len(table) < len(lm_table(lm)):
    del abstract["text_proj"]
  lm_tree = engine.load(
    rooms["lm"],
    table,
    abstract,
    where=where,
    ignored=r"decoder\.model\.decoder\.embed_positions\.",
  )
  if "text_proj" not in lm_tree:
    d, dtype = text.width, lm_tree["embed"].dtype
    lm_tree["text_proj"] = {
      "kernel": engine.Lazy((d, d), dtype, lambda: np.eye(d, dtype=dtype)),
      "bias": engine.Lazy((d,), dtype, lambda: np.zeros(d, dtype)),
    }
  codec, codec_tree = _load_codec(described, rooms["codec"], where)
  stereo = huggingface_config.stereo(cfg)
  return Parts(
    codec=dataclasses.replace(codec, stereo_codes=stereo),
    codec_tree=codec_tree,
    lm=lm,
    lm_tree=lm_tree,
    text=text,
    text_tree=engine.load(
      rooms["text"],
      t5_table(text),
      engine.abstract(t5.init, text),
      where=where,
      ignored=_T5_IGNORED,
    ),
    tokenizer=str(folder),
    text_name=cfg.group("text_encoder").text("_name_or_path"),
    window_s=cfg.number("window_s", "window_s", 30.0),
    guidance=_guidance(folder),
  )


def _guidance(folder: Path) -> float:
  """What `generation_config.json` says of it, if there is one."""
  path = folder / "generation_config.json"
  if not path.is_file():
    return Sampling.guidance
  cfg = Keys(read_json(path), str(path))
  if cfg.any("guidance_scale", None) is None:
    return Sampling.guidance
  return cfg.number("guidance_scale", "guidance")


def t5_table(config: T5Config) -> Table:
  """Every tensor of the encoder."""
  d, f, heads = config.width, config.ff, (config.heads, config.head_size)
  bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
  made = {
    "shared.weight": [array("embed", config.vocabulary, d)],
    bias: [array("position_bias", config.buckets, config.heads)],
    "encoder.final_layer_norm.weight": [vector("out_norm", d)],
  }
  up = {"wi": "up"}
  if config.activation == "gated-gelu":
    up = {"wi_0": "gate", "wi_1": "up"}
  for i in range(config.layers):
    index, stem = (i,), f"encoder.block.{i}.layer"
    attention, dense = f"{stem}.0.SelfAttention", f"{stem}.1.DenseReluDense"
    for name in "qkv":
      part = linear(f"layers/{name}", heads, (d,), index)
      made[f"{attention}.{name}.weight"] = [part]
    made[f"{attention}.o.weight"] = [linear("layers/o", (d,), heads, index)]
    for theirs, ours in up.items():
      part = linear(f"layers/{ours}", (f,), (d,), index)
      made[f"{dense}.{theirs}.weight"] = [part]
    made[f"{dense}.wo.weight"] = [linear("layers/down", (d,), (f,), index)]
    for j, ours in ((0, "attention_norm"), (1, "ff_norm")):
      part = vector(f"layers/{ours}", d, index=index)
      made[f"{stem}.{j}.layer_norm.weight"] = [part]
  return made


def lm_table(config: LMConfig) -> Table:
  """Every tensor of MusicGen's decoder."""
  t, d = config.transformer, config.transformer.width
  heads = (t.heads, t.head_size)
  made: dict[str, list] = {
    "enc_to_dec_proj.weight": [
      linear("text_proj/kernel", (d,), (config.text_width,))
    ],
    "enc_to_dec_proj.bias": [vector("text_proj/bias", d)],
  }

  def norm(theirs, ours, index=()):
    made[f"{theirs}.weight"] = [vector(f"{ours}/scale", d, index=index)]
    made[f"{theirs}.bias"] = [vector(f"{ours}/bias", d, index=index)]

  stem = "decoder.model.decoder"
  for k in range(config.codebooks):
    rows = array("embed", config.size + 1, d, index=(k,))
    made[f"{stem}.embed_tokens.{k}.weight"] = [rows]
    head = linear("heads/kernel", (config.size,), (d,), (k,))
    made[f"decoder.lm_heads.{k}.weight"] = [head]
  for i in range(t.layers):
    layer = f"{stem}.layers.{i}"
    for theirs, ours, packs in (
      ("self_attn", "self_attn", {"q": "qkv", "k": "qkv", "v": "qkv"}),
      ("encoder_attn", "cross_attn", {"q": "q", "k": "kv", "v": "kv"}),
    ):
      for name in "qkv":
        pack = packs[name]
        within = slice(None), pack.index(name)
        index = (i, *within) if len(pack) > 1 else (i,)
        part = linear(f"layers/{ours}/{pack}/kernel", heads, (d,), index)
        made[f"{layer}.{theirs}.{name}_proj.weight"] = [part]
      out = linear(f"layers/{ours}/out/kernel", (d,), heads, (i,))
      made[f"{layer}.{theirs}.out_proj.weight"] = [out]
    norm(f"{layer}.self_attn_layer_norm", "layers/self_norm", (i,))
    norm(f"{layer}.encoder_attn_layer_norm", "layers/cross_norm", (i,))
    norm(f"{layer}.final_layer_norm", "layers/ff_norm", (i,))
    up = linear("layers/up/kernel", (t.ff,), (d,), (i,))
    made[f"{layer}.fc1.weight"] = [up]
    down = linear("layers/down/kernel", (d,), (t.ff,), (i,))
    made[f"{layer}.fc2.weight"] = [down]
  norm(f"{stem}.layer_norm", "out_norm")
  return made


def _load_codec(
  config: EncodecConfig, tensors: Mapping[str, Stored], where: str
) -> tuple[EncodecConfig, Tree]:
  # Folders written before PyTorch had parametrisations use the older names.
  names = {"weight_g": "original0", "weight_v": "original1"}
  state = {
    re.sub(
      r"weight_[gv]$",
      lambda m: f"parametrizations.weight.{names[m[0]]}",
      name,
    ): tensor
    for name, tensor in tensors.items()
  }
  table = seanet.table(config, seanet.TRANSFORMERS)
  abstract = engine.abstract(encodec.init, config)
  return config, engine.load(state, table, abstract, where=where)


def _wanted(names: Sequence[str]) -> Sequence[str] | None:
  """Safetensors where there are any; the same weights may lie beside them."""
  safe = any(name.endswith(".safetensors") for name in names)
  if not safe and "pytorch_model.bin" not in names:
    return None
  weights = "*.safetensors" if safe else "pytorch_model.bin"
  return ["*.json", "*.model", weights]


def _register(
  kind: str, family: str | None, read: Callable[[Path], Any]
) -> None:
  formats.register(
    formats.Format(
      name=kind,
      recognise=lambda folder: formats.is_kind(folder, "model_type", kind),
      family=lambda _: family,
      open=lambda folder: read(Path(folder)),
      wanted=_wanted,
    )
  )


_register("musicgen", "audiogen", read_musicgen)
_register("encodec", "audiogen", lambda folder: Parts(*read_encodec(folder)))
_register("t5", None, lambda folder: (*read_t5(folder), str(folder)))
