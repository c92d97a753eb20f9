"""Sampling: from text and a prompt's codes to new codes.

One prompt is one row: what a row becomes depends on its text, its prompt, its
own key and the rules, never on its neighbours.  With guidance each row is run
twice, side by side in the batch, with its text and with that text's zeros.

The data flow, for S steps of which the first `start` are known:

    prefill: text, steps[: start - 1] -> views of the text, caches
    decode:  steps[s - 1] -> logits -> steps[s]       for s = start … S - 1
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from audiogen_jax.core.sharding import Placement, fetch
from audiogen_jax.core.types import AnyArray, Cond, Tree, bucket, precision
from audiogen_jax.lm import layouts, lora, masks, memory, model, patterns
from audiogen_jax.lm.lora import LoRAConfig
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.quantised import apart, quantise
from audiogen_jax.lm.rules import Rules, Sampling, choose
from audiogen_jax.lm.transformer import KVCache

_UNKNOWN = -1
LEAST_STEPS = 128  # smallest room of a cache: 2.5 s at 50 Hz
_LEAST_PROMPT = 64
_LEAST_TOKENS = 16


class State(NamedTuple):
  """What decoding carries from step to step.

  Attributes:
    steps: All tokens; -1 where still unknown.
    place: The next step to write.
    caches: One a layer; rows doubled under guidance.
  """

  steps: Int[Array, "b k s"]
  place: Int[Array, ""]
  caches: list[KVCache]


def prefill(
  params: Tree,
  steps: Int[Array, "b k s"],
  cond: Cond,
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  room: int,
  guided: bool,
) -> tuple[list[KVCache | None], list[KVCache]]:
  """Views of the text and caches; see `LM.prefill`.  Rows double if guided."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    if guided:
      # Row pairs stay together, so that they stay on one device.
      nothing = jnp.zeros_like(cond.states)
      states = jnp.stack([cond.states, nothing], axis=1)
      states = states.reshape(-1, *states.shape[2:])
      cond = Cond(states, jnp.repeat(cond.mask, 2, axis=0))
      steps = jnp.repeat(steps, 2, axis=0)
    lm = apart(config, dtype)
    return lm.apply({"params": params}, steps, cond, room, method="prefill")


def decode(
  params: Tree,
  state: State,
  texts: list[KVCache | None],
  text_mask: Bool[Array, "b l"],
  keys: Key[Array, " b"],
  rules: Rules,
  stop: Int[Array, ""],
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  guided: bool,
) -> State:
  """Writes steps until `stop`; known tokens are kept."""
  lm = apart(config, dtype)
  if guided:
    text_mask = jnp.repeat(text_mask, 2, axis=0)

  def body(state: State) -> State:
    last = jax.lax.dynamic_index_in_dim(
      state.steps, state.place - 1, axis=2, keepdims=False
    )
    if guided:
      last = jnp.repeat(last, 2, axis=0)
    logits, caches = lm.apply(
      {"params": params},
      last,
      state.place - 1,
      text_mask,
      texts,
      state.caches,
      method="step",
    )
    if guided:
      pairs = logits.reshape(-1, 2, *logits.shape[1:])
      cond, uncond = pairs[:, 0], pairs[:, 1]
      logits = uncond + (cond - uncond) * rules.guidance
    drawn = choose(logits, keys, state.place, rules)[..., None]
    here = jax.lax.dynamic_slice_in_dim(state.steps, state.place, 1, axis=2)
    here = jnp.where(here == _UNKNOWN, drawn, here)
    steps = jax.lax.dynamic_update_slice_in_dim(
      state.steps, here, state.place, axis=2
    )
    return State(steps, state.place + 1, caches)

  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    return jax.lax.while_loop(lambda s: s.place < stop, body, state)


def grow(cache: KVCache, *, more: int) -> KVCache:
  """One layer's cache, with room for more steps."""
  return KVCache(
    *(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) for x in cache)
  )


@functools.lru_cache(maxsize=8)
def compiled(
  config: LMConfig, placement: Placement
) -> tuple[Callable, Callable, Callable]:
  """`prefill`, `decode` and `grow` under jit; `decode`'s state is donated."""
  static = ("config", "dtype", "placement", "guided")
  of_prefill = of_decode = of_grow = None
  if layouts.matter(placement):
    kept, t = layouts.kept(placement), config.transformer
    caches = [kept] * t.layers
    texts = [kept if t.cross_attention else None] * t.layers
    of_prefill, of_decode = (texts, caches), State(None, None, caches)
    of_grow = kept
  return (
    jax.jit(
      prefill, static_argnames=(*static, "room"), out_shardings=of_prefill
    ),
    jax.jit(
      decode,
      static_argnames=static,
      donate_argnames=("state",),
      out_shardings=of_decode,
    ),
    jax.jit(grow, static_argnames="more", out_shardings=of_grow),
  )


