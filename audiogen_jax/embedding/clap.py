"""CLAP (Elizalde et al.; Wu et al.; both ICASSP 2023): sound and text, joined.

    sound b n -> log-mel -> HTSAT or Cnn14 -> projection ─┐
                                                          ├ one space b d
    ids b l ---> RoBERTa, BERT or GPT-2 ----> projection ─┘

Published CLAPs differ in both networks, in the projection behind them, and in
how a clip of any length becomes one of theirs; `ClapConfig` names it all.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiogen_jax.core import bert, sharding, winograd
from audiogen_jax.core.bert import Bert, BertConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree, bucket
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.embedding import batching, cnn14, gpt2, htsat
from audiogen_jax.embedding.cnn14 import Cnn14, Cnn14Config
from audiogen_jax.embedding.extractor import Heard
from audiogen_jax.embedding.gpt2 import GPT2, GPT2Config
from audiogen_jax.embedding.htsat import HTSAT, HTSATConfig

AudioConfig: TypeAlias = HTSATConfig | Cnn14Config
TextConfig: TypeAlias = BertConfig | GPT2Config

_CLIPS = 4  # that are computed at once
_SENTENCES = 16  # likewise
_LEAST_TOKENS = 16  # the smallest bucket of a sentence's length
_LEVELS = 32767  # of 16-bit samples, at full scale


@dataclasses.dataclass(frozen=True)
class ClapConfig:
  """Shape of the joined networks, and the length that sounds are brought to.

  Attributes:
    audio: Of the network that hears.
    text: Of the network that reads.
    width: Of the space that they are joined in.
    rate_hz: Of sounds.
    samples: Of the window that each sound is brought to.
    fill: How a shorter sound fills the window: `whole` repeats it as often as
      it fits and leaves zeros behind, `cut` repeats it to the window's end.
    projection: `perceptron` has a hidden layer, and what comes out has unit
      length; `residual` adds and norms, and leaves the length as it is.
    epsilon: Added to the variance in the norms of a `residual` projection.
  """

  audio: AudioConfig
  text: TextConfig
  width: int
  rate_hz: int
  samples: int
  fill: Literal["whole", "cut"]
  projection: Literal["perceptron", "residual"]
  epsilon: float = 1e-5

  def __post_init__(self) -> None:
    least, most = 1, math.inf
    if isinstance(self.audio, HTSATConfig):
      most = self.audio.stretched
    else:
      least = self.audio.least_frames
    frames = self.samples // self.audio.mel.hop + 1
    if not least <= frames <= most:
      raise InputError(
        f"a window of {self.samples} samples has {frames} frames; the network"
        f" hears {least} to {most}: take another window"
      )

  @property
  def heard_width(self) -> int:
    """Of what the network that hears gives."""
    c = self.audio
    return c.out_width if isinstance(c, HTSATConfig) else c.width


class _Projection(nn.Module):
  """From a network's width into the joined space."""

  config: ClapConfig

  @nn.compact
  def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b d"]:
    c = self.config
    if c.projection == "perceptron":
      x = jax.nn.relu(nn.Dense(c.width, name="first")(x))
      x = nn.Dense(c.width, name="second")(x)
      length = jnp.linalg.norm(x, axis=-1, keepdims=True)
      return x / jnp.maximum(length, 1e-12)
    x = nn.Dense(c.width, use_bias=False, name="first")(x)
    y = jax.nn.gelu(x, approximate=False)
    x = x + nn.Dense(c.width, use_bias=False, name="second")(y)
    return nn.LayerNorm(c.epsilon, use_fast_variance=False, name="norm")(x)


def init(config: ClapConfig, key: jax.Array) -> Tree:
  """Parameters of this shape, random: what files are held against."""
  c, keys = config, jax.random.split(key, 4)
  project, widths = _Projection(c), (c.heard_width, c.text.width)
  audio = htsat if isinstance(c.audio, HTSATConfig) else cnn14
  text = bert if isinstance(c.text, BertConfig) else gpt2
  heard, read = (
    project.init(key, jnp.zeros((1, width)))["params"]
    for key, width in zip(keys[2:], widths, strict=True)
  )
  return {
    "audio": audio.init(c.audio, keys[0]),
    "audio_projection": heard,
    "text": text.init(c.text, keys[1]),
    "text_projection": read,
  }


def hear(
  config: ClapConfig,
  params: Tree,
  sounds: Float[Array, "b n"],
  network: Tree | None = None,
) -> Float[Array, "b d"]:
  """Sounds of the window's length -> the joined space, in float32.

  Args:
    config: The shape.
    params: As `init` makes them.
    sounds: Of that length.
    network: `winograd.variables` of those of the network that hears.
  """
  c, network = config.audio, network or {"params": params["audio"]}
  with jax.default_matmul_precision("highest"):
    bands = htsat.log_mel(c.mel, sounds)
    if isinstance(c, HTSATConfig):
      x = HTSAT(c).apply(network, bands)
    else:
      whole = jnp.full(len(bands), bands.shape[1])
      x, _ = Cnn14(c).apply(network, bands, whole)
    projection = {"params": params["audio_projection"]}
    return _Projection(config).apply(projection, x)


