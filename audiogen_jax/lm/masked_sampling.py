"""How a masked model decodes: its options, and what they say of each pass."""

import dataclasses
import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.core import options
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import choice, counts, option, text
from audiogen_jax.core.types import AnyArray

MOST_STEPS = 1000  # passes over a codebook; published models take 60 at most
_LARGEST = 10_000
_COLDEST = 0.01  # what a temperature annealed to 0 is taken for, as published


def usual_steps(codebooks: int) -> tuple[int, ...]:
  """The published passes over each of so many codebooks, for ten seconds."""
  return (20, *[10] * (codebooks - 1))


@dataclasses.dataclass(frozen=True)
class MaskedSampling:
  """How a masked model (MAGNeT, Ziv et al., 2024, §3) fills its codebooks.

  The defaults are those that its authors publish for sound effects.

  Attributes:
    temperature: Divides the logits of a codebook's first passes; annealed to 0
      towards its last one.
    top_k: Draw among the k most likely; 0 for all.  Ties stay in.
    top_p: Draw among the most likely that together exceed p; 0 turns it off.
      Takes precedence over `top_k`, as in the published code.
    guidance: Classifier-free guidance (Ho & Salimans, 2022) where all is
      hidden: logits are `uncond + guidance (cond - uncond)`.  It falls to
      `min_guidance` as the cosine of what is still hidden does; where both are
      1 the conditional half runs alone.
    min_guidance: Guidance of a codebook's last pass.
    decoding_steps: Passes over each codebook, the coarsest first.
    span_arrangement: Where hidden spans lie, see `spans`: `stride1` anywhere,
      `nonoverlap` side by side, which cuts a sound to a multiple of the span.
    span_scoring: Of `nonoverlap`, which chunks are hidden: those whose surest
      token is the least likely (`max`), or whose tokens together are (`prod`).
    anneal_temperature: Whether the temperature falls.
    greedy: Always take the most likely token.

  Raises:
    InputError: For a value out of range.
  """

  temperature: float = option(
    3.5,
    "Of a codebook's first pass; falls to 0 towards its last one.",
    most=_LARGEST,
    ends=(0, 5),
    step=0.05,
  )
  top_k: int = option(
    0, "Draw among the k likeliest; 0 for all.", ends=(0, 1024)
  )
  top_p: float = option(
    0.8,
    "Draw from the nucleus of mass p, instead of top-k; 0 for off.",
    most=1,
    ends=(0, 1),
    step=0.01,
  )
  guidance: float = option(
    20.0,
    "Classifier-free guidance of a codebook's first pass: more follows the"
    " prompt more closely.",
    least=-_LARGEST,
    most=_LARGEST,
    ends=(1, 30),
    step=0.1,
    first=True,
  )
  min_guidance: float = option(
    1.0,
    "Guidance of a codebook's last pass.",
    least=-_LARGEST,
    most=_LARGEST,
    ends=(1, 30),
    step=0.1,
  )
  decoding_steps: tuple[int, ...] = counts(
    usual_steps(4),
    "Passes over each codebook, the coarsest first.",
    most=MOST_STEPS,
  )
  span_arrangement: Literal["nonoverlap", "stride1"] = choice(
    "stride1",
    "Where hidden spans lie: nonoverlap (side by side), or stride1 (anywhere).",
    among=("nonoverlap", "stride1"),
  )
  span_scoring: Literal["max", "prod"] = choice(
    "max",
    "Of nonoverlap, which spans are hidden: by their surest token (max), or by"
    " all of them (prod).",
    among=("max", "prod"),
  )
  anneal_temperature: bool = True
  greedy: bool = False

  def __post_init__(self) -> None:
    if isinstance(self.decoding_steps, list):
      object.__setattr__(self, "decoding_steps", tuple(self.decoding_steps))
    options.check(self)

  def check(self, codebooks: int, size: int) -> None:
    """Whether a model of these codebooks can follow the options.

    Raises:
      InputError: If `decoding_steps` are not one a codebook, or `top_k` is
        larger than a codebook.
    """
    steps = self.decoding_steps
    if len(steps) != codebooks:
      raise InputError(
        f"decoding-steps {text(steps)} are for {len(steps)} codebooks, and the"
        f" model has {codebooks}; give one number for each"
      )
    if self.top_k > size:
      raise InputError(
        f"top-k {self.top_k} is above the codebook size {size}; take {size} or"
        " less, or 0 for all"
      )

  @property
  def guided(self) -> bool:
    """Whether any pass needs the unconditional half."""
    return (self.guidance, self.min_guidance) != (1, 1)


