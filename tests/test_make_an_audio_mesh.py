"""Make-An-Audio's rooms on eight devices: as on one, each with its share."""

import dataclasses
import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.audio import mel
from audiogen_jax.core import sharding
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.diffusion import sampler, sampling, unet
from audiogen_jax.diffusion.sampler import Inputs, State
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNet, UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.vocoder import generator, pieces
from audiogen_jax.vocoder.generator import VocoderConfig

TEXT = ClapTextConfig(
  bert=BertConfig(
    vocabulary=20,
    width=16,
    layers=2,
    heads=4,
    ff=24,
    positions=8,
    first_position=0,
    kinds=2,
    padding=0,
  ),
  width=12,
  length=5,
)
FLAT = UNetConfig(
  filters=32, multipliers=(1,), residual_layers=1, heads=4, context_width=12
)
DEEP = dataclasses.replace(FLAT, multipliers=(1, 2))
# As inpainting has it: no text, blocks that halve and double the image.
PLAIN = dataclasses.replace(
  DEEP, beside=5, context_width=0, resample="residual"
)
RECIPE = dataclasses.replace(mel.MAKE_AN_AUDIO, n_mels=8, hop=4)
LATENT = AutoencoderConfig(
  mel=RECIPE, filters=32, multipliers=(1, 2), residual_layers=1, attention=(1,)
)
SOUND = VocoderConfig(
  mel=RECIPE,
  filters=8,
  ratios=(2, 2),
  ratio_kernels=(4, 4),
  kernels=(3,),
  dilations=((1,),),
  norm="none",
)
ROOMS = {
  "text": (clap, TEXT, clap.AXES),
  "flat": (unet, FLAT, unet.AXES),
  "deep": (unet, DEEP, unet.AXES),
  "plain": (unet, PLAIN, unet.AXES),
  "latent": (autoencoder, LATENT, autoencoder.AXES),
  "sound": (generator, SOUND, generator.AXES),
}
MESHES = [dict(data=8), dict(data=4, tensor=2), dict(data=2, tensor=4)]


@functools.cache
def params():
  """Random, also where training starts from zeros; of every room."""
  draw = np.random.default_rng(0).normal

  def values(room, config):
    shapes = jax.eval_shape(
      lambda key: room.init(config, key), jax.random.key(0)
    )
    return jax.tree.map(lambda x: np.float32(0.1 * draw(size=x.shape)), shapes)

  return {name: values(room, c) for name, (room, c, _) in ROOMS.items()}


def placed(placement):
  """Those parameters, where the rooms want them."""
  targets = {
    name: sharding.shardings(params()[name], axes, placement)
    for name, (*_, axes) in ROOMS.items()
  }
  return jax.device_put(params(), targets)


@jax.jit
def _made(params, ids, start, keys, plan, lines):
  states = clap.encode(TEXT, params["text"], ids)
  state = sampler.run(
    params["flat"],
    State.start(start),
    Inputs(jnp.float32(3.0), keys, sampler.paired(states, states[:1])),
    plan,
    lines,
    config=FLAT,
    guided=True,
  )
  bands = autoencoder.decode(LATENT, params["latent"], state.latent)
  return {"states": states, "latent": state.latent, "bands": bands}


def made(placement, rows):
  """What comes of three rows, which further ones fill up to `rows`."""
  which = np.minimum(np.arange(rows), 2)
  ids = np.random.default_rng(1).integers(1, 20, (3, 5)).astype(np.int32)
  keys = jnp.stack([jax.random.key(i) for i in which])
  plan, lines, _ = sampling.plan(Diffusion(steps=4, eta=0.5), Schedule())
  start = noise(3, 4, 4, 4, scale=1)
  given = [placement.put(x, "batch") for x in (ids[which], start[which], keys)]
  there = placed(placement)
  got = _made(there, *given, plan, jnp.int32(lines))
  sound = pieces.synthesize(SOUND, there["sound"], got["bands"], piece=4)
  return {
    name: np.asarray(x)[:3] for name, x in (got | {"sound": sound}).items()
  }


@pytest.fixture(scope="module")
def alone():
  return made(Placement.make(make_mesh(data=1)), 3)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_a_mesh_changes_nothing(sizes, alone):
  placement = Placement.make(make_mesh(**sizes))
  got = made(placement, -(-3 // sizes["data"]) * sizes["data"])
  for name, want in alone.items():
    np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5, err_msg=name)


def found(name, config, placement, *inputs):
  """The noise that a U-Net finds, and its program."""

  @jax.jit
  def run(params, *inputs):
    with jax.default_matmul_precision("highest"):
      return UNet(config).apply({"params": params}, *inputs)

  params = placed(placement)[name]
  inputs = [placement.put(x, "batch") for x in inputs]
  program = run.lower(params, *inputs).compile()
  return np.asarray(program(params, *inputs)), program.as_text()


@pytest.mark.parametrize(
  ("name", "config", "sums"),
  # A residual block sends one sum, an attention's transformer block three.
  [("deep", DEEP, 8 + 3 * 7), ("plain", PLAIN, 8 + 2 + 7)],
)
def test_devices_send_each_other_sums_alone(name, config, sums):
  inputs = [noise(4, 4, 4, config.channels + config.beside, scale=1)]
  inputs += [np.float32([1, 300, 600, 999])]
  if config.context_width:
    inputs.append(noise(4, 5, 12, scale=1))
  spread = Placement.make(make_mesh(data=2, tensor=4))
  got, text = found(name, config, spread, *inputs)
  sent = re.findall(
    r" (all-\w+|collective-permute|reduce-scatter)(?:-start)?\(", text
  )
  assert Counter(sent) == {"all-reduce": sums}
  want, _ = found(name, config, Placement.make(make_mesh(data=1)), *inputs)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_what_a_device_holds():
  there = placed(Placement.make(make_mesh(data=2, tensor=4)))["deep"]
  block = there["down_0_attention_0"]["block_0"]
  for leaf, axis in (
    (there["down_0_residual_0"]["conv_0"]["kernel"], 3),
    (there["middle_residual_1"]["conv_1"]["kernel"], 2),
    (block["self_attn"]["q"]["kernel"], 1),
    (block["up"]["kernel"], 2),
  ):
    part = leaf.addressable_shards[0].data.shape
    assert part[axis] == leaf.shape[axis] / 4


@pytest.mark.parametrize("name", ROOMS)
def test_a_parameter_without_axes_is_named(name):
  *_, axes = ROOMS[name]
  placement = Placement.make(make_mesh(data=8))
  tree = {"other": {"weight": np.zeros(2)}}
  with pytest.raises(KeyError, match="'other/weight' is matched by 0 rules"):
    sharding.shardings(tree, axes, placement)
