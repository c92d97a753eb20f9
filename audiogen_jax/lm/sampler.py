"""Sampling, one step after another: from text and a prompt's codes to codes.

One prompt is one row: what a row becomes depends on its text, its prompt, its
own key and the sampling options, never on its neighbours.  With guidance each
row is run twice, side by side in the batch, with its text and with that text's
zeros (classifier-free guidance, Ho & Salimans, 2022), or with another text that
says what is not wanted (a negative prompt).

The data flow, for S steps of which the first `start` are known:

    prefill: text, steps[: start - 1] -> KV caches of text and steps
    decode:  steps[s - 1] -> logits -> steps[s]       for s = start … S - 1
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt

from audiogen_jax.core.sharding import Placement, fetch
from audiogen_jax.core.types import Cond, Tree, bucket, precision
from audiogen_jax.lm import memory, patterns, tiling
from audiogen_jax.lm.language_model import LEAST_PROMPT, LanguageModel
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Layout
from audiogen_jax.lm.quantised import apart
from audiogen_jax.lm.sampling import Sampling, TracedSampling, draw
from audiogen_jax.lm.transformer import KVCache

_UNKNOWN = -1
LEAST_STEPS = 128  # smallest capacity of a KV cache: 2.5 s at 50 Hz


class State(NamedTuple):
  """What decoding carries from step to step.

  Attributes:
    steps: All tokens; -1 where still unknown.
    step: The next step to write.
    caches: KV caches, one a layer; rows are doubled under guidance.
  """

  steps: Int[Array, "b k s"]
  step: Int[Array, ""]
  caches: list[KVCache]


class Inputs(NamedTuple):
  """What all steps of decoding read.

  Attributes:
    text_caches: KV caches of the text, one a layer; None without
      cross-attention.
    text_mask: The text positions that are attended to.
    keys: One a row.
    sampling: How tokens are drawn.
    negative_mask: As `text_mask`, of negative prompts; None where there are
      none.
  """

  text_caches: list[KVCache | None]
  text_mask: Bool[Array, "b l"]
  keys: Key[Array, " b"]
  sampling: TracedSampling
  negative_mask: Bool[Array, "b _"] | None = None


class Programs(NamedTuple):
  """The functions `prefill`, `decode` and `grow` of this file, under jit."""

  prefill: Callable[..., Any]
  decode: Callable[..., Any]
  grow: Callable[..., Any]


def generate(
  lm: LanguageModel,
  cond: Cond,
  *,
  frames: int,
  seeds: Sequence[int],
  sampling: Sampling,
  prompt: Int[np.ndarray, "b k p"],
  window: int = 0,
  every: int | None = None,
  negative: Cond | None = None,
) -> Iterator[tuple[int, Int[np.ndarray, "b k _"]]]:
  """Codes for each row of `prompt`, the prompt's first.

  Args:
    lm: The model.
    cond: What each row's text says: from `lm.condition`, `lm.rows(b)` rows.
    frames: Frames in all, more than the prompt has.
    seeds: One a row, in [0, 2^32).
    sampling: How tokens are drawn.
    prompt: Codes that each row begins with; none, if `p` is 0.
    window: Which window of a long sound this is: each draws its own numbers.
    every: Steps between two results; None for all in one piece.
    negative: As `cond`, of each row's negative prompt, which guidance leads
      away from; without guidance it says nothing.  None for no text.

  Yields:
    Steps done since the last result, and the frames finished so far; in the
    end all of them.

  Raises:
    InputError: If `top_k` is larger than the codebooks, or memory runs out.
  """
  traced = TracedSampling.make(sampling, lm.config.size)
  options = lm.options | {"guided": sampling.guided}
  b, k, known = prompt.shape
  layout = patterns.layout(lm.config.pattern, k, frames)
  start, stop = patterns.first_step(layout, known), layout.frame.shape[1]
  steps = _known_steps(lm, prompt, layout)
  texts = [text for text in (cond, negative) if text is not None]
  longest = max(text.mask.shape[1] for text in texts)
  prepended = longest if lm.config.prepend_text else 0
  memory.check(b, len(steps), prepended + steps.shape[2], **options)
  with memory.explained(b):
    keys = row_keys(lm, seeds, window)
    state, text_caches = _prefilled(lm, steps, texts, start, options)
    traced = TracedSampling(*map(lm.placement.put, traced))
    unwanted = None if negative is None else negative.mask
    inputs = Inputs(text_caches, cond.mask, keys, traced, unwanted)
    step = start
    while step < stop:
      capacity = state.steps.shape[2]
      if step == capacity:
        state, capacity = _grown(lm, state, steps), 2 * capacity
      end = min(step + (every or stop), capacity, stop)
      state = _decoded(lm, state, inputs, end, options)
      steps[..., step:end] = fetch(state.steps)[..., step:end]
      yield end - step, _finished(steps[:b], layout, end)
      step = end


def _known_steps(
  lm: LanguageModel, prompt: Int[np.ndarray, "b k p"], layout: Layout
) -> Int[np.ndarray, "r k s"]:
  """All steps with the prompt in them, rows and steps in buckets.

  -1 where a code is unknown; special tokens past the last step.
  """
  b, k, known = prompt.shape
  frames, special = layout.step.shape[1], lm.config.size
  codes = np.full((lm.rows(b), k, frames), _UNKNOWN, np.int32)
  codes[:b, :, :known] = prompt
  steps = patterns.interleave(codes, layout.frame, special)
  stop = layout.frame.shape[1]
  more = bucket(stop, least=LEAST_STEPS) - stop
  return np.pad(steps, ((0, 0), (0, 0), (0, more)), constant_values=special)


def row_keys(
  lm: LanguageModel, seeds: Sequence[int], window: int
) -> Key[Array, " r"]:
  """One key a row; rows beyond the prompts have that of seed 0."""
  put = lm.placement.put
  seeds = [*seeds] + [0] * (lm.rows(len(seeds)) - len(seeds))
  seeds = put(np.asarray(seeds, np.uint32), "batch")
  return _keys(seeds, put(np.int32(window)))


def _prefilled(
  lm: LanguageModel,
  steps: Int[np.ndarray, "r k s"],
  texts: Sequence[Cond],
  start: int,
  options: dict[str, Any],
) -> tuple[State, list[KVCache | None]]:
  """The state at step `start`, and the KV caches of the text.

  `texts` are what the rows' texts say and, if there are, their negative ones.
  """
  # Caches grow with the sound, and attention reads no more than there is.
  capacity = bucket(start, least=LEAST_STEPS)
  # Prefill reads a bucket of steps, and all but the last known one of them
  # matter; what it reads of unknown ones is written again before it is used.
  # Windows of a long sound all read as much: a fine bucket costs them little.
  read = bucket(start - 1, least=LEAST_PROMPT, parts=4) if start > 1 else 0
  head = np.maximum(steps[..., : min(read, capacity)], 0)
  put = lm.placement.put
  text_caches, caches = compiled(lm.config, lm.placement).prefill(
    lm.params,
    put(head, "batch", None, None),
    *texts,
    capacity=capacity,
    **options,
  )
  steps = put(steps[..., :capacity], "batch", None, None)
  return State(steps, put(np.int32(start)), caches), text_caches


def _grown(
  lm: LanguageModel, state: State, steps: Int[np.ndarray, "r k s"]
) -> State:
  """The state with twice the capacity, its tokens from `steps`."""
  capacity = state.steps.shape[2]
  grow = compiled(lm.config, lm.placement).grow
  for i, cache in enumerate(state.caches):  # in turn: less memory
    state.caches[i] = grow(cache, more=capacity)
  steps = steps[..., : 2 * capacity]
  return state._replace(steps=lm.placement.put(steps, "batch", None, None))


def _decoded(
  lm: LanguageModel,
  state: State,
  inputs: Inputs,
  end: int,
  options: dict[str, Any],
) -> State:
  """The state after sampling the steps from `state.step` to `end - 1`."""
  decode = compiled(lm.config, lm.placement).decode
  end = lm.placement.put(np.int32(end))
  return decode(lm.params, state, inputs, end, **options)


def _finished(
  steps: Int[np.ndarray, "b k s"], layout: Layout, end: int
) -> Int[np.ndarray, "b k _"]:
  """The frames of which all codes lie before step `end`."""
  count = np.count_nonzero(np.all(layout.step < end, axis=0))
  return patterns.deinterleave(steps, layout.step)[:, :, :count]


def prefill(
  params: Tree,
  steps: Int[Array, "b k s"],
  cond: Cond,
  negative: Cond | None = None,
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  capacity: int,
  guided: bool,
) -> tuple[list[KVCache | None], list[KVCache]]:
  """KV caches of text and steps, see `LM.prefill`; rows double if guided."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    if guided:
      cond, steps = doubled(cond, negative), jnp.repeat(steps, 2, axis=0)
    lm = apart(config, dtype)
    return lm.apply({"params": params}, steps, cond, capacity, method="prefill")


