"""Microsoft's files of CLAP, `CLAP_weights_2023.pth`, read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import clap_networks, engine
from audiogen_jax.convert.clap_networks import norm
from audiogen_jax.convert.clap_parts import DECIBELS, ClapParts, Tensors
from audiogen_jax.convert.engine import Table, linear
from audiogen_jax.convert.keys import Keys
from audiogen_jax.embedding import clap
from audiogen_jax.embedding.clap import ClapConfig
from audiogen_jax.embedding.gpt2 import GPT2Config
from audiogen_jax.embedding.htsat import HTSATConfig

_HEARD, _TEXT = "audio_encoder.", "caption_encoder."
_HTSAT = f"{_HEARD}base.htsat."
_HEAD = 64  # the size of one, in gpt2 and bert-base


def year(state: Mapping[str, Any]) -> int:
  """Of a file with these tensors: 2023 brought HTSAT and GPT-2."""
  return 2023 if any(name.startswith(_HTSAT) for name in state) else 2022


def read(
  path: Path, state: Mapping[str, Any], cfg: Keys, window_s: float | None
) -> ClapParts:
  """A file's model, no weights read yet.

  Args:
    path: The file, with `gpt2/` beside it.
    state: Its tensors by name.
    cfg: What its tensors cannot tell, where that is not what is published.
    window_s: How much of a clip is heard; None for 7 s.

  Raises:
    InputError: If tensors are missing or of other shapes.
  """
  tensors = Tensors(state, str(path))
  limit = cfg.whole("text_len", "limit", 77)
  config = ClapConfig(
    audio=_htsat(tensors, cfg, window_s),
    text=_gpt2(tensors, cfg),
    width=tensors.shape(f"{_HEARD}projection.linear1.weight", 2)[0],
    rate_hz=cfg.whole("sampling_rate", "sample_rate_hz", 44_100),
    fill="cut",
    projection="residual",
  )
  table = clap_networks.htsat(config.audio, _HTSAT, clap_networks.LAION)
  table |= clap_networks.gpt2(config.text, f"{_TEXT}base.")
  width = config.width
  table |= _projection(_HEARD, "audio", width, config.audio.out_width)
  table |= _projection(_TEXT, "text", width, config.text.width)
  return ClapParts(
    config=config,
    tree=engine.load(
      state,
      table,
      engine.abstract(clap.init, config),
      where=str(path),
      ignored=f"{clap_networks.UNUSED}|logit_scale$",
    ),
    scale=tensors.scale("logit_scale"),
    name=path.stem,
    weights=(path,),
    tokenizer=path.parent / "gpt2",
    hub_id="openai-community/gpt2",
    kind="gpt2",
    limit=limit,
    behind=" <|endoftext|>",
    marks=("!",),
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


def _mel(n_mels: int, rate_hz: int, cfg: Keys, band: Keys) -> MelConfig:
  return MelConfig(
    rate_hz,
    n_fft=cfg.whole("window_size", "n_fft", 1024),
    hop=cfg.whole("hop_size", "hop", 320),
    n_mels=n_mels,
    f_min_hz=band.number("fmin", "hz", 50),
    f_max_hz=band.number("fmax", "hz", 14_000),
    **DECIBELS,
  )


def _htsat(tensors: Tensors, cfg: Keys, window_s: float | None) -> HTSATConfig:
  """HTSAT, whose filters are those of another rate than the sound's."""
  own = cfg.group("htsat", {})
  # The published settings name a range of bands that the network leaves alone.
  filters_hz = own.whole(
    "sample_rate_of_the_mel_filters", "sample_rate_hz", 32_000
  )
  rate_hz = cfg.whole("sampling_rate", "sample_rate_hz", 44_100)
  seconds = window_s or cfg.number("duration", "window_s", 7)
  heads = (4, 8, 16, 32)
  if "num_heads" in own:
    heads = own.wholes("num_heads", "heads")
  n_mels = tensors.shape(f"{_HTSAT}bn0.weight", 1)[0]
  return HTSATConfig(
    mel=_mel(n_mels, filters_hz, cfg, own),
    samples=round(seconds * rate_hz),
    heads=heads,
    window=own.whole("window_size", "window", 8),
    image=own.whole("spec_size", "image", 256),
    **clap_networks.htsat_sizes(tensors, _HTSAT),
  )


def _heads(cfg: Keys, width: int) -> int:
  return cfg.whole("text_heads", "heads", max(width // _HEAD, 1))


def _gpt2(tensors: Tensors, cfg: Keys) -> GPT2Config:
  sizes = clap_networks.gpt2_sizes(tensors, f"{_TEXT}base.")
  return GPT2Config(heads=_heads(cfg, sizes["width"]), **sizes)
