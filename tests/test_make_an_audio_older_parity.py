"""Make-An-Audio's older models: sound of a picture, and the trained inpainting.

The packs may have any sizes: whatever they hold, these tests hold for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packs import MakeAnAudio, close, theirs

from audiogen_jax.diffusion import sampler, sampling, unet
from audiogen_jax.diffusion.sampler import Inputs, State
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.latent import autoencoder


@pytest.fixture(scope="module")
def visual():
  yaml = "configs/img_to_audio/img2audio_args.yaml"
  return MakeAnAudio("maa_visual_tiny", "ta54*.ckpt", yaml)


@pytest.fixture(scope="module")
def inpainting():
  yaml = "configs/inpaint/txt2audio_args.yaml"
  return MakeAnAudio("maa_inpaint_tiny", "inpaint7*.ckpt", yaml)


def noise_found(pack, x, context=None):
  network, time = unet.UNet(pack.parts.unet), pack.want["unet_t"]

  @jax.jit
  def run(params, x, time, context):
    with jax.default_matmul_precision("highest"):
      return network.apply({"params": params}, x, time, context)

  found = run(pack.parts.unet_tree, x, jnp.asarray(time, jnp.int32), context)
  return theirs(found)


def sampled(pack, guidance, **inputs):
  options = Diffusion(steps=int(pack.want["ddim_steps"]), guidance=guidance)
  made = sampling.plan(options, pack.parts.schedule)
  (start,) = pack.of("x_T")
  keys = jax.random.split(jax.random.key(0), len(start))
  state = jax.jit(sampler.run, static_argnames=("config", "guided"))(
    pack.parts.unet_tree,
    State.start(start),
    Inputs(jnp.float32(guidance), keys, **inputs),
    made.plan,
    jnp.int32(made.lines),
    config=pack.parts.unet,
    guided=options.guided,
  )
  return theirs(state.latent)


def decoded(pack):
  (latent,) = pack.of("ddim_out")
  decode = jax.jit(autoencoder.decode, static_argnums=0)
  parts = pack.parts
  return decode(parts.autoencoder, parts.autoencoder_tree, latent)


def test_sound_of_a_picture_parity(visual):
  want = visual.want
  seen, none = (
    jnp.asarray(want[name]) for name in ("image_embedding", "null_embedding")
  )
  (start,) = visual.of("x_T")
  close(noise_found(visual, start, seen), want["unet_eps"], 1.5e-5)
  pairs = sampler.paired(seen, none)
  close(sampled(visual, 3.0, context=pairs), want["ddim_out"], 5e-4)
  close(decoded(visual).swapaxes(1, 2), want["mel"], 2e-5)


def test_trained_inpainting_parity(inpainting):
  want, parts = inpainting.want, inpainting.parts
  start, noise, beside = inpainting.of("x_T", "posterior_noise", "condition")
  frames = want["mask"].shape[1]
  known = (1 - want["mask"]) * want["mel"][:, :frames]
  encode = jax.jit(autoencoder.encode, static_argnums=0)
  posterior = encode(
    parts.autoencoder, parts.autoencoder_tree, jnp.asarray(known.T[None])
  )
  latent = autoencoder.latent(parts.autoencoder, posterior, noise)
  close(latent, beside[..., :-1], 2e-5)
  both = jnp.concatenate([start, beside], axis=-1)
  close(noise_found(inpainting, both), want["unet_eps"], 1.5e-5)
  close(sampled(inpainting, 1.0, beside=beside), want["ddim_out"], 5e-4)
  image = np.clip((want["decoded"][:, 0] + 1) / 2, 0, 1)
  close(decoded(inpainting).swapaxes(1, 2), image, 2e-5)
