"""Published vocoders, read and written: HiFi-GAN's, NVIDIA's, Make-An-Audio's.

All three keep a saved `{"generator": tensors}` beside a flat configuration:

    config.json   bigvgan_generator.pt    NVIDIA's BigVGAN, of either version
    config.json   g_02500000              HiFi-GAN, with the number of steps
    args.yml      best_netG.pt            Make-An-Audio's, of either network

The first two say which mel spectrograms they were trained on; `args.yml` does
not, and of its two generations only whoever has the rest of the model knows.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import engine, torch_file, yaml_file
from audiogen_jax.convert.building import built, check_weights
from audiogen_jax.convert.engine import (
  Stored,
  Table,
  array,
  vector,
)
from audiogen_jax.convert.keys import Keys
from audiogen_jax.core.config import read_json, shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.vocoder import activations, generator
from audiogen_jax.vocoder.generator import VocoderConfig

NVIDIA, MAKE_AN_AUDIO = "bigvgan_generator.pt", "best_netG.pt"
_HIFI_GAN = re.compile(r"g_\d{1,12}")
_JSON, _YAML = "config.json", "args.yml"
_FILTER = re.compile(r".*\.(upsample\.filter|downsample\.lowpass\.filter)$")
_CLOSE = 1e-6  # of filters whose taps lie below 0.5


class Vocoder(NamedTuple):
  """A vocoder on disk, no weights read yet.

  Attributes:
    config: Its shape, and the recipe of its mel spectrograms.
    tree: Its parameters, as lazy arrays.
  """

  config: VocoderConfig
  tree: Tree


def read(path: Path, recipe: MelConfig = mel.MAKE_AN_AUDIO) -> Vocoder:
  """A published vocoder.

  Args:
    path: Its folder, or the file of its weights with the configuration beside
      it.
    recipe: What it was trained on, where that is not said (`args.yml`).

  Raises:
    InputError: If a file is missing or damaged, with what belongs where, or if
      tensors and configuration do not belong together.
  """
  file = _weights(path)
  cfg = _settings(file)
  state = _tensors(file)
  config = _config(cfg, recipe)
  if "conv_pre.weight" in state:
    config = dataclasses.replace(config, norm="none")
  _check_filters(state, file)
  tree = engine.load(
    state,
    table(config),
    engine.abstract(generator.init, config),
    where=str(file),
    ignored=_FILTER.pattern,
  )
  return Vocoder(config, tree)


def write(folder: Path, config: VocoderConfig, params: Tree) -> None:
  """Writes weights and configuration into a folder, as they are published.

  What says its mel recipe is written as NVIDIA or HiFi-GAN's authors do, what
  hears log10 as Make-An-Audio does.

  Raises:
    InputError: For mel spectrograms that none of the three has.
  """
  settings = published_settings(config)
  tensors = dict(engine.export(params, table(config)))
  taps = activations.low_pass()[None, None]
  for name in _filters(config) if config.has_snakes else ():
    tensors[name] = np.ascontiguousarray(taps)
  if "sampling_rate" not in settings:
    file, text = MAKE_AN_AUDIO, yaml.safe_dump(settings, sort_keys=False)
  else:
    file = NVIDIA if config.has_snakes else "g_00000000"
    text = json.dumps(settings, indent=4)
  name = _YAML if file == MAKE_AN_AUDIO else _JSON
  (folder / name).write_text(text)
  torch_file.write(folder / file, {"generator": tensors})


def table(config: VocoderConfig) -> Table:
  """Every tensor of a vocoder but the filters, which are constant."""
  c = config
  made: dict[str, list] = {}

  def conv(theirs, ours, width, into, out, *, transposed=False, bias=True):
    # Kernels are [out, in, w], transposed ones [in, out, w]; ours [w, in, out].
    shape = (into, out, width) if transposed else (out, into, width)
    order = (2, 0, 1) if transposed else (2, 1, 0)
    if c.norm == "weight_norm":
      made[f"{theirs}.weight_g"] = [array(f"{ours}/kernel_g", shape[0], 1, 1)]
      names = f"{theirs}.weight_v", f"{ours}/kernel_v"
    else:
      names = f"{theirs}.weight", f"{ours}/kernel"
    made[names[0]] = [array(names[1], *shape, order=order)]
    if bias:
      made[f"{theirs}.bias"] = [vector(f"{ours}/bias", out)]

  def act(theirs, ours, channels):
    names = {"snakebeta": ("alpha", "beta"), "snake": ("alpha",)}
    for name in names.get(c.activation, ()):
      made[f"{theirs}.act.{name}"] = [vector(f"{ours}/{name}", channels)]

  conv("conv_pre", "conv_in", 7, c.mel.n_mels, c.filters)
  channels = c.filters
  for i, width in enumerate(c.ratio_kernels):
    inner = ".0" if c.has_snakes else ""
    conv(
      f"ups.{i}{inner}",
      f"up_{i}_transposed",
      width,
      channels,
      channels // 2,
      transposed=True,
    )
    channels //= 2
    for j, width in enumerate(c.kernels):
      theirs = f"resblocks.{i * len(c.kernels) + j}"
      ours = f"up_{i}_block_{j}"
      for k in range(len(c.dilations[j])):
        parts = [("convs", "")]
        if c.paired:
          parts = [("convs1", ""), ("convs2", "_after")]
        for n, (stack, suffix) in enumerate(parts):
          mine = f"{ours}/conv_{k}{suffix}"
          conv(f"{theirs}.{stack}.{k}", mine, width, channels, channels)
          at = len(parts) * k + n
          act(f"{theirs}.activations.{at}", f"{mine}_act", channels)
  act("activation_post", "act_out", channels)
  conv("conv_post", "conv_out", 7, channels, 1, bias=c.last_bias)
  return made


def _filters(config: VocoderConfig) -> list[str]:
  """Names of the filters, two for each activation."""
  stems = [
    name.removesuffix("act.alpha")
    for name in table(config)
    if name.endswith(".act.alpha")
  ]
  ends = "upsample.filter", "downsample.lowpass.filter"
  return [f"{stem}{end}" for stem in stems for end in ends]


def holds(folder: Path) -> bool:
  """Whether the weights of a vocoder lie in a folder."""
  return bool(_found(folder))


def _found(folder: Path) -> list[str]:
  """Names of files of weights, what is read first."""
  names = sorted(p.name for p in folder.iterdir())
  found = [name for name in (NVIDIA, MAKE_AN_AUDIO) if name in names]
  return found + [n for n in reversed(names) if _HIFI_GAN.fullmatch(n)]


def _weights(path: Path) -> Path:
  """The file of weights at a path: that file, or the one in that folder."""
  if path.is_file():
    return path
  if not path.is_dir():
    raise InputError(
      f"{path} is missing: put {MAKE_AN_AUDIO} and {_YAML} of Make-An-Audio's"
      f" vocoder there, or {NVIDIA} and {_JSON} of NVIDIA's"
    )
  found = _found(path)
  if not found:
    raise InputError(
      f"{path} holds no vocoder: it should hold {MAKE_AN_AUDIO} (with {_YAML}),"
      f" {NVIDIA} or g_02500000 (each with {_JSON})"
    )
  return path / found[0]


def _settings(file: Path) -> Keys:
  """What the configuration beside a file of weights says."""
  beside = file.with_name(_JSON)
  if beside.is_file():
    return Keys(read_json(beside), str(beside))
  beside = file.with_name(_YAML)
  if beside.is_file():
    return yaml_file.read(beside)
  raise InputError(
    f"{file} has neither {_JSON} nor {_YAML} beside it; get the one that it was"
    " published with"
  )


def _tensors(file: Path) -> dict[str, Stored]:
  saved = torch_file.read(file)
  if not isinstance(saved, dict) or not isinstance(
    saved.get("generator"), dict
  ):
    raise InputError(
      f"{file} lacks 'generator'; a published HiFi-GAN or BigVGAN has it"
    )
  for name, tensor in saved["generator"].items():
    if not isinstance(tensor, Stored) or not isinstance(name, str):
      raise InputError(f"{file}: {shown(name)} in 'generator' is no tensor")
    check_weights(name, tensor, str(file))
  return saved["generator"]


def _config(cfg: Keys, recipe: MelConfig) -> VocoderConfig:
  options = {"activation": "leaky_relu"}
  if "activation" in cfg:
    tanh = cfg.flag("use_tanh_at_final", True)
    options = {
      "activation": cfg.only("activation", "snakebeta", "snake"),
      "log_scale": cfg.flag("snake_logscale", False),
      "last_bias": cfg.flag("use_bias_at_final", True),
      "limit": "tanh" if tanh else "clip",
    }
  return built(
    VocoderConfig,
    cfg.where,
    mel=_recipe(cfg, recipe),
    filters=cfg.whole("upsample_initial_channel", "filters"),
    ratios=cfg.wholes("upsample_rates", "ratios"),
    ratio_kernels=cfg.wholes("upsample_kernel_sizes", "ratio_kernels"),
    kernels=cfg.wholes("resblock_kernel_sizes", "kernels"),
    dilations=cfg.lists("resblock_dilation_sizes", "dilations"),
    paired=cfg.only("resblock", "1", "2") == "1",
    **options,
  )


def _recipe(cfg: Keys, recipe: MelConfig) -> MelConfig:
  """The recipe that the vocoder's own code makes mel spectrograms by.

  It is that of Make-An-Audio, which came later, but for a natural logarithm.
  """
  bands = cfg.whole("num_mels", "size")
  if "sampling_rate" not in cfg:
    return dataclasses.replace(recipe, n_mels=bands)
  top = None if cfg.any("fmax", None) is None else cfg.number("fmax", "hz")
  return built(
    functools.partial(dataclasses.replace, mel.MAKE_AN_AUDIO),
    cfg.where,
    rate_hz=cfg.whole("sampling_rate", "sample_rate_hz"),
    n_fft=cfg.whole("n_fft", "n_fft"),
    hop=cfg.whole("hop_size", "hop"),
    window_length=cfg.whole("win_size", "n_fft"),
    n_mels=bands,
    f_min_hz=cfg.number("fmin", "hz", 0),
    f_max_hz=top,
    log="ln",
    clip=False,
  )


def published_settings(config: VocoderConfig) -> dict[str, Any]:
  """The keys that `_config` reads."""
  c, m = config, config.mel
  settings = {
    "resblock": "1" if c.paired else "2",
    "num_mels": m.n_mels,
    "upsample_rates": list(c.ratios),
    "upsample_kernel_sizes": list(c.ratio_kernels),
    "upsample_initial_channel": c.filters,
    "resblock_kernel_sizes": list(c.kernels),
    "resblock_dilation_sizes": [list(row) for row in c.dilations],
  }
  if c.has_snakes:
    settings |= {
      "activation": c.activation,
      "snake_logscale": c.log_scale,
      "use_bias_at_final": c.last_bias,
      "use_tanh_at_final": c.limit == "tanh",
    }
  if m.log == "log10":
    return settings
  settings |= {
    "sampling_rate": m.rate_hz,
    "n_fft": m.n_fft,
    "hop_size": m.hop,
    "win_size": m.window_length or m.n_fft,
    "fmin": m.f_min_hz,
    "fmax": m.f_max_hz,
  }
  if _recipe(Keys(settings, ""), m) != m:
    raise InputError(f"no published vocoder hears mel spectrograms as {m}")
  return settings


def _check_filters(state: dict[str, Stored], file: Path) -> None:
  """Raises InputError for a filter that is not the one made here."""
  ours = activations.low_pass()
  for name, tensor in state.items():
    if not _FILTER.match(name):
      continue
    same = tuple(tensor.shape) == (1, 1, len(ours))
    if not (same and np.abs(tensor.read()[0, 0] - ours).max() <= _CLOSE):
      raise InputError(
        f"{file}: {name} is not the filter of {len(ours)} taps that BigVGAN is"
        " published with"
      )
