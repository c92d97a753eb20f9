"""The folders that Make-An-Audio's files lie in, as its program wants them.

    useful_ckpts/maa1_full.ckpt                       the checkpoint
    configs/text_to_audio/txt2audio_args.yaml         its sizes
    useful_ckpts/bigvgan/(best_netG.pt, args.yml)     the vocoder
    bert-base-uncased/(vocab.txt, config.json)        the tokenizer

and of a model for pictures whose checkpoint lacks CLIP, `clip/` with it.
Whoever has moved them finds them, too: a checkpoint and its YAML may lie at
the top, the vocoder in any folder of the top, `useful_ckpts` or `vocoder/logs`.
Two generations are told apart by the frames of their training: 624 (`maa1_*`),
or 848 (`ta40multi`, `inpaint7`), whose mel spectrograms are others.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from etils import epath

from audiogen_jax.audio import mel
from audiogen_jax.convert import (
  formats,
  hub,
  make_an_audio,
  make_an_audio_yaml,
  openclip,
  vocoders,
)
from audiogen_jax.convert.make_an_audio import Checkpoint
from audiogen_jax.convert.make_an_audio_parts import FAMILY, Parts
from audiogen_jax.convert.make_an_audio_yaml import Settings
from audiogen_jax.core import word_pieces, writing
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.word_pieces import WordPieces

NAME = "make-an-audio"  # of the format
_FILES, _SUFFIX = "useful_ckpts", ".ckpt"
_TEXT_YAML = "configs/text_to_audio/txt2audio_args.yaml"
_YAMLS = (
  _TEXT_YAML,
  "configs/inpaint/txt2audio_args.yaml",
  "configs/img_to_audio/img2audio_args.yaml",
)
_MOST_YAMLS = 16
_VOCODER, _CLAP = f"{_FILES}/bigvgan", f"{_FILES}/CLAP/CLAP_weights_2022.pth"
_CLIP, _CLIP_HUB = "clip", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_WORDS, _WORDS_HUB = "bert-base-uncased", "google-bert/bert-base-uncased"


def open_folder(folder: epath.Path) -> Parts:
  """The parts of a published folder.

  Raises:
    InputError: If a file is missing, with what belongs where, if it is damaged,
      or if files are of several models or generations.
  """
  top = Path(folder)
  file = _checkpoint(top)
  words = _tokenizer(top)
  read = _read(top, file, words)
  vocoder = vocoders.read(_vocoder(top), read.autoencoder.mel)
  if read.text is not None and words is None:
    kind = "the tokenizer of its prompts"
    words = _downloaded(top, kind, _WORDS_HUB, _wanted_words, _WORDS)
  clip, clip_tree = read.clip, read.clip_tree
  if read.unet.known_by_time and clip is None:
    clip, clip_tree = openclip.read(_clip(top))
  ratio, m = read.autoencoder.ratio, read.autoencoder.mel
  return Parts(
    schedule=read.schedule,
    unet=read.unet,
    unet_tree=read.unet_tree,
    autoencoder=read.autoencoder,
    autoencoder_tree=read.autoencoder_tree,
    vocoder=vocoder.config,
    vocoder_tree=vocoder.tree,
    text=read.text,
    text_tree=read.text_tree,
    clip=clip,
    clip_tree=clip_tree,
    tokenizer=words and str(words),
    window_s=read.columns * ratio * m.hop / m.rate_hz,
    published=top,
  )


def write(folder: Path, parts: Parts, words: WordPieces) -> None:
  """Writes a folder as the published program wants it, from trees of arrays.

  Args:
    folder: Where; must not exist yet.
    parts: Of a model that reads text.
    words: Its tokenizer.

  Raises:
    InputError: If the folder exists or cannot be written.
  """
  ratio, m = parts.autoencoder.ratio, parts.autoencoder.mel
  columns = round(parts.window_s * m.rate_hz / m.hop / ratio)
  checkpoint = Checkpoint(
    parts.schedule,
    parts.unet,
    parts.unet_tree,
    parts.autoencoder,
    parts.autoencoder_tree,
    parts.text,
    parts.text_tree,
    columns,
  )
  with writing.local_folder(folder) as work:
    for name in (_TEXT_YAML, f"{_VOCODER}/_", f"{_WORDS}/_"):
      (work / name).parent.mkdir(parents=True, exist_ok=True)
    make_an_audio.write(work / _FILES / f"maa1_full{_SUFFIX}", checkpoint)
    make_an_audio_yaml.write(
      work / _TEXT_YAML,
      Settings(parts.schedule, parts.unet, parts.autoencoder, columns),
    )
    vocoders.write(work / _VOCODER, parts.vocoder, parts.vocoder_tree)
    words.save(work / _WORDS)
    heads = {"model_type": "bert", "num_attention_heads": parts.text.bert.heads}
    (work / _WORDS / "config.json").write_text(json.dumps(heads, indent=2))


def _recognised(folder: epath.Path) -> bool:
  """Whether a folder holds a checkpoint of PyTorch Lightning."""
  return "://" not in str(folder) and any(_checkpoints(Path(folder)))


def _checkpoints(top: Path) -> Iterator[Path]:
  for place in (top / _FILES, top):
    if place.is_dir():
      yield from sorted(p for p in place.iterdir() if p.suffix == _SUFFIX)


def _checkpoint(top: Path) -> Path:
  found = list(_checkpoints(top))
  if len(found) > 1:
    raise InputError(
      f"{top} holds {len(found)} checkpoints, {found[0].name} and"
      f" {found[1].name} among them; leave one, or give each its own folder"
    )
  return found[0]


def _read(top: Path, file: Path, words: Path | None) -> Checkpoint:
  """The checkpoint with the settings that it belongs to.

  Raises:
    InputError: If none of those that are there fits.
  """
  beside = [p for place in (file.parent, top) for p in place.glob("*.y*ml")]
  found = [p for p in [*beside, *(top / name for name in _YAMLS)] if p.exists()]
  if not found:
    raise InputError(
      f"{top} lacks the YAML file with the sizes of {file.name}: put"
      f" txt2audio_args.yaml of its release into {Path(_TEXT_YAML).parent}/, or"
      " beside the checkpoint"
    )
  if len(found) > _MOST_YAMLS:  # each is held against the whole checkpoint
    raise InputError(
      f"{top} holds {len(found)} YAML files; leave the one with the sizes of"
      f" {file.name}"
    )
  reasons = []
  for settings in dict.fromkeys(found):
    try:
      return make_an_audio.read(file, settings, words)
    except InputError as error:
      reasons.append((str(error), str(settings)))
  reason, settings = reasons[0]
  told = "" if settings in reason else f" (sizes as {settings} says)"
  raise InputError(f"{reason}{told}")


def _vocoder(top: Path) -> Path:
  """The folder of the vocoder: the first that holds one."""
  places: Iterable[Path] = (top / _FILES, top / "vocoder" / "logs", top)
  for place in places:
    inside = sorted(place.iterdir()) if place.is_dir() else []
    for folder in filter(Path.is_dir, [place, *inside]):
      if vocoders.holds(folder):
        return folder
  raise InputError(
    f"{top} holds no vocoder: put the folder of its generation's BigVGAN, with"
    f" {vocoders.MAKE_AN_AUDIO} and args.yml, into {_FILES}/"
  )


def _tokenizer(top: Path) -> Path | None:
  """The folder of BERT's tokenizer, if it is here."""
  for folder in (top / _WORDS, top / _FILES / _WORDS):
    if folder.is_dir():
      return folder
  return None


