"""Training MAGNeT, a masked language model (Ziv et al., 2024, §3).

codes -> a random codebook, random spans of it hidden, later codebooks masked
      -> LM, attending to all frames or to a band -> logits of that codebook
      -> cross-entropy of what is hidden
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from audiogen_jax.convert import opening
from audiogen_jax.core import types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import masked_training, masks
from audiogen_jax.lm.masked_sampling import Masking
from audiogen_jax.lm.masked_training import Example
from audiogen_jax.train import (
  lm_figures,
  lm_flops,
  masked_planning,
  masked_samples,
)
from audiogen_jax.train.codes_task import CodesTask
from audiogen_jax.train.state import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class MaskedTask(CodesTask):
  """A masked language model to train.

  Attributes:
    masking: Spans and context, and how samples are made; in the export, too.
  """

  masking: Masking = Masking()

  family: ClassVar[str] = opening.MASKED

  def check_parts(self) -> None:
    """Raises InputError where codec, text encoder and model do not fit.

    Also where the options of sampling do not fit the model, or its pattern has
    an order in time.
    """
    super().check_parts()
    self.masking.sampling.check(self.lm.codebooks, self.lm.size)
    if self.lm.pattern.kind != "parallel":
      raise InputError(
        f"lm.pattern.kind is {self.lm.pattern.kind!r}; a masked model fills all"
        " frames at once: set it to 'parallel'"
      )

  def rows(self, codes: Int[Array, "b k t"], key: jax.Array) -> Example:
    """The codes with some hidden."""
    return masked_training.drawn(
      codes,
      jax.random.fold_in(key, 1),
      span=self.masking.span,
      special=self.lm.size,
    )

  def loss(
    self,
    params: Tree,
    state: TrainState,
    steps: Int[Array, "b k t"],
    codes: Int[Array, "b t"],
    hidden: Bool[Array, "b t"],
    book: Int[Array, " b"],
    text: Num[Array, "b l ..."],
    mask: Bool[Array, "b l"],
  ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean cross-entropy of all hidden codes; which share of all they are.

    Rows of which more is hidden weigh more, as in the released solver.  Parts
    of a batch that is accumulated weigh alike.
    """
    example = Example(steps, codes, hidden, book)
    each = self._cross_entropy(params, state, example, text, mask)
    total = jnp.sum(each, where=hidden)
    value = total / jnp.maximum(jnp.sum(hidden), 1)
    return value, {"hidden": jnp.mean(hidden)}

  def eval_step(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sums over the hidden codes of each codebook, and how often codes occur.

    All codebooks of all rows are looked at, with the same spans every time; the
    shares that are hidden are spread evenly over the rows.
    """
    codes, valid = self._codes(state, batch), batch["valid"]
    b, books, t = codes.shape
    params = state.average or state.params
    text, mask = self._text(state, batch), batch["text_mask"]
    rates = jnp.cos((jnp.arange(b) + 0.5) / b * np.pi / 2)

    def of_book(book: Int[Array, ""]) -> tuple[Array, Array]:
      order = jax.random.uniform(
        jax.random.fold_in(jax.random.key(0), book), (b, t)
      )
      hidden = masked_training.hidden_frames(rates, order, self.masking.span)
      example = masked_training.example(codes, book, hidden, self.lm.size)
      each = self._cross_entropy(params, state, example, text, mask)
      counted = example.hidden & valid[:, None]
      return jnp.sum(each, where=counted), jnp.sum(counted)

    sums, hidden = jax.lax.map(of_book, jnp.arange(books))
    chosen = jax.nn.one_hot(codes, self.lm.size)
    counts = jnp.sum(chosen, axis=(0, 2), where=valid[:, None, None, None])
    return {"ce": sums, "hidden": hidden, "counts": counts}

  def summary(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Cross-entropies in nats, and what codes drawn alone would have."""
    each = np.asarray(sums["ce"]) / np.maximum(sums["hidden"], 1)
    return lm_figures.of_codebooks(each, sums["counts"])

  def sampled(
    self,
    params: Tree,
    states: Float[Array, "b l e"],
    mask: Bool[Array, "b l"],
    visible: Bool[Array, "b l"],
    seeds: Int[Array, " b"],
    frames: int,
  ) -> Int[Array, "b k _"]:
    """Codes filled in a few passes, as `masking` says."""
    return masked_samples.sample(
      self.lm,
      self.masking,
      params,
      states,
      mask,
      visible,
      seeds,
      frames=frames,
      dtype=types.resolve_dtype(self.dtype),
    )

  def model_flops(self, rows: int, seconds: float) -> float:
    """By formula, see `lm_flops`; not known of adapters."""
    if self.lora.rank:
      return 0.0
    frames = self.encodec.tokens.frames(seconds)
    return rows * lm_flops.of_steps(self.lm, self.text, frames, heads=1)

  def sampling_programs(
    self, rows: int, placement: Placement
  ) -> dict[str, Program]:
    """One pass over all frames, as decoding makes dozens of them."""
    parts = (self.lm, self.masking, self.text, self.encodec, self.dtype)
    return masked_planning.sampling(*parts, rows, self.window_s, placement)

  @property
  def noted(self) -> dict[str, Any]:
    """What makes a masked model of it."""
    return {"masking": self.masking}

  def _cross_entropy(
    self,
    params: Tree,
    state: TrainState,
    example: Example,
    text: Num[Array, "b l ..."],
    mask: Bool[Array, "b l"],
  ) -> Float[Array, "b t"]:
    """Cross-entropy of every code of the example's codebook, hidden or not."""
    frames, book = example.codes.shape[1], example.book[0]
    attended = masks.of_codebook(
      book, frames, context=self.masking.context, shown=frames
    )
    logits = self._applied(
      params, state, example.steps, attended, text, mask, book
    )
    return masked_training.cross_entropy(logits[:, 0], example.codes)