def decode(
  params: Tree,
  state: State,
  inputs: Inputs,
  stop: Int[Array, ""],
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  guided: bool,
) -> State:
  """Writes steps until `stop`; known tokens stay as they are."""
  lm, text_mask = apart(config, dtype), inputs.text_mask
  if guided:
    text_mask = _paired(text_mask, inputs.negative_mask)

  def logits_of(state: State) -> tuple[Float[Array, "b k v"], list[KVCache]]:
    last = jax.lax.dynamic_index_in_dim(
      state.steps, state.step - 1, axis=2, keepdims=False
    )
    if guided:
      last = jnp.repeat(last, 2, axis=0)
    logits, caches = lm.apply(
      {"params": params},
      last,
      state.step - 1,
      text_mask,
      inputs.text_caches,
      state.caches,
      method="step",
    )
    if guided:
      logits = joined(logits, inputs.sampling.guidance)
    return logits, caches

  def body(state: State) -> State:
    logits, caches = logits_of(state)
    drawn = draw(logits, inputs.keys, state.step, inputs.sampling)[..., None]
    known = jax.lax.dynamic_slice_in_dim(state.steps, state.step, 1, axis=2)
    tokens = jnp.where(known == _UNKNOWN, drawn, known)
    steps = jax.lax.dynamic_update_slice_in_dim(
      state.steps, tokens, state.step, axis=2
    )
    return State(steps, state.step + 1, caches)

  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    return jax.lax.while_loop(lambda s: s.step < stop, body, state)


