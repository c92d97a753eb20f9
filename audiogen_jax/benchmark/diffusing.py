"""Make-An-Audio as a contestant: what its U-Net takes, and what comes after."""

import functools
import math
import time

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer, models

from audiogen_jax.benchmark import weights
from audiogen_jax.benchmark.roofline import Passes
from audiogen_jax.benchmark.sample import Run, Work
from audiogen_jax.core import cost, types
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.diffusion import unet
from audiogen_jax.diffusion.denoiser import Denoiser
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNet, UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.latent.mel_autoencoder import MelAutoencoder
from audiogen_jax.make_an_audio import MakeAnAudio
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text.tower import TextTower
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import VocoderConfig
from audiogen_jax.vocoder.vocoder import Vocoder

_PROMPT = "a dog barks"


class Diffusing:
  """A Make-An-Audio: all of a latent in each step, so nothing to stream.

  Attributes:
    model: The model, which reads texts.
    dtype: Of its U-Net.
  """

  name = MakeAnAudio.__name__

  def __init__(self, model: MakeAnAudio) -> None:
    self.model = model
    self.dtype = model.denoiser.dtype

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""
    start = time.perf_counter()
    latents = self.model.generate_latents(
      [_PROMPT] * work.batch,
      columns=self._columns(work),
      sampling=Diffusion(guidance=work.guidance),
    )
    diffused_s = time.perf_counter() - start
    mels = self.model.mels.decode(latents)
    decoded_s = time.perf_counter() - start
    self.model.vocoder(mels)
    total_s = time.perf_counter() - start
    return Run(diffused_s, total_s, total_s - decoded_s)

  def tokens(self, work: Work) -> int:
    """Values of the latent of one sound."""
    return math.prod(self._latent(work))

  def passes(self, work: Work) -> Passes:
    """What the U-Net must read and compute in each step."""
    net, rows = self.model.denoiser, work.batch * (1 + (work.guidance != 1))
    context = (rows, self.model.text.config.length, net.config.context_width)
    steps = self.model.denoiser.plan(Diffusion(guidance=work.guidance)).lines
    arguments = (
      jax.ShapeDtypeStruct((rows, *self._latent(work)), jnp.float32),
      jax.ShapeDtypeStruct((rows,), jnp.float32),
      jax.ShapeDtypeStruct(context, jnp.float32),
    )
    run = UNet(net.config).apply
    computed = cost.flops(run, {"params": net.params}, *arguments)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(net.params))
    return Passes(steps, held, computed)

  def latency_s(self, work: Work) -> None:
    """None: the first half second is ready when the last one is."""

  def _columns(self, work: Work) -> int:
    return self.model.extent(work.duration_s).columns

  def _latent(self, work: Work) -> tuple[int, int, int]:
    """Shape of a sound's latent."""
    c = self.model.mels.config
    return self._columns(work), c.rows, c.channels


def random(
  *, dtype: str | None = None, mesh: jax.sharding.Mesh | None = None
) -> Diffusing:
  """A model of the published size with random weights."""
  compute, placement = types.resolve_dtype(dtype), Placement.make(mesh)
  drawn = functools.partial(weights.drawn, placement)
  net, latent = UNetConfig(), AutoencoderConfig()
  sound, tower = VocoderConfig(), ClapTextConfig()
  full = jnp.dtype(jnp.float32)
  rooms = (
    (unet, net, compute),
    (autoencoder, latent, compute),
    (generator, sound, full),
    (clap, tower, full),
  )
  nets = [
    drawn(functools.partial(room.init, config), room.AXES, kind)
    for room, config, kind in rooms
  ]
  # Every word is one that it does not know: the text is read once.
  rules = Tokenizer(models.WordLevel({"[UNK]": 1}, unk_token="[UNK]"))
  words = WordPieces(rules, limit=tower.length)
  return Diffusing(
    MakeAnAudio(
      Denoiser(net, Schedule(), nets[0], placement, compute),
      MelAutoencoder(latent, nets[1], placement, compute),
      Vocoder(sound, nets[2], placement),
      TextTower(tower, nets[3], words, placement),
    )
  )
