"""An AudioGen -> a MusicGen folder of Hugging Face."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from audiogen_jax.convert import engine, huggingface_config, seanet
from audiogen_jax.convert.huggingface import lm_table, t5_table
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.patterns import Pattern


def write_musicgen(folder: Path, parts: Parts) -> None:
  """Writes a folder that `transformers` loads as MusicGen.

  Raises:
    InputError: For what that format cannot say: prepended text, biases,
      patterns other than MusicGen's delays, or a text encoder that is not at
      hand.
  """
  lm, text = parts.lm, parts.text
  if lm is None or text is None:
    raise InputError(
      "a MusicGen folder holds codec, language model and text encoder; give the"
      " text encoder too (--text-encoder)"
    )
  t = lm.transformer
  delays = huggingface_config.delays(lm.codebooks, parts.codec.stereo_codes)
  for name, bad in (
    ("prepend_text", lm.prepend_text),
    ("head_bias", lm.head_bias),
    ("attention_bias", t.attention_bias),
    ("ff_bias", t.ff_bias),
    ("cross_attention = False", not t.cross_attention),
    ("masked decoding (a MAGNeT)", parts.masking is not None),
    (f"pattern {lm.pattern}", lm.pattern != Pattern("delay", delays)),
  ):
    if bad:
      raise InputError(f"the MusicGen format cannot hold {name}")
  tensors = {
    f"text_encoder.{k}": v
    for k, v in engine.export(parts.text_tree, t5_table(text)).items()
  }
  codec = seanet.table(parts.codec, seanet.TRANSFORMERS)
  for name, value in engine.export(parts.codec_tree, codec).items():
    tensors[f"audio_encoder.{name}"] = value
  tensors |= engine.export(parts.lm_tree, lm_table(lm))
  if text.width == t.width:
    kernel = np.asarray(parts.lm_tree["text_proj"]["kernel"])
    bias = np.asarray(parts.lm_tree["text_proj"]["bias"])
    if np.any(bias) or not np.array_equal(kernel, np.eye(t.width)):
      raise InputError(
        f"the MusicGen format has no text projection where both widths are"
        f" {t.width}, and this model has one"
      )
    tensors = {k: v for k, v in tensors.items() if "enc_to_dec" not in k}
  save_file(
    {name: value.read() for name, value in tensors.items()},
    folder / "model.safetensors",
    metadata={"format": "pt"},
  )
  (folder / "config.json").write_text(
    json.dumps(huggingface_config.musicgen(parts), indent=2)
  )
  generation = {
    "decoder_start_token_id": lm.size,
    "pad_token_id": lm.size,
    "bos_token_id": lm.size,
    "do_sample": True,
    "guidance_scale": parts.guidance,
    "max_length": parts.codec.tokens.frames(parts.window_s) + max(delays) + 1,
  }
  sound = {
    "feature_extractor_type": "EncodecFeatureExtractor",
    "processor_class": "MusicgenProcessor",
    "feature_size": parts.codec.channels,
    "sampling_rate": parts.codec.sample_rate_hz,
    "padding_value": 0.0,
    "padding_side": "left",
    "return_attention_mask": True,
    "chunk_length_s": parts.codec.chunk_s,
    "overlap": parts.codec.overlap,
  }
  for name, values in (
    ("generation_config.json", generation),
    ("preprocessor_config.json", sound),
  ):
    (folder / name).write_text(json.dumps(values, indent=2))


def write_bytes(folder: Path) -> None:
  """Describes our byte tokenizer: ByT5's, without its spare tokens."""
  described = {
    "tokenizer_class": "ByT5Tokenizer",
    "processor_class": "MusicgenProcessor",
    "extra_ids": 0,
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
  }
  path = folder / "tokenizer_config.json"
  path.write_text(json.dumps(described, indent=2))
