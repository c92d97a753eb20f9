"""What a plan compiles of a model that diffuses latents: its sampling."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from audiogen_jax import text_to_latents
from audiogen_jax.convert import engine
from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.core import abstract, cost, sharding
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.diffusion import sampler, unet
from audiogen_jax.diffusion.denoiser import Denoiser
from audiogen_jax.diffusion.sampler import Inputs, State
from audiogen_jax.diffusion.unet import UNet, UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.text import clip, tower
from audiogen_jax.vocoder import generator, pieces
from audiogen_jax.vocoder.generator import VocoderConfig


def sampling(
  parts: Parts, dtype: jnp.dtype, batch: int, placement: Placement
) -> dict[str, Program]:
  """`text` (of a model that reads), `U-Net`, `autoencoder` and `vocoder`.

  All rows go through the U-Net at once, with the options that suit the model;
  what is told of it is one run.  Autoencoder and vocoder take as many rows as
  the mesh splits a batch into, the vocoder long ones in pieces.

  Args:
    parts: Shapes; no weights are read.
    dtype: Of U-Net and autoencoder; all else is float32.
    batch: Sounds, as long as those trained on.
    placement: The mesh.
  """
  net, latent = parts.unet, parts.autoencoder
  # As it runs: directions and lengths of kernels are folded.
  voice = dataclasses.replace(parts.vocoder, norm="none")
  weights = _weights(parts, voice, dtype, placement)

  def program(
    name: str, function: Callable, *given: Tree, runs: int
  ) -> Program:
    resident = [tree for other, tree in weights.items() if other != name]
    arguments = weights[name], *given
    return Program(jax.jit(function), arguments, resident=resident, runs=runs)

  def row(*shape: int, dtype: jnp.dtype = jnp.float32) -> jax.ShapeDtypeStruct:
    x = jax.ShapeDtypeStruct(shape, dtype)
    return abstract.put(x, placement, "batch", *[None] * (x.ndim - 1))

  denoiser = Denoiser(net, parts.schedule, weights["U-Net"], placement, dtype)
  rows, options = denoiser.rows(batch), text_to_latents.usual(net)
  plan = denoiser.plan(options)
  samples = round(parts.window_s * latent.mel.rate_hz)
  columns = text_to_latents.columns_of(samples, latent, net)
  tokens = parts.text.length if parts.text else 1
  start = row(rows, columns, latent.rows, latent.channels)
  state = _whole(jax.eval_shape(State.start, start), placement)
  keys = jax.eval_shape(jax.vmap(jax.random.key), row(rows, dtype=jnp.uint32))
  context = beside = None
  if net.context_width:
    context = row(rows * (1 + options.guided), tokens, net.context_width)
  if net.beside:
    beside = row(rows, columns, latent.rows, net.beside)
  inputs = Inputs(
    _whole(jnp.float32(options.guidance), placement),
    abstract.put(keys, placement, "batch"),
    context,
    beside,
  )
  table, stop = _whole((plan.plan, jnp.int32(plan.lines)), placement)
  found = {}
  if parts.text is not None:
    ids = row(rows, tokens, dtype=jnp.int32)
    # Once for what is wanted, and once for what guidance leads away from.
    encode = partial(tower.encode, parts.text)
    found["text"] = program("text", encode, ids, runs=2)
  found["U-Net"] = program(
    "U-Net",
    partial(sampler.run, config=net, guided=options.guided, dtype=dtype),
    state._replace(latent=start, kept=start),
    inputs,
    table,
    stop,
    runs=plan.lines,
  )
  ways = placement.ways("batch")
  groups = -(-batch // ways)
  found["autoencoder"] = program(
    "autoencoder",
    partial(autoencoder.decode, latent, dtype=dtype),
    row(ways, columns, latent.rows, latent.channels),
    runs=groups,
  )
  frames, count = pieces.extent(voice, columns * latent.ratio)
  found["vocoder"] = program(
    "vocoder",
    partial(generator.synthesize, voice),
    row(ways, frames, voice.mel.n_mels),
    runs=groups * count,
  )
  return found


def unet_flops(
  config: UNetConfig,
  shape: tuple[int, int, int, int],
  context: tuple[int, int, int],
) -> float:
  """Operations of one run of a U-Net.

  Args:
    config: Its shape.
    shape: Of the latents.
    context: Rows, tokens and width of what texts say.
  """
  params = engine.abstract(unet.init, config)
  return cost.flops(
    UNet(config).apply,
    {"params": params},
    jax.ShapeDtypeStruct(shape, jnp.float32),
    jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    jax.ShapeDtypeStruct(context, jnp.float32),
  )


def _weights(
  parts: Parts, voice: VocoderConfig, dtype: jnp.dtype, placement: Placement
) -> dict[str, Tree]:
  """All that lies on the devices, abstract, by the program that reads it.

  Args:
    parts: Shapes.
    voice: Of the vocoder that runs; beside it lies the one that was read.
    dtype: Of U-Net and autoencoder.
    placement: The mesh.
  """

  def of(
    init: Callable[[Any, jax.Array], Tree],
    config: Any,
    axes: Mapping[str, Axes],
    dtype: jnp.dtype = jnp.float32,
  ) -> Tree:
    like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, dtype),
      engine.abstract(init, config),
    )
    return abstract.placed(like, sharding.shardings(like, axes, placement))

  latent = parts.autoencoder
  found = {
    "U-Net": of(unet.init, parts.unet, unet.AXES, dtype),
    "autoencoder": of(autoencoder.init, latent, autoencoder.AXES, dtype),
    "vocoder": of(generator.init, voice, generator.AXES),
    "vocoder, as read": of(generator.init, parts.vocoder, generator.AXES),
  }
  if parts.text is not None:
    found["text"] = of(tower.init, parts.text, tower.AXES)
  if parts.clip is not None:
    found["CLIP"] = _whole(engine.abstract(clip.init, parts.clip), placement)
  return found


def _whole(tree: Tree, placement: Placement) -> Tree:
  """Abstract arrays that every device has all of."""
  return jax.tree.map(
    lambda x: abstract.put(x, placement, *[None] * x.ndim), tree
  )
