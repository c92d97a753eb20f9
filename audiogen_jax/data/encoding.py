"""A dataset of sounds -> a dataset of what an encoder makes of them, once.

A trainer reads codes or latents in place of sounds and saves their encoder in
every step.  Whatever is done to sounds is done before: `copies` more of each
clip, mixed with other clips.

    clips --mix, pad--> batches of one bucket --Coder.encode--> shards

Each process writes every P-th shard with its own devices; they meet in the
folder, so all of them must see it.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Int, Shaped

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import bucket
from audiogen_jax.data import mixing, reading, shards
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.shards import About, BuildReport
from audiogen_jax.data.spec import CodeSpec, LatentSpec


@dataclasses.dataclass(frozen=True)
class TokenizeConfig:
  """How sounds become codes or latents.

  Attributes:
    min_duration_s: Shorter clips are filled up with silence, as the loader
      fills up sounds: it cannot encode silence.
    copies: How many mixed copies of each clip are added.
    mix: How they are mixed; the second sound is another clip of the split.
    batch: Clips encoded together.
    seed: Seed of the mixing.
  """

  min_duration_s: float = 10.0
  copies: int = 0
  mix: MixConfig = MixConfig(chance=1.0)
  batch: int = 16
  seed: int = 0

  def __post_init__(self) -> None:
    if not 0 <= self.min_duration_s < float("inf"):
      raise InputError(f"duration {self.min_duration_s} s must be 0 or more")
    for name, least in (("copies", 0), ("batch", 1)):
      if getattr(self, name) < least:
        raise InputError(
          f"{name} {getattr(self, name)} must be {least} or more"
        )


@runtime_checkable
class Coder(Protocol):
  """What makes the fields of examples of sounds.

  Attributes:
    field: `codes` or `latents`.
    spec: Of what it makes.
    rate_hz: Of the sounds.
    channels: Of the sounds.
    hop: Samples of a frame, or of a column.
  """

  field: str
  spec: CodeSpec | LatentSpec
  rate_hz: int
  channels: int
  hop: int

  def made_by(self) -> dict[str, str]:
    """What it made of a test sound, as a setting of a dataset."""

  def encode(
    self, audio: Float[np.ndarray, "b n c"], lengths: Int[np.ndarray, " b"]
  ) -> Shaped[np.ndarray, "b t ..."]:
    """A frame for each `hop` samples, in the type that is stored."""


@dataclasses.dataclass(frozen=True)
class _Clip:
  """Clip `number` of a split; copy 0 is the clip as it is."""

  number: int
  copy: int


def encode(
  dataset: str | os.PathLike,
  coder: Coder,
  folder: str | os.PathLike,
  *,
  config: TokenizeConfig | None = None,
  process: tuple[int, int] = (0, 1),
  progress: Callable[[int, int], None] | None = None,
) -> BuildReport | None:
  """Writes what a coder makes of a dataset, or goes on with doing so.

  Args:
    dataset: Of sounds.
    coder: On this process's own devices.
    folder: Where; new, or one where this was killed.
    config: How.
    process: Number of this process, and how many there are; number 0 finishes
      when all shards are there.
    progress: Called with the clips that this process has done, and its total.

  Returns:
    What was written; None except in process 0.

  Raises:
    InputError: If the dataset is not one of sounds at the coder's rate and
      channels, or the folder cannot be written.
  """
  config = config or TokenizeConfig()
  builder = reading.read(dataset)
  sounds = dict(builder.info.metadata)
  wanted = {
    "rate_hz": coder.rate_hz,
    "channels": coder.channels,
  }
  if sounds != wanted:
    raise InputError(
      f"{dataset} holds {sounds}, the encoder takes {wanted}; build it with"
      f" --rate {wanted['rate_hz']} --channels {wanted['channels']}"
    )
  splits = builder.info.splits
  items = {
    name: [
      _Clip(i, copy)
      for copy in range(config.copies + 1)
      for i in range(split.num_examples)
    ]
    for name, split in splits.items()
  }
  about = _about(builder, coder, config)
  index, count = process
  # They meet in the folder, not in JAX's collectives: any number of processes
  # goes on with what another number began.
  with shards.Build.open(folder, about, items, leads=index == 0) as build:
    todo = set(build.todo)
    mine = [s for s in build.shards[index::count] if s in todo]
    total, done = sum(shard.last - shard.first for shard in mine), 0
    for shard in mine:
      source = reading.Examples(builder, shard.split)
      clips = items[shard.split][shard.first : shard.last]
      examples = _encoded(source, clips, coder, config)
      shards.write(folder, shard, about.features, examples)
      done += len(clips)
      if progress:
        progress(done, total)
    if index:
      return None
    build.wait()
    return build.finish()


def _about(
  builder: tfds.core.DatasetBuilder, coder: Coder, config: TokenizeConfig
) -> About:
  info = builder.info
  settings = dataclasses.asdict(config)
  del settings["batch"]  # decides nothing
  return About(
    name=info.name,
    features=coder.spec.features,
    description=f"{coder.field.capitalize()} of: {info.description}",
    settings={
      **dataclasses.asdict(coder.spec),
      # They mean something to the model alone that wrote them.
      **coder.made_by(),
      "made": repr(settings),
    },
    homepage=info.homepage,
    citation=info.citation,
    licence=reading.licence(builder),
  )


def _encoded(
  source: reading.Examples,
  clips: Sequence[_Clip],
  coder: Coder,
  config: TokenizeConfig,
) -> Iterator[dict[str, Any]]:
  """Examples with what the coder makes, in the order of the clips."""
  hop = coder.hop
  batches: dict[int, list] = {}
  ready: dict[int, dict[str, Any]] = {}
  following = 0
  for index, clip in enumerate(clips):
    audio, example = _sound(source, clip, coder.rate_hz, config)
    # One bucket a batch: few compilations, and little is computed in vain.
    frames = bucket(-(-len(audio) // hop))
    rows = batches.setdefault(frames, [])
    rows.append((index, audio, example))
    if len(rows) == config.batch:
      ready |= _encode(batches.pop(frames), frames * hop, coder, config.batch)
    while following in ready:
      yield ready.pop(following)
      following += 1
  for frames, rows in batches.items():
    ready |= _encode(rows, frames * hop, coder, config.batch)
  for index in sorted(ready):
    yield ready[index]


def _encode(
  rows: list[tuple[int, Float[np.ndarray, "_ c"], dict[str, Any]]],
  samples: int,
  coder: Coder,
  batch: int,
) -> dict[int, dict[str, Any]]:
  """Examples with what the coder makes, by the index of each clip.

  Args:
    rows: Index, sound and the rest of the example of each clip.
    samples: That every sound is padded to.
    coder: What makes it.
    batch: Rows that are encoded at once; those beyond `rows` are zeros.
  """
  audio = np.zeros((batch, samples, coder.channels), np.float32)
  lengths = np.full(batch, samples, np.int32)
  for i, (_, sound, _) in enumerate(rows):
    audio[i, : len(sound)] = sound
    lengths[i] = len(sound)
  made = coder.encode(audio, lengths)
  frames = -(-lengths // coder.hop)
  return {
    index: example | {coder.field: made[i, : frames[i]]}
    for i, (index, _, example) in enumerate(rows)
  }


def _sound(
  source: reading.Examples, clip: _Clip, rate_hz: int, config: TokenizeConfig
) -> tuple[Float[np.ndarray, "n c"], dict[str, Any]]:
  """A clip as float32, and what else its example says."""
  example = source[clip.number]
  audio, caption = _float(example["audio"]), example["caption"].decode()
  name = example["id"].decode()
  if clip.copy:
    # Any other clip of the split, and numbers that depend on this copy alone.
    draw = np.random.default_rng((config.seed, clip.number, clip.copy))
    step = int(draw.integers(1, max(2, len(source))))
    other = source[(clip.number + step) % len(source)]
    drawn = mixing.draw(draw, 1, len(audio), config.mix)
    second = np.zeros_like(audio)
    part = _float(other["audio"])[: len(audio)]
    second[: len(part)] = part
    numbers = (values[0] for values in drawn[2:])
    audio = mixing.mix_pair(audio, second, *numbers, config=config.mix)
    if drawn.mixed[0]:
      caption = mixing.join(caption, other["caption"].decode())
    name = f"{name}+{clip.copy}"
  missing = round(config.min_duration_s * rate_hz) - len(audio)
  audio = np.pad(audio, ((0, max(0, missing)), (0, 0)))
  return audio, {
    "id": name,
    "caption": caption,
    "tags": [tag.decode() for tag in example["tags"]],
    "source": example["source"].decode(),
    "licence": example["licence"].decode(),
  }


def _float(samples: np.ndarray) -> np.ndarray:
  return samples * np.float32(2**-15)
