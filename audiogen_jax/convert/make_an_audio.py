"""Make-An-Audio's checkpoints, read and written: all but the vocoder.

A file of PyTorch Lightning, whose `state_dict` holds

    model.diffusion_model.*                      the U-Net
    first_stage_model.*                          the autoencoder
    cond_stage_model.caption_encoder.*           CLAP's tower that reads
    cond_stage_model.model.*                     CLIP, of the model for pictures
    scale_factor, betas, alphas_cumprod …        constants

and a YAML file beside the program that says the sizes.  Of the text tower two
copies are published; that of the checkpoint is the one that was trained with.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from audiogen_jax.convert import (
  clap_networks,
  engine,
  make_an_audio_yaml,
  openclip,
  published,
  torch_file,
)
from audiogen_jax.convert.building import built, check_weights
from audiogen_jax.convert.clap_parts import Tensors
from audiogen_jax.convert.engine import Stored, Table
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.latent_diffusion import (
  autoencoder_table,
  constants,
  unet_table,
)
from audiogen_jax.convert.published import State
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.config import read_json, shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion import unet as unets
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder as autoencoders
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text.clip import ClipConfig

_UNET, _LATENT = "model.diffusion_model.", "first_stage_model."
_TEXT = "cond_stage_model.caption_encoder."
_CLIP = "cond_stage_model.model."
_COND = "cond_stage_model."  # of inpainting the autoencoder again, elsewhere
# What no part of us is: losses of its training, copies, and what is computed.
_DEAD = re.compile(
  r"model_ema\.|first_stage_model\.loss\.|cond_stage_model\.loss\.|logvar$"
  r"|lvlb_weights$|.*\.embeddings\.position_ids$"
)
_HEADS = 12  # of bert-base-uncased
_CLOSE = 1e-6  # of stored constants and those that are computed here


class Checkpoint(NamedTuple):
  """A checkpoint on disk, no weights read yet.

  Attributes:
    schedule: Of the noise.
    unet: Shape of the U-Net.
    unet_tree: Its parameters, as lazy arrays; so of the others.
    autoencoder: Shape of the autoencoder, with the scale of its latents.
    autoencoder_tree: Its parameters.
    text: Shape of the network that reads; None of a model without text.
    text_tree: Its parameters.
    columns: Of the latents that it was trained on.
    clip: Shape of what embeds pictures; None of a model for texts, or where it
      is published apart.
    clip_tree: Its parameters.
  """

  schedule: Schedule
  unet: UNetConfig
  unet_tree: Tree
  autoencoder: AutoencoderConfig
  autoencoder_tree: Tree
  text: ClapTextConfig | None
  text_tree: Tree | None
  columns: int
  clip: ClipConfig | None = None
  clip_tree: Tree | None = None


def read(
  checkpoint: Path,
  settings: Path,
  tokenizer: Path | None = None,
) -> Checkpoint:
  """A published checkpoint.

  Args:
    checkpoint: The file of PyTorch Lightning.
    settings: The YAML file that says its sizes.
    tokenizer: The folder `bert-base-uncased`, whose `config.json` says how many
      heads the network that reads has; None for 12.

  Raises:
    InputError: If a file is missing or damaged, or if tensors and settings do
      not belong together; the message names the first that does not.
  """
  state = _state(checkpoint)
  where = str(checkpoint)
  _check_generation(state, where)
  told = make_an_audio_yaml.read(settings)
  schedule, unet = told.schedule, told.unet
  scale = _check_constants(state, schedule, where)
  parts = _split(state, where)
  auto = dataclasses.replace(told.autoencoder, scale=scale)
  text = text_tree = None
  if parts[_TEXT]:
    text = _text_config(Tensors(parts[_TEXT], where), tokenizer)
    text_tree = _load(clap.init, text, text_table(text), parts[_TEXT], where)
  clip = clip_tree = None
  if parts[_CLIP]:
    clip, clip_tree = openclip.read_openclip(parts[_CLIP], where, Keys({}, ""))
  return Checkpoint(
    schedule,
    unet,
    _load(unets.init, unet, unet_table(unet), parts[_UNET], where),
    auto,
    _load(
      autoencoders.init, auto, autoencoder_table(auto), parts[_LATENT], where
    ),
    text,
    text_tree,
    told.columns,
    clip,
    clip_tree,
  )


def tensors(parts: Checkpoint) -> dict[str, Stored | np.ndarray]:
  """The `state_dict` of a checkpoint, from trees of arrays."""
  made = dict(constants(parts.schedule))
  made["scale_factor"] = np.asarray(parts.autoencoder.scale, np.float32)
  rooms = [
    (_UNET, parts.unet_tree, unet_table(parts.unet)),
    (_LATENT, parts.autoencoder_tree, autoencoder_table(parts.autoencoder)),
  ]
  if parts.text is not None:
    rooms.append((_TEXT, parts.text_tree, text_table(parts.text)))
  for prefix, tree, table in rooms:
    exported = engine.export(tree, table)
    made |= {f"{prefix}{name}": value for name, value in exported.items()}
  if parts.clip is not None:
    exported = openclip.tensors(parts.clip, parts.clip_tree)
    made |= {f"{_CLIP}{name}": value for name, value in exported.items()}
  return made


def write(path: Path, parts: Checkpoint) -> None:
  """Writes a file that the published program loads."""
  torch_file.write(path, {"state_dict": tensors(parts), "global_step": 0})


def differing(checkpoint: Path, clap: Path) -> tuple[int, int]:
  """How many tensors of the text tower CLAP's own file holds otherwise.

  Args:
    checkpoint: Of Make-An-Audio.
    clap: `CLAP_weights_2022.pth`.

  Returns:
    Tensors that differ or are missing there, and those of the checkpoint.

  Raises:
    InputError: If a file is damaged.
  """
  own, theirs = _state(checkpoint), published.tensors(clap)
  differ = count = 0
  for name, tensor in own.items():
    if name.startswith(_TEXT) and not _DEAD.match(name):
      count += 1
      other = theirs.get(name.removeprefix(_COND))
      same = other is not None and other.shape == tensor.shape
      differ += not (same and np.array_equal(other.read(), tensor.read()))
  return differ, count


def text_table(config: ClapTextConfig) -> Table:
  """Every tensor of CLAP's tower that reads."""
  made = {
    name: [
      dataclasses.replace(part, path=part.path.replace("text/", "bert/", 1))
      for part in parts
    ]
    for name, parts in clap_networks.bert(config.bert, "base.").items()
  }
  into, width = config.bert.width, config.width
  for i, size in ((1, into), (2, width)):
    kernel = engine.linear(
      f"projection/dense_{i - 1}/kernel", (width,), (size,)
    )
    made[f"projection.linear{i}.weight"] = [kernel]
  made |= clap_networks.norm("projection.layer_norm", "projection/norm", width)
  return made


