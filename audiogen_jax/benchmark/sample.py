"""How fast sounds are made: ours and others', on the same work in turn."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from audiogen_jax.benchmark import machine
from audiogen_jax.benchmark.roofline import Passes, Speed
from audiogen_jax.core.types import Seconds
from audiogen_jax.families import TextToAudio


@dataclasses.dataclass(frozen=True)
class Work:
  """What is made.

  Attributes:
    batch: Prompts at once.
    duration_s: Seconds of each sound.
    guidance: As in `Sampling`.
  """

  batch: int
  duration_s: Seconds
  guidance: float = 3.0


_DERIVED = (  # properties of figures that their plain values hold, too
  "step_s",
  "lm_s",
  "total_s",
  "vocoder_s",
  "tokens_per_s",
  "sound_per_s",
  "limit_share",
)


class Run(NamedTuple):
  """Seconds of one run.

  Attributes:
    lm_s: Of the language model; of a model that diffuses, of its U-Net.
    total_s: From sentence to sound.
    vocoder_s: Of what remains, the vocoder's; 0 without one.
  """

  lm_s: float
  total_s: float
  vocoder_s: float = 0.0


@runtime_checkable
class Contestant(Protocol):
  """Anything that makes sounds."""

  name: str

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""


class Own(Contestant, Protocol):
  """One of our families.

  Attributes:
    model: That of the family.
    dtype: Type of its weights, where most of the work is.
  """

  model: TextToAudio
  dtype: jnp.dtype

  def tokens(self, work: Work) -> int:
    """Tokens of one sound, or values of its latent."""

  def passes(self, work: Work) -> Passes:
    """What the language model, or the U-Net, must read and compute."""

  def latency_s(self, work: Work) -> Seconds | None:
    """From sentences to the first half second; None if it cannot stream."""


@dataclasses.dataclass(frozen=True)
class SampleFigures:
  """What one contestant took for one piece of work.

  Attributes:
    name: The contestant's.
    work: What was made.
    steps: Of language model or U-Net, each of which reads its weights.
    tokens: Of one sound, all codebooks together, or values of its latent.
    first_s: The first run, compilation included.
    runs: Those after it.
    compile_s: Seconds of compilation in the first run; None if not known.
    latency_s: From sentence to the first half second of sound, compiled; None
      if it does not stream.
    limit: What a step must read and compute.
    speed: What the machine reads and computes a second.
    peak_bytes: Most memory of device or process so far; None if others ran
      beside.
  """

  name: str
  work: Work
  steps: int
  tokens: int
  first_s: float
  runs: Sequence[Run]
  compile_s: float | None = None
  latency_s: float | None = None
  limit: Passes | None = None
  speed: Speed | None = None
  peak_bytes: int | None = None

  @property
  def step_s(self) -> float:
    """Seconds a step, the median."""
    return self.lm_s / self.steps

  @property
  def lm_s(self) -> float:
    """Seconds of the language model for all sounds, the median."""
    return machine.median([run.lm_s for run in self.runs])

  @property
  def total_s(self) -> float:
    """Seconds from sentences to sounds, the median."""
    return machine.median([run.total_s for run in self.runs])

  @property
  def vocoder_s(self) -> float:
    """Seconds of the vocoder for all sounds, the median; 0 without one."""
    return machine.median([run.vocoder_s for run in self.runs])

  @property
  def tokens_per_s(self) -> float:
    """Tokens of all prompts and codebooks."""
    return self.work.batch * self.tokens / self.lm_s

  @property
  def sound_per_s(self) -> float:
    """Seconds of sound a second."""
    return self.work.batch * self.work.duration_s / self.total_s

  @property
  def limit_share(self) -> float | None:
    """How near a step comes to the roofline: 1 is at it."""
    if self.limit is None or self.speed is None:
      return None
    return self.limit.limit_s(self.speed) / self.step_s

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    told = dataclasses.asdict(self)
    told["runs"] = [run._asdict() for run in self.runs]
    for each in ("limit", "speed"):
      told[each] = told[each] and told[each]._asdict()
    for each in _DERIVED:
      told[each] = getattr(self, each)
    return told


def compare(
  ours: Sequence[Own],
  rivals: Sequence[Contestant],
  works: Sequence[Work],
  *,
  runs: int,
  progress: Callable[[str, int, int], None],
) -> list[SampleFigures]:
  """Every contestant on all of the work, in turn.

  Runs alternate, so that whatever else the machine does meets all alike.

  Args:
    ours: One or several of our families; rivals are given the steps and tokens
      of the first.
    rivals: Others.
    works: What is made.
    runs: That count, after one that may compile.
    progress: Called with what comes next, the runs done, and all of them.

  Raises:
    InputError: If the sounds cannot fit into memory.
  """
  first = ours[0].model
  for work in works:
    machine.check_memory(
      work.batch, work.duration_s, first.sample_rate_hz * first.channels
    )
  found, done, contestants = [], itertools.count(), [*ours, *rivals]
  total = len(works) * len(contestants) * (runs + 1)
  speed = machine.speed(ours[0].dtype)

  def run(work: Work, each: Contestant) -> tuple[Run, float, float]:
    what = f"{each.name}, {work.batch} x {work.duration_s} s"
    progress(what, next(done), total)
    with machine.compilations() as compiling:
      start = time.perf_counter()
      given = each.run(work)
      took_s = time.perf_counter() - start
    return given, took_s, math.fsum(compiling)

  alone = len(contestants) == 1
  for work in works:
    taken = machine.in_turn(contestants, functools.partial(run, work), runs)
    limits = [each.passes(work) for each in ours]
    counts = [each.tokens(work) for each in ours]
    made = [
      SampleFigures(
        name=each.name,
        work=work,
        steps=limit.count,
        tokens=tokens,
        first_s=first_s,
        runs=[given for given, *_ in later],
      )
      for each, ((_, first_s, _), later), limit, tokens in zip(
        contestants,
        taken,
        [*limits, *[limits[0]] * len(rivals)],
        [*counts, *[counts[0]] * len(rivals)],
        strict=True,
      )
    ]
    for index, each in enumerate(ours):  # of others not known
      made[index] = dataclasses.replace(
        made[index],
        compile_s=taken[index][0][2],
        latency_s=each.latency_s(work),
        limit=limits[index],
        speed=speed,
        peak_bytes=machine.peak_bytes() if alone else None,
      )
    found += made
  return found
