"""Masked decoding: all frames at once, a codebook after another.

MAGNeT (Ziv et al., 2024, §3) has no order in time.  Each codebook is a stage:
at first all of it is the mask token, and a few passes of the whole model fill
it, each hiding again what the model is least sure of, and ever less of it:

    stage 0   ????????  ->  a?b??c?d  ->  … ->  aebfcgdh     sees all frames
    stage 1   ????????  ->  …                                sees a band
      ⋮       (codebooks before a stage are final, those after it all masked)

One prompt is one row: what a row becomes depends on its text, its prompt, its
own key and the sampling options, never on its neighbours.  All stages, whatever
their number of passes, are one compiled program.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from audiogen_jax.core.sharding import Placement, fetch
from audiogen_jax.core.types import AnyArray, Cond, Tree, bucket, precision
from audiogen_jax.lm import masks, memory, sampler, spans
from audiogen_jax.lm.language_model import LEAST_PROMPT, LanguageModel
from audiogen_jax.lm.masked_sampling import (
  MaskedSampling,
  Masking,
  Passes,
  Rules,
)
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.quantised import apart
from audiogen_jax.lm.sampling import likely


class State(NamedTuple):
  """What decoding carries from pass to pass.

  Attributes:
    codes: Tokens so far; V where there is none yet.
    log_p: Log-probability of each frame's token of this stage when drawn.
    fresh: The frames that the last pass filled.
  """

  codes: Int[Array, "b k t"]
  log_p: Float[Array, "b t"]
  fresh: Bool[Array, "b t"]


class Stage(NamedTuple):
  """What all passes of a stage read.

  Attributes:
    book: The codebook that it fills.
    frames: Frames that are no padding.
    known: Of them, those whose codes stay as they are.
    passes: What each pass does.
    rules: How tokens and spans are chosen.
    keys: One a row.
  """

  book: Int[Array, ""]
  frames: Int[Array, ""]
  known: Bool[Array, "b t"]
  passes: Passes
  rules: Rules
  keys: Key[Array, " b"]


def generate(
  lm: LanguageModel,
  cond: Cond,
  *,
  masking: Masking,
  frames: int,
  seeds: Sequence[int],
  sampling: MaskedSampling,
  prompt: Int[np.ndarray, "b k p"],
  keep: Bool[np.ndarray, "b p"] | None = None,
  negative: Cond | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> Int[np.ndarray, "b k _"]:
  """Codes for each row of `prompt`, the prompt's first.

  Args:
    lm: The model.
    cond: What each row's text says: from `lm.condition`, `lm.rows(b)` rows.
    masking: Of the model.
    frames: Frames in all; more than the prompt has, unless parts are kept.
    seeds: One a row, in [0, 2^32).
    sampling: How tokens are drawn.
    prompt: Codes that each row begins with; none, if `p` is 0.
    keep: The frames of the prompt that stay as they are; others are made.
      None for all of them.
    negative: As for `sampler.generate`.
    progress: Called with (passes done, passes in all).

  Returns:
    Codes of `frames` frames; without `keep` fewer by less than a span where
    spans lie side by side.

  Raises:
    InputError: If options and frames do not fit each other or the model, or
      memory runs out.
  """
  b, _, known = prompt.shape
  sampling.check(lm.config.codebooks, lm.config.size)
  if keep is None:
    frames = masking.frames(sampling, frames, known)
    keep = np.ones((b, known), bool)
  put = lm.placement.put
  codes = _padded(lm, np.where(keep[:, None], prompt, lm.config.size), frames)
  kept = np.zeros((len(codes), codes.shape[2]), bool)
  kept[:b, :known] = keep
  places = masking.places(sampling, kept[:, :frames])
  rules = Rules(*map(put, Rules.make(sampling, lm.config.size)))
  options = lm.options | {"guided": sampling.guided}
  options |= {"context": masking.context, "span": masking.span}
  done, total = 0, sum(sampling.decoding_steps)
  # Told of every pass: on a CPU one can take seconds.
  every = 1 if progress else total
  if progress:
    progress(0, total)
  with memory.explained(b):
    keys = sampler.row_keys(lm, seeds, 0)
    run = compiled(lm.config, lm.placement)
    state = _state(lm, codes)
    stays = put(kept, "batch", None)
    for book, passes in enumerate(sampling.decoding_steps):
      count, *others = Passes.make(sampling, book, places)
      stage = Stage(
        put(np.int32(book)),
        put(np.int32(frames)),
        stays,
        Passes(put(count, "batch", None), *map(put, others)),
        rules,
        keys,
      )
      for first in range(0, passes, every):
        end = min(first + every, passes)
        bounds = put(np.int32(first)), put(np.int32(end))
        inputs = cond, stage, *bounds, negative
        state = run(lm.params, state, *inputs, **options)
        done += end - first
        if progress:
          jax.block_until_ready(state)
          progress(done, total)
    return fetch(state.codes)[:b, :, :frames]


def logits(
  lm: LanguageModel,
  codes: Int[AnyArray, "b k t"],
  cond: Cond,
  *,
  masking: Masking,
  stage: int,
) -> Float[np.ndarray, "b k t v"]:
  """Logits of every code as they are at a stage of decoding.

  Args:
    lm: The model.
    codes: Codes in [0, V]; V where one is hidden.
    cond: From `lm.condition`, of `lm.rows(b)` rows.
    masking: Of the model.
    stage: The codebook that would be filled, which says how the model attends.
  """
  b, _, frames = np.shape(codes)
  padded = _padded(lm, fetch(codes).astype(np.int32), frames)
  put = lm.placement.put
  by_frame = _logits(
    lm.params,
    put(padded, "batch", None, None),
    cond,
    put(np.int32(stage)),
    put(np.int32(frames)),
    **lm.options,
    context=masking.context,
  )
  return fetch(by_frame)[:b, :, :frames]


def _padded(
  lm: LanguageModel, codes: Int[np.ndarray, "b k p"], frames: int
) -> Int[np.ndarray, "r k t"]:
  """Codes in buckets of rows and of frames, masked where there are none."""
  b, k, known = codes.shape
  # Fine buckets: the work grows with them, and a model has one length.
  length = bucket(frames, least=LEAST_PROMPT, parts=4)
  padded = np.full((lm.rows(b), k, length), lm.config.size, np.int32)
  padded[:b, :, :known] = codes
  return padded


def _state(lm: LanguageModel, codes: Int[np.ndarray, "r k t"]) -> State:
  """The state before the first pass, which looks at the codes alone."""
  put, shape = lm.placement.put, (codes.shape[0], codes.shape[2])
  return State(
    put(codes, "batch", None, None),
    put(np.zeros(shape, np.float32), "batch", None),
    put(np.zeros(shape, bool), "batch", None),
  )


def decode(
  params: Tree,
  state: State,
  cond: Cond,
  stage: Stage,
  start: Int[Array, ""],
  stop: Int[Array, ""],
  negative: Cond | None = None,
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  context: int,
  span: int,
  guided: bool,
) -> State:
  """The passes `start` to `stop - 1` of one stage."""
  lm, special = apart(config, dtype), config.size
  length = state.codes.shape[2]
  book, passes, rules = stage.book, stage.passes, stage.rules
  params = with_head(params, book)
  given = jnp.take(state.codes, book, axis=1)  # those that stay
  mask = masks.of_codebook(book, length, context=context, shown=stage.frames)
  if guided:
    cond = sampler.doubled(cond, negative)

  def body(carried: tuple[Int[Array, ""], State]) -> Any:
    i, (codes, log_p, fresh) = carried
    hidden = _hidden(i, log_p, fresh, stage, span)
    own = jnp.where(hidden, special, jnp.take(codes, book, axis=1))
    own = jnp.where(stage.known, given, own)
    codes = _written(codes, own, book)
    read = jnp.repeat(codes, 2, axis=0) if guided else codes
    logits = lm.apply({"params": params}, read, cond, mask)[:, 0]
    if guided:
      logits = sampler.joined(logits, passes.guidance[i])
    drawn_noise = noise(stage.keys, book, i, length, special)
    drawn, log_p = _drawn(logits, passes.temperature[i], drawn_noise, rules)
    drawn = jnp.where(hidden & ~stage.known, drawn, own)
    codes = _written(codes, drawn, book)
    return i + 1, State(codes, log_p, hidden)

  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    return jax.lax.while_loop(lambda x: x[0] < stop, body, (start, state))[1]


def noise(
  keys: Key[Array, " b"],
  book: Int[Array, ""],
  index: Int[Array, ""],
  frames: int,
  size: int,
) -> Float[Array, "b t v"]:
  """Gumbel noise of one pass.

  Each frame has a key of its own, so that a row's noise is the same however
  many frames it is padded to.

  Args:
    keys: One a row.
    book: The codebook.
    index: The number of the pass.
    frames: Frames, padding included.
    size: Entries of a codebook.
  """

  def of_row(key: Key[Array, ""]) -> Float[Array, "t v"]:
    key = jax.random.fold_in(jax.random.fold_in(key, book), index)
    each = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(frames))
    return jax.vmap(lambda key: jax.random.gumbel(key, (size,)))(each)

  return jax.vmap(of_row)(keys)


def _hidden(
  i: Int[Array, ""],
  log_p: Float[Array, "b t"],
  fresh: Bool[Array, "b t"],
  stage: Stage,
  span: int,
) -> Bool[Array, "b t"]:
  """What pass `i` makes again: in the first one all that is not known.

  A chunk that is known in part is made whole; the known codes are laid over it.
  """
  count = stage.passes.count[:, i]
  options = dict(count=count, frames=stage.frames, span=span)
  anywhere = stage.rules.anywhere

  def of_chunks() -> Bool[Array, "b t"]:
    summed = stage.rules.summed
    return spans.hidden_chunks(log_p, fresh, summed=summed, **options)

  def of_spans() -> Bool[Array, "b t"]:
    return spans.hidden_spans(log_p, fresh, **options)

  within = jnp.arange(log_p.shape[1])[None] < stage.frames
  missing = within & ~stage.known
  chunks = within & spans.whole_chunks(missing, span)
  return jax.lax.cond(
    i == 0,
    lambda: jnp.where(anywhere, missing, chunks),
    lambda: jax.lax.cond(anywhere, of_spans, of_chunks),
  )


def _drawn(
  logits: Float[Array, "b t v"],
  temperature: Float[Array, ""],
  drawn_noise: Float[Array, "b t v"],
  rules: Rules,
) -> tuple[Int[Array, "b t"], Float[Array, "b t"]]:
  """A token for each frame, and its log-probability.

  The latter is that at the annealed temperature, and with top-k that among
  those k, with top-p that among all, as in the published code.
  """
  kept = likely(logits, temperature, top_k=rules.top_k, top_p=rules.top_p)
  scaled = logits / temperature
  # The k likeliest share all probability; a nucleus leaves it as it was.
  among = kept | (rules.top_p > 0)
  log_p = jax.nn.log_softmax(jnp.where(among, scaled, -jnp.inf), axis=-1)
  noisy = jnp.where(kept, log_p + drawn_noise, -jnp.inf)
  drawn = jnp.argmax(jnp.where(rules.greedy, logits, noisy), axis=-1)
  drawn = drawn.astype(jnp.int32)
  own = jnp.take_along_axis(log_p, drawn[..., None], axis=-1)[..., 0]
  return drawn, own


def with_head(params: Tree, book: Int[Array, ""]) -> Tree:
  """Parameters, stacked or not, with the head of one codebook alone."""

  def one(leaf: Array) -> Array:
    return jax.lax.dynamic_slice_in_dim(leaf, book, 1)

  return {**params, "heads": jax.tree.map(one, params["heads"])}


def _written(
  codes: Int[Array, "b k t"], own: Int[Array, "b t"], book: Int[Array, ""]
) -> Int[Array, "b k t"]:
  """Codes with those of one codebook replaced."""
  return jax.lax.dynamic_update_slice_in_dim(codes, own[:, None], book, axis=1)


@functools.lru_cache(maxsize=8)
def compiled(config: LMConfig, placement: Placement) -> Callable[..., State]:
  """`decode` under jit; its state is donated, and comes out as it went in."""
  static = ("config", "dtype", "placement", "context", "span", "guided")
  of_frames = placement.sharding("batch", None)
  codes = placement.sharding("batch", None, None)
  return jax.jit(
    decode,
    static_argnames=static,
    donate_argnames=("state",),
    out_shardings=State(codes, of_frames, of_frames),
  )


@functools.partial(
  jax.jit, static_argnames=("config", "dtype", "placement", "context")
)
def _logits(
  params: Tree,
  codes: Int[Array, "b k t"],
  cond: Cond,
  book: Int[Array, ""],
  frames: Int[Array, ""],
  *,
  config: LMConfig,
  dtype: jnp.dtype,
  placement: Placement,
  context: int,
) -> Float[Array, "b k t v"]:
  """`LM.__call__` under the mask of a stage, compiled."""
  with placement.active(), jax.default_matmul_precision(precision(dtype)):
    mask = masks.of_codebook(
      book, codes.shape[2], context=context, shown=frames
    )
    return apart(config, dtype).apply({"params": params}, codes, cond, mask)
