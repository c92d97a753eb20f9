"""Pictures and videos, on the host: files -> the pixels that CLIP sees.

Whatever is wrong with a file is an `InputError` that says so.  Pictures are
read by Pillow, in formats that run no program; videos by ffmpeg, within limits
of time and size.
"""

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from audiogen_jax.core.errors import InputError

# Of red, green and blue in the pictures that CLIP was trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_MOST_FRAMES = 256
_FFMPEG_S = 300


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
  """Reads a picture as it is to be seen: turned as its camera was held.

  Of a picture that moves the first frame is taken; transparency is ignored, as
  CLIP's own programs do.

  Raises:
    InputError: If there is no such file, or no picture in it, or it is cut
      short or too large.
  """
  path = _file(path, "picture")
  try:
    with path.open("rb") as file:
      return _decoded(file)
  except (Image.DecompressionBombError, Image.DecompressionBombWarning):
    raise InputError(
      f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller"
    ) from None
  # Damaged files make Pillow raise any of these.
  except (OSError, SyntaxError, ValueError, EOFError, OverflowError) as error:
    # What the system refuses, such as for want of permission, it says.
    reason = getattr(error, "strerror", None)
    reason = reason or "its data are damaged, or cut short"
    if isinstance(error, Image.UnidentifiedImageError):
      reason = "no picture of a known format is in it"
    raise InputError(
      f"cannot read {path} as a picture ({reason}): convert it to PNG or JPEG"
    ) from None


def read_frames(
  path: str | os.PathLike, count: int = 4
) -> list[UInt8[np.ndarray, "h w 3"]]:
  """Reads frames of a video, evenly spread: the middle one of equal parts.

  Returns:
    So many frames in their order, or all where the video has fewer.

  Raises:
    InputError: If there is no such file, no video in it, or no ffmpeg.
  """
  if not 1 <= count <= _MOST_FRAMES:
    raise InputError(f"{count} frames of a video; ask for 1 to {_MOST_FRAMES}")
  path = _file(path, "video")
  end = time.monotonic() + _FFMPEG_S
  times = _times(path, end)
  count = min(count, len(times))
  chosen = [(2 * i + 1) * len(times) // (2 * count) for i in range(count)]
  return [_frame(path, i, times[i], end) for i in chosen]


def pixels(
  image: UInt8[np.ndarray, "h w 3"], size: int
) -> Float[np.ndarray, "s s 3"]:
  """The middle of a picture, as CLIP sees it.

  The shorter side is resized to `size` (bicubic), the longer one is cut, and
  each color is brought to about mean 0 and deviation 1.
  """
  height, width = image.shape[:2]
  first, last = [], []
  for side in (width, height):
    # The side of the whole picture once it is resized, of which the middle is
    # made alone: a narrow strip would become millions of pixels long.
    whole = size * side // min(height, width)
    start = round((whole - size) / 2)
    first.append(start * side / whole)
    last.append((start + size) * side / whole)
  resized = Image.fromarray(image).resize(
    (size, size), Image.Resampling.BICUBIC, box=(*first, *last)
  )
  colors = np.asarray(resized, np.float32) / 255
  return (colors - np.float32(MEAN)) / np.float32(DEVIATION)


def _file(path: str | os.PathLike, kind: str) -> pathlib.Path:
  """The path of a regular file."""
  path = pathlib.Path(path)
  if not path.exists():
    raise InputError(f"no {kind} at {path}: check the path")
  if not path.is_file():
    raise InputError(f"{path} is no regular file: name one {kind}")
  return path


def _decoded(file: io.BufferedIOBase) -> UInt8[np.ndarray, "h w 3"]:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about what can be read all the same
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    with Image.open(file, formats=_FORMATS) as image:
      upright = ImageOps.exif_transpose(image)
      if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip
        grey = np.clip(np.asarray(upright) / 257, 0, 255)
        upright = Image.fromarray(np.rint(grey).astype(np.uint8))
      return np.array(upright.convert("RGB"))


def _times(path: pathlib.Path, end: float) -> Sequence[float]:
  """When each frame of a video is shown, in seconds from the file's start."""
  words = ["-select_streams", "V:0", "-of", "json"]  # V: no cover pictures
  words += ["-show_entries", "packet=pts_time:format=start_time"]
  said = json.loads(_run("ffprobe", path, words, [], end))
  packets = said.get("packets", ())
  if not packets:
    raise InputError(f"{path} has no frames: it is no video; name another file")
  begin = float(said.get("format", {}).get("start_time", 0))
  times = sorted(
    float(packet["pts_time"]) - begin
    for packet in packets
    if "pts_time" in packet
  )
  if not times:
    raise InputError(
      f"{path} does not say when its {len(packets)} frames are shown: convert"
      " it to MP4"
    )
  return times


def _frame(
  path: pathlib.Path, number: int, at: float, end: float
) -> UInt8[np.ndarray, "h w 3"]:
  """The frame that is shown at a time, of all frames that of a number."""
  to = ["-map", "0:V:0", "-frames:v", "1", "-f", "image2pipe"]
  to += ["-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
  # A little before: ffmpeg's times have six decimals, and it skips what lies
  # before the one that it is given.
  jump = ["-ss", f"{max(at - 1e-3, 0):.6f}"]
  ppm = _run("ffmpeg", path, ["-nostdin", *jump], to, end)
  if not ppm:
    # Where there is no list of key frames, such as in MPEG-TS, a jump may lead
    # to where nothing can be decoded: all frames up to this one are.
    count = ["-vf", f"select=gte(n\\,{number})"]
    ppm = _run("ffmpeg", path, ["-nostdin"], [*count, *to], end)
  try:
    return _decoded(io.BytesIO(ppm))
  except OSError:
    raise InputError(
      f"{path} has no frame at {at:.2f} s, which it announces: it is damaged,"
      " or cut short; copy or convert it again"
    ) from None


def _run(
  name: str,
  path: pathlib.Path,
  before: Sequence[str],
  after: Sequence[str],
  end: float,
) -> bytes:
  """What ffmpeg or ffprobe writes about a file.

  Args:
    name: Of the program.
    before: Words in front of the file's name.
    after: Words behind it.
    end: When to give up, by the monotonic clock.

  Raises:
    InputError: If there is no such program, or it fails, or takes too long.
  """
  program = shutil.which(name)
  if program is None:
    raise InputError(
      f"{path}: videos are read by ffmpeg, and no {name} is on PATH: install"
      " it, such as by apt install ffmpeg, or give a picture"
    )
  # As in audio/containers.py: no names for protocols, no lists of addresses.
  source = ["-protocol_whitelist", "file", "-i", f"file:{path}"]
  source = ["-max_pixels", str(Image.MAX_IMAGE_PIXELS), *source]
  try:
    run = subprocess.run(
      [program, "-v", "error", *before, *source, *after],
      stdin=subprocess.DEVNULL,
      capture_output=True,
      check=False,
      timeout=max(end - time.monotonic(), 0),
    )
  except subprocess.TimeoutExpired:
    raise InputError(
      f"{name} has not read {path} within {_FFMPEG_S} s: cut or convert it"
    ) from None
  if run.returncode:
    said = run.stderr.decode(errors="replace").strip() or "no reason given"
    # Of several lines the first tells why, behind what speaks: [h264 @ 0x5f].
    reason = re.sub(r"\[[^\]]* @ \w+\] ", "", said.splitlines()[0])
    reason = reason.removeprefix(f"file:{path}: ")
    raise InputError(
      f"cannot read {path} as a video ({reason}): get it again, or convert it"
      " to MP4"
    )
  return run.stdout