def doubled(cond: Cond, negative: Cond | None = None) -> Cond:
  """Each row with its text and then with that text's zeros, for guidance.

  Row pairs stay together, so that they stay on one device.

  Args:
    cond: What each row's text says.
    negative: What stands in place of the zeros, of as many rows.
  """
  if negative is None:
    nothing = jnp.zeros_like(cond.states)
    return Cond(_paired(cond.states, nothing), _paired(cond.mask, None))
  return Cond(*map(_paired, cond, negative))


def _paired(
  of_text: Shaped[Array, "b l ..."], other: Shaped[Array, "b _ ..."] | None
) -> Shaped[Array, "pairs _ ..."]:
  """Each row and then its other half, both as long as the longer one.

  None for the row itself once more.
  """
  if other is None:
    return jnp.repeat(of_text, 2, axis=0)
  longest = max(of_text.shape[1], other.shape[1])

  def padded(x: Shaped[Array, "b _ ..."]) -> Shaped[Array, "b _ ..."]:
    rest = [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, ((0, 0), (0, longest - x.shape[1]), *rest))

  pairs = jnp.stack([padded(of_text), padded(other)], axis=1)
  return pairs.reshape(-1, *pairs.shape[2:])


def joined(
  logits: Float[Array, "pairs ..."], guidance: Float[Array, ""]
) -> Float[Array, "b ..."]:
  """The logits of each pair of rows, guided."""
  pairs = logits.reshape(-1, 2, *logits.shape[1:])
  cond, uncond = pairs[:, 0], pairs[:, 1]
  return uncond + (cond - uncond) * guidance


def grow(cache: KVCache, *, more: int) -> KVCache:
  """One layer's KV cache, with capacity for `more` further steps."""
  return KVCache(
    *(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) for x in cache)
  )


@functools.lru_cache(maxsize=8)
def compiled(config: LMConfig, placement: Placement) -> Programs:
  """`prefill`, `decode` and `grow` under jit; `decode`'s state is donated."""
  static = ("config", "dtype", "placement", "guided")
  of_prefill = of_decode = of_grow = None
  if tiling.matters(placement):
    of_grow, t = tiling.of_kv_cache(placement), config.transformer
    caches = [of_grow] * t.layers
    text_caches = [of_grow if t.cross_attention else None] * t.layers
    of_prefill, of_decode = (text_caches, caches), State(None, None, caches)
  return Programs(
    jax.jit(
      prefill, static_argnames=(*static, "capacity"), out_shardings=of_prefill
    ),
    jax.jit(
      decode,
      static_argnames=static,
      donate_argnames=("state",),
      out_shardings=of_decode,
    ),
    jax.jit(grow, static_argnames="more", out_shardings=of_grow),
  )


@jax.jit
def _keys(seeds: UInt[Array, " b"], window: Int[Array, ""]) -> Key[Array, " b"]:
  """One key a row: its seed's, with the number of the window folded in."""

  def one(seed: UInt[Array, ""]) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(seed), window)

  return jax.vmap(one)(seeds)
