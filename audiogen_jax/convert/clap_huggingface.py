"""Hugging Face folders of CLAP, such as `laion/clap-htsat-unfused`, read."""

import dataclasses
from pathlib import Path

from audiogen_jax.convert import clap_networks, engine, huggingface
from audiogen_jax.convert.clap_networks import dense
from audiogen_jax.convert.clap_parts import ClapParts, Tensors
from audiogen_jax.convert.keys import Keys
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.config import read_json
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.embedding import clap, cnn14
from audiogen_jax.embedding.clap import ClapConfig
from audiogen_jax.embedding.htsat import HTSATConfig

_PREPROCESSOR = "preprocessor_config.json"
_AUDIO, _TEXT = "audio_model.audio_encoder.", "text_model."


def read(folder: Path, window_s: Seconds | None) -> ClapParts:
  """A folder's model, no weights read yet.

  Raises:
    InputError: If files are missing or damaged, or it is no such model.
  """
  cfg = huggingface.config_of(folder, "clap")
  tensors = Tensors(huggingface.stored(folder), str(folder))
  config = _config(cfg, folder, tensors, window_s)
  table = clap_networks.htsat(config.audio, _AUDIO, clap_networks.HUGGING_FACE)
  table |= clap_networks.bert(config.text, _TEXT)
  for kind, into in (
    ("audio", config.heard_width),
    ("text", config.text.width),
  ):
    name, width = f"{kind}_projection", config.width
    table |= dense(f"{name}.linear1", f"{name}/first", width, into)
    table |= dense(f"{name}.linear2", f"{name}/second", width, width)
  tree = engine.load(
    tensors.stored,
    table,
    engine.abstract(clap.init, config),
    where=str(folder),
    ignored=f"{clap_networks.UNUSED}|logit_scale_[at]$",
  )
  weights = sorted(folder.glob("model*.safetensors"))
  return ClapParts(
    config=config,
    tree=tree,
    scale=tensors.scale("logit_scale_a"),
    kind="roberta",
    limit=config.text.limit,
    tokenizer=folder,
    hub_id="laion/clap-htsat-unfused",
    name=folder.resolve().name,
    weights=tuple(weights) or (folder / "pytorch_model.bin",),
  )


def _config(
  cfg: Keys, folder: Path, tensors: Tensors, window_s: Seconds | None
) -> ClapConfig:
  """Shapes, with transformers' defaults for what a folder leaves out."""
  heard, text = cfg.group("audio_config", {}), cfg.group("text_config", {})
  path = folder / _PREPROCESSOR
  sound = Keys(read_json(path), str(path))
  if heard.flag("enable_fusion", False):
    raise InputError(
      f"{folder} is a CLAP with feature fusion, which is not supported; take"
      " one without, such as laion/clap-htsat-unfused"
    )
  sound.only("padding", "repeatpad")
  for group in (heard, text):
    group.only("projection_hidden_act", "relu")
    group.only("hidden_act", "gelu")
  rate_hz = sound.whole("sampling_rate", "sample_rate_hz", 48_000)
  seconds = sound.number("max_length_s", "window_s", 10)
  recipe = cnn14.recipe(
    rate_hz,
    sound.whole("fft_window_size", "n_fft", 1024),
    sound.whole("hop_length", "hop", 480),
    sound.number("frequency_max", "hz", 14_000),
    tensors.shape(f"{_AUDIO}batch_norm.weight", 1)[0],
  )
  lowest_hz = sound.number("frequency_min", "hz", 50)
  heads = (4, 8, 16, 32)
  if "num_attention_heads" in heard:
    heads = heard.wholes("num_attention_heads", "heads")
  audio = HTSATConfig(
    mel=dataclasses.replace(recipe, f_min_hz=lowest_hz),
    heads=heads,
    window=heard.whole("window_size", "window", 8),
    image=heard.whole("spec_size", "image", 256),
    epsilon=heard.number("layer_norm_eps", "epsilon", 1e-5),
    **clap_networks.htsat_sizes(tensors, _AUDIO),
  )
  padding = text.whole("pad_token_id", "padding", 1)
  return ClapConfig(
    audio=audio,
    text=BertConfig(
      heads=text.whole("num_attention_heads", "heads", 12),
      padding=padding,
      first_position=padding + 1,
      epsilon=text.number("layer_norm_eps", "epsilon", 1e-12),
      **clap_networks.bert_sizes(tensors, _TEXT),
    ),
    width=tensors.shape("text_projection.linear2.weight", 2)[0],
    rate_hz=rate_hz,
    samples=round((window_s or seconds) * rate_hz),
    fill="whole",
    projection="perceptron",
  )
