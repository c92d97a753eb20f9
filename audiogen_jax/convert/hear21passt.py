"""PaSST as hear21passt published it."""

import dataclasses
import re

from audiogen_jax.convert import engine
from audiogen_jax.convert.engine import Table, Target, array, linear, vector
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import Published, State, size
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import passt
from audiogen_jax.embedding.passt import PaSSTConfig

_RELEASES = "https://github.com/kkoutini/PaSST/releases/download/"
_FILES = {  # by the length of their pieces: 10 s, 20 s, 30 s
  "passt-s-f128-p16-s10-ap.476-swa.pt": "v0.0.1-audioset",
  "passt-s-f128-20sec-p16-s10-ap.474-swa.pt": "v0.0.5",
  "passt-s-f128-30sec-p16-s10-ap.473-swa.pt": "v0.0.5",
}
_TIMES = "time_new_pos_embed"
_UNUSED = r"head_dist\."  # trained, and left out of what is published of it


def _table(config: PaSSTConfig) -> Table:
  """Every tensor that is used."""
  c = config
  d, across = c.width, (0, 2, 3, 1)
  made: Table = {
    "cls_token": [array("tokens", 1, 1, d, index=(slice(0, 1),))],
    "dist_token": [array("tokens", 1, 1, d, index=(slice(1, 2),))],
    "new_pos_embed": [array("token_positions", 1, 2, d)],
    _TIMES: [array("times", 1, d, 1, c.times, order=across)],
    "freq_new_pos_embed": [array("bands", 1, d, c.bands, 1, order=across)],
    "patch_embed.proj.weight": [
      array("patches/kernel", d, 1, *c.patch, order=(2, 3, 1, 0))
    ],
    "patch_embed.proj.bias": [vector("patches/bias", d)],
  }
  made |= _pair("norm", "out_norm", vector("out_norm/scale", d), (d,))
  made |= _pair("head.0", "head_norm", vector("head_norm/scale", d), (d,))
  kernel = linear("classes/kernel", (c.classes,), (d,))
  made |= _pair("head.1", "classes", kernel, (c.classes,))
  qkv, heads = (3, c.heads, d // c.heads), (c.heads, d // c.heads)
  for i in range(c.layers):
    at = (i,)
    for theirs, ours in (("norm1", "attention_norm"), ("norm2", "ff_norm")):
      scale = vector(f"layers/{ours}/scale", d, index=at)
      made |= _pair(f"blocks.{i}.{theirs}", f"layers/{ours}", scale, (d,), at)
    for theirs, ours, out, into in (
      ("attn.qkv", "qkv", qkv, (d,)),
      ("attn.proj", "out", (d,), heads),
      ("mlp.fc1", "up", (c.ff,), (d,)),
      ("mlp.fc2", "down", (d,), (c.ff,)),
    ):
      kernel = linear(f"layers/{ours}/kernel", out, into, index=at)
      made |= _pair(f"blocks.{i}.{theirs}", f"layers/{ours}", kernel, out, at)
  return made


def _pair(
  theirs: str,
  ours: str,
  weight: Target,
  shape: tuple[int, ...],
  at: tuple[int, ...] = (),
) -> Table:
  """A weight and the bias beside it."""
  bias = vector(f"{ours}/bias", *shape, index=at)
  return {f"{theirs}.weight": [weight], f"{theirs}.bias": [bias]}


def _config(state: State, where: str, beside: Keys) -> PaSSTConfig:
  default = PaSSTConfig()
  patches = "patch_embed.proj.weight"
  layers = (re.match(r"blocks\.(\d{1,3})\.", name) for name in state)
  config = dataclasses.replace(
    default,
    width=size(state, "norm.bias", default.width),
    layers=1 + max((int(layer[1]) for layer in layers if layer), default=0),
    heads=beside.whole("num_heads", "heads", default.heads),
    ff=size(state, "blocks.0.mlp.fc1.bias", default.ff),
    classes=size(state, "head.1.bias", default.classes),
    patch=tuple(
      size(state, patches, edge, axis)
      for axis, edge in enumerate(default.patch, start=2)
    ),
    stride=_stride(beside, default.stride),
    times=size(state, _TIMES, default.times, 3),
    mel=dataclasses.replace(
      default.mel,
      n_mels=beside.whole("input_fdim", "width", default.mel.n_mels),
    ),
  )
  if config.width % config.heads:
    raise InputError(
      f"{where}: its width {config.width} is no multiple of {config.heads}"
      f" heads; say how many there are: num_heads in {beside.where}"
    )
  if config.patch[0] > config.mel.n_mels:
    raise InputError(
      f"{beside.where}: input_fdim {config.mel.n_mels} must be no less than the"
      f" patches' {config.patch[0]} bands"
    )
  return config


def _stride(beside: Keys, default: tuple[int, int]) -> tuple[int, int]:
  if "stride" not in beside:
    return default
  stride = beside.wholes("stride", "kernel")
  if len(stride) != 2:
    raise InputError(
      f"{beside.where}: stride {list(stride)} must be two numbers, of bands and"
      " of frames"
    )
  return stride


def _open(state: State, where: str, beside: Keys) -> tuple[PaSSTConfig, Tree]:
  config = _config(state, where, beside)
  tree = engine.load(
    state,
    _table(config),
    engine.abstract(passt.init, config),
    where=where,
    ignored=_UNUSED,
  )
  return config, tree


PUBLISHED = Published(
  title="PaSST",
  files={name: f"{_RELEASES}{tag}/{name}" for name, tag in _FILES.items()},
  mark=_TIMES,
  open=_open,
  build=passt.Extractor,
)
