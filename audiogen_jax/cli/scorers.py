"""What `--scorer` names: a CLAP, or a dataset that a classifier learns from."""

from collections.abc import Callable
from pathlib import Path

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.evaluate import clap_scorer
from audiogen_jax.evaluate.choosing import ClassScorer, Scorer
from audiogen_jax.evaluate.clap_scorer import ClapScorer
from audiogen_jax.evaluate.clips import Clips
from audiogen_jax.families import TextToAudio

USUAL = clap_scorer.NAMES[0]
HELP = (
  f"For --best-of: {' or '.join(clap_scorer.NAMES)}, for the CLAP of that"
  " protocol (see `audiogen evaluate weights`); or a dataset of sounds, whose"
  " first tags are classes that a classifier learns, and of which each prompt"
  f" must name one.  \\[default: {USUAL}]"
)

PAGE_HELP = (
  "Lets visitors ask for the best of several sounds, as the CLAP of that"
  f" protocol hears them: {' or '.join(clap_scorer.NAMES)}."
)


def clap(
  name: str, weights: Path | None = None, placement: Placement | None = None
) -> ClapScorer:
  """The CLAP of the protocol of that name.

  Args:
    name: Of the protocol.
    weights: The folder with networks' weights; None for the usual one.
    placement: Devices that share sounds out; None for one device.

  Raises:
    InputError: If there is none, or its weights are missing.
  """
  if name not in clap_scorer.NAMES:
    raise InputError(
      f"{name!r} is no CLAP: take {' or '.join(clap_scorer.NAMES)}"
    )
  return ClapScorer(name, weights=weights, placement=placement)


def opened(
  name: str,
  model: TextToAudio,
  duration_s: float,
  report: Callable[[str, int, int], None],
) -> Scorer:
  """The scorer of that name; a dataset of a protocol's name is `./NAME`.

  Args:
    name: As `--scorer` has it.
    model: Whose sounds are judged.
    duration_s: Of the sounds.
    report: Called while a classifier is trained.

  Raises:
    InputError: If there is neither, or the network's weights are missing.
  """
  if name in clap_scorer.NAMES:
    return ClapScorer(name)
  clips = Clips.open(
    Path(name),
    rate_hz=model.sample_rate_hz,
    channels=model.channels,
    split="train",
  )
  return ClassScorer(model, clips, duration_s, progress=report)
