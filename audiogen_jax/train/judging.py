"""Judging on the way: sounds of always the same prompts, as papers judge them.

    the first clips held out --> captions, a seed for each --> sounds
                             --> recordings                      |
    process 0: both --> a protocol's networks --> Fréchet distance, CLAP --> all

All processes make sounds; the first one hears them, and tells the others.  A
figure of a few clips compares with others of its run alone.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from audiogen_jax.convert import judges
from audiogen_jax.core import processes, sharding
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.loader import Loader
from audiogen_jax.embedding import agreement, frechet, protocols
from audiogen_jax.embedding.extractor import Extractor, Heard, TextExtractor
from audiogen_jax.embedding.frechet import Statistics
from audiogen_jax.embedding.hearing import levelled, prepare
from audiogen_jax.embedding.protocols import Measure
from audiogen_jax.train.metrics import Log
from audiogen_jax.train.programs import Programs
from audiogen_jax.train.reporting import say
from audiogen_jax.train.state import Batch, TrainState
from audiogen_jax.train.task import Generating, Task

_KINDS = "frechet", "clap"
# Rows side by side in each part of the mesh: their caches lie beside all that
# training needs.
_AT_ONCE = 8

Sounds = Sequence[Float[np.ndarray, "n c"]]


def measures(protocol: str) -> dict[str, Measure]:
  """What a run is judged by, under the names that its log has.

  Raises:
    InputError: If there is no such protocol, or it has neither a Fréchet
      distance nor CLAP.
  """
  found = {
    f"judge/{measure.name}": measure
    for measure in protocols.get(protocol).measures
    if measure.kind in _KINDS and measure.usual
  }
  if not found:
    raise InputError(
      f"protocol {protocol} has neither a Fréchet distance nor CLAP, by which a"
      " run could be judged; take another --config.loop.judge_protocol"
    )
  return found


def check(every: int, task: Task) -> None:
  """Raises InputError for a task whose sounds cannot be judged."""
  if every and not isinstance(task, Generating):
    raise InputError(
      f"loop.judge_every is {every}, but {type(task).__name__} makes no sounds"
      " of texts that could be judged; set --config.loop.judge_every=0"
    )


class Judge:
  """Says how good a model is on its way, by the same prompts every time."""

  def __init__(
    self,
    programs: Programs,
    placement: Placement,
    loader: Loader,
    spec: Mapping[str, Any],
    *,
    rate_hz: int,
    protocol: str,
    clips: int,
  ) -> None:
    """Reads prompts, and the networks' weights in process 0.

    Args:
      programs: Of the run.
      placement: The mesh.
      loader: Of what is held out.
      spec: Names of what the programs take of a batch.
      rate_hz: Of the sounds.
      protocol: Name of the one to judge by.
      clips: How many prompts to take, if there are so many.

    Raises:
      InputError: In all processes, if weights are missing or not the published
        ones, or captions are missing that CLAP needs.
    """
    self._programs, self._placement, self._rate_hz = (
      programs,
      placement,
      rate_hz,
    )
    self._way, self._measures = protocols.get(protocol), measures(protocol)
    rows = _first(loader, clips)
    self._captions = rows.pop("caption")
    self._rows = {name: rows[name] for name in spec}
    self._networks: dict[str, Extractor] = {}
    self._reference: dict[str, Statistics] = {}
    self._texts: dict[str, Float[np.ndarray, "n d"]] = {}
    self._warned = False
    processes.agreed(self._prepare)

  def listen(self, state: TrainState) -> None:
    """Hears the recordings, which all later sounds are held against.

    Raises:
      InputError: In all processes, if a network cannot hear them: if they are
        too short, for one.
    """
    recorded = self._sounds(
      lambda batch, _: self._programs.recorded(state, batch)
    )

    def keep() -> None:
      heard = self._heard(recorded)
      for measure in self._measures.values():
        if measure.kind == "frechet":
          rows = np.concatenate([x.embeddings for x in heard[measure.hearing]])
          self._reference[measure.hearing] = frechet.gather(rows)
        else:
          self._agreement(measure, heard)  # enough clips for a group?

    processes.agreed(keep)

  def figures(self, state: TrainState, step: int, log: Log) -> dict[str, float]:
    """Makes sounds and judges them; returns figures by name, and logs them.

    Args:
      state: Whose averaged parameters make the sounds.
      step: Updates made so far.
      log: Where the figures go.
    """
    made = self._sounds(
      lambda batch, seeds: self._programs.generated(state, batch, seeds)
    )
    found = processes.agreed(lambda: self._verdict(made))
    shown = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
    say(f"judged at step {step:,}: {shown}")
    log.scalars(step, found)
    log.flush()
    return found

  def _prepare(self) -> None:
    """Networks, and what they make of the captions."""
    for measure in self._measures.values():
      name = self._way.hearings[measure.hearing].judge
      if name not in self._networks:
        self._networks[name] = judges.load(name)
      if measure.kind == "clap":
        self._texts[measure.hearing] = self._read(measure)
    say(
      f"judged by {len(self._captions)} sounds, protocol {self._way.name}: "
      + ", ".join(x.title for x in self._measures.values())
    )

  def _read(self, measure: Measure) -> Float[np.ndarray, "n d"]:
    lacking = sum(not caption.strip() for caption in self._captions)
    if lacking:
      raise InputError(
        f"CLAP compares sounds with captions, and {lacking} of the first"
        f" {len(self._captions)} clips that are held out have none; take"
        " another --config.loop.judge_protocol"
      )
    network = self._networks[self._way.hearings[measure.hearing].judge]
    if not isinstance(network, TextExtractor):
      raise InputError(f"{network.name} reads no sentences; take a CLAP")
    return network.embed_texts(self._captions)

  def _batches(self) -> Iterator[tuple[Batch, jax.Array, int]]:
    """All prompts on the devices, their seeds, and how many rows count."""
    count, ways = len(self._captions), self._placement.ways("batch")
    size = ways * min(_AT_ONCE, -(-count // ways))
    for start in range(0, count, size):
      numbers = np.arange(start, start + size, dtype=np.int32)
      rows = np.minimum(numbers, count - 1)
      batch = {
        name: self._placement.put(values[rows], "batch")
        for name, values in self._rows.items()
      }
      seeds = self._placement.put(numbers, "batch")
      yield batch, seeds, min(size, count - start)

  def _sounds(
    self, program: Callable[[Batch, jax.Array], jax.Array]
  ) -> list[Float[np.ndarray, "n c"]]:
    """What a program makes of all prompts; heard in process 0 alone."""
    found: list[np.ndarray] = []
    for batch, seeds, count in self._batches():
      sounds = program(batch, seeds)
      if jax.process_index() == 0:
        found += list(sharding.fetch(sounds)[:count])
    return found

  def _heard(
    self, sounds: Sounds, level_lufs: float | None = None
  ) -> dict[str, list[Heard]]:
    """What each network hears, by the name of the hearing."""
    if level_lufs is not None:
      sounds = [levelled(x, self._rate_hz, level_lufs) for x in sounds]
    heard = {}
    for name in {x.hearing: None for x in self._measures.values()}:
      hearing = self._way.hearings[name]
      network = self._networks[hearing.judge]
      rates = self._rate_hz, network.sample_rate_hz
      heard[name] = network.embed([prepare(hearing, x, *rates) for x in sounds])
    return heard

  def _agreement(
    self, measure: Measure, heard: Mapping[str, Sequence[Heard]]
  ) -> float:
    """The CLAP score."""
    means = [x.embeddings.mean(axis=0) for x in heard[measure.hearing]]
    cosines = agreement.cosines(np.stack(means), self._texts[measure.hearing])
    return float(agreement.in_whole_groups(cosines, measure.group).mean())

  def _verdict(self, sounds: Sounds) -> dict[str, float]:
    heard = self._heard(sounds, self._way.level_lufs)
    found = {}
    for name, measure in self._measures.items():
      if measure.kind == "frechet":
        rows = np.concatenate([x.embeddings for x in heard[measure.hearing]])
        ours, theirs = frechet.gather(rows), self._reference[measure.hearing]
        with warnings.catch_warnings(record=True) as caught:
          warnings.simplefilter("always", UserWarning)
          found[name] = frechet.distance(ours, theirs)
        if caught and not self._warned:
          say(f"{name}: {caught[0].message}")
          self._warned = True
      else:
        found[name] = self._agreement(measure, heard)
    return found


def _first(loader: Loader, count: int) -> dict[str, Any]:
  """The first rows on the host, in every process: arrays, and captions."""
  found: dict[str, list[Any]] = {}
  left = count
  with contextlib.closing(loader.host_batches()) as batches:
    for batch in batches:
      valid = int(np.sum(batch["valid"][:left]))
      for name, rows in batch.items():
        found.setdefault(name, []).extend(rows[:valid])
      left -= valid
      if left <= 0:
        break
  captions = found.pop("caption")
  if len(captions) < 2:
    raise InputError(
      f"{loader.folders} holds out {len(captions)} clip to judge by; two are"
      " needed"
    )
  return {k: np.stack(v) for k, v in found.items()} | {"caption": captions}
