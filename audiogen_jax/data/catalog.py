"""The published datasets: the paper's ten, ESC and WavCaps.

Layouts are those of the archives as they unpack, and were held against public
code that reads them; the bundles' folders are remembered, not verified.  They
ship no annotations that all buyers have: there the names of files and of their
folders speak, as in LAION's preprocessing of them.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions
from audiogen_jax.data.listings import (
  Record,
  Source,
  SourceFiles,
  json_file,
  seconds,
  table,
)

_CC_BY = "CC BY 4.0"
_YOUTUBE = "annotations CC BY 4.0; the sounds belong to YouTube's uploaders"


def _youtube(
  files: SourceFiles, video: str, start_s: float, end_s: float
) -> str:
  """A cut clip, by the names that the usual downloaders give it.

  They count in seconds or in milliseconds, and PANNs' put a Y before the id.
  """
  spans = []
  for form in ("{:g}", "{:.3f}", "{:06.0f}"):
    start, end = form.format(start_s), form.format(end_s)
    spans += [f"{video}_{start}", f"{video}_{start}_{end}"]
  start, end = f"{1000 * start_s:.0f}", f"{1000 * end_s:.0f}"
  spans += [f"{video}_{start}_{end}", f"{video}_{start}"]
  return files.find(video, f"Y{video}", *spans)


def _audioset(files: SourceFiles) -> Iterator[Record]:
  path = files.file("ontology.json")
  try:
    names = {row["id"]: row["name"] for row in json_file(path)}
  except (TypeError, KeyError) as error:
    raise InputError(f"{path} is no ontology of AudioSet: {error}") from None
  columns = "YTID", "start_seconds", "end_seconds", "positive_labels"
  for path in files.some(
    "balanced_train_segments.csv",
    "unbalanced_train_segments.csv",
    "eval_segments.csv",
  ):
    split = "test" if path.name.startswith("eval") else "train"
    for row in table(path, columns, header=False, comments=3):
      video = row["YTID"]
      start_s = seconds(row["start_seconds"], f"{path}: {video}")
      end_s = seconds(row["end_seconds"], f"{path}: {video}")
      sound = _youtube(files, video, start_s, end_s)
      labels = row["positive_labels"].split(",")
      tags = tuple(names[label] for label in labels if label in names)
      yield Record(sound, tags=tags, split=split, id=f"{video}_{start_s:g}")


def _audiocaps(files: SourceFiles) -> Iterator[Record]:
  columns = "audiocap_id", "youtube_id", "start_time", "caption"
  for path in files.some("train.csv", "val.csv", "test.csv"):
    split = {"val": "validation"}.get(path.stem, path.stem)
    for row in table(path, columns):
      start_s = seconds(row["start_time"], f"{path}: {row['audiocap_id']}")
      sound = files.find(row["audiocap_id"])
      sound = sound or _youtube(files, row["youtube_id"], start_s, start_s + 10)
      yield Record(
        sound, caption=row["caption"], split=split, id=row["audiocap_id"]
      )


def _clotho(files: SourceFiles) -> Iterator[Record]:
  splits = {
    "development": "train",
    "validation": "validation",
    "evaluation": "test",
  }
  # Two splits may hold different sounds of the same name.
  parts = dict(zip(splits, files.parts(*splits), strict=True))
  for path in files.some(*(f"clotho_captions_{name}.csv" for name in splits)):
    name = path.stem.rpartition("_")[2]
    # The captions are UTF-8, the metadata Latin-1.
    licences = {
      row["file_name"]: row["license"]
      for row in table(
        files.file(f"clotho_metadata_{name}.csv"),
        ("file_name", "license"),
        encoding="latin-1",
      )
    }
    numbered = [f"caption_{i}" for i in range(1, 6)]
    for row in table(path, ("file_name", *numbered)):
      sound = parts[name].find(Path(row["file_name"]).stem)
      for column in numbered:
        yield Record(
          sound,
          caption=row[column],
          split=splits[name],
          licence=licences.get(row["file_name"], ""),
          id=f"{row['file_name']} {column}",
        )


def _vggsound(files: SourceFiles) -> Iterator[Record]:
  path = files.file("vggsound.csv")
  columns = "video", "start", "label", "split"
  for row in table(path, columns, header=False):
    start_s = seconds(row["start"], f"{path}: {row['video']}")
    sound = _youtube(files, row["video"], start_s, start_s + 10)
    yield Record(
      sound,
      tags=tuple(tag.strip() for tag in row["label"].split(",")),
      split=row["split"],
      id=f"{row['video']}_{start_s:g}",
    )


def _fsd50k(files: SourceFiles) -> Iterator[Record]:
  for path in files.some("dev.csv", "eval.csv"):
    info = files.file(f"{path.stem}_clips_info_FSD50K.json")
    clips = json_file(info)
    columns = ("fname", "labels", "split")[: 3 if path.stem == "dev" else 2]
    for row in table(path, columns):
      sound = files.find(row["fname"])
      split = {"val": "validation"}.get(row.get("split"), "train")
      yield Record(
        sound,
        tags=tuple(tag.replace("_", " ") for tag in row["labels"].split(",")),
        split=split if path.stem == "dev" else "test",
        licence=clips.get(row["fname"], {}).get("license", ""),
        id=row["fname"],
      )


def _bbc(files: SourceFiles) -> Iterator[Record]:
  path = files.file("BBCSoundEffects.csv")
  # The archive's downloader writes "sounds/<CD>/<description>.<location>".
  sounds = {p.stem.rpartition(".")[2]: str(p) for p in files.sounds()}
  for row in table(path, ("location", "description", "category")):
    sound = sounds.get(Path(row["location"]).stem, "")
    tags = (row["category"],) if row["category"] else ()
    yield Record(
      sound, caption=row["description"], tags=tags, id=row["location"]
    )


def _bundle(files: SourceFiles) -> Iterator[Record]:
  """Captions from names; that of the folder is the tag."""
  for sound in files.sounds():
    caption = captions.of_file_name(sound.stem)
    own = sound.relative_to(files.root)
    folder = captions.of_file_name(own.parent.name)
    yield Record(
      str(sound),
      caption=caption or folder,
      tags=(folder,) if folder else (),
      id=str(own),
    )


def _fold_split(fold: str) -> str:
  """Fold 5 is for testing and 4 for validation; no clip's source is in two."""
  return {"5": "test", "4": "validation"}.get(fold, "train")


