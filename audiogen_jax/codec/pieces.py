"""Long sounds, and sounds that are still being sampled, in pieces.

Encoder and decoder are a stage that looks a few frames to either side, an LSTM
that looks back, and another such stage.  Pieces overlap by what a stage looks
aside, and the LSTM goes on where it was: what comes out is what the whole would
give, but for rounding, and memory does not grow with the sound.

    codes:    |-------------|-----+ - -      what has arrived
    before:   |-----------|-------|          all but the last few frames of it
    LSTM:     |-----------|-------|
    after:    |---------|-------|            again a few less
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from audiogen_jax.codec import encodec, rvq, seanet
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.layers import Carry
from audiogen_jax.codec.rvq import Codebooks
from audiogen_jax.codec.seanet import SEANetConfig
from audiogen_jax.core.fields import ReceptiveField
from audiogen_jax.core.sharding import fetch
from audiogen_jax.core.types import AnyArray, Tree

Side = Literal["encoder", "decoder"]
_CODERS = {"encoder": seanet.Encoder, "decoder": seanet.Decoder}


def possible(config: EncodecConfig) -> bool:
  """Whether a codec can run piece by piece.

  Not with a norm over time, nor with chunks that are scaled: nothing but the
  LSTM may depend on a whole sound.
  """
  whole = config.chunk_s is None and not config.renormalise
  fields = receptive_fields(config.seanet, "encoder")
  return whole and all(f.bounded or f.carries_state for f in fields)


@functools.cache
def receptive_fields(
  config: SEANetConfig, side: Side
) -> tuple[ReceptiveField, ReceptiveField, ReceptiveField]:
  """Receptive fields of the layers before the LSTM, the LSTM, those after."""
  return _CODERS[side](config).bind({}).fields


class StreamingCoder:
  """An encoder or decoder that is fed a sound piece by piece."""

  def __init__(
    self,
    config: EncodecConfig,
    variables: Tree,
    side: Side,
    *,
    most: int,
    lengths: Int[np.ndarray, " b"],
    put: Callable[[np.ndarray], jax.Array] = jnp.asarray,
  ) -> None:
    """Starts a sound.

    Args:
      config: A codec for which this is `possible`, weight norm folded.
      variables: Its parameters and codebooks.
      side: Sound to codes, or codes to sound.
      most: Frames that are pushed at once, at most.
      lengths: Samples (or frames) of each row in the end.
      put: Sends rows to their devices.
    """
    first, _, second = receptive_fields(config.seanet, side)
    rows = 2 if config.stereo_codes else 1
    frames = np.repeat(-(-lengths // first.down), rows)
    options = dict(config=config, side=side)
    mirrored = config.seanet.pad_mode == "reflect"
    self._before = _Stage(
      lambda x, n: _before(variables, put(x), n, **options),
      first,
      most,
      lengths,
      mirrored,
    )
    most = self._before.most_out
    self._lstm = _LSTM(
      lambda x, n, carry: _lstm(variables, put(x), n, carry, **options),
      most,
      frames,
    )
    self._after = _Stage(
      lambda x, n: _after(variables, put(x), n, **options),
      second,
      most,
      frames,
      mirrored,
    )

  def push(
    self, x: Shaped[np.ndarray, "b _ _"], *, last: bool = False
  ) -> Shaped[np.ndarray, "b _ _"] | None:
    """The outputs, not returned before, that later input cannot change.

    None if there are none.

    Args:
      x: Samples `b n c` (whole frames, but at the end) or codes `b t k`.
      last: Whether this is the end.
    """
    for stage in (self._before, self._lstm, self._after):
      x = stage.push(x, last)
      if x is None:
        return None
    return x


class _Stage:
  """Convolutions run over input that arrives piece by piece.

  The input that later outputs still depend on stays in a buffer.
  """

  def __init__(
    self,
    run: Callable[[np.ndarray, np.ndarray], jax.Array],
    field: ReceptiveField,
    most: int,
    lengths: Int[np.ndarray, " b"],
    mirrored: bool,
  ) -> None:
    """Starts with nothing.

    Args:
      run: The stage, of a padded array and the real lengths of its rows.
      field: What it sees.
      most: Frames that arrive at once, at most.
      lengths: Length of each row in the end, in inputs.
      mirrored: Whether it pads with what lies inside: its first frames then
        look ahead as far as a later one looks back.
    """
    self._run, self._lengths = run, lengths
    self._left, self._right = field.context()
    self._first = self._left + self._right + 1 if mirrored else 0
    self._into, self._out = field.down, field.up
    # Beside the context the buffer holds frames whose outputs still wait.
    waiting = max(self._right, self._first - 1)
    self.most_out = most + waiting
    self._capacity = most + self._left + waiting
    self._buffer = None
    self._start = self._done = 0  # frames: of the buffer, of what was returned

  def push(self, x: np.ndarray, last: bool) -> np.ndarray | None:
    """The outputs that `x` makes certain; None if there are none."""
    into, out, start = self._into, self._out, self._start
    buffer = x
    if self._buffer is not None:
      buffer = np.concatenate([self._buffer, x], axis=1)
    held = buffer.shape[1]
    end = start + -(-held // into)
    until = end if last else max(self._done, end - self._right)
    if not last and end < self._first:
      until = 0
    self._buffer = buffer
    if until == self._done:
      return None
    more = self._capacity * into - held
    y = self._run(
      np.pad(buffer, ((0, 0), (0, more), (0, 0))),
      np.clip(self._lengths - start * into, 0, held).astype(np.int32),
    )
    new = fetch(y)[:, (self._done - start) * out : (until - start) * out]
    self._start, self._done = max(0, until - self._left), until
    self._buffer = buffer[:, (self._start - start) * into :]
    return new


class _LSTM:
  """The LSTM, run over input that arrives piece by piece."""

  def __init__(
    self,
    run: Callable[..., tuple[jax.Array, Carry]],
    capacity: int,
    lengths: Int[np.ndarray, " b"],
  ) -> None:
    self._run, self._capacity, self._lengths = run, capacity, lengths
    self._done, self._carry = 0, None

  def push(self, x: np.ndarray, last: bool) -> np.ndarray:
    """Its outputs for all of `x`: it depends on earlier input alone."""
    held = x.shape[1]
    length = np.clip(self._lengths - self._done, 0, held).astype(np.int32)
    x = np.pad(x, ((0, 0), (0, self._capacity - held), (0, 0)))
    y, self._carry = self._run(x, length, self._carry)
    self._done += held
    return fetch(y)[:, :held]


def decode(
  config: EncodecConfig,
  variables: Tree,
  codes: Int[AnyArray, "b k t"],
  lengths: Int[np.ndarray, " b"],
  piece: int,
  put: Callable[[np.ndarray], jax.Array],
) -> Float[np.ndarray, "b n c"]:
  """Sound of codes, `piece` frames at a time."""
  codes = np.asarray(codes).swapaxes(1, 2)
  coder = StreamingCoder(
    config, variables, "decoder", most=piece, lengths=lengths, put=put
  )
  return np.concatenate([*_pushed(coder, codes, piece)], axis=1)


def encode(
  config: EncodecConfig,
  variables: Tree,
  audio: Float[AnyArray, "b n c"],
  lengths: Int[np.ndarray, " b"],
  piece: int,
  put: Callable[[np.ndarray], jax.Array],
) -> Int[np.ndarray, "b k t"]:
  """Codes of sound, `piece` frames at a time."""
  coder = StreamingCoder(
    config, variables, "encoder", most=piece, lengths=lengths, put=put
  )
  parts = _pushed(coder, audio, piece * config.hop)
  return np.concatenate([*parts], axis=1).swapaxes(1, 2)


def _pushed(
  coder: StreamingCoder, x: np.ndarray, size: int
) -> Iterator[np.ndarray]:
  """Outputs of `coder` for `x`, fed `size` steps at a time."""
  for at in range(0, x.shape[1], size):
    part = coder.push(x[:, at : at + size], last=at + size >= x.shape[1])
    if part is not None:
      yield part


def _compiled(function: Callable) -> Callable:
  """`function` under jit, with matrix products in float32."""

  @functools.wraps(function)
  def exact(*arguments, **options):
    with jax.default_matmul_precision("highest"):
      return function(*arguments, **options)

  return jax.jit(exact, static_argnames=("config", "side"))


@_compiled
def _before(
  variables: Tree,
  x: Shaped[Array, "b _ _"],
  length: Int[Array, " b"],
  *,
  config: EncodecConfig,
  side: Side,
) -> Float[Array, "bb t f"]:
  """Samples or codes to what the LSTM reads."""
  if side == "decoder":
    codes, length = encodec.rows_of_codes(config, x.swapaxes(1, 2), length)
    x = rvq.decode(codes, Codebooks(**variables["codebooks"]))
  else:
    x, length = encodec.rows_of_sound(config, x, length)
  return _apply(config, side, variables, "before", x, length)[0]


@_compiled
def _lstm(
  variables: Tree,
  x: Float[Array, "b t f"],
  length: Int[Array, " b"],
  carry: Carry | None,
  *,
  config: EncodecConfig,
  side: Side,
) -> tuple[Float[Array, "b t f"], Carry]:
  """Outputs of the LSTM, and its state after them."""
  return _apply(config, side, variables, "run_lstm", x, length, carry)


@_compiled
def _after(
  variables: Tree,
  x: Float[Array, "bb t f"],
  length: Int[Array, " bb"],
  *,
  config: EncodecConfig,
  side: Side,
) -> Shaped[Array, "b _ _"]:
  """Outputs of the LSTM to codes or samples."""
  x, _ = _apply(config, side, variables, "after", x, length)
  if side == "decoder":
    return encodec.sound_of_rows(config, x)
  codes = rvq.encode(x, Codebooks(**variables["codebooks"]))
  return encodec.codes_of_rows(config, codes).swapaxes(1, 2)


def _apply(
  config: EncodecConfig,
  side: Side,
  variables: Tree,
  method: str,
  *arguments: Any,
) -> tuple[jax.Array, Any]:
  """Runs one method of an encoder or decoder: (its outputs, all else)."""
  coder = _CODERS[side](config.seanet)
  params = variables["params"][side]
  return coder.apply({"params": params}, *arguments, method=method)