@functools.partial(jax.jit, static_argnames=("config", "dtype", "placement"))
def condition(
  params: Tree,
  states: Float[Array, "b l e"],
  mask: Bool[Array, "b l"],
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
) -> Cond:
  """`LM.condition`, compiled."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    lm = apart(config, dtype)
    return lm.apply({"params": params}, states, mask, method="condition")


@functools.partial(jax.jit, static_argnames=("config", "dtype", "placement"))
def logits(
  params: Tree,
  steps: Int[Array, "b k s"],
  cond: Cond,
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
) -> Float[Array, "b k s v"]:
  """`LM.__call__`, compiled."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    mask = masks.causal(steps.shape[2])
    return apart(config, dtype).apply({"params": params}, steps, cond, mask)


class LanguageModel:
  """A language model with its weights.

  Attributes:
    config: What it is.
    params: Its parameters, unstacked.
    dtype: Of the products.
    placement: Where it lives.
    adapters: What each is and its parameters, stacked; they act once
      `set_strengths` was called.
  """

  def __init__(
    self,
    config: LMConfig,
    params: Tree,
    *,
    dtype: jnp.dtype,
    placement: Placement,
  ):
    self.config = config
    self.params = layouts.laid_out(params, placement)
    self.dtype = dtype
    self.placement = placement
    self.adapters: list[tuple[LoRAConfig, Tree]] = []
    self._options = dict(config=config, dtype=dtype, placement=placement)

  @classmethod
  def of(
    cls,
    config: LMConfig,
    params: Tree,
    *,
    dtype: jnp.dtype,
    placement: Placement,
  ) -> "LanguageModel":
    """From parameters that are floating-point numbers still; empties them."""
    if dtype == jnp.int8:
      params = quantise(config, params)
    return cls(config, params, dtype=dtype, placement=placement)

  def set_strengths(self, strengths: Sequence[float | int]) -> None:
    """Says how strongly each adapter acts; compiles nothing.

    Adapters stay beside the weights (see `lora`): 0 is the model without them,
    1 as they were trained.

    Args:
      strengths: One for each of `adapters`.

    Raises:
      InputError: If there are more or fewer, or one is no number of at most
        100.
    """
    made = lora.weighted(self.adapters, strengths)
    self.params = lora.adapted(self.params, model.unstack(made))

  def condition(
    self, states: Float[AnyArray, "b l e"], mask: Bool[AnyArray, "b l"]
  ) -> Cond:
    """Text states at the model's width; see `LM.condition`."""
    b, length = mask.shape
    more = self._room(b) - b, bucket(length, least=_LEAST_TOKENS) - length
    pads = tuple((0, m) for m in more)
    put = self.placement.put
    states = put(np.pad(states, (*pads, (0, 0))), "batch", None, None)
    mask = put(np.pad(mask, pads), "batch", None)
    cond = condition(self.params, states, mask, **self._options)
    return Cond(*(fetch(x)[:b, :length] for x in cond))

  def logits(
    self, codes: Int[AnyArray, "b k t"], cond: Cond
  ) -> tuple[Float[np.ndarray, "b k t v"], Bool[np.ndarray, "k t"]]:
    """Logits of every code given those before it, and which are predicted.

    The last frames of delayed codebooks fall off the end of what training
    feeds; their logits are zeros.
    """
    codes = np.asarray(codes, np.int32)
    b, k, t = codes.shape
    layout = patterns.layout(self.config.pattern, k, t)
    shown, special = layout.frame[:, : layout.trained], self.config.size
    steps = patterns.interleave(codes, shown, special)
    rows, room = self._room(b), bucket(layout.trained, least=_LEAST_PROMPT)
    more = ((0, rows - b), (0, 0), (0, room - layout.trained))
    steps = np.pad(steps, more, constant_values=special)
    found = logits(
      self.params,
      self.placement.put(steps, "batch", None, None),
      self._placed(cond, rows),
      **self._options,
    )
    valid = patterns.valid(layout)
    # What the model says at step s - 1 is about step s.
    before = np.where(valid, layout.step - 1, 0)
    found = patterns.deinterleave(fetch(found)[:b], before)
    return np.where(valid[None, ..., None], found, 0), valid

  def steps(self, frames: int, known: int = 0) -> int:
    """Steps that `generate` takes."""
    layout = patterns.layout(self.config.pattern, self.config.codebooks, frames)
    return layout.frame.shape[1] - patterns.first_step(layout, known)

  def generate(
    self,
    cond: Cond,
    *,
    frames: int,
    seeds: Sequence[int],
    sampling: Sampling,
    prompt: Int[np.ndarray, "b k p"],
    window: int = 0,
    every: int | None = None,
  ) -> Iterator[tuple[int, Int[np.ndarray, "b k _"]]]:
    """Codes for each row of `cond`, the prompt's first.

    Args:
      cond: What each row's text says.
      frames: Frames in all, more than the prompt has.
      seeds: One a row.
      sampling: How tokens are drawn.
      prompt: Codes that each row begins with; none, if `p` is 0.
      window: Which window of a long sound this is: each draws its own numbers.
      every: Steps between two results; None for all in one piece.

    Yields:
      Steps done since the last result, and the frames finished so far; in the
      end all of them.

    Raises:
      InputError: If `top_k` is larger than the codebooks.
    """
    b, k, known = prompt.shape
    rules = Rules.make(sampling, self.config.size)
    layout = patterns.layout(self.config.pattern, k, frames)
    start, stop = patterns.first_step(layout, known), layout.frame.shape[1]
    rows = self._room(b)
    codes = np.full((rows, k, frames), _UNKNOWN, np.int32)
    codes[:b, :, :known] = prompt
    size = rows, k, bucket(stop, least=LEAST_STEPS)
    steps = np.full(size, self.config.size, np.int32)
    steps[..., :stop] = patterns.interleave(
      codes, layout.frame, self.config.size
    )
    # Caches grow with the sound, and attention reads no more than there is.
    room = bucket(start, least=LEAST_STEPS)
    # Prefill reads a bucket of steps, and all but the last known one of them
    # matter; what it reads of unknown ones is written again before it is used.
    # Windows of a long sound all read as much: a fine bucket costs them little.
    read = bucket(start - 1, least=_LEAST_PROMPT, parts=4) if start > 1 else 0
    head = np.maximum(steps[..., : min(read, room)], 0)

    options = self._options | {"guided": sampling.guidance != 1.0}
    before = cond.mask.shape[1] if self.config.prepend_text else 0
    memory.check(b, rows, before + size[2], **options)
    cond, put = self._placed(cond, rows), self.placement.put
    head = put(head, "batch", None, None)
    prefill, decode, grow = compiled(self.config, self.placement)
    seeds = np.asarray([*seeds] + [0] * (rows - b), np.uint32)
    keys = _keys(put(seeds, "batch"), put(np.int32(window)))
    rules = Rules(*map(put, rules))
    with memory.explained(b):
      texts, caches = prefill(self.params, head, cond, room=room, **options)
      steps_now = put(steps[..., :room], "batch", None, None)
      state = State(steps_now, put(np.int32(start)), caches)
      place = start
      while place < stop:
        if place == room:
          for i, cache in enumerate(state.caches):  # in turn: less memory
            state.caches[i] = grow(cache, more=room)
          room *= 2
          steps_now = put(steps[..., :room], "batch", None, None)
          state = state._replace(steps=steps_now)
        until = min(place + (every or stop), room, stop)
        end = put(np.int32(until))
        state = decode(
          self.params, state, texts, cond.mask, keys, rules, end, **options
        )
        steps[..., place:until] = fetch(state.steps)[..., place:until]
        finished = np.count_nonzero(np.all(layout.step < until, axis=0))
        found = patterns.deinterleave(steps[:b], layout.step)
        yield until - place, found[:, :, :finished]
        place = until

  def _room(self, rows: int) -> int:
    """Rows brought to their bucket, and to what the mesh divides."""
    ways = self.placement.ways("batch")
    return -(-bucket(rows) // ways) * ways

  def _placed(self, cond: Cond, rows: int) -> Cond:
    """Rows and text length in their buckets; further rows have no text."""
    states, mask = fetch(cond.states), fetch(cond.mask)
    b, length = mask.shape
    more = ((0, rows - b), (0, bucket(length, least=_LEAST_TOKENS) - length))
    mask = np.pad(mask, more)
    mask[b:, 0] = True
    states = np.pad(states, (*more, (0, 0)))
    put = self.placement.put
    return Cond(put(states, "batch", None, None), put(mask, "batch", None))


@jax.jit
def _keys(seeds: UInt[Array, " b"], window: Int[Array, ""]) -> Key[Array, " b"]:
  """One key a row."""

  def one(seed):
    return jax.random.fold_in(jax.random.key(seed), window)

  return jax.vmap(one)(seeds)
