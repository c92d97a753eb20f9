"""How fast networks that judge hear: ours and PyTorch originals, in turn.

    the same clips -> front end -> network -> embeddings, one core each

Weights are random, of the published sizes.  Each network has a process of its
own with one core and one thread, in which it and its original take turns.
"""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import tokenizers
from jaxtyping import Float

from audiogen_jax.benchmark import machine
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.embedding import clap, cnn14, passt, sfx, vggish
from audiogen_jax.embedding.clap import Clap, ClapConfig
from audiogen_jax.embedding.cnn14 import Cnn14Config
from audiogen_jax.embedding.extractor import Extractor
from audiogen_jax.embedding.htsat import HTSATConfig
from audiogen_jax.embedding.passt import PaSSTConfig
from audiogen_jax.embedding.sfx import SfxConfig
from audiogen_jax.embedding.vggish import VGGishConfig

# A child is told the network's name, clips, seconds of each, and runs.
_PROGRAM = """
import sys
from audiogen_jax.benchmark import extractors, extractor_rivals
extractors.run(
  sys.argv[1], *map(float, sys.argv[2:]), open_rival=extractor_rivals.open_rival
)
"""
_LIMIT_S = 3600  # of one network
_ONE_THREAD = {
  "JAX_PLATFORMS": "cpu",
  "JAX_ENABLE_COMPILATION_CACHE": "false",  # what compiling takes is told
  "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
  "OMP_NUM_THREADS": "1",
}


class Run(NamedTuple):
  """Seconds of one run: of the processor, and of the clock.

  On a core of its own both are the same; what others take of the core is in the
  second alone.
  """

  core_s: float
  clock_s: float


@runtime_checkable
class Listener(Protocol):
  """Anything that hears.

  Attributes:
    name: As tables call it.
  """

  name: str

  def hear(self, sounds: Float[np.ndarray, "b n"]) -> Any:
    """Embeds clips, all at once."""


OpenRival = Callable[[str], Listener]


class Ours:
  """One of our extractors: it cuts what it is given into batches itself."""

  name = "audiogen_jax"

  def __init__(self, extractor: Extractor) -> None:
    self._extractor = extractor

  def hear(self, sounds: Float[np.ndarray, "b n"]) -> None:
    """Embeds clips, all at once; the time counts, and nothing is kept."""
    self._extractor.embed(list(sounds))


@dataclasses.dataclass(frozen=True)
class ExtractorFigures:
  """What one network took for some clips, and its original.

  Attributes:
    name: The network's, one of `RANDOM`.
    clips: How many.
    duration_s: Seconds of each.
    runs: Ours, of all clips.
    compile_s: Seconds of compilation before them.
    rival: The original's name and version; empty if there is none.
    rival_runs: Its runs, by how many clips it was given at once.
    missing: Why the original did not run, with what to do.
  """

  name: str
  clips: int
  duration_s: Seconds
  runs: Sequence[Run]
  compile_s: float
  rival: str = ""
  rival_runs: Mapping[int, Sequence[Run]] = dataclasses.field(
    default_factory=dict
  )
  missing: str = ""

  @property
  def clip_s(self) -> float:
    """Seconds of the processor that a clip takes, the median."""
    return self._clip_s(self.runs)

  @property
  def rival_at_once(self) -> int | None:
    """As many clips at once as the original is fastest with."""
    runs = self.rival_runs
    return min(runs, key=lambda n: self._clip_s(runs[n]), default=None)

  @property
  def rival_clip_s(self) -> float | None:
    """What the original takes for one, at its fastest; None without one."""
    fastest = self.rival_at_once
    return fastest and self._clip_s(self.rival_runs[fastest])

  @property
  def ratio(self) -> float | None:
    """How many times the original's pace ours is; None without one."""
    theirs = self.rival_clip_s
    return theirs and theirs / self.clip_s

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    told = dataclasses.asdict(self)
    told["runs"] = [run._asdict() for run in self.runs]
    told["rival_runs"] = {
      at_once: [run._asdict() for run in runs]
      for at_once, runs in self.rival_runs.items()
    }
    for each in ("clip_s", "rival_at_once", "rival_clip_s", "ratio"):
      told[each] = getattr(self, each)
    return told

  def _clip_s(self, runs: Sequence[Run]) -> float:
    return machine.median([run.core_s for run in runs]) / self.clips


def check_names(names: Sequence[str]) -> tuple[str, ...]:
  """Those names, or all of them where there are none.

  Raises:
    InputError: For a name that is not one of `RANDOM`.
  """
  for name in names:
    if name not in RANDOM:
      raise InputError(f"{name!r} is not one of {', '.join(RANDOM)}")
  return tuple(dict.fromkeys(names)) or tuple(RANDOM)


def measure(
  name: str, *, clips: int, duration_s: Seconds, runs: int
) -> ExtractorFigures:
  """What a network and its original take, in a process of their own.

  Args:
    name: One of `RANDOM`.
    clips: That both hear in a run.
    duration_s: Seconds of each.
    runs: Of each, after one that may compile; the next one's turn after each.

  Raises:
    InputError: If the clips are too short for the network, too many for this
      machine, or not heard within an hour.
  """
  words = name, *map(str, (clips, duration_s, runs))
  try:
    ran = subprocess.run(
      [sys.executable, "-c", _PROGRAM, *words],
      capture_output=True,
      text=True,
      env={**os.environ, **_ONE_THREAD},
      timeout=_LIMIT_S,
    )
  except subprocess.TimeoutExpired:
    raise InputError(
      f"{name} was not done with {clips} clips after {_LIMIT_S:,} s; take fewer"
      " --clips or --runs"
    ) from None
  if ran.returncode:
    told = ran.stderr.strip().splitlines() or [f"status {ran.returncode}"]
    raise InputError(f"{name} could not be measured: {told[-1]}")
  told = json.loads(ran.stdout.splitlines()[-1])
  if isinstance(told, str):
    raise InputError(told)
  told["runs"] = [Run(*run) for run in told["runs"]]
  told["rival_runs"] = {
    int(at_once): [Run(*run) for run in some]
    for at_once, some in told["rival_runs"].items()
  }
  return ExtractorFigures(**told)


