"""Datasets -> batches on the device: shuffled, cropped, mixed, tokenised.

    datasets --shuffle, repeat, weigh--> examples 0, 1, 2, ...
      row r of batch i: a crop of example b i + r, or a mixed pair of the
      examples 2 b i to 2 b (i + 1) - 1
    rows --those that this process's devices hold--> host arrays --> devices

Every row is a function of the seed and its number alone.  So the state of a
loader is one integer, the step, and after a resume the rows go on as they would
have, whatever the number of processes, workers and threads was before.  Which
rows a process reads the mesh decides (`Placement.rows`): on a pod they are no
stretch of the batch.
"""

import collections
import dataclasses
import hashlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from jaxtyping import Int

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data import reading, spec
from audiogen_jax.data.bank import Bank
from audiogen_jax.data.rows import LoaderConfig, Rows
from audiogen_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Part:
  """A split of a dataset, and how often it is drawn beside others.

  Attributes:
    folder: Folder of a dataset that `audiogen data build` or `tokenize` wrote.
    weight: Rows drawn of it, relative to the other parts.
  """

  folder: str | Path
  split: str = "train"
  weight: float = 1.0


class Loader:
  """Batches of one or several datasets: shuffled, cropped, mixed, tokenised.

  A batch has

      audio b n c   float32 in [-1, 1], or for tokenised datasets
      codes b k t   int32, or
      latents b w z e   float32, means and log-variances
      text_ids b l, text_mask b l   with a tokenizer
      caption b     strings, which stay on the host
      valid b       False for rows that only fill the last batch of all

  Attributes:
    config: What batches are like.
    settings: What the datasets say of themselves, such as the rate.
    folders: Folders of the datasets, for messages.
    digest: SHA-256 of all that decides which rows come.

  Raises:
    InputError: If the datasets differ in kind, rate or channels, are smaller
      than a batch, or hold codes that are to be mixed or reprogrammed; if the
      bank of events has no labels, or other sounds.
  """

  def __init__(
    self,
    parts: Sequence[Part],
    config: LoaderConfig,
    *,
    tokenizer: Tokenizer | None = None,
    placement: Placement | None = None,
  ) -> None:
    self.config, self._tokenizer = config, tokenizer
    self._placement = placement or Placement.make(None)
    builders = [reading.read(part.folder) for part in parts]
    if not builders:
      raise InputError("a loader needs one dataset at least")
    self.settings = _agreed(parts, builders)
    self._examples = _examples(parts, builders, config)
    self.folders = ", ".join(str(part.folder) for part in parts)
    self._bank = _bank(self.folders, self.settings, config)
    self.digest = _digest(parts, builders, config, self._bank)
    kind = spec.kind_of(self.settings)
    if config.mix and kind != "sounds":
      raise InputError(
        f"{kind} cannot be mixed: mix before (audiogen data tokenize --copies"
        " N) and train with --config.data.mix=False"
      )
    self._rows_in_all = len(self._rows(config.text_buckets))
    if self._rows_in_all < config.batch:
      per_row = 2 if config.mix else 1
      raise InputError(
        f"{len(self._examples)} examples are too few for a batch of"
        f" {config.batch}: at least {per_row * config.batch} are needed"
      )

  def __len__(self) -> int:
    """Batches in all epochs; the largest integer where there is no end."""
    return self._rows_in_all // self.config.batch

  def batches(self, state: Mapping[str, Any] | None = None) -> "Batches":
    """Batches on the devices, from the start or from a saved state.

    Raises:
      InputError: If the state is that of other datasets or another
        configuration, or the mesh does not divide the batch.
    """
    step = 0
    if state is not None:
      if state["digest"] != self.digest:
        raise InputError(
          "the saved state of the loader is that of other datasets, another"
          " configuration, or a version that drew other mixes; resume with the"
          " same, or start anew"
        )
      step = int(state["step"])
    return Batches(self, step, self.digest, self._placement)

  def host_batches(
    self, step: int = 0, *, held: Int[np.ndarray, " b"] | None = None
  ) -> Iterator[dict[str, Any]]:
    """Rows of batch after batch, from batch `step` on, on the host.

    Args:
      step: The first batch.
      held: Which rows of each batch, rising; None for all.
    """
    c = self.config
    # None of several processes knows how long the texts of the others are.
    rows = self._rows(c.text_buckets if held is None else c.text_buckets[-1:])
    if held is None:
      held = np.arange(c.batch)
    batches = (
      grain.MapDataset.source(_Held(rows, held, c.batch))
      .batch(len(held), batch_fn=rows.stack)[step:]
      .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    )
    if c.workers:
      # Grain asks absl for a flag, and absl answers only once a main program
      # has parsed them: a notebook never does.
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
      batches = batches.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=c.workers)
      )
    return iter(batches)

  def _rows(self, buckets: tuple[int, ...]) -> Rows:
    return Rows(
      self._examples,
      self.config,
      self.settings,
      self._tokenizer,
      buckets,
      self._bank,
    )


@dataclasses.dataclass(frozen=True)
class _Held:
  """The rows of each batch that this process holds, one after another."""

  rows: Rows
  held: Int[np.ndarray, " b"]
  batch: int

  def __len__(self) -> int:
    return len(self.rows) // self.batch * len(self.held)

  def __getitem__(self, number: int) -> dict[str, Any]:
    batch, index = divmod(number, len(self.held))
    return self.rows[batch * self.batch + int(self.held[index])]


