"""Sounds that a diffusion model makes while it is trained, inside `jax.jit`."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from audiogen_jax.core.types import Tree
from audiogen_jax.diffusion import sampler, sampling
from audiogen_jax.diffusion.sampler import Inputs, State
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import VocoderConfig

# Few steps, which come near to many.
_OPTIONS = Diffusion(steps=25, solver="dpm++")


def sample(
  net: UNetConfig,
  params: Tree,
  schedule: Schedule,
  latent: AutoencoderConfig,
  vocoder: VocoderConfig,
  frozen: Mapping[str, Tree],
  pairs: Float[Array, "r l d"],
  seeds: Int[Array, " b"],
  *,
  columns: int,
  dtype: jnp.dtype,
) -> Float[Array, "b n 1"]:
  """Sounds, one a seed.

  Args:
    net: The U-Net.
    params: Its parameters.
    schedule: Of the noise.
    latent: The autoencoder.
    vocoder: The vocoder.
    frozen: Parameters of both, by name, and the `scale` of latents.
    pairs: Each text's context, and then that of no text.
    seeds: One a row.
    columns: Of a latent.
    dtype: Of the U-Net's products.
  """
  plan = sampling.plan(_OPTIONS, schedule)
  keys = jax.vmap(jax.random.key)(seeds.astype(jnp.uint32))
  shape = (columns, latent.rows, latent.channels)
  start = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
  made = sampler.run(
    params,
    State.start(start),
    Inputs(jnp.float32(_OPTIONS.guidance), keys, pairs),
    jax.tree.map(jnp.asarray, plan.plan),
    jnp.int32(plan.lines),
    config=net,
    guided=True,
    dtype=dtype,
  )
  unscaled = made.latent / frozen["scale"]
  return heard(latent, vocoder, frozen, unscaled)


def heard(
  latent: AutoencoderConfig,
  vocoder: VocoderConfig,
  frozen: Mapping[str, Tree],
  unscaled: Float[Array, "b w z c"],
) -> Float[Array, "b n 1"]:
  """The sounds of latents that are not scaled."""
  plain = dataclasses.replace(latent, scale=1.0)
  mel = autoencoder.decode(plain, frozen["autoencoder"], unscaled)
  return generator.synthesize(vocoder, frozen["vocoder"], mel)
