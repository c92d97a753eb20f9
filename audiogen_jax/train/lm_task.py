"""Training AudioGen's language model (Kreuk et al., 2023, §3.2).

codes -> steps, by the codebook pattern -> LM, causal -> logits
      -> cross-entropy of each codebook -> mean
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from audiogen_jax.convert import opening
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.lm import loss, masks
from audiogen_jax.train import (
  lm_figures,
  lm_flops,
  lm_planning,
  lm_samples,
)
from audiogen_jax.train.codes_task import CodesTask
from audiogen_jax.train.state import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class LMTask(CodesTask):
  """An autoregressive language model to train.

  Attributes:
    guidance: Classifier-free guidance of samples, also noted in the export.
  """

  guidance: float = Parts.guidance

  family: ClassVar[str] = opening.FAMILY

  def rows(
    self, codes: Int[Array, "b k t"], key: jax.Array
  ) -> tuple[Int[Array, "b k t"]]:
    """The codes, all of which the loss predicts; nothing is drawn."""
    return (codes,)

  def loss(
    self,
    params: Tree,
    state: TrainState,
    codes: Int[Array, "b k t"],
    text: Num[Array, "b l ..."],
    mask: Bool[Array, "b l"],
  ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean cross-entropy of the codebooks, and each one's by name."""
    each = self._cross_entropy(params, state, codes, text, mask)
    return jnp.mean(each), {f"ce_{k}": x for k, x in enumerate(each)}

  def eval_step(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sums over rows: of cross-entropies, and how often each code occurs."""
    codes, valid = self._codes(state, batch), batch["valid"]
    params = state.average or state.params
    text = self._text(state, batch)
    each = self._cross_entropy(
      params, state, codes, text, batch["text_mask"], rows=valid
    )
    chosen = jax.nn.one_hot(codes, self.lm.size)
    counts = jnp.sum(chosen, axis=(0, 2), where=valid[:, None, None, None])
    rows = jnp.sum(valid)
    return {"ce": each * rows, "counts": counts, "rows": rows}

  def summary(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Cross-entropies in nats, and what codes drawn alone would have."""
    each = np.asarray(sums["ce"]) / float(sums["rows"])
    return lm_figures.of_codebooks(each, sums["counts"])

  def sampled(
    self,
    params: Tree,
    states: Float[Array, "b l e"],
    mask: Bool[Array, "b l"],
    visible: Bool[Array, "b l"],
    seeds: Int[Array, " b"],
    frames: int,
  ) -> Int[Array, "b k t"]:
    """Codes written step by step, with the task's guidance."""
    return lm_samples.sample(
      self.lm,
      params,
      states,
      mask,
      visible,
      seeds,
      frames=frames,
      guidance=self.guidance,
      dtype=types.resolve_dtype(self.dtype),
    )

  def model_flops(self, rows: int, seconds: float) -> float:
    """By formula, see `lm_flops`; not known of adapters."""
    if self.lora.rank:
      return 0.0
    frames = self.encodec.tokens.frames(seconds)
    return rows * lm_flops.of_row(self.lm, self.text, frames)

  def sampling_programs(
    self, rows: int, placement: Placement
  ) -> dict[str, Program]:
    """`prefill` and `decode` of the sampler."""
    parts = (self.lm, self.text, self.encodec, self.dtype)
    return lm_planning.sampling(*parts, rows, self.window_s, placement)

  @property
  def noted(self) -> dict[str, Any]:
    """The guidance that suits the model."""
    return {"guidance": self.guidance}

  def _cross_entropy(
    self,
    params: Tree,
    state: TrainState,
    codes: Int[Array, "b k t"],
    text: Num[Array, "b l ..."],
    mask: Bool[Array, "b l"],
    rows: Bool[Array, " b"] | None = None,
  ) -> Float[Array, " k"]:
    """Mean over each codebook's predicted codes, of rows that count."""
    steps, predicted = loss.steps_of(codes, self.lm.pattern, self.lm.size)
    causal = masks.causal(steps.shape[2] - 1)
    logits = self._applied(params, state, steps[:, :, :-1], causal, text, mask)
    return loss.cross_entropy(steps, logits, predicted, rows)
