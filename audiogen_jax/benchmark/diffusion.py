"""How fast the parts of latent diffusion are: ours and PyTorch's, in turn.

Weights are random, of Make-An-Audio's published sizes.  A sound takes as many
steps of the U-Net as its solver asks for, with guidance two rows each, and then
autoencoder and vocoder once.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from audiogen_jax.benchmark import machine
from audiogen_jax.core import winograd
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Seconds, Tree
from audiogen_jax.diffusion import unet
from audiogen_jax.diffusion.unet import UNet, UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import VocoderConfig

UNET, LATENT = UNetConfig(), AutoencoderConfig()
SOUND = VocoderConfig(norm="none")  # as it is sampled with
TOKENS = 77  # of a context
_SCALE = 0.02  # of random weights

Work = Callable[[], Any]  # does it once, and waits until it is done
OpenRival = Callable[[str, int], Work]


class Run(NamedTuple):
  """Seconds of one run: of all cores together, and of the clock."""

  core_s: float
  clock_s: float


@dataclasses.dataclass(frozen=True)
class PartFigures:
  """What one part took, and PyTorch's of the same shape.

  Attributes:
    name: The part's, one of `PARTS`.
    runs: Ours.
    rival_runs: PyTorch's; empty where it is missing.
    missing: Why it is, with what to do.
  """

  name: str
  runs: Sequence[Run]
  rival_runs: Sequence[Run] = ()
  missing: str = ""

  @property
  def ratio(self) -> float | None:
    """How many times PyTorch's pace ours is, in processor time."""
    if not self.rival_runs:
      return None
    theirs, ours = (
      machine.median([run.core_s for run in runs])
      for runs in (self.rival_runs, self.runs)
    )
    return theirs / ours

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    told = dataclasses.asdict(self) | {"ratio": self.ratio}
    for name in ("runs", "rival_runs"):
      told[name] = [run._asdict() for run in getattr(self, name)]
    return told


def columns(duration_s: Seconds) -> int:
  """Of the latent of a sound: whole ones, as many as the U-Net halves."""
  mel = LATENT.mel
  frames = duration_s * mel.rate_hz / mel.hop
  return math.ceil(frames / LATENT.ratio / UNET.ratio) * UNET.ratio


def compare(
  name: str, open_rival: OpenRival, *, duration_s: Seconds, runs: int
) -> PartFigures:
  """A part and PyTorch's of that shape, in turn, on noise.

  Args:
    name: One of `PARTS`.
    open_rival: From name and columns to PyTorch's; raises `InputError` if it
      misses something.
    duration_s: Seconds of the sound.
    runs: Of each, after one that may compile.
  """
  width = columns(duration_s)
  works, missing = [PARTS[name](width)], ""
  try:
    works.append(open_rival(name, width))
  except InputError as error:
    missing = str(error)

  def turn(work: Work) -> Run:
    core_s, clock_s = time.process_time(), time.perf_counter()
    work()
    return Run(time.process_time() - core_s, time.perf_counter() - clock_s)

  ours, *theirs = (later for _, later in machine.in_turn(works, turn, runs))
  return PartFigures(name, ours, *theirs, missing=missing)


def _random(init: Callable[[Any, jax.Array], Tree], config: Any) -> Tree:
  """Random everywhere, also where training starts from zeros."""
  shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
  draw = np.random.default_rng(0).standard_normal
  return jax.tree.map(
    lambda x: jnp.asarray(_SCALE * draw(x.shape, np.float32)), shapes
  )


def _work(run: Callable[..., jax.Array], params: Tree, *shapes: tuple) -> Work:
  draw = np.random.default_rng(1).standard_normal
  inputs = [jnp.asarray(draw(shape, np.float32)) for shape in shapes]
  compiled = jax.jit(run)
  return lambda: jax.block_until_ready(compiled(params, *inputs))


def _unet(width: int) -> Work:
  def run(variables: Tree, *inputs: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
      return UNet(UNET).apply(variables, *inputs)

  # The sampler makes them once, for all steps.
  variables = winograd.variables(_random(unet.init, UNET))
  image = 2, width, LATENT.rows, UNET.channels
  return _work(run, variables, image, (2,), (2, TOKENS, UNET.context_width))


def _decoder(width: int) -> Work:
  run = functools.partial(autoencoder.decode, LATENT)
  params = _random(autoencoder.init, LATENT)
  return _work(run, params, (1, width, LATENT.rows, LATENT.channels))


def _vocoder(width: int) -> Work:
  run = functools.partial(generator.synthesize, SOUND)
  params = _random(generator.init, SOUND)
  return _work(run, params, (1, width * LATENT.ratio, SOUND.mel.n_mels))


PARTS: Mapping[str, Callable[[int], Work]] = MappingProxyType(
  {"unet": _unet, "decoder": _decoder, "vocoder": _vocoder}
)
