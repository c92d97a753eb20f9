"""What `audiogen generate` starts from: a sound to edit, or what is seen."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from audiogen_jax import families
from audiogen_jax.audio import io
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.text import pictures

USUAL_AMOUNT = 0.5  # of `--vary`


@dataclasses.dataclass(frozen=True)
class Source:
  """A sound or a picture to start from, if any, and what is to become of it.

  Attributes:
    continue_from: A file to continue.
    inpaint: A file to keep but for a hole.
    from_s: Where the hole begins, in seconds; None for the sound's beginning.
    to_s: Where it ends; None for the sound's end.
    vary: A file to vary.
    amount: The share of it that is made again; None for `USUAL_AMOUNT`.
    image: A picture of what is to be heard.
    video: A video, of which some frames are looked at.
  """

  continue_from: Path | None = None
  inpaint: Path | None = None
  from_s: Seconds | None = None
  to_s: Seconds | None = None
  vary: Path | None = None
  amount: float | int | None = None
  image: Path | None = None
  video: Path | None = None

  @property
  def path(self) -> Path | None:
    """The file, if there is one."""
    return self.continue_from or self.inpaint or self.vary or self.seen

  @property
  def seen(self) -> Path | None:
    """What is looked at, if anything is."""
    return self.image or self.video

  @property
  def edited(self) -> str | None:
    """The method of a family that makes parts of the sound again."""
    if self.inpaint is not None:
      return "inpaint"
    return "vary" if self.vary is not None else None

  def check(self, model: str, duration_s: float | None) -> None:
    """Refuses what does not fit together, before anything is loaded.

    Args:
      model: As for `families.load`.
      duration_s: What was asked for, if anything was.

    Raises:
      InputError: For two sounds, a part of none, or a model that lacks the way.
    """
    files = {
      "--continue-from": self.continue_from,
      "--inpaint": self.inpaint,
      "--vary": self.vary,
      "--image": self.image,
      "--video": self.video,
    }
    given = [name for name, file in files.items() if file is not None]
    if len(given) > 1:
      raise InputError(f"{' and '.join(given)}: a sound has one use; give one")
    for name, value, belongs in (
      ("--from", self.from_s, "--inpaint"),
      ("--to", self.to_s, "--inpaint"),
      ("--amount", self.amount, "--vary"),
    ):
      if value is not None and files[belongs] is None:
        raise InputError(
          f"{name} {value:g} is for {belongs} FILE, which was not given"
        )
    if self.seen is not None:
      _check_family(model, "generate_from", given[0])
    if self.continue_from is not None:
      _, family = families.of(model)
      if not families.takes(family, "prompt"):
        raise InputError(f"{model} cannot continue sounds: no --continue-from")
    if self.edited is None:
      return
    if duration_s is not None:
      raise InputError(
        f"--duration {duration_s:g}: {self.path} keeps its own; leave it out"
      )
    _check_family(model, self.edited, given[0])

  def settings(self) -> dict[str, Any]:
    """What a manifest says of it."""
    told = {"continue_from": self.continue_from and str(self.continue_from)}
    if self.edited == "inpaint":
      hole = {"from_s": self.from_s, "to_s": self.to_s}
      told |= {"inpaint": str(self.inpaint)} | hole
    if self.edited == "vary":
      told |= {"vary": str(self.vary), "amount": self._amount}
    if self.seen is not None:
      told |= {"image" if self.image else "video": str(self.seen)}
    return told

  def asked(
    self, loaded: families.TextToAudio, name: str
  ) -> tuple[Callable[..., np.ndarray], dict[str, Any]]:
    """The method that makes sounds, and what it is given of the sound.

    Args:
      loaded: A model for which `check` has passed.
      name: What to call it.

    Raises:
      InputError: If the file cannot be read, the hole does not lie in it, or
        the model does not look at pictures.
    """
    if self.path is None:
      return loaded.generate, {}
    if self.seen is not None:
      return _looking(loaded), {"embeddings": self._embedding(loaded, name)}
    rate_hz, channels = loaded.sample_rate_hz, loaded.channels
    sound, _ = io.read(self.path, rate_hz=rate_hz, channels=channels)
    if self.edited is None:
      return loaded.generate, {"prompt": sound}
    if self.edited == "vary":
      return loaded.vary, {"sound": sound, "amount": self._amount}
    end_s = len(sound) / rate_hz if self.to_s is None else self.to_s
    hole = self.from_s or 0.0, end_s
    keep = loaded.outside(*hole, samples=len(sound))
    return loaded.inpaint, {"sound": sound, "keep": keep}

  def _embedding(
    self, loaded: families.TextToAudio, name: str
  ) -> Float[np.ndarray, " e"]:
    """What CLIP makes of the picture, or of some frames of the video."""
    if loaded.clip is None:
      raise InputError(
        f"{name} does not look at pictures: leave out {self.seen}, or load a"
        " model for them, such as ta54"
      )
    if self.image is not None:
      images = [pictures.read_image(self.image)]
    else:
      images = pictures.read_frames(self.video)
    return loaded.clip.pictures(images)[0]

  @property
  def _amount(self) -> float | int:
    return USUAL_AMOUNT if self.amount is None else self.amount


def _check_family(model: str, method: str, flag: str) -> None:
  """Raises InputError, naming those that have it, if a family lacks a way."""
  name, family = families.of(model)
  if not hasattr(family, method):
    can = [k for k, v in families.known().items() if hasattr(v, method)]
    raise InputError(
      f"{model} is of the family {name}, which has no {flag};"
      f" {', '.join(sorted(can)) or 'no known one'} has"
    )


def _looking(loaded: families.TextToAudio) -> Callable[..., np.ndarray]:
  """Makes sounds of embeddings, which have no texts."""

  def call(texts: Sequence[str | None], **asked: Any) -> np.ndarray:
    if any(texts):
      raise InputError("a picture says what to hear: leave the prompt out")
    if "negative" in asked:
      raise InputError(
        f"negative {shown(asked['negative'])}: a picture alone says what to"
        " hear; leave it out"
      )
    return loaded.generate_from(**asked)

  return call
