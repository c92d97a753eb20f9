"""Make-An-Audio's rooms in bfloat16: what stays float32, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.audio.mel import MAKE_AN_AUDIO
from audiogen_jax.diffusion import sampler, sampling, unet
from audiogen_jax.diffusion.sampler import Inputs, State
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNet, UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig

HALF = jnp.dtype(jnp.bfloat16)
NOISE = UNetConfig(
  filters=32, multipliers=(1,), residual_layers=1, heads=4, context_width=12
)
LATENT = AutoencoderConfig(
  mel=MAKE_AN_AUDIO,
  filters=32,
  multipliers=(1, 1),
  residual_layers=1,
  attention=(1,),
)


@functools.cache
def params(room, config, dtype):
  shapes = jax.eval_shape(lambda key: room.init(config, key), jax.random.key(0))
  draw = np.random.default_rng(0).normal
  return jax.tree.map(
    lambda x: jnp.asarray(0.15 * draw(size=x.shape), dtype), shapes
  )


def find(dtype):
  """The noise that a U-Net finds in one image."""
  inputs = noise(1, 4, 4, 4, scale=1), np.ones(1), noise(1, 5, 12, scale=1)
  return functools.partial(UNet(NOISE, dtype).apply), (
    {"params": params(unet, NOISE, dtype)},
    *map(jnp.float32, inputs),
  )


def decode(dtype):
  """The mel spectrogram of one latent."""
  run = functools.partial(autoencoder.decode, LATENT, dtype=dtype)
  weights = params(autoencoder, LATENT, dtype)
  return run, (weights, jnp.asarray(noise(1, 2, 40, 4, scale=1)))


def encode(dtype):
  """The mean of what one latent may be."""
  run = functools.partial(autoencoder.encode, LATENT, dtype=dtype)
  weights = params(autoencoder, LATENT, dtype)
  mel = jnp.asarray(noise(1, 4, 80, scale=1))
  return lambda *given: run(*given).mean, (weights, mel)


def sample(dtype):
  """What sampling makes of one row, with guidance."""
  plan, lines, _ = sampling.plan(Diffusion(steps=4, solver="dpm++"), Schedule())
  start = jnp.asarray(noise(1, 4, 4, 4, scale=1))
  context = jnp.asarray(noise(2, 5, 12, scale=1))
  keys = jax.random.key(0)[None]
  run = functools.partial(sampler.run, config=NOISE, guided=True, dtype=dtype)

  def latent(*given):
    return run(*given).latent

  return latent, (
    params(unet, NOISE, dtype),
    State.start(start),
    Inputs(jnp.float32(3.0), keys, context),
    plan,
    jnp.int32(lines),
  )


def steps(jaxpr):
  """Every primitive of a program, with the types that it reads."""
  for eqn in jaxpr.eqns:
    yield eqn.primitive.name, [v.aval.dtype for v in eqn.invars]
    for inner in jax.tree.leaves(
      [*eqn.params.values()], is_leaf=lambda x: hasattr(x, "eqns")
    ):
      if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
        yield from steps(getattr(inner, "jaxpr", inner))


# With how many products in float32: the last layers, and weights of steps.
@pytest.mark.parametrize(
  ("made", "exact"), [(find, 1), (decode, 1), (encode, 2), (sample, 2)]
)
def test_products_are_half_and_the_rest_is_not(made, exact):
  run, given = made(HALF)
  closed, out = jax.make_jaxpr(run, return_shape=True)(*given)
  assert out.dtype == jnp.float32
  found = [*steps(closed.jaxpr)]
  products = [
    types[0]
    for name, types in found
    if name in ("dot_general", "conv_general_dilated")
  ]
  assert products.count(jnp.float32) == exact
  assert set(products) == {jnp.dtype(jnp.float32), HALF} and len(products) > 20
  for name, types in found:
    if name in ("exp", "rsqrt", "reduce_sum", "reduce_max"):
      assert HALF not in types, name


@pytest.mark.parametrize("made", [decode, sample])
def test_what_half_costs(made):
  """Of the size of the result; measured 1.0 and 0.4 %."""
  results = []
  for dtype in (jnp.dtype(jnp.float32), HALF):
    run, given = made(dtype)
    results.append(np.asarray(jax.jit(run)(*given)))
  exact, half = results
  lost = np.linalg.norm(half - exact) / np.linalg.norm(exact)
  assert 1e-4 < lost < 0.03
