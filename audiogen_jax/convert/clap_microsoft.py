"""Microsoft's files of CLAP, of 2022 and 2023, read."""

import dataclasses
from pathlib import Path

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import clap_networks, engine, panns
from audiogen_jax.convert.clap_networks import norm
from audiogen_jax.convert.clap_parts import ClapParts, Tensors
from audiogen_jax.convert.engine import Table, linear
from audiogen_jax.convert.keys import Keys
from audiogen_jax.convert.published import State
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.types import Seconds
from audiogen_jax.embedding import clap, cnn14
from audiogen_jax.embedding.clap import ClapConfig
from audiogen_jax.embedding.cnn14 import Cnn14Config
from audiogen_jax.embedding.gpt2 import GPT2Config
from audiogen_jax.embedding.htsat import HTSATConfig

_AUDIO, _TEXT = "audio_encoder.", "caption_encoder."
_CNN14, _HTSAT = f"{_AUDIO}base.", f"{_AUDIO}base.htsat."
_BASE = f"{_TEXT}base."
_HEAD = 64  # the size of one, in gpt2 and bert-base


def year(state: State) -> int:
  """Of a file with these tensors: 2023 brought HTSAT and GPT-2."""
  return 2023 if any(name.startswith(_HTSAT) for name in state) else 2022


def read(
  path: Path, state: State, cfg: Keys, window_s: Seconds | None
) -> ClapParts:
  """A file's model, no weights read yet.

  Args:
    path: The file, with `gpt2/` or `bert-base-uncased/` beside it.
    state: Its tensors by name.
    cfg: What its tensors cannot tell, where that is not what is published.
    window_s: How much of a clip is heard; None for 7 s, and 5 s of 2022.

  Raises:
    InputError: If tensors are missing or of other shapes.
  """
  tensors, new = Tensors(state, str(path)), year(state) == 2023
  audio = _htsat(tensors, cfg) if new else _cnn14(tensors, cfg)
  text = _gpt2(tensors, cfg) if new else _bert(tensors, cfg)
  rate_hz = cfg.whole("sampling_rate", "sample_rate_hz", 44_100)
  seconds = cfg.number("duration", "window_s", 7 if new else 5)
  width, _ = tensors.shape(f"{_AUDIO}projection.linear1.weight", 2)
  config = ClapConfig(
    audio=audio,
    text=text,
    width=width,
    rate_hz=rate_hz,
    samples=round((window_s or seconds) * rate_hz),
    fill="cut",
    projection="residual",
  )
  if new:
    table = clap_networks.htsat(audio, _HTSAT, clap_networks.LAION)
    table |= clap_networks.gpt2(text, _BASE)
    words = dict(kind="gpt2", behind=" <|endoftext|>", marks=("!",))
    folder, hub_id = "gpt2", "openai-community/gpt2"
  else:
    table = clap_networks.cnn14(audio, _CNN14)
    table |= clap_networks.bert(text, _BASE)
    words = dict(kind="bert")
    folder, hub_id = "bert-base-uncased", "google-bert/bert-base-uncased"
  filters = f"{_HTSAT if new else _CNN14}logmel_extractor.melW"
  tensors.check_filters(filters, audio.mel)
  table |= _projection(_AUDIO, "audio", width, config.heard_width)
  table |= _projection(_TEXT, "text", width, text.width)
  unused = rf"{clap_networks.UNUSED}|logit_scale$|{_BASE}pooler\."
  return ClapParts(
    config=config,
    tree=engine.load(
      state,
      table,
      engine.abstract(clap.init, config),
      where=str(path),
      ignored=unused,
    ),
    scale=tensors.scale("logit_scale"),
    name=path.stem,
    weights=(path,),
    tokenizer=path.parent / folder,
    hub_id=hub_id,
    limit=cfg.whole("text_len", "limit", 77 if new else 100),
    **words,
  )


def _projection(theirs: str, kind: str, width: int, into: int) -> Table:
  ours, theirs = f"{kind}_projection", f"{theirs}projection"
  first = linear(f"{ours}/first/kernel", (width,), (into,))
  second = linear(f"{ours}/second/kernel", (width,), (width,))
  made = {
    f"{theirs}.linear1.weight": [first],
    f"{theirs}.linear2.weight": [second],
  }
  return made | norm(f"{theirs}.layer_norm", f"{ours}/norm", width)


def _recipe(rate_hz: int, bands: int, cfg: Keys, own: Keys) -> MelConfig:
  """The rate is that of the filters, which need not be the sound's."""
  recipe = cnn14.recipe(
    rate_hz,
    cfg.whole("window_size", "n_fft", 1024),
    cfg.whole("hop_size", "hop", 320),
    own.number("fmax", "hz", 14_000),
    bands,
  )
  return dataclasses.replace(recipe, f_min_hz=own.number("fmin", "hz", 50))


def _cnn14(tensors: Tensors, cfg: Keys) -> Cnn14Config:
  rate_hz = cfg.whole("sampling_rate", "sample_rate_hz", 44_100)
  bands, *_ = tensors.shape(f"{_CNN14}bn0.weight", 1)
  state = {
    name.removeprefix(_CNN14): tensor
    for name, tensor in tensors.stored.items()
    if name.startswith(_CNN14)
  }
  return panns.shape(state, _recipe(rate_hz, bands, cfg, cfg))


def _htsat(tensors: Tensors, cfg: Keys) -> HTSATConfig:
  """HTSAT at 44.1 kHz with the filters of 32 kHz that it came with.

  The published settings name a highest frequency of 8 kHz, which is ignored.
  """
  own = cfg.group("htsat", {})
  name = "sample_rate_of_the_mel_filters"
  rate_hz = own.whole(name, "sample_rate_hz", 32_000)
  bands, *_ = tensors.shape(f"{_HTSAT}bn0.weight", 1)
  heads = (4, 8, 16, 32)
  if "num_heads" in own:
    heads = own.wholes("num_heads", "heads")
  return HTSATConfig(
    mel=_recipe(rate_hz, bands, cfg, own),
    heads=heads,
    window=own.whole("window_size", "window", 8),
    image=own.whole("spec_size", "image", 256),
    **clap_networks.htsat_sizes(tensors, _HTSAT),
  )


def _heads(cfg: Keys, width: int) -> int:
  return cfg.whole("text_heads", "heads", max(width // _HEAD, 1))


def _gpt2(tensors: Tensors, cfg: Keys) -> GPT2Config:
  sizes = clap_networks.gpt2_sizes(tensors, _BASE)
  return GPT2Config(heads=_heads(cfg, sizes["width"]), **sizes)


def _bert(tensors: Tensors, cfg: Keys) -> BertConfig:
  sizes = clap_networks.bert_sizes(tensors, _BASE)
  return BertConfig(
    heads=_heads(cfg, sizes["width"]),
    first_position=0,
    padding=0,
    epsilon=1e-12,
    pooled=False,
    **sizes,
  )