def _state(path: Path) -> State:
  saved = torch_file.read(path)
  state = saved.get("state_dict") if isinstance(saved, dict) else None
  if not isinstance(state, dict):
    raise InputError(
      f"{path} lacks 'state_dict'; a checkpoint of Make-An-Audio has it"
    )
  for name, tensor in state.items():
    if not isinstance(tensor, Stored) or not isinstance(name, str):
      raise InputError(f"{path}: {shown(name)} in 'state_dict' is no tensor")
  return state


def _check_generation(state: State, where: str) -> None:
  """Raises InputError, with its name, for another system's checkpoint."""
  first = state.get(f"{_LATENT}encoder.conv_in.weight")
  if first is not None and len(first.shape) == 3:
    raise InputError(
      f"{where} is a Make-An-Audio 2, whose autoencoder knows time alone; only"
      " the first Make-An-Audio is read"
    )
  if not any(name.startswith(_UNET) for name in state):
    raise InputError(
      f"{where} holds no U-Net ({_UNET}*): it may be a training of the"
      " autoencoder; get the whole model, such as maa1_full.ckpt"
    )


def _split(state: State, where: str) -> dict[str, State]:
  """Tensors by part, without its prefix.

  Raises:
    InputError: For one of no part.
  """
  known = {"scale_factor", *constants(Schedule())}
  prefixes = _UNET, _LATENT, _TEXT, _CLIP
  parts: dict[str, State] = {prefix: {} for prefix in prefixes}
  doubled = any(name.startswith(f"{_COND}encoder.") for name in state)
  for name, tensor in state.items():
    prefix = next((p for p in parts if name.startswith(p)), None)
    if name in known or _DEAD.match(name):
      continue
    if prefix:
      check_weights(name, tensor, where)
      parts[prefix][name.removeprefix(prefix)] = tensor
    elif not (doubled and name.startswith(_COND)):
      raise InputError(f"{where} holds unknown {name}")
  return parts


def _load(
  init: Callable[[Any, jax.Array], Tree],
  config: Any,
  table: Table,
  state: State,
  where: str,
) -> Tree:
  abstract = engine.abstract(init, config)
  return engine.load(state, table, abstract, where=where)


def _check_constants(state: State, schedule: Schedule, where: str) -> float:
  """The scale of latents; the schedule must be the settings' one.

  Raises:
    InputError: If it is not, or a scale is none.
  """
  name = "alphas_cumprod"
  if name in state:
    theirs, ours = state[name].read(), schedules.kept(schedule)
    same = theirs.shape == ours.shape
    if not (same and np.abs(theirs - ours).max() <= _CLOSE):
      raise InputError(
        f"{where}: {name} is not that of β from {schedule.first:g} to"
        f" {schedule.last:g} in {schedule.times} steps, which its settings name"
      )
  if "scale_factor" not in state:
    return 1.0
  check_weights("scale_factor", state["scale_factor"], where)
  scale = state["scale_factor"].read()
  if scale.shape or not 0 < scale < np.inf:
    raise InputError(f"{where}: scale_factor {shown(scale)} is no scale")
  return float(scale)


def _text_config(state: Tensors, tokenizer: Path | None) -> ClapTextConfig:
  heads = _HEADS
  if tokenizer is not None:
    path = tokenizer / "config.json"
    heads = Keys(read_json(path), str(path)).whole(
      "num_attention_heads", "heads"
    )
  width, _ = state.shape("projection.linear1.weight", 2)
  sizes = clap_networks.bert_sizes(state, "base.")
  if tokenizer is None and sizes["width"] % heads:
    raise InputError(
      f"{state.where}: its text tower is {sizes['width']} wide, which are not"
      f" the {heads} heads of bert-base-uncased; put that folder beside, whose"
      " config.json says how many they are"
    )
  fixed = dict(first_position=0, padding=0, epsilon=1e-12)
  bert = built(BertConfig, state.where, heads=heads, **fixed, **sizes)
  return built(ClapTextConfig, state.where, bert=bert, width=width)
