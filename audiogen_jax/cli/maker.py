"""What a visitor of `audiogen demo` asks for: checked, made, written."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from audiogen_jax import families
from audiogen_jax.audio import drawing, io
from audiogen_jax.cli import models
from audiogen_jax.cli.source import Source
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.evaluate.choosing import BestOf, Scorer
from audiogen_jax.families import Progress, TextToAudio

LONGEST_S = 30.0  # of a result
CONTINUED_S = 20.0  # of an upload: a model attends to less than that


class Made(NamedTuple):
  """A result.

  Attributes:
    sound: A WAV file.
    picture: A PNG file, the sound's spectrogram.
  """

  sound: pathlib.Path
  picture: pathlib.Path


def make(
  model: TextToAudio,
  folder: pathlib.Path,
  *,
  prompt: str,
  upload: pathlib.Path | None,
  duration_s: Seconds,
  seed: int | None,
  sampling: Any,
  progress: Progress,
  note: Callable[[str], None],
  negative: str = "",
  from_s: Seconds | None = None,
  to_s: Seconds | None = None,
  amount: float | int | None = None,
  best_of: int = 1,
  scorer: Scorer | None = None,
) -> Made:
  """Makes one sound, as `audiogen generate` would.

  Args:
    model: Any that turns sentences into sound.
    folder: Results go into a new folder in it.
    prompt: What to hear; empty to continue an upload without text.
    upload: A sound to continue, which the result includes.  Of a long one only
      the end is read.
    duration_s: Seconds in all, the upload's included.
    seed: None, as of an empty field, is an error.
    sampling: Its options.
    progress: Called with (steps done, steps in all).
    note: Called with what the visitor should know.
    negative: What is not wanted; empty for nothing.
    from_s: Where a hole in the upload begins that is to be filled.
    to_s: Where it ends.
    amount: The share of the upload that is to be varied.
    best_of: Of how many sounds the one that scores best is kept.
    scorer: Says which is best; may be missing where `best_of` is 1.

  Raises:
    InputError: For whatever the visitor can put right.
  """
  text = prompt.strip() or None
  if text is None and upload is None:
    raise InputError(
      'the prompt is empty: say what to hear, such as "a dog barks", or upload'
      " a sound to continue"
    )
  if seed is None:
    raise InputError("the seed is empty: give a whole number, such as 0")
  if not duration_s <= LONGEST_S:
    raise InputError(
      f"duration {duration_s:g} s is too long: ask for {LONGEST_S:g} s at most"
    )
  rate = model.sample_rate_hz
  call, given = model.generate, {"duration_s": duration_s}
  source = _edited(upload, from_s, to_s, amount)
  if source is not None:
    with _named(upload):
      call, given = source.asked(model, "this model")
    given["sound"] = given["sound"][None]
  elif upload is not None:
    if not families.takes(model, "prompt"):
      raise InputError(
        "this model cannot continue sounds: say how much of the upload is to be"
        " varied, or where a hole is to be filled"
      )
    given["prompt"] = _end(upload, rate, model.channels, note)[None]
  if negative.strip():
    given["negative"] = negative.strip()
  if best_of > 1:
    call = BestOf(call, scorer, best_of, rate)
  audio = call(
    texts=[text], sampling=sampling, seed=[seed], progress=progress, **given
  )
  audio = models.normalize_loudness(audio, rate, models.LOUDNESS_LUFS)[0]
  # One folder a result, so that each keeps its name.
  path = pathlib.Path(tempfile.mkdtemp(dir=folder)) / models.stem(text, seed)
  made = Made(path.with_suffix(".wav"), path.with_suffix(".png"))
  io.write(made.sound, audio, rate)
  drawing.spectrogram(made.picture, audio, rate, title=text or "")
  return made


def _edited(
  upload: pathlib.Path | None,
  from_s: Seconds | None,
  to_s: Seconds | None,
  amount: float | int | None,
) -> Source | None:
  """What is to be made of parts of an upload; None if it is to be continued."""
  hole = from_s is not None or to_s is not None
  if not hole and amount is None:
    return None
  if upload is None:
    raise InputError("there is no sound to fill or to vary: upload one")
  if hole and amount is not None:
    raise InputError(
      f"vary {amount:g} and a hole to fill are two things: set vary to 0, or"
      " empty the hole's ends"
    )
  if hole:
    return Source(inpaint=upload, from_s=from_s, to_s=to_s)
  return Source(vary=upload, amount=amount)


@contextlib.contextmanager
def _named(upload: pathlib.Path) -> Iterator[None]:
  """Errors without where the server keeps an upload: it tells nothing."""
  try:
    yield
  except InputError as error:
    message = str(error).replace(str(upload), upload.name)
    raise InputError(message) from error


def _end(
  upload: pathlib.Path,
  rate_hz: int,
  channels: int,
  note: Callable[[str], None],
) -> Float[np.ndarray, "n c"]:
  """The last of an upload, with a note if that is not all of it."""
  with _named(upload):
    length_s = io.length_s(upload)
    if length_s > CONTINUED_S:
      note(
        f"{upload.name} lasts {length_s:,.0f} s: its last {CONTINUED_S:g} s are"
        " continued"
      )
    sound, _ = io.read(
      upload,
      rate_hz=rate_hz,
      channels=channels,
      start_s=max(0.0, length_s - CONTINUED_S),
    )
  return sound
