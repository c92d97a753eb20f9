"""The loop from noise to a latent: one program for every solver and option.

A latent is one row: what it becomes depends on its context, its own start and
noise, and the options, never on its neighbours.  With guidance each row is run
twice in one batch, with its context and with that of no text.

    x_T ─> [ U-Net ─> guidance ─> a line of the plan ] ─> x_0
             ^                                      │
             └──────────────────────────────────────┘
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from audiogen_jax.core import winograd
from audiogen_jax.core.types import Tree, precision
from audiogen_jax.diffusion import schedule
from audiogen_jax.diffusion.sampling import ORDER, Plan
from audiogen_jax.diffusion.unet import UNet, UNetConfig

_FRESH, _KNOWN = 0, 1  # which of a step's two draws


class State(NamedTuple):
  """What sampling carries from line to line.

  Attributes:
    latent: As it is now.
    line: The next line of the plan.
    kept: A latent that was kept, see `Plan`.
    before: What was foretold before, the latest first.
  """

  latent: Float[Array, "b w z c"]
  line: Int[Array, ""]
  kept: Float[Array, "b w z c"]
  before: Float[Array, "p b w z c"]

  @classmethod
  def start(cls, latent: Float[Array, "b w z c"]) -> "State":
    """Before the first line."""
    none = jnp.zeros((ORDER - 1, *latent.shape), latent.dtype)
    return cls(latent, jnp.int32(0), latent, none)


class Known(NamedTuple):
  """What stays of a sound while the rest is made again.

  Attributes:
    latent: The sound's.
    mask: 1 where it stays.
    noise: Of each step, to bring what stays to the level of the rest; None to
      draw it.
  """

  latent: Float[Array, "b w z c"]
  mask: Float[Array, "#b w z 1"]
  noise: Float[Array, "s b w z c"] | None = None


class Inputs(NamedTuple):
  """What all lines read.

  Attributes:
    guidance: Classifier-free guidance.
    keys: One a row, to draw noise with.
    context: What each row's text says; with guidance rows are pairs, the second
      of which is without text.  None of a model without.
    beside: Channels beside the latent, if the model has any.
    noise: Of each step, where η asks for some; None to draw it.
    known: What stays.
  """

  guidance: Float[Array, ""]
  keys: Key[Array, " b"]
  context: Float[Array, "r l d"] | None = None
  beside: Float[Array, "b w z e"] | None = None
  noise: Float[Array, "s b w z c"] | None = None
  known: Known | None = None


def paired(
  cond: Float[Array, "b l d"], uncond: Float[Array, "#b l d"]
) -> Float[Array, "r l d"]:
  """Each row's context and then that of no text: pairs stay together."""
  uncond = jnp.broadcast_to(uncond, cond.shape)
  pairs = jnp.stack([cond, uncond], axis=1)
  return pairs.reshape(-1, *cond.shape[1:])


def run(
  params: Tree,
  state: State,
  inputs: Inputs,
  plan: Plan,
  stop: Int[Array, ""],
  *,
  config: UNetConfig,
  guided: bool,
  dtype: jnp.dtype = UNet.dtype,
) -> State:
  """Follows the plan until line `stop`.

  Args:
    params: Of the U-Net.
    state: Where to start.
    inputs: What all lines read.
    plan: Of a solver.
    stop: The line before which to stop.
    config: Shape of the U-Net.
    guided: Whether rows of the context are pairs.
    dtype: Type of the U-Net's matrix products; all else is float32.
  """
  b = state.latent.shape[0]
  variables = winograd.variables(params, dtype)  # once, for all lines

  def foretell(latent: jax.Array, time: jax.Array) -> jax.Array:
    """The noise in a latent, guided."""
    x = latent
    if inputs.beside is not None:
      x = jnp.concatenate([x, inputs.beside], axis=-1)
    if guided:
      x = jnp.repeat(x, 2, axis=0)
    times = jnp.full(x.shape[0], time)
    unet = UNet(config, dtype)
    noise = unet.apply(variables, x, times, inputs.context)
    if not guided:
      return noise
    cond, uncond = jnp.moveaxis(noise.reshape(b, 2, *noise.shape[1:]), 1, 0)
    return uncond + inputs.guidance * (cond - uncond)

  def drawn(given: jax.Array | None, step: jax.Array, which: int) -> jax.Array:
    """Noise of a step: what was given, or each row's own."""
    if given is not None:
      return given[step]

    def one(key: jax.Array) -> jax.Array:
      key = jax.random.fold_in(jax.random.fold_in(key, step), which)
      return jax.random.normal(key, state.latent.shape[1:])

    return jax.vmap(one)(inputs.keys)

  def body(state: State) -> State:
    line = jax.tree.map(lambda column: column[state.line], plan)
    latent = state.latent
    if inputs.known is not None:
      known = inputs.known
      noise = drawn(known.noise, line.step, _KNOWN)
      there = schedule.noised(known.latent, noise, line.level)
      mask = known.mask * line.begins
      latent = there * mask + latent * (1 - mask)
    noise = foretell(latent, line.time)
    foretold = line.foretold[0] * latent + line.foretold[1] * noise
    weighed = jnp.concatenate([foretold[None], state.before])
    weighed = jnp.tensordot(line.weights, weighed, axes=1, precision="highest")
    base = jnp.where(line.kept, state.kept, latent)
    fresh = drawn(inputs.noise, line.step, _FRESH)
    signal, of_foretold, of_fresh = line.onward
    onward = signal * base + of_foretold * weighed + of_fresh * fresh
    before = jnp.concatenate([foretold[None], state.before[:-1]])
    return State(
      onward,
      state.line + 1,
      jnp.where(line.keeps, latent, state.kept),
      jnp.where(line.remembers, before, state.before),
    )

  with jax.default_matmul_precision(precision(dtype)):
    return jax.lax.while_loop(lambda s: s.line < stop, body, state)
