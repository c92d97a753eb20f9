"""VGGish as torchvggish published it."""

import re

from audiogen_jax.convert import engine
from audiogen_jax.convert.engine import Table, array, linear, vector
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import Published, State, size
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import vggish
from audiogen_jax.embedding.vggish import VGGishConfig

_FILE = "vggish-10086976.pth"
_RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/"


def _table(config: VGGishConfig) -> Table:
  """Every tensor; convolutions, ReLUs and poolings are numbered in turn."""
  made: Table = {}
  layer, channels = 0, 1
  for i, block in enumerate(config.blocks):
    for j, wider in enumerate(block):
      theirs, ours = f"features.{layer}", f"conv_{i}_{j}"
      made[f"{theirs}.weight"] = [
        array(f"{ours}/kernel", wider, channels, 3, 3, order=(2, 3, 1, 0))
      ]
      made[f"{theirs}.bias"] = [vector(f"{ours}/bias", wider)]
      layer, channels = layer + 2, wider
    layer += 1
  into = config.flattened
  for i, out in enumerate(config.widths):
    theirs, ours = f"embeddings.{2 * i}", f"dense_{i}"
    made[f"{theirs}.weight"] = [linear(f"{ours}/kernel", (out,), (into,))]
    made[f"{theirs}.bias"] = [vector(f"{ours}/bias", out)]
    into = out
  return made


def _config(state: State) -> VGGishConfig:
  """Where a number is left out between two convolutions, there is a pooling."""
  pattern = re.compile(r"features\.(\d{1,3})\.(weight|bias)")
  names = (pattern.fullmatch(name) for name in state)
  layers = sorted({int(name[1]) for name in names if name})
  blocks: list[list[int]] = []
  for before, layer in zip([-3, *layers], layers, strict=False):
    if layer - before > 2:
      blocks.append([])
    blocks[-1].append(size(state, f"features.{layer}.bias", 1))
  default = VGGishConfig().widths
  widths = (
    size(state, f"embeddings.{2 * i}.bias", w) for i, w in enumerate(default)
  )
  return VGGishConfig(tuple(map(tuple, blocks)), tuple(widths))


def _open(state: State, where: str, _: Keys) -> tuple[VGGishConfig, Tree]:
  config = _config(state)
  abstract = engine.abstract(vggish.init, config)
  return config, engine.load(state, _table(config), abstract, where=where)


PUBLISHED = Published(
  title="VGGish",
  files={_FILE: _RELEASE + _FILE},
  mark="features.0.weight",
  open=_open,
  build=vggish.Extractor,
)
