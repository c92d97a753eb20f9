"""The YAML files of Make-An-Audio, which say the sizes of a checkpoint.

They name the frames of the mel spectrograms that were trained on, and by them
the generation: 624 of `maa1_full.ckpt`, 848 of the older `ta40multi`, `ta54`
and `inpaint7`, whose mel spectrograms are made in another way.
"""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from audiogen_jax.audio import mel
from audiogen_jax.convert import yaml_file
from audiogen_jax.convert.building import built
from audiogen_jax.convert.keys import Keys
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig

_FRAMES = {mel.MAKE_AN_AUDIO: 624, mel.MAKE_AN_AUDIO_OLDER: 848}
_CODE = "ldm.models"
_UNETS = "ldm.modules.diffusionmodules"
_ADDED = ".custom_openaimodel."  # its U-Net adds the context to the time
_CLAP = "ldm.modules.encoders.modules.FrozenCLAPEmbedder"


class Settings(NamedTuple):
  """What a YAML file says.

  Attributes:
    schedule: Of the noise.
    unet: Shape of the U-Net.
    autoencoder: Shape of the autoencoder, without the scale of its latents.
    columns: Of the latents that were trained on.
  """

  schedule: Schedule
  unet: UNetConfig
  autoencoder: AutoencoderConfig
  columns: int


def read(path: Path) -> Settings:
  """What a file says.

  Raises:
    InputError: If it is missing or damaged, or a value is out of range.
  """
  cfg = yaml_file.read(path).group("model").group("params")
  schedule = built(
    Schedule,
    cfg.where,
    times=cfg.whole("timesteps", "far", 1000),
    first=cfg.number("linear_start", "epsilon"),
    last=cfg.number("linear_end", "epsilon"),
  )
  autoencoder = _autoencoder_config(cfg)
  usual = _FRAMES[autoencoder.mel] // autoencoder.ratio
  columns = cfg.whole("mel_length", "far", usual)
  return Settings(schedule, _unet_config(cfg), autoencoder, columns)


def write(path: Path, settings: Settings) -> None:
  """Writes a file that the published program reads."""
  s, u, a = settings.schedule, settings.unet, settings.autoencoder
  frames = _FRAMES[a.mel]
  heads = {"num_heads": u.heads} if u.heads else {"num_heads": -1}
  sizes: dict[str, Any] = {
    "image_size": 32,
    "in_channels": u.channels + u.beside,
    "out_channels": u.channels,
    "model_channels": u.filters,
    "attention_resolutions": [2**level for level in u.attention],
    "num_res_blocks": u.residual_layers,
    "channel_mult": list(u.multipliers),
    **heads,
    "num_head_channels": u.head_size or -1,
    "resblock_updown": u.resample == "residual",
  }
  if u.context_width:
    sizes |= {
      "use_spatial_transformer": True,
      "transformer_depth": u.layers,
      "context_dim": u.context_width,
      "legacy": False,
    }
  module = "custom_openaimodel" if u.known_by_time else "openaimodel"
  shape = {
    "double_z": True,
    "z_channels": a.middle,
    "resolution": frames,
    "in_channels": 1,
    "out_ch": 1,
    "ch": a.filters,
    "ch_mult": list(a.multipliers),
    "num_res_blocks": a.residual_layers,
    "attn_resolutions": [frames // 2**level for level in a.attention],
    "dropout": 0.0,
  }
  params = {
    "linear_start": s.first,
    "linear_end": s.last,
    "timesteps": s.times,
    "first_stage_key": "image",
    "cond_stage_key": "caption",
    "mel_dim": a.rows,
    "mel_length": settings.columns,
    "channels": a.channels,
    "conditioning_key": "crossattn",
    "scale_by_std": True,
    "use_ema": False,
    "unet_config": {"target": f"{_UNETS}.{module}.UNetModel", "params": sizes},
    "first_stage_config": {
      "target": f"{_CODE}.autoencoder.AutoencoderKL",
      "params": {
        "embed_dim": a.channels,
        "ddconfig": shape,
        "lossconfig": {"target": "torch.nn.Identity"},
      },
    },
    "cond_stage_config": {"target": _CLAP},
  }
  target = f"{_CODE}.diffusion.ddpm_audio.LatentDiffusion_audio"
  model = {"model": {"target": target, "params": params}}
  path.write_text(yaml.safe_dump(model, sort_keys=False))


def _unet_config(cfg: Keys) -> UNetConfig:
  own = cfg.group("unet_config").group("params")
  channels = own.whole("out_channels", "channels")
  multipliers = own.wholes("channel_mult", "ratios")
  factors = own.wholes("attention_resolutions", "ratios")
  attends = own.flag("use_spatial_transformer", False)
  size = 0  # of a head; -1, or none, where their number is given
  if own.any("num_head_channels", -1) != -1:
    size = own.whole("num_head_channels", "head_size")
  # The class tells; nothing in its parameters does.
  target = cfg.group("unet_config").text("target") or ""
  added = _ADDED in target
  return built(
    UNetConfig,
    own.where,
    channels=channels,
    beside=own.whole("in_channels", "channels") - channels,
    filters=own.whole("model_channels", "filters"),
    multipliers=multipliers,
    residual_layers=own.whole("num_res_blocks", "residual_layers"),
    attention=tuple(i for i in range(len(multipliers)) if 2**i in factors),
    heads=0 if size else own.whole("num_heads", "heads"),
    head_size=size,
    layers=own.whole("transformer_depth", "layers", 1) if attends else 1,
    context_width=own.whole("context_dim", "width") if attends else 0,
    known_by_time=added,
    resample="residual" if own.flag("resblock_updown", False) else "conv",
  )


def _autoencoder_config(cfg: Keys) -> AutoencoderConfig:
  own = cfg.group("first_stage_config").group("params")
  shape = own.group("ddconfig")
  multipliers = shape.wholes("ch_mult", "ratios")
  whole = shape.whole("resolution", "far")
  attends = shape.wholes("attn_resolutions", "far")
  for name, only in (("in_channels", 1), ("out_ch", 1), ("double_z", True)):
    shape.only(name, only)
  older = whole == _FRAMES[mel.MAKE_AN_AUDIO_OLDER]
  return built(
    AutoencoderConfig,
    own.where,
    mel=mel.MAKE_AN_AUDIO_OLDER if older else mel.MAKE_AN_AUDIO,
    filters=shape.whole("ch", "filters"),
    multipliers=multipliers,
    residual_layers=shape.whole("num_res_blocks", "residual_layers"),
    attention=tuple(
      i for i in range(len(multipliers)) if whole // 2**i in attends
    ),
    middle=shape.whole("z_channels", "channels"),
    channels=own.whole("embed_dim", "channels"),
  )