def _clip(top: Path) -> Path:
  """The folder of CLIP, which a model for pictures was trained with."""
  for folder in (top / _CLIP, top / _FILES / _CLIP):
    if folder.is_dir():
      return folder
  kind = "CLIP, by which its model looks at pictures"
  return _downloaded(top, kind, _CLIP_HUB, _wanted_clip, _CLIP)


def _downloaded(
  top: Path,
  kind: str,
  hub_id: str,
  wanted: Callable[[Iterable[str]], list[str]],
  place: str,
) -> Path:
  """The folder of what a published folder lacks, from the hub.

  Raises:
    InputError: If it cannot be had, with where to put it.
  """
  try:
    return Path(hub.download(hub_id, wanted))
  except InputError as error:
    raise InputError(
      f"{top} lacks {kind}: put {hub_id} into {place}/ ({error})"
    ) from None


def _wanted_clip(names: Iterable[str]) -> list[str]:
  wanted = "open_clip_model.safetensors", "open_clip_config.json"
  return sorted(set(wanted).intersection(names)) or ["open_clip_*"]


def _wanted_words(names: Iterable[str]) -> list[str]:
  wanted = {"config.json", *word_pieces.FILES["bert"]}
  return sorted(wanted.intersection(names))


def notes(parts: Parts) -> list[tuple[str, str]]:
  """Names and values: the checkpoint, its generation, and CLAP's own file.

  Args:
    parts: Of a published folder.
  """
  top, file = parts.published, _checkpoint(parts.published)
  older = parts.autoencoder.mel == mel.MAKE_AN_AUDIO_OLDER
  told = [
    ("checkpoint", file.name),
    ("mels", "0 to 1, of the older generation" if older else "log10"),
  ]
  clap = top / _CLAP
  if parts.text is not None and clap.exists():
    differ, count = make_an_audio.differing(file, clap)
    same = f"{differ} of {count} tensors differ" if differ else "the same"
    told.append(("CLAP's own file", f"{same}; the checkpoint's count"))
  return told


formats.register(
  formats.Format(
    name=NAME,
    recognise=_recognised,
    family=lambda _: FAMILY,
    open=open_folder,
  )
)
