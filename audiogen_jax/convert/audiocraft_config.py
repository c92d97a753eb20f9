"""`xp.cfg`, the YAML inside published checkpoints: read.

It is the whole configuration of the training that made the checkpoint.  What
bears on the model is turned into our dataclasses; a value that this library
does not build is named in the error.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert.keys import (
  RANGES,
  Keys,
  check_codec,
  check_lm,
  check_masking,
)
from audiogen_jax.core.config import check_range, shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.masked_sampling import (
  MaskedSampling,
  Masking,
  usual_steps,
)
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.sampling import Sampling
from audiogen_jax.lm.transformer import TransformerConfig

NORMS = {
  "weight_norm": "weight_norm",
  "time_group_norm": "layer_norm",
  "none": "none",
}

# Options of a masked model that are real numbers.
MASKED_NUMBERS = {
  "temp": "temperature",
  "top_p": "top_p",
  "max_cfg_coef": "guidance",
  "min_cfg_coef": "min_guidance",
}

LM, MASKED_LM = "transformer_lm", "transformer_lm_magnet"

# The C parser is ten times as fast; wheels have it, some builds do not.
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_MOST_CHARACTERS = 1 << 20  # published ones have 20,000
_DEEPEST = 64
_MOST_LINKS = 10_000  # links through links multiply


def parse(text: str, where: str = "xp.cfg") -> Keys:
  """The configuration with its links resolved when they are looked up.

  Raises:
    InputError: If it is not YAML, not a mapping, or made to grow without end.
  """
  if len(text) > _MOST_CHARACTERS:
    raise InputError(
      f"{where}: xp.cfg has {len(text):,} characters; it is none"
    )
  try:
    _look(text, where)
    values = yaml.load(text, Loader=_YAML)
  except InputError:
    raise
  except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
    # The last three of dates, numbers and keys that cannot be.
    reason = " ".join(str(error).split())[:100]
    raise InputError(f"{where}: xp.cfg is not YAML: {reason}") from None
  if not isinstance(values, dict):
    raise InputError(f"{where}: xp.cfg holds no keys")
  root = _Links(values)
  return Keys(_Config(values, root), where)


def _look(text: str, where: str) -> None:
  """Refuses, before anything is built, what would take all memory.

  Published files have no aliases: they were written from trees.
  """
  depth = 0
  for event in yaml.parse(text, Loader=_YAML):
    if isinstance(event, yaml.AliasEvent):
      raise InputError(
        f"{where}: xp.cfg repeats itself by an alias, *{event.anchor[:40]};"
        " write the values out"
      )
    depth += isinstance(event, yaml.CollectionStartEvent)
    depth -= isinstance(event, yaml.CollectionEndEvent)
    if depth > _DEEPEST:
      raise InputError(f"{where}: xp.cfg is nested more than {_DEEPEST} deep")


def is_masked(cfg: Keys) -> bool:
  """Whether it describes a MAGNeT; raises InputError for an unknown model."""
  return cfg.only("lm_model", LM, MASKED_LM) == MASKED_LM


def lm_config(cfg: Keys) -> tuple[str, LMConfig, dict[str, Any]]:
  """Name of the text condition, our configuration, and what stands beside it.

  The width of the text encoder is left at 0: the YAML does not have it.
  """
  masked = is_masked(cfg)
  lm = cfg.group("transformer_lm")
  for name, *allowed in (
    ("activation", "gelu"),
    ("norm", "layer_norm"),
    ("norm_first", True),
    ("causal", not masked),
    ("past_context", None),
    ("layer_scale", None),
    ("positional_embedding", "sin"),
    ("qk_layer_norm", False),
    ("qk_layer_norm_cross", False),
    ("kv_repeat", 1),
    ("max_period", 10000),
    ("positional_scale", 1),
  ):
    lm.only(name, *allowed)
  # What the builders leave out is not what they build here.
  for name in ("activation", "norm_first", "causal"):
    lm.any(name)
  fuser = cfg.group("fuser")
  for name in ("sum", "input_interpolate"):
    if found := fuser.any(name, None):
      raise InputError(
        f"{cfg.where}: fuser.{name} = {shown(found)} is not supported"
      )
  fuser.only("cross_attention_pos_emb", False)
  cross, prepend = fuser.names("cross"), fuser.names("prepend")
  if masked and prepend:
    raise InputError(
      f"{cfg.where}: fuser.prepend = {shown(prepend)} is not supported of a"
      " masked model; only cross"
    )
  names = sorted({*cross, *prepend})
  conditioners = cfg.group("conditioners")
  found = sorted({str(name) for name in conditioners.values} - {"args"})
  if len(names) != 1 or found != names:
    raise InputError(
      f"{cfg.where}: conditions {shown(found)} (fused: {shown(names)}) are not"
      " supported; only one text"
    )
  (condition,) = names
  text = conditioners.group(condition)
  kind = text.any("model", None)
  if kind != "t5":
    raise InputError(
      f"{cfg.where}: condition {shown(condition)} of kind {shown(kind)} is not"
      " supported; only t5"
    )
  t5 = text.group("t5")
  t5.only("finetune", False)
  t5.only("normalize_text", False)
  stereo = cfg.group("interleave_stereo_codebooks", {})
  stereo.only("per_timestep", False, None)
  n_q = "compression_model_n_q"
  limited = cfg.any(n_q, None) is not None
  extra = {
    "text_name": t5.text("name"),
    "window_s": cfg.group("dataset").number("segment_duration", "window_s"),
    "guidance": _guidance(cfg),
    "stereo_codes": stereo.flag("use", False),
    "codec_codebooks": cfg.whole(n_q, "codebooks") if limited else None,
  }
  width, books = lm.whole("dim", "width"), lm.whole("n_q", "codebooks")
  ff = int(lm.number("hidden_scale", "hidden_scale", 4) * width)
  check_range("hidden_scale * dim", ff, *RANGES["ff"], where=f"{cfg.where}: ")
  config = LMConfig(
    codebooks=books,
    size=lm.whole("card", "size"),
    transformer=TransformerConfig(
      width=width,
      layers=lm.whole("num_layers", "layers"),
      heads=lm.whole("num_heads", "heads"),
      ff=ff,
      cross_attention=bool(cross),
      attention_bias=lm.flag("bias_attn", True),
      ff_bias=lm.flag("bias_ff", True),
    ),
    pattern=_unshifted(cfg) if masked else _pattern(cfg, books),
    text_width=0,
    prepend_text=bool(prepend),
    head_bias=lm.flag("bias_proj", True),
  )
  check_lm(config, cfg.where)
  if masked:
    extra["masking"] = check_masking(
      _masking(cfg, lm, books), config, cfg.where
    )
  return condition, config, extra


def _guidance(cfg: Keys) -> float:
  group = cfg.group("classifier_free_guidance", {})
  if group.any("inference_coef", None) is None:
    return Sampling.guidance
  return group.number("inference_coef", "guidance")


def _masking(cfg: Keys, lm: Keys, codebooks: int) -> Masking:
  """How a MAGNeT decodes.

  `transformer_lm` has copies of `dataset.segment_duration` and of
  `masking.span_len`, which hold nothing until the published loader fills them
  in.  Options are those of the training's own samples, but for how spans lie:
  the authors advise `stride1`, and the training had `nonoverlap`.
  """
  own = cfg.group("generate", {}).group("lm", {})
  usual = MaskedSampling(decoding_steps=usual_steps(codebooks))
  steps = usual.decoding_steps
  if own.any("decoding_steps", None) is not None:
    told = own.wholes("decoding_steps", "decoding_steps")
    steps = told if len(told) == codebooks else steps
  numbers = {
    ours: own.number(theirs, ours, getattr(usual, ours))
    for theirs, ours in MASKED_NUMBERS.items()
  }
  return Masking(
    context=lm.whole("subcodes_context", "context"),
    span=max(cfg.group("masking").whole("span_len", "span_len"), 1),
    sampling=dataclasses.replace(
      usual,
      **numbers,
      top_k=own.whole("top_k", "top_k", usual.top_k),
      decoding_steps=steps,
      span_scoring=own.only("span_scoring", "max", "prod"),
      anneal_temperature=own.flag("anneal_temp", True),
    ),
  )


def codec_config(cfg: Keys) -> EncodecConfig:
  """Our configuration of the codec."""
  cfg.only("compression_model", "encodec")
  encodec, net, rvq = (cfg.group(n) for n in ("encodec", "seanet", "rvq"))
  encodec.only("autoencoder", "seanet")
  encodec.only("quantizer", "rvq")
  net.only("activation", "ELU")
  net.group("activation_params", {}).only("alpha", 1.0)
  net.only("norm_params", {}, None)
  decoder = net.group("decoder", {})
  decoder.only("trim_right_ratio", 1.0)
  decoder.only("final_activation", None)
  apart = set(decoder.values) - {
    "trim_right_ratio",
    "final_activation",
    "final_activation_params",
  }
  apart |= set(net.group("encoder", {}).values)
  if apart:
    raise InputError(
      f"{cfg.where}: seanet.encoder and seanet.decoder that differ in"
      f" {shown(sorted(map(str, apart)))} are not supported"
    )
  norm, width = net.only("norm", *NORMS), net.whole("dimension", "width")
  config = EncodecConfig(
    sample_rate_hz=encodec.whole("sample_rate", "sample_rate_hz"),
    renormalise=encodec.flag("renormalize", False),
    seanet=SEANetConfig(
      channels=net.whole("channels", "channels", 1),
      width=width,
      filters=net.whole("n_filters", "filters"),
      ratios=net.wholes("ratios", "ratios"),
      residual_layers=net.whole("n_residual_layers", "residual_layers"),
      kernel=net.whole("kernel_size", "kernel"),
      last_kernel=net.whole("last_kernel_size", "last_kernel"),
      residual_kernel=net.whole("residual_kernel_size", "residual_kernel"),
      dilation_base=net.whole("dilation_base", "dilation_base"),
      compress=net.whole("compress", "compress"),
      lstm_layers=net.whole("lstm", "lstm_layers"),
      true_skip=net.flag("true_skip"),
      causal=net.flag("causal", False),
      pad_mode=net.only("pad_mode", "reflect", "constant"),
      norm=NORMS[norm],
      unnormed_outer_blocks=net.whole(
        "disable_norm_outer_blocks", "unnormed_outer_blocks", 0
      ),
    ),
    rvq=RVQConfig(
      codebooks=rvq.whole("n_q", "codebooks"),
      size=rvq.whole("bins", "size"),
      width=width,
    ),
  )
  return check_codec(config, cfg.where)


def _pattern(cfg: Keys, codebooks: int) -> Pattern:
  """The codebook pattern; its options lie under the pattern's own name."""
  patterns = cfg.group("codebooks_pattern")
  if patterns.any("modeling", None) is None:  # before patterns had options
    cfg.group("transformer_lm").only("q_modeling", "delay")
    return Pattern("delay", delays=tuple(range(codebooks)))
  kind = patterns.only(
    "modeling", "delay", "parallel", "unroll", "coarse_first"
  )
  options = patterns.group(kind, {})
  lists = {
    name: options.wholes(name, name)
    for name in ("delays", "flattening")
    if options.any(name, None)
  }
  numbers = {
    name: options.whole(name, name)
    for name in ("flatten_first", "empty_initial")
    if options.any(name, None)
  }
  return Pattern(kind, **lists, **numbers)


