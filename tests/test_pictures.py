"""Pictures and frames of videos, as CLIP sees them; files that hold none."""

import errno
import itertools
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from audiogen_jax.core.errors import InputError
from audiogen_jax.text import pictures

needs_ffmpeg = pytest.mark.skipif(
  not (shutil.which("ffmpeg") and shutil.which("ffprobe")),
  reason="ffmpeg not installed",
)


def colors(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape).astype(np.uint8)


def program(folder, name, script):
  """A program that stands for ffmpeg's on PATH."""
  path = folder / name
  path.write_text(f"#!/bin/sh\n{script}\n")
  path.chmod(0o755)


def video(path, *words):
  """A moving picture of 48 x 32 pixels, ten frames a second, with a sound."""
  command = ["ffmpeg", "-v", "error", "-f", "lavfi"]
  command += ["-i", "testsrc=size=48x32:rate=10:duration=1"]
  command += ["-f", "lavfi", "-i", "sine=duration=2"]
  subprocess.run([*command, *words, f"file:{path}"], check=True)
  return path


def test_pictures_are_read(tmp_path):
  want = colors(5, 7, 3)
  path = tmp_path / "a.png"
  Image.fromarray(want).save(path)
  np.testing.assert_array_equal(pictures.read_image(path), want)
  alpha = np.concatenate([want, colors(5, 7, 1, seed=1)], axis=-1)
  Image.fromarray(alpha).save(path)
  np.testing.assert_array_equal(pictures.read_image(path), want)
  grey = colors(5, 7)
  Image.fromarray(grey.astype(np.uint16) * 257).save(path)  # 16 bits
  np.testing.assert_array_equal(pictures.read_image(path)[..., 1], grey)
  exif = Image.Exif()
  exif[0x0112] = 6  # the camera was held upright
  smooth = np.full((8, 16, 3), 40, np.uint8)
  smooth[:, 8:] = 200
  Image.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif)
  got = pictures.read_image(tmp_path / "a.jpg")
  assert got.shape == (16, 8, 3)
  assert abs(int(got[1, 4, 0]) - 40) < 9 and abs(int(got[14, 4, 0]) - 200) < 9