def read(
  config: ClapConfig, params: Tree, ids: Int[Array, "b l"]
) -> Float[Array, "b d"]:
  """Token ids, padded behind -> the joined space, in float32."""
  network = {"params": params["text"]}
  with jax.default_matmul_precision("highest"):
    if isinstance(config.text, BertConfig):
      _, x = Bert(config.text).apply(network, ids)
    else:
      x = GPT2(config.text).apply(network, ids)
    projection = {"params": params["text_projection"]}
    return _Projection(config).apply(projection, x)


_hear = jax.jit(hear, static_argnames="config")
_read = jax.jit(read, static_argnames="config")


class Clap:
  """A CLAP with its weights and its tokenizer: an `extractor.TextExtractor`.

  The originals take a window at random of a clip that is longer than theirs.
  Here it is the first, so that a clip has one vector and no seed.

  Attributes:
    name: Of the checkpoint, for a score says nothing without it.
    sample_rate_hz: Of the sounds that it takes.
    sha256: Of the published file that holds its weights.
    config: Its shape.
    params: Its parameters, as `init` makes them.
    scale: What its loss, and Microsoft's similarity, multiply cosines by.
  """

  def __init__(
    self,
    config: ClapConfig,
    params: Tree,
    words: WordPieces,
    *,
    name: str,
    sha256: str,
    scale: float,
    quantise: bool = False,
  ) -> None:
    """Joins what was read of a checkpoint.

    Args:
      config: Its shape.
      params: Its parameters.
      words: The tokenizer that its text network was trained with.
      name: Of the checkpoint.
      sha256: Of its file.
      scale: What its loss multiplies cosines by.
      quantise: Whether sounds pass through 16 bits, cut towards zero, as in
        `laion_clap`'s embeddings of files; audiocraft's metric does not.

    Raises:
      InputError: If the tokenizer makes ids that the network has no row for.
    """
    if words.vocabulary > config.text.vocabulary:
      raise InputError(
        f"{name}: its tokenizer has {words.vocabulary} pieces, its text network"
        f" {config.text.vocabulary} rows; give the tokenizer that it was"
        " trained with"
      )
    self.name, self.sha256 = name, sha256
    self.sample_rate_hz = config.rate_hz
    self.config, self.params = config, params
    self.scale = scale
    self._words, self._quantise = words, quantise
    self._network = winograd.variables(params["audio"])
    self._placement: Placement | None = None
    self._ways = 1

  def spread(self, placement: Placement) -> "Clap":
    """The same with its parameters on all devices, which share out sounds."""
    made = copy.copy(self)
    made._placement, made._ways = placement, placement.ways("batch")

    def everywhere(tree: Tree) -> Tree:
      return jax.tree.map(placement.put, tree)

    made.params = everywhere(self.params)
    made._network = everywhere(self._network)
    return made

  def embed(self, sounds: Sequence[Float[np.ndarray, " _"]]) -> list[Heard]:
    """One vector a clip, of its first window.

    Args:
      sounds: Mono, at `sample_rate_hz`, within ±1.

    Raises:
      InputError: If a clip has no samples.
    """
    made = batching.in_batches(
      [self._window(sound) for sound in sounds],
      self._hear,
      padded=lambda samples: samples,
      most=_CLIPS * self._ways * self.config.samples,
    )
    return [Heard(row[None]) for (row,) in made]

  def _hear(
    self, batch: Float[np.ndarray, "b n"], _: Int[np.ndarray, " b"]
  ) -> tuple[Array]:
    """Windows, each device its share of them, and zeros behind."""
    if self._placement:
      rows = -(-len(batch) // self._ways) * self._ways
      batch = self._placement.put(sharding.padded(batch, rows), "batch", None)
    return (_hear(self.config, self.params, batch, self._network),)

  def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """One vector a sentence; what is longer than the model's limit is cut."""
    rows = [self._words.ids(text) for text in texts]
    result = np.empty((len(rows), self.config.width), np.float32)
    # A sentence's bucket is its own, whatever stands beside it.
    limit = self._words.limit
    lengths = np.array(
      [min(bucket(len(row), least=_LEAST_TOKENS), limit) for row in rows], int
    )
    for length in np.unique(lengths):
      places = np.flatnonzero(lengths == length)
      for start in range(0, len(places), _SENTENCES):
        some = places[start : start + _SENTENCES]
        shape = (_SENTENCES, length)
        ids = np.full(shape, self.config.text.padding, np.int32)
        for i, place in enumerate(some):
          ids[i, : len(rows[place])] = rows[place]
        found = np.asarray(_read(self.config, self.params, ids))
        result[some] = found[: len(some)]
    return result

  def _window(self, sound: Float[np.ndarray, " n"]) -> np.ndarray:
    """A clip brought to the window's length."""
    samples = self.config.samples
    if not len(sound):
      raise InputError(
        f"{self.name} hears windows of {samples} samples, and fills them from"
        " 1 sample on; a clip has 0: leave it out"
      )
    sound = np.asarray(sound[:samples], np.float32)
    if self._quantise:
      levels = (np.clip(sound, -1, 1) * _LEVELS).astype(np.int16)
      sound = levels.astype(np.float32) / _LEVELS
    whole = self.config.fill == "whole"
    times = samples // len(sound) if whole else -(-samples // len(sound))
    sound = np.tile(sound, times)[:samples]
    return np.pad(sound, (0, samples - len(sound)))