class Batches:
  """An iterator over batches; `state` is what to save beside the parameters."""

  def __init__(
    self, loader: Loader, step: int, digest: str, placement: Placement
  ) -> None:
    config = loader.config
    self._placement, self._digest, self._step = placement, digest, step
    self._batch = config.batch
    self._held = placement.rows(config.batch)
    held = self._held if placement.spans else None
    # In a list, so that what closes it also lets go of it.
    self._host = [loader.host_batches(step, held=held)]
    self._ahead: collections.deque = collections.deque()
    self._prefetch = config.prefetch
    # With the program, too, and before Python takes its modules apart: Grain's
    # workers and shared memory need them to end.
    self._end = weakref.finalize(self, _close, self._host, self._ahead)

  @property
  def state(self) -> dict[str, Any]:
    """Plain values: the batches delivered so far, and of what."""
    return {"step": self._step, "digest": self._digest}

  def __iter__(self) -> "Batches":
    return self

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the workers, who else end with the program."""
    self._end()

  def __next__(self) -> dict[str, Any]:
    # Copies to the device are asynchronous: while the caller computes on one
    # batch, the next ones are on their way.
    while len(self._ahead) <= self._prefetch:
      host = next(self._host[0], None) if self._host else None
      if host is None:
        break
      self._ahead.append({k: self._placed(v) for k, v in host.items()})
    if not self._ahead:
      raise StopIteration
    self._step += 1
    return self._ahead.popleft()

  def _placed(self, rows: np.ndarray | list[str]) -> jax.Array | list[str]:
    if isinstance(rows, list):
      return rows
    if type(rows) is not np.ndarray:
      rows = np.array(rows)  # out of the memory shared with a worker
    sharding = self._placement.sharding("batch", *[None] * (rows.ndim - 1))

    shape = (self._batch, *rows.shape[1:])
    return jax.make_array_from_callback(
      shape, sharding, lambda index: rows[among(self._held, index[0])]
    )


def among(held: Int[np.ndarray, " b"], wanted: slice) -> slice:
  """Where the rows that a device wants stand among those that are held.

  A device's rows are one stretch of the batch, and so of what its process
  holds of it.
  """
  first = int(np.searchsorted(held, wanted.start or 0))
  if wanted.stop is None:
    return slice(first, None)
  return slice(first, first + wanted.stop - (wanted.start or 0))


def _close(host: list[grain.DatasetIterator], ahead: collections.deque) -> None:
  ahead.clear()
  while host:
    host.pop().close()


def _examples(
  parts: Sequence[Part],
  builders: Sequence[tfds.core.DatasetBuilder],
  config: LoaderConfig,
) -> grain.MapDataset:
  """One endless or finite sequence of examples, in the order of reading."""
  sequences = []
  for number, (part, builder) in enumerate(zip(parts, builders, strict=True)):
    source = reading.Examples(builder, part.split)
    sequence = grain.MapDataset.source(source).seed(config.seed + number)
    if config.shuffle:
      sequence = sequence.shuffle()
    if config.epochs != 1:
      sequence = sequence.repeat(config.epochs)
    sequences.append(sequence)
  if len(sequences) == 1:
    return sequences[0]
  weights = [part.weight for part in parts]
  return grain.MapDataset.mix(sequences, weights)


def _agreed(
  parts: Sequence[Part], builders: Sequence[tfds.core.DatasetBuilder]
) -> dict[str, Any]:
  """The settings that all datasets share."""
  for part, builder in zip(parts, builders, strict=True):
    reading.Examples(builder, part.split)
    if not 0 < part.weight < float("inf"):
      raise InputError(
        f"weight {part.weight} of {part.folder} must be more than 0"
      )
  first, *others = (dict(builder.info.metadata) for builder in builders)
  for part, other in zip(parts[1:], others, strict=True):
    if other != first:
      raise InputError(
        f"{parts[0].folder} holds {first}, {part.folder} {other}; build all"
        " datasets alike"
      )
  return first


def _bank(
  folders: str, settings: Mapping[str, Any], config: LoaderConfig
) -> Bank | None:
  """The bank of events, if there are to be any."""
  if not config.reprogram:
    return None
  kind = spec.kind_of(settings)
  if kind != "sounds":
    raise InputError(
      f"{folders} holds {kind}, which cannot be reprogrammed: name the dataset"
      " of sounds that they were made of, or leave the bank of events away"
    )
  return Bank(config.reprogram.bank, config.reprogram.bank_split, settings)


def _digest(
  parts: Sequence[Part],
  builders: Sequence[tfds.core.DatasetBuilder],
  config: LoaderConfig,
  bank: Bank | None,
) -> str:
  """SHA-256 of all that decides which rows a loader gives."""
  facts = dataclasses.asdict(config)
  for name in ("text_buckets", "workers", "prefetch"):
    del facts[name]
  # Without it, the facts of older versions: their states go on.
  reprogram = facts.pop("reprogram")
  if bank:
    del reprogram["bank"]  # wherever it lies
    facts["reprogram"] = [reprogram, bank.facts]
  if config.mix:  # which it was not always: older versions drew other mixes
    facts["drawn by"] = "Philox"
  for part, builder in zip(parts, builders, strict=True):
    split = builder.info.splits[part.split]
    facts[len(facts)] = [
      builder.info.name,
      part.split,
      split.num_examples,
      part.weight,
    ]
    if (records := reading.digest(builder)) is not None:
      facts[len(facts)] = records
  return hashlib.sha256(repr(facts).encode()).hexdigest()
