"""`xp.cfg`, the YAML inside published checkpoints: read.

It is the whole configuration of the training that made the checkpoint.  What
bears on the model is turned into our dataclasses; a value that this library
does not build is named in the error.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert.engine import only
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.transformer import TransformerConfig

NORMS = {
  "weight_norm": "weight_norm",
  "time_group_norm": "layer_norm",
  "none": "none",
}

# The C parser is ten times as fast; wheels have it, some builds do not.
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str) -> Mapping[str, Any]:
  """The configuration with its links resolved when they are looked up.

  Raises:
    InputError: If it is not YAML, or not a mapping.
  """
  try:
    values = yaml.load(text, Loader=_YAML)
  except yaml.YAMLError as error:
    reason = " ".join(str(error).split())
    raise InputError(f"xp.cfg is not YAML: {reason}") from None
  if not isinstance(values, dict):
    raise InputError("xp.cfg holds no keys")
  return _Config(values, values)


def lm_config(
  cfg: Mapping[str, Any],
) -> tuple[str, LMConfig, dict[str, Any]]:
  """Name of the text condition, our configuration, and what stands beside it.

  The width of the text encoder is left at 0: the YAML does not have it.
  """
  only(cfg, "lm_model", "transformer_lm")
  lm = cfg["transformer_lm"]
  for name, *allowed in (
    ("activation", "gelu"),
    ("norm", "layer_norm"),
    ("norm_first", True),
    ("causal", True),
    ("past_context", None),
    ("layer_scale", None),
    ("positional_embedding", "sin"),
    ("qk_layer_norm", False),
    ("qk_layer_norm_cross", False),
    ("kv_repeat", 1),
    ("max_period", 10000),
    ("positional_scale", 1),
  ):
    only(lm, name, *allowed)
  # What the builders leave out is not what they build here.
  for name in ("activation", "norm_first", "causal"):
    if name not in lm:
      raise InputError(f"transformer_lm lacks {name}")
  fuser = cfg["fuser"]
  for name in ("sum", "input_interpolate"):
    if fuser.get(name):
      raise InputError(f"fuser.{name} = {fuser[name]} is not supported")
  only(fuser, "cross_attention_pos_emb", False)
  cross, prepend = fuser.get("cross") or [], fuser.get("prepend") or []
  names = sorted({*cross, *prepend})
  conditioners = {k: v for k, v in cfg["conditioners"].items() if k != "args"}
  if len(names) != 1 or set(conditioners) != set(names):
    raise InputError(
      f"conditions {sorted(conditioners)} (fused: {names}) are not supported;"
      " only one text"
    )
  (condition,) = names
  text = conditioners[condition]
  if text.get("model") != "t5":
    raise InputError(
      f"condition {condition!r} of kind {text.get('model')!r} is not supported;"
      " only t5"
    )
  only(text["t5"], "finetune", False)
  only(text["t5"], "normalize_text", False)
  stereo = cfg.get("interleave_stereo_codebooks") or {}
  only(stereo, "per_timestep", False, None)
  extra = {
    "text_name": text["t5"].get("name"),
    "window_s": float(cfg["dataset"]["segment_duration"]),
    "stereo_codes": bool(stereo.get("use", False)),
    "codec_codebooks": cfg.get("compression_model_n_q"),
  }
  width = lm["dim"]
  config = LMConfig(
    codebooks=lm["n_q"],
    size=lm["card"],
    transformer=TransformerConfig(
      width=width,
      layers=lm["num_layers"],
      heads=lm["num_heads"],
      ff=int(lm.get("hidden_scale", 4) * width),
      cross_attention=bool(cross),
      attention_bias=lm.get("bias_attn", True),
      ff_bias=lm.get("bias_ff", True),
    ),
    pattern=_pattern(cfg, lm["n_q"]),
    text_width=0,
    prepend_text=bool(prepend),
    head_bias=lm.get("bias_proj", True),
  )
  return condition, config, extra


def codec_config(cfg: Mapping[str, Any]) -> EncodecConfig:
  """Our configuration of the codec."""
  only(cfg, "compression_model", "encodec")
  encodec, net, rvq = cfg["encodec"], cfg["seanet"], cfg["rvq"]
  only(encodec, "autoencoder", "seanet")
  only(encodec, "quantizer", "rvq")
  only(net, "activation", "ELU")
  only(net.get("activation_params") or {}, "alpha", 1.0)
  only(net, "norm_params", {}, None)
  decoder = net.get("decoder") or {}
  only(decoder, "trim_right_ratio", 1.0)
  only(decoder, "final_activation", None)
  apart = set(decoder) - {
    "trim_right_ratio",
    "final_activation",
    "final_activation_params",
  }
  apart |= set(net.get("encoder") or {})
  if apart:
    raise InputError(
      f"seanet.encoder and seanet.decoder that differ in {sorted(apart)} are"
      " not supported"
    )
  norm = only(net, "norm", *NORMS)
  return EncodecConfig(
    sample_rate_hz=encodec["sample_rate"],
    renormalise=bool(encodec.get("renormalize", False)),
    seanet=SEANetConfig(
      channels=net.get("channels", 1),
      width=net["dimension"],
      filters=net["n_filters"],
      ratios=tuple(net["ratios"]),
      residual_layers=net["n_residual_layers"],
      kernel=net["kernel_size"],
      last_kernel=net["last_kernel_size"],
      residual_kernel=net["residual_kernel_size"],
      dilation_base=net["dilation_base"],
      compress=net["compress"],
      lstm_layers=net["lstm"],
      true_skip=net["true_skip"],
      causal=net.get("causal", False),
      pad_mode=only(net, "pad_mode", "reflect", "constant"),
      norm=NORMS[norm],
      unnormed_outer_blocks=net.get("disable_norm_outer_blocks", 0),
    ),
    rvq=RVQConfig(
      codebooks=rvq["n_q"], size=rvq["bins"], width=net["dimension"]
    ),
  )


def _pattern(cfg: Mapping[str, Any], codebooks: int) -> Pattern:
  """The codebook pattern; its options lie under the pattern's own name."""
  patterns = cfg["codebooks_pattern"]
  kind = patterns.get("modeling")
  if kind is None:  # before patterns had options
    only(cfg["transformer_lm"], "q_modeling", "delay")
    return Pattern("delay", delays=tuple(range(codebooks)))
  only(patterns, "modeling", "delay", "parallel", "unroll", "coarse_first")
  options = patterns.get(kind) or {}
  lists = {
    name: tuple(options[name])
    for name in ("delays", "flattening")
    if options.get(name)
  }
  numbers = {
    name: options[name]
    for name in ("flatten_first", "empty_initial")
    if options.get(name)
  }
  return Pattern(kind, **lists, **numbers)


class _Config(Mapping):
  """Nested YAML whose `${a.b}` stand for other values of the whole."""

  def __init__(self, values: dict[str, Any], root: dict[str, Any]):
    self._values, self._root = values, root

  def __getitem__(self, name: str) -> Any:
    value = self._values[name]
    link = (
      re.fullmatch(r"\$\{([\w.]+)\}", value) if type(value) is str else None
    )
    if link:
      *folders, last = link[1].split(".")
      node = _Config(self._root, self._root)
      try:
        for folder in folders:
          node = node[folder]
        return node[last]
      except KeyError as error:
        raise InputError(f"{name}: {value} lacks {error}") from None
    return _Config(value, self._root) if isinstance(value, dict) else value

  def __iter__(self):
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)

  def __repr__(self) -> str:
    return repr(self._values)

  def __eq__(self, other: object) -> bool:
    return dict(self._values) == other