@pytest.mark.parametrize("shape", [(40, 40), (64, 48), (33, 77), (50, 20)])
def test_pixels_are_the_middle_of_the_resized_picture(shape):
  """As OpenCLIP makes them: all of it is resized, and then cut."""
  image, size = colors(*shape, 3), 28
  height, width = (size * side // min(shape) for side in shape)
  whole = Image.fromarray(image).resize((width, height), Image.BICUBIC)
  top, left = (round((side - size) / 2) for side in (height, width))
  want = np.asarray(whole)[top : top + size, left : left + size]
  got = pictures.pixels(image, size)
  assert got.dtype == np.float32
  levels = 255 * (got * pictures.DEVIATION + pictures.MEAN)
  # Pillow rounds to whole levels, here and there to the next one.
  apart = np.abs(levels - want)
  assert apart.max() < 1.01 and (apart > 0.5).mean() < 0.01


def test_narrow_strips_take_no_memory():
  got = pictures.pixels(np.full((2, 2_000_000, 3), 255, np.uint8), 224)
  white = (1 - np.float32(pictures.MEAN)) / np.float32(pictures.DEVIATION)
  np.testing.assert_allclose(got, np.broadcast_to(white, got.shape), rtol=1e-6)


def _forbidden(*_, **__):
  raise PermissionError(errno.EACCES, "Permission denied")


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
  path = tmp_path / "a.png"

  def refused(said):
    with pytest.raises(InputError, match=said) as error:
      pictures.read_image(path)
    assert "\n" not in str(error.value)

  refused("no picture at .*a.png: check the path")
  path.mkdir()
  refused("is no regular file")
  path.rmdir()
  path.write_text("This is a text.")
  refused(r"\(no picture of a known format is in it\): convert it to PNG or")
  # Formats that Pillow knows and whose reading would run a program.
  path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
  refused("no picture of a known format")
  for suffix in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
    Image.fromarray(colors(64, 64, 3)).save(path, suffix)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(r"its data are damaged, or cut short|no picture of a known")
  Image.fromarray(colors(64, 64, 3)).save(path)
  with monkeypatch.context() as patch:
    patch.setattr(Image, "open", _forbidden)
    refused(r"as a picture \(Permission denied\)")
  for most in (3000, 2000):  # a warning and an error of Pillow's
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    refused(f"has more than {most:,} pixels: make it smaller")


@needs_ffmpeg
@pytest.mark.parametrize("name", ("a: b.mp4", "a.ts", "a.gif"))
def test_frames_are_evenly_spread(tmp_path, name):
  words = ["-map", "0"] if name.endswith("gif") else ["-pix_fmt", "yuv420p"]
  path = video(tmp_path / name, *words)
  frames = pictures.read_frames(path, 99)
  raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
  command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", *raw]
  every = subprocess.run(command, check=True, capture_output=True).stdout
  every = np.frombuffer(every, np.uint8).reshape(10, 32, 48, 3)
  np.testing.assert_array_equal(frames, every)
  assert all((one != other).any() for one, other in itertools.pairwise(every))
  three = pictures.read_frames(path, 3)
  for frame, i in zip(three, (1, 5, 8), strict=True):
    np.testing.assert_array_equal(frame, frames[i])


@needs_ffmpeg
def test_videos_that_are_none(tmp_path):
  path = tmp_path / "a.mp4"

  def refused(said):
    with pytest.raises(InputError, match=said) as error:
      pictures.read_frames(path)
    assert "\n" not in str(error.value)

  video(path, "-map", "1")
  refused("a.mp4 has no frames: it is no video; name another file")
  cover = tmp_path / "cover.png"
  Image.fromarray(colors(8, 8, 3)).save(cover)
  path.unlink()
  words = ["-i", cover, "-map", "1", "-map", "2", "-c:v", "png"]
  video(path, *words, "-disposition:v", "attached_pic")
  refused("a.mp4 has no frames: it is no video")
  path.write_text("This is a text.")
  refused(r"a.mp4 as a video \(.*\): get it again, or convert it to MP4")
  video(tmp_path / "b.mp4", "-pix_fmt", "yuv420p")
  path.write_bytes((tmp_path / "b.mp4").read_bytes()[:3000])
  refused("a.mp4 as a video")
  path = video(tmp_path / "a.h264", "-map", "0", "-pix_fmt", "yuv420p")
  refused("does not say when its 10 frames are shown: convert it to MP4")


def test_ffmpeg_that_is_not_there_or_hangs(tmp_path, monkeypatch):
  path = tmp_path / "a.mp4"
  path.write_bytes(bytes(9))
  monkeypatch.setenv("PATH", str(tmp_path))

  def refused(said, count=4):
    with pytest.raises(InputError, match=said) as error:
      pictures.read_frames(path, count)
    assert "\n" not in str(error.value)

  refused("0 frames of a video; ask for 1 to 256", 0)
  refused("by ffmpeg, and no ffprobe is on PATH: install it, such as by apt")
  times = '{"packets": [{"pts_time": "1.5"}], "format": {"start_time": "1"}}'
  program(tmp_path, "ffprobe", f"echo '{times}'")
  refused("no ffmpeg is on PATH")
  program(tmp_path, "ffmpeg", "exit 0")
  refused("a.mp4 has no frame at 0.50 s, which it announces: it is damaged")
  program(tmp_path, "ffmpeg", "echo '[h264 @ 0x5f] too bad' >&2; exit 1")
  refused(r"as a video \(too bad\): get it again")
  program(tmp_path, "ffmpeg", "exec /bin/sleep 20")
  monkeypatch.setattr(pictures, "_FFMPEG_S", 0.3)
  refused("ffmpeg has not read .*a.mp4 within 0.3 s: cut or convert it")
