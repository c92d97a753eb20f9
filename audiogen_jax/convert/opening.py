"""Any source -> the parts of a model: codec, language model, text encoder.

What `formats` recognises is opened here; nothing of the weights is read yet.

In our own format the trees are nested dictionaries.  Axes: `k` codebooks, `v`
entries of one, `d` width, `h` heads, `e` head size, `f` feed-forward, `w`
samples or frames that a kernel covers, `i` and `o` channels in and out;
`layers` comes first where layers are stacked.  Numbers have no unit but where
one is named.

    lm/embed                           k v+1 d    row v: the empty cell
    lm/text_proj/(kernel|bias)         d_text d | d
    lm/layers/self_attn/qkv/kernel     layers d 3 h e
    lm/layers/cross_attn/q/kernel      layers d h e
    lm/layers/cross_attn/kv/kernel     layers d 2 h e
    lm/layers/(self|cross)_attn/out/kernel  layers h e d
    lm/layers/(up|down)/kernel         layers d f | layers f d
    lm/layers/(self|cross|ff)_norm/(scale|bias)  layers d
    lm/out_norm/(scale|bias)           d
    lm/heads/kernel                    k d v
    text/embed                         rows d
    text/position_bias                 buckets h
    text/layers/(q|k|v), o             layers d h e, layers h e d
    text/layers/(up|gate), down        layers d f, layers f d
    text/(layers/(attention|ff)_norm, out_norm)  layers d, d
    codec/params/(encoder|decoder)/…/kernel, kernel_v  w i o
    codec/params/(encoder|decoder)/…/kernel_g  o 1 1 (i 1 1 transposed)
    codec/params/(encoder|decoder)/lstm/layer_0_(input|hidden)_kernel  d 4d
    codec/params/…/bias                o
    codec/codebooks/(embed|embed_sum)  k v d      frames of latents
    codec/codebooks/usage              k v        frames, a moving average
    codec/codebooks/ready              k          1 once k-means has run

Sound is in full scale (±1) at `sample_rate_hz` of `config.json`, which also
holds `window_s` in seconds; of a masked model also `masking`, in frames (see
`lm.masked_sampling`).
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from etils import epath

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import formats, keys, orbax
from audiogen_jax.convert.orbax import Export, Room
from audiogen_jax.core import checkpoint, config
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.lm.masked_sampling import Masking
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.sampling import Sampling
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import BYTE_ROWS, ByteTokenizer, Tokenizer

FAMILY, MASKED = "audiogen", "magnet"
_NAMES = {FAMILY: "an AudioGen", MASKED: "a MAGNeT"}
# As in the work folders of trainings (`train/workdir.py`).
_RETIRED = {"transformer.packed": True}
_KINDS = {
  "codec": ("encodec", EncodecConfig),
  "lm": ("lm", LMConfig),
  "text": ("t5", T5Config),
}


@dataclasses.dataclass(frozen=True)
class Parts:
  """A model as its parts, before or after it is anywhere in memory.

  Trees are lazy arrays, arrays, or a `checkpoint.Folder` in our own format.

  Attributes:
    codec: Configuration of the codec.
    codec_tree: Its variables.
    lm: Configuration of the language model; None for a codec alone.
    lm_tree: Its parameters, stacked.
    text: Configuration of the text encoder, if it comes along.
    text_tree: Its parameters.
    tokenizer: Folder of its tokenizer; None for bytes.
    text_name: Hub name or folder where the text encoder can be had.
    window_s: The duration trained on, in seconds.
    guidance: Classifier-free guidance that suits the model.
    masking: How a masked model decodes; None of one that goes step by step.
  """

  codec: EncodecConfig
  codec_tree: Tree
  lm: LMConfig | None = None
  lm_tree: Tree = None
  text: T5Config | None = None
  text_tree: Tree = None
  tokenizer: str | None = None
  text_name: str | None = None
  window_s: float = 10.0
  guidance: float = Sampling.guidance
  masking: Masking | None = None

  @property
  def family(self) -> str:
    """The family whose page opens the model."""
    return MASKED if self.masking else FAMILY


@dataclasses.dataclass(frozen=True)
class _Settings:
  """What `config.json` says of any model, besides the rooms."""

  text_name: str | None = None
  tokenizer: Literal["bytes", "files"] | None = None
  window_s: float = Parts.window_s


@dataclasses.dataclass(frozen=True)
class _CausalSettings(_Settings):
  """What it says of a model that goes step by step."""

  guidance: float = Parts.guidance


@dataclasses.dataclass(frozen=True)
class _MaskedSettings(_Settings):
  """What it says of a masked model."""

  masking: Masking = dataclasses.field(kw_only=True)


def open_parts(
  source: str | Path,
  *,
  family: str | None = FAMILY,
  text_encoder: str | Path | None = None,
  need_text: bool = True,
) -> Parts:
  """The parts of a model, nothing of their values read yet.

  Args:
    source: As for `formats.locate`.
    family: Family that the model must be of; None for any with such parts.
    text_encoder: Source of the text encoder, where it does not come along or
      another one is wanted.
    need_text: Whether a text encoder that has to be fetched is fetched.

  Raises:
    InputError: For anything that is missing, damaged or of the wrong kind.
  """
  folder = formats.locate(source)
  format = formats.recognise(folder)
  own = format.family(folder)
  if own not in ((family,) if family else _NAMES):
    kind = f"a model of the family {own}" if own else f"a {format.name}"
    raise InputError(f"{folder} holds {kind}, not {_NAMES[family or FAMILY]}")
  parts = format.open(folder)
  if parts.lm is None:
    return parts
  beside = Path(folder) / "t5"
  if text_encoder is None and parts.text is None:
    if "://" not in str(folder) and beside.is_dir():
      text_encoder = beside
    elif need_text:
      text_encoder = parts.text_name
  if text_encoder is not None:
    parts = _with_text(parts, text_encoder)
  elif parts.text is None and need_text:
    raise InputError(f"{source} names no text encoder; give one")
  return parts


def write_orbax(
  folder: str | os.PathLike,
  parts: Parts,
  tokenizer: Tokenizer | None = None,
  ready: Callable[[Tree], Tree] = lambda tree: tree,
) -> None:
  """Writes our own format, one room at a time.

  Args:
    folder: Where; must not exist yet.
    parts: Configurations and trees.
    tokenizer: Written along with the text encoder, if that is among them.
    ready: Makes JAX arrays of a tree of `parts` when its turn comes.

  Raises:
    InputError: If the folder exists or cannot be written.
  """
  # The largest first, while memory is whole.
  trees = {"lm": parts.lm_tree, "text": parts.text_tree}
  trees["codec"] = parts.codec_tree
  rooms = {
    name: Room(_KINDS[name][0], config.as_dict(getattr(parts, name)), tree)
    for name, tree in trees.items()
    if tree is not None
  }
  told = dict(
    text_name=parts.text_name,
    tokenizer=_kind_of(tokenizer) if "text" in rooms else None,
    window_s=parts.window_s,
  )
  if parts.masking:
    settings = _MaskedSettings(masking=parts.masking, **told)
  else:
    settings = _CausalSettings(guidance=parts.guidance, **told)

  def extras(work: Path) -> None:
    if "text" in rooms and tokenizer is not None:
      tokenizer.save(work / "tokenizer")

  orbax.write(
    folder,
    Export(parts.family, rooms, config.as_dict(settings)),
    ready=ready,
    extras=extras,
  )


def _kind_of(words: Tokenizer | None) -> str:
  return "bytes" if isinstance(words, ByteTokenizer | None) else "files"


def _open_orbax(folder: epath.Path) -> Parts:
  export = orbax.read(folder)
  where = str(folder / checkpoint.CONFIG)
  configs = {}
  try:
    for name, room in export.rooms.items():
      kind, cls = _KINDS.get(name, (None, None))
      if room.kind != kind:
        raise InputError(
          f"the room {config.shown(name)} is of kind {config.shown(room.kind)};"
          " an AudioGen has codec (encodec), lm (lm) and text (t5)"
        )
      configs[name] = config.build(
        cls,
        config.without(room.config, _RETIRED),
        where=name,
        ranges=keys.RANGES,
      )
    own = _MaskedSettings if export.family == MASKED else _CausalSettings
    settings = config.build(own, export.settings, ranges=keys.RANGES)
    if "codec" not in configs:
      raise InputError("the room codec is missing")
  except InputError as error:
    raise InputError(f"{where}: {error}") from None
  keys.check_codec(configs["codec"], where)
  if "lm" in configs:
    keys.check_lm(configs["lm"], where)
    if export.family == MASKED:
      keys.check_masking(settings.masking, configs["lm"], where)
  trees = {f"{name}_tree": export.rooms[name].tree for name in configs}
  own = {f.name: getattr(settings, f.name) for f in dataclasses.fields(own)}
  own["tokenizer"] = _words(folder, configs.get("text"), settings.tokenizer)
  return Parts(**configs, **trees, **own)


def _words(
  folder: epath.Path, text: T5Config | None, kind: str | None
) -> str | None:
  """The folder of the tokenizer; None for bytes.

  Raises:
    InputError: If the one that the text encoder was trained with is gone.
  """
  words = folder / "tokenizer"
  if text is None:
    return None
  keys.check_text(text, str(folder / checkpoint.CONFIG))
  if words.exists() and kind != "bytes":
    return str(words)
  # Older exports do not say; encoders of bytes have few rows.
  few = text.vocabulary <= BYTE_ROWS
  if kind == "files" or not (kind or few):
    raise InputError(
      f"{words} is missing, the tokenizer that this text encoder of"
      f" {text.vocabulary} rows was trained with; copy the whole"
      " export again"
    )
  return None


def open_text(source: str | Path) -> tuple[T5Config, Tree, str]:
  """A text encoder: what it is, its parameters, the folder of its tokenizer.

  Raises:
    InputError: If there is none, or it is damaged.
  """
  try:
    folder = formats.locate(source)
    format = formats.recognise(folder)
    if format.name != "t5":
      raise InputError(f"{folder} is a {format.name} model, not a T5")
    return format.open(folder)
  except InputError as error:
    raise InputError(f"text encoder: {error}") from None


def open_reader(source: str | Path) -> tuple[T5Config, Tree, str | None]:
  """The T5 of a model that has one, or a T5 by itself.

  Returns:
    What it is, its parameters, the folder of its tokenizer; None for bytes.

  Raises:
    InputError: If there is none, or it is damaged.
  """
  if formats.recognise(formats.locate(source)).name == "t5":
    return open_text(source)
  parts = open_parts(source, family=None)
  if parts.text is None:
    raise InputError(f"{source} holds no text encoder; name a T5")
  return parts.text, parts.text_tree, parts.tokenizer


def _with_text(parts: Parts, source: str | Path) -> Parts:
  text, tree, folder = open_text(source)
  if text.width != parts.lm.text_width:
    raise InputError(
      f"text encoder {source} has states of {text.width}; the model was trained"
      f" with {parts.lm.text_width}"
      + (f" ({parts.text_name})" if parts.text_name else "")
    )
  return dataclasses.replace(
    parts,
    text=text,
    text_tree=tree,
    tokenizer=folder,
    text_name=parts.text_name or str(source),
  )


formats.register(
  formats.Format(
    name="orbax",
    recognise=lambda folder: formats.is_kind(folder, "format", orbax.FORMAT),
    family=lambda folder: orbax.read(folder).family,
    open=_open_orbax,
    in_buckets=True,
  )
)