def _esc50(files: SourceFiles) -> Iterator[Record]:
  path = files.file("esc50.csv")
  for row in table(path, ("filename", "fold", "category")):
    sound = files.find(Path(row["filename"]).stem)
    yield Record(
      sound,
      tags=(row["category"].replace("_", " "),),
      split=_fold_split(row["fold"]),
      id=row["filename"],
    )


def _esc10(files: SourceFiles) -> Iterator[Record]:
  """The published folders, or a metadata.csv that has titles as well."""
  if not (files.root / "metadata.csv").exists():
    any_folder = False
    for sound in files.sounds():
      # "001 - Dog bark/1-30226-A.ogg": the fold comes first.
      named = re.fullmatch(r"\d+ - (.+)", sound.parent.name)
      if named:
        any_folder = True
        yield Record(
          str(sound),
          tags=(named[1],),
          split=_fold_split(sound.name.split("-")[0]),
          id=f"{sound.parent.name}/{sound.name}",
        )
    if not any_folder:
      files.file("metadata.csv or 001 - Dog bark")
    return
  path = files.root / "metadata.csv"
  for row in table(path, ("file", "fold", "label", "title", "license")):
    sound = files.find(Path(row["file"]).stem)
    yield Record(
      sound,
      caption=captions.of_title(row["label"].lower(), row["title"]),
      tags=(row["label"],),
      split=_fold_split(row["fold"]),
      licence=row["license"],
      id=row["file"],
    )