def _unshifted(cfg: Keys) -> Pattern:
  """The pattern of a masked model: the codes themselves, no step before."""
  patterns = cfg.group("codebooks_pattern")
  patterns.any("modeling")
  options = patterns.group(patterns.only("modeling", "parallel"))
  options.any("empty_initial")
  options.only("empty_initial", -1)
  return Pattern("parallel")


@dataclasses.dataclass
class _Links:
  """The whole that links refer to, and how many have been followed."""

  values: dict[str, Any]
  followed: int = 0


class _Config(Mapping):
  """Nested YAML whose `${a.b}` stand for other values of the whole."""

  def __init__(self, values: dict[str, Any], root: _Links) -> None:
    self._values, self._root = values, root

  def __getitem__(self, name: str) -> Any:
    value = self._values[name]
    link = (
      re.fullmatch(r"\$\{([\w.]{1,400})\}", value)
      if type(value) is str
      else None
    )
    if link:
      return self._followed(name, value, link[1])
    return _Config(value, self._root) if isinstance(value, dict) else value

  def _followed(self, name: str, value: str, link: str) -> Any:
    self._root.followed += 1
    *folders, last = link.split(".")
    node = _Config(self._root.values, self._root)
    try:
      if self._root.followed > _MOST_LINKS:
        raise RecursionError
      for folder in folders:
        node = node[folder]
      return node[last]
    except RecursionError:
      raise InputError(
        f"xp.cfg: {name}: {shown(value)} leads back to itself"
      ) from None
    except (KeyError, TypeError) as error:
      raise InputError(
        f"xp.cfg: {name}: {shown(value)} lacks {str(error)[:100]}"
      ) from None

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)

  def __repr__(self) -> str:
    return repr(self._values)

  def __eq__(self, other: object) -> bool:
    return dict(self._values) == other
