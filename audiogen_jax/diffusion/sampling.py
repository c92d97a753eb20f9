"""How diffusion is undone: options, and what they say of each step.

A sampler goes from noise to a latent in a few steps.  Every one of them here is
a line in a table of numbers, and one loop (`sampler`) follows any table, so
that neither steps nor solver nor η compile a new program.  A line says, for a
latent `x` at its time and the noise `e` that the U-Net finds in it:

    p = a x + b e             what is foretold: the noise, or the clean latent
    q = w0 p + w1 p' + w2 p'' + w3 p'''       also by what was foretold before
    x <- c (x or one kept) + d q + f noise
"""

import dataclasses
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.core import options
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import choice, option
from audiogen_jax.core.types import AnyArray
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion.schedule import Schedule

MOST_STEPS = 1000
ORDER = 4  # what is foretold, and what was before, that a step may weigh
_LARGEST = 10_000
Length: TypeAlias = Literal["exact", "gen_wav", "gen_wavs_by_tsv"]
# Adams and Bashforth's weights, with so many steps behind.
_ADAMS = (
  (1.0, 0.0, 0.0, 0.0),
  (3 / 2, -1 / 2, 0.0, 0.0),
  (23 / 12, -16 / 12, 5 / 12, 0.0),
  (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """How a latent is sampled; the defaults are Make-An-Audio's.

  Attributes:
    steps: Of the solver; but for one more of PLMS as often the U-Net runs.
    guidance: Classifier-free guidance (Ho & Salimans, 2022): the noise is
      `uncond + guidance (cond - uncond)`; 1 runs the conditional half alone.
    eta: Of DDIM, how much of the noise that is taken away is drawn anew: 0 for
      none, 1 for as much as DDPM.
    solver: `ddim` (Song et al., 2021), `plms` (Liu et al., 2022) or `dpm++`,
      DPM-Solver++(2M) (Lu et al., 2022).
    grid: At which times: `even` for as many steps as are asked for, evenly
      spread over time (of `dpm++` over the logarithm of signal over noise), or
      `published`, every ⌊T / steps⌋-th, which are more where T is no multiple;
      there a sound to vary is one step noisier than sampling begins with.
    length: Of a sound: `exact`, as many samples as are asked for; or as the
      published program of that name leaves it: `gen_wav` whole columns of a
      latent, rounded up, `gen_wavs_by_tsv` rounded down, with what is missing
      as silence before the sound and once more behind it.

  Raises:
    InputError: For a value out of range, or noise that a solver cannot add.
  """

  steps: int = option(
    100,
    "Steps of the solver.",
    least=1,
    most=MOST_STEPS,
    ends=(5, 200),
    first=True,
  )
  guidance: float = option(
    3.0,
    "Classifier-free guidance: more follows the prompt more closely; 1 for"
    " none.",
    least=-_LARGEST,
    most=_LARGEST,
    ends=(1, 10),
    step=0.1,
    first=True,
  )
  eta: float = option(
    0.0,
    "Of DDIM, noise that each step adds: 0 for none, 1 for as much as DDPM.",
    most=1,
    ends=(0, 1),
    step=0.05,
  )
  solver: Literal["ddim", "plms", "dpm++"] = choice(
    "ddim",
    "The solver: ddim, plms, or dpm++ (2M).",
    among=("ddim", "plms", "dpm++"),
  )
  grid: Literal["even", "published"] = choice(
    "even",
    "Times of the steps: even, or as the published program rounds them.",
    among=("even", "published"),
  )
  length: Length = choice(
    "exact",
    "Of the sound: exact, or as the published program gen_wav or"
    " gen_wavs_by_tsv leaves it.",
    among=("exact", "gen_wav", "gen_wavs_by_tsv"),
  )

  def __post_init__(self) -> None:
    options.check(self)
    if self.eta and self.solver != "ddim":
      raise InputError(
        f"eta {self.eta:g} is of the solver ddim, and {self.solver} adds no"
        " noise; take 0"
      )

  @property
  def guided(self) -> bool:
    """Whether the unconditional half is needed."""
    return self.guidance != 1


class Plan(NamedTuple):
  """A table, one line for each run of the U-Net; zeros past the last.

  All have one length, so that another number of steps is no other program.

  Attributes:
    time: Of the latent.
    step: Which step this belongs to, for its noise.
    begins: Whether it is that step's first line.
    level: ᾱ of the latent.
    foretold: What `p` has of the latent and of what the U-Net finds.
    weights: Of `p`, and of those before.
    keeps: Whether the latent is kept for the next line.
    kept: Whether the kept latent goes on instead of this one.
    remembers: Whether `p` is one of those before from now on.
    onward: What the next latent has of the latent, `q` and fresh noise.
  """

  time: Float[AnyArray, " n"]
  step: Int[AnyArray, " n"]
  begins: Bool[AnyArray, " n"]
  level: Float[AnyArray, " n"]
  foretold: Float[AnyArray, "n 2"]
  weights: Float[AnyArray, "n 4"]
  keeps: Bool[AnyArray, " n"]
  kept: Bool[AnyArray, " n"]
  remembers: Bool[AnyArray, " n"]
  onward: Float[AnyArray, "n 3"]


class Planned(NamedTuple):
  """A plan, and how far it goes.

  Attributes:
    plan: The table.
    lines: How many of them count.
    level: ᾱ of the latent that it begins with, to which another is noised that
      is to begin (`schedule.noised`).
  """

  plan: Plan
  lines: int
  level: Float[np.ndarray, ""]


def times(sampling: Diffusion, schedule: Schedule) -> Float[np.ndarray, " s"]:
  """Times of the steps, the noisiest first; between two of them for `dpm++`.

  Raises:
    InputError: If there are more steps than the schedule has times, or the
      published program would leave it.
  """
  steps, whole = sampling.steps, schedule.times
  if steps > whole:
    raise InputError(f"{steps} steps of a schedule that has {whole}")
  if sampling.solver == "dpm++" and sampling.grid == "even":
    # From the noisiest time of all; at 0 it arrives.
    ratios = _log_ratio(schedules.kept(schedule))
    wanted = np.linspace(ratios[-1], ratios[0], steps, endpoint=False)
    return np.interp(-wanted, -ratios, np.arange(whole))
  # One later than published code for images: so is this program's.
  if sampling.grid == "even":
    later = 1 if 2 * steps <= whole else 0
    return (np.arange(steps) * whole // steps + later)[::-1].astype(float)
  made = np.arange(0, whole, whole // steps) + 1
  if made[-1] >= whole:
    raise InputError(
      f"the published grid of {steps} steps goes to time {made[-1]}, and the"
      f" last is {whole - 1}; take at most {whole // 2}, or the even grid"
    )
  return made[::-1].astype(float)


def _log_ratio(level: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
  """The logarithm of signal over noise where `level` is left."""
  return np.log(level / (1 - level)) / 2


def plan(
  sampling: Diffusion, schedule: Schedule, *, strength: float | int = 1.0
) -> Planned:
  """The table of a solver.

  Args:
    sampling: What is asked for.
    schedule: Of the noise that is taken away.
    strength: Share of the steps that are taken, the last ones: what a latent
      that is noised to the first of them becomes (SDEdit, Meng et al., 2022).

  Raises:
    InputError: If not one step is left, or `times` raises it.
  """
  at = times(sampling, schedule)
  steps = int(strength * len(at)) if 0 < strength <= 1 else 0
  if not steps:
    raise InputError(
      f"strength {strength:g} of {len(at)} steps leaves none; take more than"
      f" {1 / len(at):g}, and at most 1"
    )
  at, noisier = at[len(at) - steps :], at[: len(at) - steps]
  kept = schedules.kept(schedule)
  levels = np.append(_levels(at, schedule), kept[0])
  rows = _SOLVERS[sampling.solver](at, levels, sampling.eta)
  columns = [np.array(column) for column in zip(*rows, strict=True)]
  padded = [
    np.pad(
      column.astype(np.float32) if column.dtype.kind == "f" else column,
      [(0, MOST_STEPS + 1 - len(rows)), *[(0, 0)] * (column.ndim - 1)],
    )
    for column in columns
  ]
  made = Plan(*padded)
  made = made._replace(step=made.step.astype(np.int32))
  if schedule.predicts == "velocity":
    made = made._replace(foretold=_of_velocity(made, schedule))
  level = levels[0]
  if sampling.grid == "published" and len(noisier):
    level = kept[int(noisier[-1])]
  return Planned(made, len(rows), np.asarray(level, np.float32))


def _of_velocity(made: Plan, schedule: Schedule) -> Float[np.ndarray, "n 2"]:
  """What `p` has of latent and velocity: noise is √ᾱ v + √(1 - ᾱ) latent."""
  level = _levels(made.time, schedule)
  of_latent, of_noise = made.foretold.T
  both = of_latent + of_noise * np.sqrt(1 - level), of_noise * np.sqrt(level)
  return np.stack(both, axis=1).astype(np.float32)


def _levels(
  at: Float[np.ndarray, " s"], schedule: Schedule
) -> Float[np.ndarray, " s"]:
  """ᾱ at times that may lie between two of the schedule."""
  kept = schedules.kept(schedule)
  ratios = np.interp(at, np.arange(len(kept)), _log_ratio(kept))
  return 1 / (1 + np.exp(-2 * ratios))


def _line(
  at: np.ndarray, levels: np.ndarray, step: int, **changes: object
) -> Plan:
  """A line that goes by DDIM from one level to the next, without noise."""
  level, below = levels[step : step + 2]
  signal = np.sqrt(below / level)
  noise = np.sqrt(1 - below) - signal * np.sqrt(1 - level)
  line = Plan(
    time=at[step],
    step=step,
    begins=True,
    level=level,
    foretold=(0.0, 1.0),
    weights=_ADAMS[0],
    keeps=False,
    kept=False,
    remembers=True,
    onward=(signal, noise, 0.0),
  )
  return line._replace(**changes)


def _ddim(at: np.ndarray, levels: np.ndarray, eta: float) -> list[Plan]:
  rows = []
  for i in range(len(at)):
    level, below = levels[i : i + 2]
    fresh = eta * np.sqrt((1 - below) / (1 - level) * (1 - level / below))
    signal = np.sqrt(below / level)
    noise = np.sqrt(1 - below - fresh**2) - signal * np.sqrt(1 - level)
    rows.append(_line(at, levels, i, onward=(signal, noise, fresh)))
  return rows


def _plms(at: np.ndarray, levels: np.ndarray, _: float) -> list[Plan]:
  """The first step is taken twice: there, and by the mean of both ends."""
  rows = [_line(at, levels, 0, keeps=True)]
  second = dict(time=at[min(1, len(at) - 1)], begins=False)
  second |= dict(weights=(0.5, 0.5, 0.0, 0.0), kept=True, remembers=False)
  rows.append(_line(at, levels, 0, **second))
  for i in range(1, len(at)):
    rows.append(_line(at, levels, i, weights=_ADAMS[min(i, ORDER - 1)]))
  return rows


def _dpm(at: np.ndarray, levels: np.ndarray, _: float) -> list[Plan]:
  """Of second order in the logarithm of signal over noise, but the first."""
  signal, noise = np.sqrt(levels), np.sqrt(1 - levels)
  log_ratio = _log_ratio(levels)
  rows = []
  for i in range(len(at)):
    ahead = log_ratio[i + 1] - log_ratio[i]
    weights = _ADAMS[0]
    if i:
      behind = log_ratio[i] - log_ratio[i - 1]
      share = ahead / (2 * behind)
      weights = (1 + share, -share, 0.0, 0.0)
    onward = (noise[i + 1] / noise[i], -signal[i + 1] * np.expm1(-ahead), 0.0)
    clean = (1 / signal[i], -noise[i] / signal[i])
    rows.append(
      _line(at, levels, i, foretold=clean, weights=weights, onward=onward)
    )
  return rows


_SOLVERS = {"ddim": _ddim, "plms": _plms, "dpm++": _dpm}
