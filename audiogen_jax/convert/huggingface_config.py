"""`config.json` of Hugging Face folders: T5, EnCodec and MusicGen."""

import math
from typing import Any

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.convert.keys import Keys, check_codec, check_lm, check_text
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.text.t5 import T5Config

_NORMS = {"weight_norm": "weight_norm", "time_group_norm": "layer_norm"}


def t5_config(cfg: Keys) -> T5Config:
  """Our configuration of the text encoder."""
  config = T5Config(
    vocabulary=cfg.whole("vocab_size", "vocabulary"),
    width=cfg.whole("d_model", "width"),
    layers=cfg.whole("num_layers", "layers"),
    heads=cfg.whole("num_heads", "heads"),
    head_size=cfg.whole("d_kv", "head_size"),
    ff=cfg.whole("d_ff", "ff"),
    activation=cfg.only("feed_forward_proj", "relu", "gated-gelu"),
    buckets=cfg.whole("relative_attention_num_buckets", "buckets", 32),
    far=cfg.whole("relative_attention_max_distance", "far", 128),
    epsilon=cfg.number("layer_norm_epsilon", "epsilon", 1e-6),
  )
  return check_text(config, cfg.where)


def codec_config(cfg: Keys) -> EncodecConfig:
  """Our configuration of the codec."""
  cfg.only("trim_right_ratio", 1.0)
  norm = cfg.only("norm_type", *_NORMS)
  width = cfg.whole("hidden_size", "width")
  size = cfg.whole("codebook_size", "size")
  cfg.only("codebook_dim", width, None)
  ratios = cfg.wholes("upsampling_ratios", "ratios")
  rate = cfg.whole("sampling_rate", "sample_rate_hz")
  frame_rate = -(-rate // math.prod(ratios))
  books = _codebooks(_bandwidth(cfg), frame_rate, size)
  chunked = cfg.any("chunk_length_s", None) is not None
  overlapped = cfg.any("overlap", None) is not None
  config = EncodecConfig(
    sample_rate_hz=rate,
    seanet=SEANetConfig(
      channels=cfg.whole("audio_channels", "channels"),
      width=width,
      filters=cfg.whole("num_filters", "filters"),
      ratios=ratios,
      residual_layers=cfg.whole("num_residual_layers", "residual_layers"),
      kernel=cfg.whole("kernel_size", "kernel"),
      last_kernel=cfg.whole("last_kernel_size", "last_kernel"),
      residual_kernel=cfg.whole("residual_kernel_size", "residual_kernel"),
      dilation_base=cfg.whole("dilation_growth_rate", "dilation_base"),
      compress=cfg.whole("compress", "compress"),
      lstm_layers=cfg.whole("num_lstm_layers", "lstm_layers"),
      true_skip=not cfg.flag("use_conv_shortcut", True),
      causal=cfg.flag("use_causal_conv"),
      pad_mode=cfg.only("pad_mode", "reflect", "constant"),
      norm=_NORMS[norm],
    ),
    rvq=RVQConfig(codebooks=max(1, books), size=size, width=width),
    renormalise=cfg.flag("normalize", False),
    chunk_s=cfg.number("chunk_length_s", "chunk_s") if chunked else None,
    overlap=cfg.number("overlap", "overlap") if overlapped else 0.0,
  )
  return check_codec(config, cfg.where)


def _bandwidth(cfg: Keys) -> float:
  """The highest of `target_bandwidths`, in kbit/s."""
  found = cfg.any("target_bandwidths")
  if isinstance(found, list) and found:
    last = found[-1]
    if type(last) in (int, float) and 0 < last < 10_000:
      return last
  raise InputError(
    f"{cfg.where}: {cfg.path}target_bandwidths = {shown(found)} must be a list"
    " of numbers of kbit/s"
  )


def _codebooks(kbit_s: float, frame_rate: int, size: int) -> int:
  """How many codebooks fit; the format has no number of its own for them."""
  return int(1000 * kbit_s // (frame_rate * math.ceil(math.log2(size))))


def delays(codebooks: int, stereo: bool) -> tuple[int, ...]:
  """MusicGen's delays: both channels of a codebook together."""
  return tuple(k // 2 if stereo else k for k in range(codebooks))


def lm_config(cfg: Keys, text_width: int) -> LMConfig:
  """Our configuration of the language model."""
  decoder = cfg.group("decoder")
  decoder.only("activation_function", "gelu")
  decoder.only("scale_embedding", False)
  books = decoder.whole("num_codebooks", "codebooks")
  config = LMConfig(
    codebooks=books,
    size=decoder.whole("vocab_size", "size"),
    transformer=TransformerConfig(
      width=decoder.whole("hidden_size", "width"),
      layers=decoder.whole("num_hidden_layers", "layers"),
      heads=decoder.whole("num_attention_heads", "heads"),
      ff=decoder.whole("ffn_dim", "ff"),
    ),
    pattern=Pattern("delay", delays(books, stereo(cfg))),
    text_width=text_width,
  )
  return check_lm(config, cfg.where)


def stereo(cfg: Keys) -> bool:
  """Whether the language model writes both channels."""
  return cfg.group("decoder").only("audio_channels", 1, 2) == 2


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
    # Not of the format, whose readers keep what they do not know.
    "window_s": parts.window_s,
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
