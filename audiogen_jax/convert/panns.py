"""Cnn14 as PANNs published it."""

import numpy as np

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import engine
from audiogen_jax.convert.engine import Table, array, linear, vector
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import Published, State, size
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.embedding import cnn14
from audiogen_jax.embedding.cnn14 import Cnn14Config

_ZENODO = "https://zenodo.org/record/3987831/files/"
_FILES = (
  "Cnn14_16k_mAP=0.438.pth",
  "Cnn14_mAP=0.431.pth",
  "Cnn14_8k_mAP=0.416.pth",
)
_RECIPES = (cnn14.RATE_8K, cnn14.RATE_16K, cnn14.RATE_32K)
_FILTERS = "logmel_extractor.melW"
# The first is made here as well and is compared; the rest are not needed.
_CONSTANTS = rf"{_FILTERS}$|spectrogram_extractor\.|.*\.num_batches_tracked$"
_CLOSE = 1e-5  # of filters of which the highest is 0.03


def table(config: Cnn14Config) -> Table:
  """Every tensor that training moves."""
  made = _norm("bn0", "norm", config.mel.n_mels)
  channels = 1
  for i, wider in enumerate(config.channels):
    for j in range(2):
      theirs = f"conv_block{i + 1}"
      kernel = f"conv_{i}_{j}/kernel"
      made[f"{theirs}.conv{j + 1}.weight"] = [
        array(kernel, wider, channels, 3, 3, order=(2, 3, 1, 0))
      ]
      made |= _norm(f"{theirs}.bn{j + 1}", f"norm_{i}_{j}", wider)
      channels = wider
  for theirs, ours, into, out in (
    ("fc1", "embedding", channels, config.width),
    ("fc_audioset", "classes", config.width, config.classes),
  ):
    made[f"{theirs}.weight"] = [linear(f"{ours}/kernel", (out,), (into,))]
    made[f"{theirs}.bias"] = [vector(f"{ours}/bias", out)]
  return made


def _norm(theirs: str, ours: str, width: int) -> Table:
  return {
    f"{theirs}.{name}": [vector(f"{ours}/{part}", width)]
    for name, part in (
      ("weight", "scale"),
      ("bias", "bias"),
      ("running_mean", "mean"),
      ("running_var", "variance"),
    )
  }


def shape(state: State, recipe: MelConfig) -> Cnn14Config:
  """What its tensors tell of a network that hears by this recipe."""
  default = Cnn14Config()
  return Cnn14Config(
    channels=tuple(
      size(state, f"conv_block{i + 1}.conv2.weight", channels)
      for i, channels in enumerate(default.channels)
    ),
    width=size(state, "fc1.bias", default.width),
    classes=size(state, "fc_audioset.bias", default.classes),
    mel=recipe,
  )


def _open(state: State, where: str, _: Keys) -> tuple[Cnn14Config, Tree]:
  config = shape(state, _recipe(state, where))
  tree = engine.load(
    state,
    table(config),
    engine.abstract(cnn14.init, config),
    where=where,
    ignored=_CONSTANTS,
  )
  return config, tree


def _recipe(state: State, where: str) -> MelConfig:
  """The published recipe whose filters the file holds."""
  if _FILTERS not in state:
    raise InputError(
      f"{where} lacks {_FILTERS}, which tells its rate; get the file again"
    )
  theirs = np.asarray(state[_FILTERS].read(), np.float32)
  for recipe in _RECIPES:
    ours = mel.filters(recipe)
    if ours.shape == theirs.shape and np.abs(ours - theirs).max() < _CLOSE:
      return recipe
  rates = ", ".join(f"{recipe.rate_hz:,}" for recipe in _RECIPES)
  raise InputError(
    f"{where}: the mel filters {list(theirs.shape)} in it are none of those"
    f" published, for {rates} Hz; get the file again"
  )


PUBLISHED = Published(
  title="Cnn14",
  files={name: _ZENODO + name.replace("=", "%3D") for name in _FILES},
  mark="conv_block1.conv1.weight",
  open=_open,
  build=cnn14.Extractor,
)
