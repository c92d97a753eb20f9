"""A listening test as a folder: one page, its sounds, and a key beside it.

    systems, reference -> trials -> page/index.html, page/sounds/*.wav
                                    page.key.json, which listeners never see

Every trial has a caption, each system's sound of it, the recording as a hidden
reference if there is one, and a low anchor.  The page tells none from another:
sounds are called by random names, and each listener's browser shuffles trials
and sounds.  It needs no server and no network.
"""

import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Float

from audiogen_jax.audio import dsp, io
from audiogen_jax.core.errors import InputError
from audiogen_jax.evaluate import sound_sets
from audiogen_jax.evaluate.sound_sets import SoundSet

REFERENCE, ANCHOR = "reference", "anchor"
_ANCHOR_HZ = 3500.0  # the low-pass of BS.1534's low anchor
_LEVEL_LUFS = -23.0  # of all sounds: EBU R 128
_ANCHOR_ORDER = 8


@dataclasses.dataclass(frozen=True)
class Question:
  """What listeners rate from 1 to 100.

  Attributes:
    name: As papers abbreviate it.
    short: Beside the slider.
    text: Before the first trial.
  """

  name: str
  short: str
  text: str


QUESTIONS: Mapping[str, tuple[Question, ...]] = {
  # AudioGen, §4.1: "overall quality" and "relevance to the text input".
  "audiogen": (
    Question(
      "OVL",
      "overall quality",
      "how good the sound is, whatever is described. 1 is the worst, 100 the"
      " best.",
    ),
    Question(
      "REL",
      "relevance to the text",
      "how well the sound matches the description, whatever its quality.",
    ),
  ),
  # Make-An-Audio, §4.1: mean opinion scores of quality and faithfulness.
  "make-an-audio": (
    Question(
      "MOS-Q",
      "quality",
      "how natural and clear the sound is, whatever is described.",
    ),
    Question(
      "MOS-F",
      "faithfulness",
      "how faithfully the sound follows the description.",
    ),
  ),
}


def make(
  systems: Mapping[str, SoundSet],
  out: Path,
  *,
  captions: Mapping[str, str],
  reference: SoundSet | None = None,
  questions: str = "audiogen",
  trials: int | None = None,
  seed: int = 0,
  progress: Callable[[int, int], None] | None = None,
) -> Path:
  """Writes a test, and its key beside it.

  All sounds are brought to -23 LUFS, so that nothing is rated for its level.
  The low anchor of a trial is a sound of another trial below 3.5 kHz: both its
  quality and its relevance are low.  It is made of the reference, or without
  one of the first system's sounds.

  Args:
    systems: Sounds by the name of what made them; all of the same clips.
    out: The folder of the page; the key is `OUT.key.json` beside it.
    captions: By name of the clip.
    reference: Recordings of the same names.
    questions: Of `QUESTIONS`.
    trials: So many clips, drawn by `seed`; None for all.
    seed: Of that draw.
    progress: Called with (trials done, trials in all).

  Returns:
    The key's path.

  Raises:
    InputError: If sets do not pair, captions are missing, a sound is silent, or
      there is something at `out` already.
  """
  if questions not in QUESTIONS:
    raise InputError(
      f"questions {questions!r} are none of {', '.join(QUESTIONS)}"
    )
  key_path = out.with_name(f"{out.name}.key.json")
  for path in (out, key_path):
    if path.exists():
      raise InputError(f"{path} is there already; name another --out")
  sets = _checked(systems, reference)
  names = _drawn(next(iter(sets.values())).names, captions, trials, seed)
  staged = out.with_name(f".{out.name}.part")
  shutil.rmtree(staged, ignore_errors=True)
  (staged / "sounds").mkdir(parents=True)
  key, shown = {}, []
  best = REFERENCE if reference is not None else next(iter(sets))
  for number, name in enumerate(names):
    other, tokens = names[(number + 1) % len(names)], []
    for system, of, clip in (
      *((system, system, name) for system in sets),
      (ANCHOR, best, other),
    ):
      sound, rate_hz = sets[of].items[clip].read()
      if system == ANCHOR:
        sound = _dull(sound, rate_hz)
      token = secrets.token_hex(8)
      level = _levelled(sound, rate_hz, f"{clip} of {of}")
      io.write(staged / "sounds" / f"{token}.wav", level, rate_hz)
      key[token] = {"clip": name, "system": system}
      tokens.append(token)
    shown.append({"caption": captions[name], "sounds": sorted(tokens)})
    if progress is not None:
      progress(number + 1, len(names))
  test = {
    "id": secrets.token_hex(8),
    "questions": [dataclasses.asdict(each) for each in QUESTIONS[questions]],
    "trials": shown,
  }
  (staged / "index.html").write_text(_page(test), encoding="utf-8")
  told = {
    "id": test["id"],
    "questions": [each.name for each in QUESTIONS[questions]],
    "systems": list(systems),
    "reference": reference is not None,
    "sounds": key,
  }
  with io.whole(key_path) as part:
    part.write_text(json.dumps(told, indent=1), encoding="utf-8")
  staged.rename(out)
  return key_path


def _checked(
  systems: Mapping[str, SoundSet], reference: SoundSet | None
) -> dict[str, SoundSet]:
  if not systems:
    raise InputError("no systems to compare; name one as NAME=FOLDER")
  for name in systems:
    if name in (REFERENCE, ANCHOR):
      raise InputError(
        f"a system cannot be called {name}; the test has its own"
      )
  sets = dict(systems)
  if reference is not None:
    sets[REFERENCE] = reference
  first, *others = sets.values()
  for other in others:
    sound_sets.check_pairs(first, other)
  return sets


def _drawn(
  names: Sequence[str],
  captions: Mapping[str, str],
  trials: int | None,
  seed: int,
) -> list[str]:
  lacking = [name for name in names if name not in captions]
  if lacking:
    raise InputError(
      f"{len(lacking)} of {len(names)} clips have no caption:"
      f" {sound_sets.some(lacking)}; name a table by --captions"
    )
  if trials is None:
    return list(names)
  if not 2 <= trials <= len(names):
    raise InputError(
      f"{trials} trials cannot be drawn of {len(names)} clips: take 2 to"
      f" {len(names)}"
    )
  draw = np.random.default_rng(seed)
  return sorted(draw.choice(names, trials, replace=False).tolist())


def _dull(
  sound: Float[np.ndarray, "n c"], rate_hz: int
) -> Float[np.ndarray, "n c"]:
  """Without what lies above 3.5 kHz."""
  if rate_hz <= 2 * _ANCHOR_HZ:
    return sound
  order = _ANCHOR_ORDER
  low = scipy.signal.butter(order, _ANCHOR_HZ, fs=rate_hz, output="sos")
  return scipy.signal.sosfiltfilt(low, sound, axis=0).astype(np.float32)


def _levelled(
  sound: Float[np.ndarray, "n c"], rate_hz: int, what: str
) -> Float[np.ndarray, "n c"]:
  lufs = float(dsp.loudness(jnp.asarray(sound), rate_hz))
  if not np.isfinite(lufs):
    raise InputError(f"{what} is silent, or no sound; leave it out")
  level = sound * 10 ** ((_LEVEL_LUFS - lufs) / 20)
  return (level / max(1.0, np.abs(level).max())).astype(np.float32)


def _page(test: dict) -> str:
  text = resources.files(__package__).joinpath("rating_page.html").read_text()
  # Within a script element nothing but its end tag is special.
  data = json.dumps(test, ensure_ascii=False).replace("<", "\\u003c")
  return text.replace("@TEST@", data)
