"""One row of a batch: cropped, mixed, told anew, and by its number alone."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import mixing, reprogramming, spec
from audiogen_jax.data.bank import Bank
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.reprogramming import ReprogramConfig
from audiogen_jax.text.tokenizer import Tokenizer, padded


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
  """What batches are like.

  Attributes:
    batch: Rows of a batch, over all processes.
    duration_s: Length of a crop.
    min_fraction: The share of a crop that is sound, at least, if the clip is
      long enough; the rest is zeros at its end.  Below 1 the ends of clips are
      heard more often, and models learn to fall silent (as the published
      configuration notes).
    mix: How pairs are mixed; None for no mixing.
    reprogram: How events are joined to rows, after mixing; None for no events.
    seed: Seed of order, crops, mixing and events.
    shuffle: Whether the order is random, another one each epoch.
    epochs: How often all is read; None for ever.
    text_buckets: Lengths that token ids are padded to: the smallest that fits.
      Longer texts are cut.  With several processes only the last is used, since
      none of them knows the texts of the others.
    workers: Processes that prepare batches; 0 for threads of this one.
    prefetch: Batches that wait on the device.
  """

  batch: int
  duration_s: float = 10.0
  min_fraction: float = 1.0
  mix: MixConfig | None = None
  reprogram: ReprogramConfig | None = None
  seed: int = 0
  shuffle: bool = True
  epochs: int | None = None
  text_buckets: tuple[int, ...] = (32, 64, 128)
  workers: int = 0
  prefetch: int = 2

  def __post_init__(self) -> None:
    if self.batch < 1:
      raise InputError(f"batch {self.batch} must be 1 or more")
    if not 0 < self.duration_s < float("inf"):
      raise InputError(f"duration {self.duration_s} s must be more than 0")
    if not 0 < self.min_fraction <= 1:
      raise InputError(f"min_fraction {self.min_fraction} must lie in (0, 1]")
    if self.epochs is not None and self.epochs < 1:
      raise InputError(f"epochs {self.epochs} must be 1 or more, or None")
    buckets = self.text_buckets
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 2:
      raise InputError(f"text_buckets {buckets} must be 2 or more, and rise")
    for name in ("seed", "workers", "prefetch"):
      if not 0 <= getattr(self, name) < 2**32:
        raise InputError(f"{name} {getattr(self, name)} must lie in [0, 2^32)")
    if self.reprogram:
      self.reprogram.check(self.duration_s)


class Rows:
  """Rows by number, as Grain's random access wants them."""

  def __init__(
    self,
    examples: grain.MapDataset,
    config: LoaderConfig,
    settings: Mapping[str, Any],
    tokenizer: Tokenizer | None,
    buckets: tuple[int, ...],
    bank: Bank | None = None,
  ) -> None:
    self._examples, self._config, self._bank = examples, config, bank
    self._tokenizer, self._buckets = tokenizer, buckets
    kind = spec.kind_of(settings)
    self._kind = "audio" if kind == "sounds" else kind
    self._rate_hz = spec.rate_hz(settings)
    self._length = max(1, round(config.duration_s * self._rate_hz))

  def __len__(self) -> int:
    # Where there is no end Grain says 2^63 - 1, and computes with it in floats.
    c, examples = self._config, min(len(self._examples), 2**50)
    if c.mix:  # what fills no batch of pairs is left for the next epoch
      return examples // (2 * c.batch) * c.batch
    if c.epochs is None:
      return examples // c.batch * c.batch
    return -(-examples // c.batch) * c.batch

  def __getitem__(self, row: int) -> dict[str, Any]:
    c = self._config
    made = self._pair(*divmod(row, c.batch)) if c.mix else self._single(row)
    # Without a caption there is nothing to tell events beside.
    anew = c.reprogram and made["caption"]
    return self._told_anew(made, row) if anew else made

  def _told_anew(self, made: dict[str, Any], row: int) -> dict[str, Any]:
    """A row with events before, behind or over it, perhaps."""
    c = self._config
    plan = reprogramming.draw(
      c.seed, row, len(self._bank), c.duration_s, c.reprogram
    )
    if plan is None:
      return made
    sounds, labels = zip(*map(self._bank.__getitem__, plan.events), strict=True)
    return made | {
      "audio": reprogramming.join(plan, made["audio"], sounds, self._rate_hz),
      "caption": reprogramming.tell(plan, made["caption"], labels),
    }

  def _single(self, row: int) -> dict[str, Any]:
    """A crop of one example, or what fills the last batch."""
    valid = row < len(self._examples)
    example = self._crop(row if valid else 0)
    if not valid:
      example = {
        k: np.zeros_like(v) for k, v in example.items() if k != "caption"
      }
      example["caption"] = ""
    return example | {"valid": np.bool_(valid)}

  def _pair(self, batch: int, row: int) -> dict[str, Any]:
    """Row `row` of a batch of pairs, by reading two examples at most."""
    c = self._config
    drawn = _drawn(c.seed, batch, c.batch, self._length, c.mix)
    at = 2 * c.batch * batch
    first = self._crop(at + int(drawn.first[row]))
    if not drawn.mixed[row]:
      return first | {"valid": np.True_}
    second = self._crop(at + int(drawn.second[row]))
    numbers = (x[row] for x in drawn[2:])
    return {
      "audio": mixing.mix_pair(
        first["audio"], second["audio"], *numbers, config=c.mix
      ),
      "caption": mixing.join(first["caption"], second["caption"]),
      "valid": np.True_,
    }

  def _crop(self, number: int) -> dict[str, Any]:
    """A stretch of example `number`, which is filled up where it is short.

    Sounds with silence, codes with -1; latents are said again from the start,
    as Make-An-Audio's loader does.
    """
    example = self._examples[number]
    whole, length = example[self._kind], self._length
    latest = max(0, len(whole) - int(length * self._config.min_fraction))
    start = 0
    if latest:
      draw = np.random.default_rng((self._config.seed, number))
      start = int(draw.integers(latest, endpoint=True))
    stretch = whole[start : start + length]
    if self._kind == "audio":
      made = np.zeros((length, whole.shape[1]), np.float32)
      np.multiply(stretch, np.float32(2**-15), out=made[: len(stretch)])
    elif self._kind == "latents":
      made = np.take(stretch, np.arange(length) % len(stretch), axis=0)
      made = made.astype(np.float32)
    else:
      # Codes of silence are not known here: what is missing is not learnt.
      made = np.full((length, whole.shape[1]), -1, np.int32)
      made[: len(stretch)] = stretch
      made = made.T
    return {self._kind: made, "caption": example["caption"].decode()}

  def stack(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of rows, with their texts as ids."""
    batch = {
      name: np.stack([row[name] for row in rows])
      for name in (self._kind, "valid")
    }
    batch["caption"] = [row["caption"] for row in rows]
    if self._tokenizer:
      ids = [_cut(self._tokenizer, row, self._buckets[-1]) for row in rows]
      longest = max(map(len, ids))
      length = next(size for size in self._buckets if size >= longest)
      batch["text_ids"], batch["text_mask"] = padded(
        self._tokenizer, ids, length
      )
    return batch


@functools.lru_cache(maxsize=8)
def _drawn(
  seed: int, batch: int, pairs: int, samples: int, config: MixConfig
) -> mixing.Draws:
  """The draws of a batch; all its rows need them, one after another."""
  return mixing.draw(mixing.generator(seed, batch), pairs, samples, config)


def _cut(
  tokenizer: Tokenizer, row: Mapping[str, Any], longest: int
) -> list[int]:
  """Ids of a caption, the end mark kept; none for an empty caption."""
  ids = tokenizer.ids(row["caption"]) if row["caption"] else []
  return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]
