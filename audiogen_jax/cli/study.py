"""`audiogen study`: what the papers vary, one command each."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from audiogen_jax import families
from audiogen_jax.cli import configured, flags, making, models, points, sounds
from audiogen_jax.cli.points import Plan, Setting
from audiogen_jax.cli.trained import Configured, Training
from audiogen_jax.core import options as option_kinds
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import changed, text
from audiogen_jax.evaluate import audiocaps as lists
from audiogen_jax.evaluate import sounds as evaluation
from audiogen_jax.evaluate.study import Point
from audiogen_jax.train.configuration import PREFIX

app = typer.Typer(
  no_args_is_help=True,
  help="What the papers vary: figures of each point, and a curve.",
)

SCALES = (1.0, 2.0, 3.0, 4.0, 5.0)
STREAMS = ("1", "2", "4")
SHARES = (0.25, 0.5, 1.0, 2.0)  # of the steps that suit the model
_CODEC = "--codec-config."

Data: TypeAlias = Annotated[
  Path,
  typer.Option(
    help="A dataset of `audiogen data build`: a sound is made of each caption,"
    " and judged beside the recordings."
  ),
]
Split: TypeAlias = Annotated[
  str | None,
  typer.Option(help="Of --data; if not given, test or validation."),
]
Clips: TypeAlias = Annotated[
  int | None,
  typer.Option(help="So many clips, evenly spread; else all.", min=2),
]
Out: TypeAlias = Annotated[
  Path,
  typer.Option(
    help="The folder of the study; what is done there is not done again."
  ),
]
Duration: TypeAlias = Annotated[
  float | None,
  typer.Option(
    help="Seconds of each sound.  \\[default: those of the longest clip]"
  ),
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Clip i uses seed + i.")]
Config: TypeAlias = Annotated[
  str | None,
  typer.Option(
    help="What to train where no model is named: configs/NAME.py, or"
    f" configs/NAME.py:VARIANT, with {PREFIX}KEY=VALUE.  On --data, if it names"
    " no folders."
  ),
]


@app.command()
def guidance(
  data: Data,
  model: models.Model = models.DEFAULT_MODEL,
  out: Out = Path("study_guidance"),
  split: Split = None,
  clips: Clips = None,
  protocol: sounds.Protocol = None,
  measure: sounds.Measures = None,
  weights: sounds.Weights = None,
  duration: Duration = None,
  seed: Seed = 0,
  options: flags.Lists = None,
  dtype: models.Dtype = None,
  batch: making.Batch = None,
  mesh: making.Mesh = None,
) -> None:
  """Classifier-free guidance: each --guidance that is given, or 1 to 5."""
  judged = protocol, measure, weights
  how = dict(seed=seed, dtype=dtype, batch=batch, mesh=mesh)
  setting = _setting(data, split, clips, out, duration, judged, how)
  _sweep("guidance", "guidance", SCALES, model, options, setting)


@app.command()
def steps(
  data: Data,
  model: models.Model = "nano-magnet",
  out: Out = Path("study_steps"),
  split: Split = None,
  clips: Clips = None,
  protocol: sounds.Protocol = None,
  measure: sounds.Measures = None,
  weights: sounds.Weights = None,
  duration: Duration = None,
  seed: Seed = 0,
  options: flags.Lists = None,
  dtype: models.Dtype = None,
  batch: making.Batch = None,
  mesh: making.Mesh = None,
) -> None:
  """Steps of sampling, of a family that has them.

  Each --decoding-steps that is given, or a quarter, half, all and twice of what
  suits the model.
  """
  suited = families.describe(model).sampling
  known = option_kinds.of(type(suited))
  found = [name for name in known if name.endswith("steps")]
  if not found:
    has = ", ".join(f"--{each.title}" for each in known.values())
    raise InputError(
      f"{model} has no steps of sampling to choose; its options are {has}"
    )
  judged = protocol, measure, weights
  how = dict(seed=seed, dtype=dtype, batch=batch, mesh=mesh)
  setting = _setting(data, split, clips, out, duration, judged, how)
  usual, most = getattr(suited, found[0]), known[found[0]].most
  values = [_scaled(usual, share, most) for share in SHARES]
  _sweep("steps", found[0], values, model, options, setting)


@app.command(context_settings=configured.SETTINGS)
def mixing(
  context: typer.Context,
  data: Data,
  without: Annotated[
    str | None, typer.Option(help="A model that was trained without mixing.")
  ] = None,
  with_: Annotated[
    str | None, typer.Option("--with", help="One that was trained with it.")
  ] = None,
  config: Config = None,
  out: Out = Path("study_mixing"),
  split: Split = None,
  clips: Clips = None,
  protocol: sounds.Protocol = None,
  measure: sounds.Measures = None,
  weights: sounds.Weights = None,
  duration: Duration = None,
  seed: Seed = 0,
  options: flags.Options = None,
  dtype: models.Dtype = None,
  batch: making.Batch = None,
  mesh: making.Mesh = None,
) -> None:
  """Training with and without mixed pairs of sounds (AudioGen, §3.3)."""
  judged = protocol, measure, weights
  how = dict(seed=seed, dtype=dtype, batch=batch, mesh=mesh)
  setting = _setting(data, split, clips, out, duration, judged, how)
  trained = Configured("--config", config, context.args)
  plans = []
  for place, (label, model) in enumerate(
    {"without": without, "with": with_}.items()
  ):
    name, trainings = f"{label}-mixing", []
    if model is None:
      values = trained.of_sounds(f"--{label} MODEL", data, options)
      values.data.mix = label == "with"
      trainings = [Training(values, out / name / "run")]
    plans.append(_plan(name, label, place, model, options, trainings))
  trained.check_used()
  points.run("mixing", "mixing", plans, setting)


@app.command(context_settings=configured.SETTINGS)
def streams(
  context: typer.Context,
  data: Data,
  streams: Annotated[
    list[str] | None,
    typer.Option(
      help="NUMBER=MODEL for a model of so many codebooks, or NUMBER to train"
      " one; again for more.  \\[default: 1, 2 and 4, trained]"
    ),
  ] = None,
  config: Config = None,
  codec_config: Annotated[
    str | None,
    typer.Option(
      help=f"The codecs to train for them, likewise, with {_CODEC}KEY=VALUE."
    ),
  ] = None,
  out: Out = Path("study_streams"),
  split: Split = None,
  clips: Clips = None,
  protocol: sounds.Protocol = None,
  measure: sounds.Measures = None,
  weights: sounds.Weights = None,
  duration: Duration = None,
  seed: Seed = 0,
  options: flags.Options = None,
  dtype: models.Dtype = None,
  batch: making.Batch = None,
  mesh: making.Mesh = None,
) -> None:
  """Codebooks that a model writes at once: 1, 2 and 4 (AudioGen, §3.2).

  Of both configurations the variant of that number is trained, as paper_lm.py
  and paper_codec.py have them.
  """
  judged = protocol, measure, weights
  how = dict(seed=seed, dtype=dtype, batch=batch, mesh=mesh)
  setting = _setting(data, split, clips, out, duration, judged, how)
  words = context.args
  theirs = [word for word in words if word.startswith(_CODEC)]
  ours = [word for word in words if word not in theirs]
  trained = Configured("--config", config, ours)
  codecs = Configured("--codec-config", codec_config, theirs)
  plans = []
  for given in streams or STREAMS:
    number, sign, model = given.partition("=")
    if not (number.isdecimal() and int(number) and bool(sign) == bool(model)):
      raise InputError(
        f"--streams {given[:100]!r} must be NUMBER=MODEL or NUMBER, such as 2"
      )
    name, trainings = f"streams-{number}", []
    if not model:
      remedy = f"--streams {number}=MODEL"
      values = trained.of_sounds(remedy, data, options, number)
      if not values.codec:
        codec = codecs.of_codec("--config.codec=CODEC", data, number)
        trainings = [Training(codec, out / name / "codec")]
        values.codec = str(trainings[0].model)
      trainings.append(Training(values, out / name / "run"))
    plans.append(_plan(name, number, int(number), model, options, trainings))
  trained.check_used()
  codecs.check_used()
  points.run("streams", "streams", plans, setting)


def _setting(
  data: Path,
  split: str | None,
  clips: int | None,
  out: Path,
  duration: float | None,
  judged: tuple[str | None, list[str] | None, Path | None],
  how: Mapping[str, Any],
) -> Setting:
  """What all points have in common, from what the commands were given.

  Args:
    data: The dataset.
    split: Of it; None for the usual one.
    clips: How many of it; None for all.
    out: The folder of the study.
    duration: Seconds of each sound; None for those of the longest clip.
    judged: Protocol, measures and weights.
    how: What else `Setting` has, by name: how sounds are made.

  Raises:
    InputError: Before the hours of work, for what could not be judged.
  """
  protocol, measures, weights = judged
  protocol = protocol or evaluation.usual_protocol(weights)
  evaluation.check(protocol, measures or (), weights)
  real = lists.of_dataset(data, split)
  if clips is not None:
    real = lists.some(real, clips)
  if duration is None:
    duration = max(item.length_s() for item in real.items.values())
  if not 0 < duration < math.inf:
    raise InputError(f"duration {duration} s must be more than 0")
  if out.resolve().is_relative_to(data.resolve()):
    raise InputError(
      f"{out} lies in {data}, among the recordings; name another folder"
    )
  return Setting(out, real, duration, protocol, measures or (), weights, **how)


def _sweep(
  study: str,
  option: str,
  usual: Sequence[Any],
  model: str,
  given: Mapping[str, list],
  setting: Setting,
) -> None:
  """Points of one model that differ in an option of sampling.

  Args:
    study: Its name.
    option: Name of the option.
    usual: Its values, if none are given.
    model: Source of the model.
    given: Values of options that were given, this one's among them.
    setting: What they have in common.
  """
  suited = families.describe(model).sampling
  title = option.replace("_", "-")
  for name, values in given.items():
    if name != option and len(values) > 1:
      raise InputError(
        f"--{name.replace('_', '-')} was given {len(values)} times; this study"
        f" is of --{title} alone"
      )
  others = {name: values[0] for name, values in given.items()}
  plans = []
  for value in given.get(option, usual):
    sampling = changed(suited, others | {option: value}, model)
    value = getattr(sampling, option)  # no longer as it was typed
    place = sum(value) if isinstance(value, tuple) else value
    name = f"{study}-{text(value).replace(',', '-')}"
    options = others | {option: value}
    plans.append(_plan(name, text(value), place, model, options))
  points.run(study, title, plans, setting)


def _scaled(value: int | tuple[int, ...], share: float, most: int) -> Any:
  """A share of some steps, at least one and at most `most` of each."""
  if isinstance(value, tuple):
    return tuple(_scaled(each, share, most) for each in value)
  return min(max(1, round(share * value)), most)


def _plan(
  name: str,
  label: str,
  place: float | int,
  model: str | None,
  options: Mapping[str, Any],
  trainings: Sequence[Training] = (),
) -> Plan:
  """A point whose model is named, or the last of those that are trained."""
  asked = {"model": model} if model else {}
  for training, prefix in zip(
    reversed(trainings), ("config.", "codec-config."), strict=False
  ):
    asked |= training.asked(prefix)
  model = model or str(trainings[-1].model)
  point = Point(name, label, float(place), asked | dict(options))
  return Plan(point, model, options, trainings)
