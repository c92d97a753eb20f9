"""LAION's files of CLAP, such as `630k-audioset-best.pt`, read."""

import dataclasses
from pathlib import Path

from audiogen_jax.convert import clap_networks, engine
from audiogen_jax.convert.clap_networks import dense
from audiogen_jax.convert.clap_parts import ClapParts, Tensors
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import State
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.embedding import clap, cnn14
from audiogen_jax.embedding.clap import ClapConfig
from audiogen_jax.embedding.htsat import HTSATConfig

_AUDIO, _TEXT = "audio_branch.", "text_branch."
_TOKENS = 77  # of a sentence, at most
_SECONDS = 10.0
_HEAD = 64  # the size of one, in roberta-base


def read(
  path: Path, state: State, cfg: Keys, window_s: Seconds | None
) -> ClapParts:
  """A file's model, no weights read yet.

  Args:
    path: The file, `roberta-base/` beside it.
    state: Its tensors by name.
    cfg: What its tensors cannot tell, where that is not what is published.
    window_s: How much of a clip is heard; None for 10 s.

  Raises:
    InputError: If tensors are missing or of other shapes.
  """
  stored = {name.removeprefix("module."): x for name, x in state.items()}
  tensors = Tensors(stored, str(path))
  fused = sum("mel_conv2d" in name or "fusion" in name for name in stored)
  if fused:
    raise InputError(
      f"{path} is a CLAP with feature fusion ({fused} tensors of it), which is"
      " not supported; take one without, such as 630k-audioset-best.pt"
    )
  config = _config(tensors, cfg, window_s)
  filters = f"{_AUDIO}logmel_extractor.melW"
  tensors.check_filters(filters, config.audio.mel)
  table = clap_networks.htsat(config.audio, _AUDIO, clap_networks.LAION)
  table |= clap_networks.bert(config.text, _TEXT)
  for kind, into in (
    ("audio", config.heard_width),
    ("text", config.text.width),
  ):
    name, width = f"{kind}_projection", config.width
    table |= dense(f"{name}.0", f"{name}/first", width, into)
    table |= dense(f"{name}.2", f"{name}/second", width, width)
  tree = engine.load(
    stored,
    table,
    engine.abstract(clap.init, config),
    where=str(path),
    ignored=(
      f"{clap_networks.UNUSED}|logit_scale_[at]$|(text|audio)_transform\\."
    ),
  )
  return ClapParts(
    config=config,
    tree=tree,
    scale=tensors.scale("logit_scale_a"),
    name=path.stem,
    weights=(path,),
    tokenizer=path.parent / "roberta-base",
    hub_id="FacebookAI/roberta-base",
    kind="roberta",
    limit=_TOKENS,
  )


def _config(
  tensors: Tensors, cfg: Keys, window_s: Seconds | None
) -> ClapConfig:
  heard, text = cfg.group("audio", {}), cfg.group("text", {})
  rate_hz = heard.whole("sample_rate", "sample_rate_hz", 48_000)
  recipe = cnn14.recipe(
    rate_hz,
    heard.whole("window", "n_fft", 1024),
    heard.whole("hop", "hop", 480),
    heard.number("fmax", "hz", 14_000),
    tensors.shape(f"{_AUDIO}bn0.weight", 1)[0],
  )
  lowest_hz = heard.number("fmin", "hz", 50)
  heads = (4, 8, 16, 32)
  if "num_heads" in heard:
    heads = heard.wholes("num_heads", "heads")
  sizes = clap_networks.bert_sizes(tensors, _TEXT)
  return ClapConfig(
    audio=HTSATConfig(
      mel=dataclasses.replace(recipe, f_min_hz=lowest_hz),
      heads=heads,
      window=heard.whole("window_size", "window", 8),
      image=heard.whole("spec_size", "image", 256),
      **clap_networks.htsat_sizes(tensors, _AUDIO),
    ),
    text=BertConfig(
      heads=text.whole(
        "num_attention_heads", "heads", max(sizes["width"] // _HEAD, 1)
      ),
      epsilon=text.number("layer_norm_eps", "epsilon", 1e-5),
      **sizes,
    ),
    width=tensors.shape("text_projection.2.weight", 2)[0],
    rate_hz=rate_hz,
    samples=round((window_s or _SECONDS) * rate_hz),
    fill="whole",
    projection="perceptron",
  )
