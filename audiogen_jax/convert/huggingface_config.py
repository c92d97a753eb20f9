"""`config.json` of Hugging Face folders: T5, EnCodec and MusicGen."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert.engine import Parts, only
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.text.t5 import T5Config

_NORMS = {"weight_norm": "weight_norm", "time_group_norm": "layer_norm"}


def t5_config(cfg: Mapping[str, Any]) -> T5Config:
  """Our configuration of the text encoder."""
  kind = only(cfg, "feed_forward_proj", "relu", "gated-gelu")
  return T5Config(
    vocabulary=cfg["vocab_size"],
    width=cfg["d_model"],
    layers=cfg["num_layers"],
    heads=cfg["num_heads"],
    head_size=cfg["d_kv"],
    ff=cfg["d_ff"],
    activation=kind,
    buckets=cfg.get("relative_attention_num_buckets", 32),
    far=cfg.get("relative_attention_max_distance", 128),
    epsilon=cfg.get("layer_norm_epsilon", 1e-6),
  )


def codec_config(cfg: Mapping[str, Any]) -> EncodecConfig:
  """Our configuration of the codec."""
  only(cfg, "trim_right_ratio", 1.0)
  norm = only(cfg, "norm_type", *_NORMS)
  width, size = cfg["hidden_size"], cfg["codebook_size"]
  if cfg.get("codebook_dim", width) not in (None, width):
    raise InputError(
      f"codebook_dim = {cfg['codebook_dim']} must equal hidden_size = {width}"
    )
  ratios, rate = tuple(cfg["upsampling_ratios"]), cfg["sampling_rate"]
  frame_rate = -(-rate // int(np.prod(ratios)))
  books = _codebooks(cfg["target_bandwidths"][-1], frame_rate, size)
  return EncodecConfig(
    sample_rate_hz=rate,
    seanet=SEANetConfig(
      channels=cfg["audio_channels"],
      width=width,
      filters=cfg["num_filters"],
      ratios=ratios,
      residual_layers=cfg["num_residual_layers"],
      kernel=cfg["kernel_size"],
      last_kernel=cfg["last_kernel_size"],
      residual_kernel=cfg["residual_kernel_size"],
      dilation_base=cfg["dilation_growth_rate"],
      compress=cfg["compress"],
      lstm_layers=cfg["num_lstm_layers"],
      true_skip=not cfg.get("use_conv_shortcut", True),
      causal=cfg["use_causal_conv"],
      pad_mode=only(cfg, "pad_mode", "reflect", "constant"),
      norm=_NORMS[norm],
    ),
    rvq=RVQConfig(codebooks=max(1, books), size=size, width=width),
    renormalise=bool(cfg.get("normalize", False)),
    chunk_s=cfg.get("chunk_length_s"),
    overlap=cfg.get("overlap") or 0.0,
  )


def _codebooks(kbit_s: float, frame_rate: int, size: int) -> int:
  """How many codebooks fit; the format has no number of its own for them."""
  return int(1000 * kbit_s // (frame_rate * math.ceil(math.log2(size))))


def delays(codebooks: int, stereo: bool) -> tuple[int, ...]:
  """MusicGen's delays: both channels of a codebook together."""
  return tuple(k // 2 if stereo else k for k in range(codebooks))


def lm_config(cfg: Mapping[str, Any], text_width: int) -> LMConfig:
  """Our configuration of the language model."""
  decoder = cfg["decoder"]
  only(decoder, "activation_function", "gelu")
  only(decoder, "scale_embedding", False)
  stereo = decoder.get("audio_channels", 1) == 2
  books = decoder["num_codebooks"]
  return LMConfig(
    codebooks=books,
    size=decoder["vocab_size"],
    transformer=TransformerConfig(
      width=decoder["hidden_size"],
      layers=decoder["num_hidden_layers"],
      heads=decoder["num_attention_heads"],
      ff=decoder["ffn_dim"],
    ),
    pattern=Pattern("delay", delays(books, stereo)),
    text_width=text_width,
  )


def musicgen(parts: Parts) -> dict[str, Any]:
  """`config.json` of a MusicGen folder."""
  c, lm, text = parts.codec.seanet, parts.lm, parts.text
  t = lm.transformer
  norms = {ours: theirs for theirs, ours in _NORMS.items()}
  if c.norm not in norms or c.unnormed_outer_blocks:
    raise InputError(f"the MusicGen format has no codec with norm {c.norm!r}")
  # Readers divide by a whole frame rate and whole bits, and round down.
  frame_rate = -(-parts.codec.sample_rate_hz // parts.codec.hop)
  bits = math.ceil(math.log2(parts.codec.rvq.size))
  kbit_s = parts.codec.rvq.codebooks * frame_rate * bits / 1000
  gated = text.activation == "gated-gelu"
  return {
    "architectures": ["MusicgenForConditionalGeneration"],
    "model_type": "musicgen",
    "is_encoder_decoder": True,
    "text_encoder": {
      "model_type": "t5",
      "vocab_size": text.vocabulary,
      "d_model": text.width,
      "d_kv": text.head_size,
      "d_ff": text.ff,
      "num_layers": text.layers,
      "num_decoder_layers": text.layers,
      "num_heads": text.heads,
      "feed_forward_proj": text.activation,
      "dense_act_fn": "gelu_new" if gated else "relu",
      "is_gated_act": gated,
      "relative_attention_num_buckets": text.buckets,
      "relative_attention_max_distance": text.far,
      "layer_norm_epsilon": text.epsilon,
      "_name_or_path": parts.text_name or "",
    },
    "audio_encoder": {
      "model_type": "encodec",
      "sampling_rate": parts.codec.sample_rate_hz,
      "audio_channels": c.channels,
      "normalize": parts.codec.renormalise,
      "chunk_length_s": parts.codec.chunk_s,
      "overlap": parts.codec.overlap,
      "target_bandwidths": [kbit_s],
      "hidden_size": c.width,
      "num_filters": c.filters,
      "num_residual_layers": c.residual_layers,
      "upsampling_ratios": list(c.ratios),
      "norm_type": norms[c.norm],
      "kernel_size": c.kernel,
      "last_kernel_size": c.last_kernel,
      "residual_kernel_size": c.residual_kernel,
      "dilation_growth_rate": c.dilation_base,
      "use_causal_conv": c.causal,
      "pad_mode": c.pad_mode,
      "compress": c.compress,
      "num_lstm_layers": c.lstm_layers,
      "trim_right_ratio": 1.0,
      "codebook_size": parts.codec.rvq.size,
      "codebook_dim": parts.codec.rvq.width,
      "use_conv_shortcut": not c.true_skip,
    },
    "decoder": {
      "model_type": "musicgen_decoder",
      "vocab_size": lm.size,
      "hidden_size": t.width,
      "num_hidden_layers": t.layers,
      "num_attention_heads": t.heads,
      "ffn_dim": t.ff,
      "num_codebooks": lm.codebooks,
      "audio_channels": parts.codec.channels,
      "activation_function": "gelu",
      "pad_token_id": lm.size,
      "bos_token_id": lm.size,
      "max_position_embeddings": 2048,
      "scale_embedding": False,
      "tie_word_embeddings": False,
    },
  }