def _wavcaps(files: SourceFiles) -> Iterator[Record]:
  folders = {
    "as_final.json": "AudioSet",
    "bbc_final.json": "BBC",
    "fsd_final.json": "FreeSound",
    "sb_final.json": "SoundBible",
  }
  # FreeSound and SoundBible both number their sounds.
  parts = dict(zip(folders, files.parts(*folders.values()), strict=True))
  for path in files.some(*folders):
    try:
      # AudioSet's are called "Yxyz.wav" here, the others by a number.
      rows = [
        (re.sub(r"\.(wav|flac)$", "", str(row["id"])), str(row["caption"]))
        for row in json_file(path)["data"]
      ]
    except (TypeError, KeyError) as error:
      raise InputError(f"{path} is no list of WavCaps: {error}") from None
    for stem, caption in rows:
      sound = parts[path.name].find(stem)
      yield Record(sound, caption=caption, id=f"{path.stem} {stem}")


_bundle_of = functools.partial(
  Source, licence="as bought: in works of one's own", read=_bundle
)

PUBLISHED = {
  "audioset": Source(
    "AudioSet",
    "https://research.google.com/audioset",
    _YOUTUBE,
    "Gemmeke et al., Audio Set: An ontology and human-labeled dataset for audio"
    " events, ICASSP 2017",
    _audioset,
    drop_speech=True,
  ),
  "bbc": Source(
    "BBC Sound Effects",
    "https://sound-effects.bbcrewind.co.uk",
    "RemArc: personal, educational and research use",
    "BBC Sound Effects, bbc.co.uk, © copyright 2024 BBC",
    _bbc,
  ),
  "audiocaps": Source(
    "AudioCaps",
    "https://github.com/cdjkim/audiocaps",
    _YOUTUBE,
    "Kim et al., AudioCaps: Generating captions for audios in the wild, NAACL"
    " 2019",
    _audiocaps,
  ),
  "clotho": Source(
    "Clotho v2",
    "https://zenodo.org/records/4783391",
    "each sound its own, from Freesound; captions for research",
    "Drossos, Lipping and Virtanen, Clotho: an audio captioning dataset, ICASSP"
    " 2020",
    _clotho,
  ),
  "vggsound": Source(
    "VGGSound",
    "https://www.robots.ox.ac.uk/~vgg/data/vggsound",
    _YOUTUBE,
    "Chen et al., VGGSound: A large-scale audio-visual dataset, ICASSP 2020",
    _vggsound,
  ),
  "fsd50k": Source(
    "FSD50K",
    "https://zenodo.org/records/4060432",
    "CC BY 4.0 as a whole; each sound its own, from Freesound",
    "Fonseca et al., FSD50K: an open dataset of human-labeled sound events,"
    " TASLP 2022",
    _fsd50k,
  ),
  "freetousesounds": _bundle_of(
    "Free To Use Sounds",
    "https://www.freetousesounds.com",
    citation="Free To Use Sounds, all-in-one bundle",
  ),
  "sonniss": _bundle_of(
    "Sonniss Game Effects",
    "https://sonniss.com/gameaudiogdc",
    citation="Sonniss, #GameAudioGDC bundles",
  ),
  "wesoundeffects": _bundle_of(
    "We Sound Effects",
    "https://wesoundeffects.com",
    citation="We Sound Effects bundle",
  ),
  "odeon": _bundle_of(
    "Paramount Motion, Odeon Cinematic Sound Effects",
    "https://www.paramountmotion.com/odeon-sound-effects",
    citation="Paramount Motion, Odeon Cinematic Sound Effects",
  ),
  "esc50": Source(
    "ESC-50",
    "https://github.com/karolpiczak/ESC-50",
    "CC BY-NC 3.0",
    "Piczak, ESC: Dataset for environmental sound classification, ACM MM 2015",
    _esc50,
  ),
  "esc10": Source(
    "ESC-10",
    "https://github.com/karolpiczak/ESC-10",
    "CC BY 3.0",
    "Piczak, ESC: Dataset for environmental sound classification, ACM MM 2015",
    _esc10,
  ),
  "wavcaps": Source(
    "WavCaps",
    "https://huggingface.co/datasets/cvssp/WavCaps",
    "for academic use; each sound its own",
    "Mei et al., WavCaps: A ChatGPT-assisted weakly-labelled audio captioning"
    " dataset, TASLP 2024",
    _wavcaps,
  ),
}
