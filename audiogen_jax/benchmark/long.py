"""What a second of a long sound costs, beside one of a short sound.

A sound longer than the model's window is made window by window, and each window
reads again what it keeps of the one before: the less windows move on, the more
is read twice.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.benchmark import machine
from audiogen_jax.benchmark.ours import PROMPT
from audiogen_jax.core.types import Seconds
from audiogen_jax.lm.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class LongFigures:
  """What sounds of one duration took.

  Attributes:
    stride_s: Seconds by which windows moved on.
    duration_s: Seconds of the sound.
    runs: Seconds of each run, from sentence to sound.
    peak_bytes: Most memory of device or process so far.
  """

  stride_s: Seconds
  duration_s: Seconds
  runs: Sequence[float]
  peak_bytes: int

  @property
  def cost(self) -> float:
    """Seconds a second of sound, the median."""
    return machine.median([*self.runs]) / self.duration_s

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    return dataclasses.asdict(self) | {"cost": self.cost}


def compare(
  audiogen: AudioGen,
  strides_s: Sequence[Seconds],
  durations_s: Sequence[Seconds],
  *,
  guidance: float,
  runs: int,
  progress: Callable[[str, int, int], None],
) -> list[LongFigures]:
  """One sound of every duration with every stride, in turn.

  A first run of all, which may compile, does not count.

  Raises:
    InputError: If a stride is not shorter than the model's window.
  """
  works = list(itertools.product(strides_s, sorted(durations_s)))
  done = itertools.count()

  def run(work: tuple[Seconds, Seconds]) -> tuple[float, int]:
    stride_s, duration_s = work
    what = f"{duration_s:g} s, windows moved by {stride_s:g} s"
    progress(what, next(done), len(works) * (runs + 1))
    start = time.perf_counter()
    audiogen.generate(
      [PROMPT],
      duration_s=duration_s,
      stride_s=stride_s,
      sampling=Sampling(guidance=guidance),
    )
    return time.perf_counter() - start, machine.peak_bytes()

  taken = machine.in_turn(works, run, runs)
  return [
    LongFigures(*work, [took_s for took_s, _ in later], peak)
    for work, ((_, peak), later) in zip(works, taken, strict=True)
  ]