@dataclasses.dataclass(frozen=True)
class Masking:
  """What makes a masked model of a language model.

  Attributes:
    context: Frames to either side that codebooks after the first attend to; -1
      for all (the published `subcodes_context`).
    span: Frames that are hidden together; 1 for each by itself.
    sampling: The options that suit the model.
  """

  context: int = 5
  span: int = 3
  sampling: MaskedSampling = MaskedSampling()

  def frames(self, sampling: MaskedSampling, asked: int, known: int) -> int:
    """The frames that decoding makes of those asked for, a prompt's included.

    Spans side by side cut a sound to a multiple of theirs.

    Args:
      sampling: How it is done.
      asked: Frames that are wanted.
      known: Frames of the prompt.

    Raises:
      InputError: If not one span fits, or nothing is left to do.
    """
    side_by_side = sampling.span_arrangement == "nonoverlap"
    total = asked // self.span * self.span if side_by_side else asked
    if total < self.span:
      raise InputError(
        f"{asked} frames are fewer than the {self.span} of a span; ask for"
        f" {self.span} or more"
      )
    if known >= total:
      raise InputError(
        f"the prompt has {known} frames, and {total} are made in all of"
        f" {asked}; ask for more than {known + self.span - 1}"
      )
    return total

  def places(
    self, sampling: MaskedSampling, kept: Bool[np.ndarray, "b t"]
  ) -> Int[np.ndarray, " b"]:
    """Places of a codebook that are to be made: chunks or frames.

    A chunk that is kept in part is made, too.

    Args:
      sampling: How it is done.
      kept: Of all frames, those whose codes are there to stay.
    """
    if sampling.span_arrangement == "nonoverlap":
      b, t = kept.shape
      more = ((0, 0), (0, -t % self.span))
      chunks = np.pad(kept, more, constant_values=True)
      kept = chunks.reshape(b, -1, self.span).all(axis=2)
    return np.count_nonzero(~kept, axis=1)


class Rules(NamedTuple):
  """`MaskedSampling` as traced values: changing them compiles nothing.

  Attributes:
    top_k: In [1, V]; V for all.
    top_p: In [0, 1]; 0 for top-k.
    greedy: Whether the likeliest tokens are taken.
    anywhere: Whether spans begin at any frame ("stride1").
    summed: Whether chunks are scored by the product of probabilities ("prod").
  """

  top_k: Int[AnyArray, ""]
  top_p: Float[AnyArray, ""]
  greedy: Bool[AnyArray, ""]
  anywhere: Bool[AnyArray, ""]
  summed: Bool[AnyArray, ""]

  @classmethod
  def make(cls, sampling: MaskedSampling, size: int) -> "Rules":
    """Those of a codebook of `size` entries."""
    # Where the likeliest are taken nothing is filtered: scores are of them all.
    top_k = 0 if sampling.greedy else sampling.top_k
    top_p = 0.0 if sampling.greedy else sampling.top_p
    return cls(
      top_k=np.asarray(top_k or size, np.int32),
      top_p=np.asarray(top_p, np.float32),
      greedy=np.asarray(sampling.greedy),
      anywhere=np.asarray(sampling.span_arrangement == "stride1"),
      summed=np.asarray(sampling.span_scoring == "prod"),
    )


class Passes(NamedTuple):
  """What each pass over a codebook does; zeros past the last.

  Attributes:
    count: Places that it hides of each row.
    guidance: Classifier-free guidance.
    temperature: Divides the logits.
  """

  count: Int[AnyArray, "b p"]
  guidance: Float[AnyArray, " p"]
  temperature: Float[AnyArray, " p"]

  @classmethod
  def make(
    cls, sampling: MaskedSampling, book: int, places: Int[np.ndarray, " b"]
  ) -> "Passes":
    """Those over codebook `book`, of which `places` are to be made in each row.

    All arrays have one length, so that another number of passes is no other
    program.
    """
    steps = sampling.decoding_steps[book]
    ratio = mask_ratios(steps)
    low, high = np.float32(sampling.min_guidance), np.float32(sampling.guidance)
    left = np.arange(steps)[::-1] / steps
    falling = left if sampling.anneal_temperature else np.ones(steps)
    temperature = np.maximum(sampling.temperature * falling, _COLDEST)

    def padded(values: Int[np.ndarray, "*b _"] | Float[np.ndarray, "*b _"]):
      rows = [(0, 0)] * (values.ndim - 1)
      return np.pad(values, (*rows, (0, MOST_STEPS - steps)))

    return cls(
      padded(hidden_counts(ratio, places)),
      padded(ratio * high + (np.float32(1) - ratio) * low),
      padded(temperature.astype(np.float32)),
    )


def mask_ratios(steps: int) -> Float[np.ndarray, " p"]:
  """The share that each of so many passes hides: a cosine from 1 to 0.

  float32, rounded where the published code rounds it: with 10 passes the share
  of the seventh is 0.49999997, with 4 that of the third 0.50000006, and what
  they hide of an even number differs by one place.
  """
  if steps == 1:
    return np.ones(1, np.float32)
  index = np.arange(steps)
  step = np.float64(np.float32(1) / np.float32(steps - 1))
  # Evenly spaced from both ends, each place rounded once.
  even = np.where(
    index < steps // 2, step * index, 1 - step * (steps - 1 - index)
  ).astype(np.float32)
  angle = even * np.float32(math.pi) * np.float32(0.5)
  return np.cos(angle.astype(np.float64)).astype(np.float32)


def hidden_counts(
  ratio: Float[np.ndarray, " p"], places: Int[np.ndarray, " b"]
) -> Int[np.ndarray, "b p"]:
  """How many of a row's `places` each pass hides: one at least."""
  share = ratio[None] * places.astype(np.float32)[:, None]
  return np.maximum(share.astype(np.int32), 1)
