"""`xp.cfg`, the YAML inside published checkpoints: written."""

import math
from typing import Any

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert.audiocraft_config import (
  LM,
  MASKED_LM,
  MASKED_NUMBERS,
  NORMS,
)
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.errors import InputError


def codec(config: EncodecConfig) -> dict[str, Any]:
  """What audiocraft's builders read to build this codec."""
  c = config.seanet
  norms = {ours: theirs for theirs, ours in NORMS.items()}
  if config.chunk_s is not None or (config.stereo_codes and c.channels != 1):
    raise InputError("the published format has no codec that works in chunks")
  if c.causal and config.renormalise:
    raise InputError("the published format has no causal codec that rescales")
  return {
    "device": "cpu",
    "dtype": "float32",
    "solver": "compression",
    "sample_rate": config.sample_rate_hz,
    "channels": c.channels,
    "compression_model": "encodec",
    "encodec": {
      "autoencoder": "seanet",
      "quantizer": "rvq",
      "sample_rate": config.sample_rate_hz,
      "channels": c.channels,
      "causal": c.causal,
      "renormalize": config.renormalise,
    },
    "seanet": {
      "dimension": c.width,
      "channels": c.channels,
      "causal": c.causal,
      "n_filters": c.filters,
      "n_residual_layers": c.residual_layers,
      "ratios": list(c.ratios),
      "activation": "ELU",
      "activation_params": {"alpha": 1.0},
      "norm": norms[c.norm],
      "norm_params": {},
      "kernel_size": c.kernel,
      "residual_kernel_size": c.residual_kernel,
      "last_kernel_size": c.last_kernel,
      "dilation_base": c.dilation_base,
      "pad_mode": c.pad_mode,
      "true_skip": c.true_skip,
      "compress": c.compress,
      "lstm": c.lstm_layers,
      "disable_norm_outer_blocks": c.unnormed_outer_blocks,
      "decoder": {
        "trim_right_ratio": 1.0,
        "final_activation": None,
        "final_activation_params": None,
      },
      "encoder": {},
    },
    "rvq": {
      "n_q": config.rvq.codebooks,
      "q_dropout": False,
      "bins": config.rvq.size,
      "decay": 0.99,
      "kmeans_init": True,
      "kmeans_iters": 50,
      "threshold_ema_dead_code": 2,
      "orthogonal_reg_weight": 0.0,
      "orthogonal_reg_active_codes_only": False,
    },
  }


def language_model(parts: Parts) -> dict[str, Any]:
  """What audiocraft's builders read to build this language model."""
  lm, t, pattern = parts.lm, parts.lm.transformer, parts.lm.pattern
  fields = {
    "delay": ("delays", "flatten_first", "empty_initial"),
    "parallel": ("empty_initial",),
    "unroll": ("delays", "flattening"),
    "coarse_first": ("delays",),
  }[pattern.kind]
  if pattern.kind == "parallel" and pattern.flatten_first:
    raise InputError("the published format cannot hold parallel.flatten_first")
  if lm.prepend_text and t.cross_attention:
    raise InputError(
      "the published format has no text that is prepended and cross-attended"
    )
  if not parts.text_name:
    raise InputError(
      "the published format names a text encoder and this model names none"
      " (text_name); convert to orbax or transformers, which hold its own"
    )
  options = {
    f: list(v) if isinstance(v, tuple) else v
    for f in fields
    if (v := getattr(pattern, f))
  }
  made = {
    "device": "cpu",
    "dtype": "float32",
    "solver": "audiogen",
    "sample_rate": parts.codec.sample_rate_hz,
    "channels": parts.codec.channels,
    "dataset": {"segment_duration": parts.window_s},
    "compression_model_checkpoint": None,
    "compression_model_n_q": None,
    "interleave_stereo_codebooks": {
      "use": parts.codec.stereo_codes,
      "per_timestep": False,
    },
    "classifier_free_guidance": {
      "training_dropout": 0.1,
      "inference_coef": parts.guidance,
    },
    "attribute_dropout": {},
    "fuser": {
      "cross_attention_pos_emb": False,
      "cross_attention_pos_emb_scale": 1,
      "sum": [],
      "prepend": ["description"] if lm.prepend_text else [],
      "cross": ["description"] if t.cross_attention else [],
      "input_interpolate": [],
    },
    "conditioners": {
      "description": {
        "model": "t5",
        "t5": {
          "name": parts.text_name,
          "finetune": False,
          "word_dropout": 0.0,
          "normalize_text": False,
        },
      }
    },
    "lm_model": LM,
    "codebooks_pattern": {"modeling": pattern.kind, pattern.kind: options},
    "transformer_lm": {
      "dim": t.width,
      "num_heads": t.heads,
      "num_layers": t.layers,
      "hidden_scale": _hidden_scale(t.ff, t.width),
      "n_q": lm.codebooks,
      "card": lm.size,
      "dropout": 0.0,
      "emb_lr": None,
      "activation": "gelu",
      "norm_first": True,
      "bias_ff": t.ff_bias,
      "bias_attn": t.attention_bias,
      "bias_proj": lm.head_bias,
      "past_context": None,
      "causal": True,
      "custom": False,
      "memory_efficient": True,
      "attention_as_float32": False,
      "layer_scale": None,
      "positional_embedding": "sin",
      "xpos": False,
      "checkpointing": "none",
      "weight_init": "gaussian",
      "depthwise_init": "current",
      "zero_bias_init": True,
      "norm": "layer_norm",
      "cross_attention": t.cross_attention,
      "qk_layer_norm": False,
      "qk_layer_norm_cross": False,
      "attention_dropout": None,
      "kv_repeat": 1,
      "two_step_cfg": False,
    },
  }
  if parts.masking is not None:
    _mask(made, parts)
  return made


def _mask(made: dict[str, Any], parts: Parts) -> None:
  """Makes a MAGNeT's of the configuration of a causal model."""
  masking, sampling = parts.masking, parts.masking.sampling
  made |= {
    "solver": "audio_magnet",
    "lm_model": MASKED_LM,
    "codebooks_pattern": {
      "modeling": "parallel",
      "parallel": {"empty_initial": -1},
    },
    "masking": {"span_len": masking.span},
  }
  made["transformer_lm"] |= {
    "causal": False,
    "subcodes_context": masking.context,
    # The published loader fills these in from elsewhere.
    "compression_model_framerate": parts.codec.tokens.frame_rate_hz,
    "segment_duration": 0,
    "span_len": -1,
  }
  own = {theirs: getattr(sampling, o) for theirs, o in MASKED_NUMBERS.items()}
  made["generate"] = {
    "lm": own
    | {
      "use_sampling": True,
      "top_k": sampling.top_k,
      "decoding_steps": list(sampling.decoding_steps),
      "span_scoring": sampling.span_scoring,
      "span_arrangement": sampling.span_arrangement,
      "anneal_temp": sampling.anneal_temperature,
    }
  }


def _hidden_scale(ff: int, width: int) -> int | float:
  """A number whose product with `width`, rounded down, is `ff`."""
  if ff % width == 0:
    return ff // width
  scale = ff / width
  # 61 / 56 * 56 is 60.999…
  return scale if int(scale * width) == ff else math.nextafter(scale, math.inf)