def run(
  name: str,
  clips: float,
  duration_s: Seconds,
  runs: float,
  *,
  open_rival: OpenRival,
) -> None:
  """Prints the figures of this process as JSON, or what is wrong with them."""
  if hasattr(os, "sched_setaffinity"):
    # Before there are threads, which all stay where the first one is.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  try:
    found = compare(
      name,
      RANDOM[name](),
      open_rival,
      clips=int(clips),
      duration_s=duration_s,
      runs=int(runs),
    )
  except InputError as error:
    print(json.dumps(str(error)))
    return
  print(json.dumps(dataclasses.asdict(found)))


def compare(
  name: str,
  extractor: Extractor,
  open_rival: OpenRival,
  *,
  clips: int,
  duration_s: Seconds,
  runs: int,
) -> ExtractorFigures:
  """Ours and the original on the same noise, in turn.

  The original gets clips one by one, and all at once.

  Args:
    name: The network's.
    extractor: Ours.
    open_rival: From that name to the original; raises `InputError` if it
      misses something.
    clips: That are heard in a run.
    duration_s: Seconds of each.
    runs: Of each, after one that may compile.

  Raises:
    InputError: As `measure`.
  """
  rate_hz = extractor.sample_rate_hz
  machine.check_memory(clips, duration_s, rate_hz)
  shape = clips, round(duration_s * rate_hz)
  sounds = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
  works: list[tuple[Listener, int]] = [(Ours(extractor), clips)]
  rival, missing = None, ""
  try:
    rival = open_rival(name)
  except InputError as error:
    missing = str(error)
  else:
    works += [(rival, at_once) for at_once in dict.fromkeys((1, clips))]

  def turn(work: tuple[Listener, int]) -> tuple[Run, float]:
    listener, at_once = work
    with machine.compilations() as compiling:
      core_s, clock_s = time.process_time(), time.perf_counter()
      for start in range(0, clips, at_once):
        listener.hear(sounds[start : start + at_once])
      taken = Run(time.process_time() - core_s, time.perf_counter() - clock_s)
    return taken, math.fsum(compiling)

  (first, later), *others = machine.in_turn(works, turn, runs)
  return ExtractorFigures(
    name=name,
    clips=clips,
    duration_s=duration_s,
    runs=[taken for taken, _ in later],
    compile_s=first[1],
    rival=rival.name if rival else "",
    rival_runs={
      at_once: [taken for taken, _ in some]
      for (_, at_once), (_, some) in zip(works[1:], others, strict=True)
    },
    missing=missing,
  )


def _random(build: Callable[..., Any], init: Callable, config: Any) -> Any:
  """Ours, with random weights of a shape."""
  params = jax.jit(init, static_argnums=0)(config, jax.random.key(0))
  return build(config, params, sha256="")


def _clap(audio: HTSATConfig | Cnn14Config, **shape: Any) -> Clap:
  """A CLAP that hears, and whose text network is of no size: it is not run."""
  text = BertConfig(
    vocabulary=1, width=1, layers=1, heads=1, ff=1, positions=4, kinds=1
  )
  rules = tokenizers.Tokenizer(tokenizers.models.WordLevel({}))
  build = functools.partial(
    Clap, words=WordPieces(rules, limit=1), name="clap", scale=1.0
  )
  return _random(build, clap.init, ClapConfig(audio, text, **shape))


def _laion() -> Clap:
  return _clap(
    HTSATConfig(
      cnn14.recipe(48_000, 1024, 480, 14_000.0), width=128, depths=(2, 2, 12, 2)
    ),
    width=512,
    rate_hz=48_000,
    samples=480_000,
    fill="whole",
    projection="perceptron",
  )


def _microsoft(audio: HTSATConfig | Cnn14Config, seconds: int) -> Clap:
  return _clap(
    audio,
    width=1024,
    rate_hz=44_100,
    samples=seconds * 44_100,
    fill="cut",
    projection="residual",
  )


# Of random weights, in the published sizes.
RANDOM: Mapping[str, Callable[[], Extractor]] = MappingProxyType(
  {
    "vggish": lambda: _random(vggish.Extractor, vggish.init, VGGishConfig()),
    "cnn14": lambda: _random(cnn14.Extractor, cnn14.init, Cnn14Config()),
    "passt": lambda: _random(passt.Extractor, passt.init, PaSSTConfig()),
    "clap-laion": _laion,
    "clap-microsoft-2022": lambda: _microsoft(
      Cnn14Config(mel=cnn14.recipe(44_100, 1024, 320, 14_000.0)), 5
    ),
    "clap-microsoft-2023": lambda: _microsoft(
      HTSATConfig(cnn14.recipe(32_000, 1024, 320, 14_000.0)), 7
    ),
    "sfx": lambda: _random(sfx.Sfx, sfx.init, SfxConfig()),
  }
)
