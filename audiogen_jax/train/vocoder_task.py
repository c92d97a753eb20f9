"""Training a vocoder: BigVGAN (Lee et al., 2023), HiFi-GAN (Kong et al., 2020).

One step, in the order of the published programs:

    audio -> mel spectrogram -> generator -> fake
    discriminators: tell audio from fake, one update of each kind
    losses of `fake`: adversarial and feature (the updated discriminators), mel
      -> one update of the generator -> EMA

Kernels are trained as directions and lengths, as published (see
`core.weight_norm`).
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jaxtyping import Array, Float

from audiogen_jax.audio import distances, mel
from audiogen_jax.convert import make_an_audio_rooms
from audiogen_jax.convert.make_an_audio_parts import UNET_RANGES
from audiogen_jax.core import cost, sharding
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.gan import discriminators, losses
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.train import gradients, vocoder_losses, vocoder_sources
from audiogen_jax.train import state as states
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.sounds_task import SoundsTask
from audiogen_jax.train.state import Batch, TrainState
from audiogen_jax.train.vocoder_losses import VocoderWeights
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import Generator, VocoderConfig


@dataclasses.dataclass(frozen=True)
class VocoderTask(SoundsTask):
  """A vocoder to train: a `task.Task`, as `loop` calls it.

  Attributes:
    model: Source of a vocoder, see `vocoder_sources.opened`.
    start: Whether the vocoder starts at random or as that one, which also
      brings its shape; its mel recipe must be the configuration's.
    vocoder: Its shape and mel recipe.
    adversary: Discriminators, all of them with an optimiser of their own.
    weights: Of the generator's losses.
    optim: Settings of all optimisers; each clips its own gradient.
    accumulate: Parts of a batch that are gone through one after another.
    average_decay: Decay of the EMA that is evaluated and exported.
    average_every: Steps between its updates; 0 for no average, as published.
    precision: Precision of products and convolutions on accelerators.
    remat: Whether the backward pass computes the generator's activations, all
      but what convolutions give, again.
  """

  model: str = ""
  start: Literal["random", "model"] = "random"
  vocoder: VocoderConfig = VocoderConfig()
  adversary: DiscriminatorConfig = DiscriminatorConfig(
    kinds=("mpd", "mrd"), loss="mse", slope=0.1, summed=True
  )
  weights: VocoderWeights = VocoderWeights()
  optim: OptimiserConfig = OptimiserConfig()
  accumulate: int = 1
  average_decay: float = 0.999
  average_every: int = 0
  precision: Literal["default", "high", "highest"] = "default"
  remat: Literal["none", "activations"] = "none"

  axes: ClassVar[Mapping[str, Axes]] = vocoder_sources.AXES
  ranges: ClassVar[Mapping[str, tuple[float, float]]] = UNET_RANGES
  best: ClassVar[str] = "mel_distance"

  def __post_init__(self) -> None:
    if not 0 <= self.average_decay < 1:
      raise InputError(f"average_decay {self.average_decay} is not in [0, 1)")
    if self.accumulate < 1:
      raise InputError(f"accumulate {self.accumulate} must be 1 or more")

  def opened(self) -> "VocoderTask":
    """The task with what its source says of itself; reads no weights.

    Raises:
      InputError: If the source is missing, or of another mel recipe.
    """
    if self.start == "random":
      return self
    part = vocoder_sources.opened(self.model, self.vocoder.mel)
    return dataclasses.replace(self, vocoder=part.config)

  @property
  def rate_hz(self) -> int:
    """The sample rate of the mel recipe."""
    return self.vocoder.mel.rate_hz

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Shapes and types of a batch, by name, for so many rows and seconds."""
    shape = (rows, round(seconds * self.rate_hz), 1)
    return {"audio": jax.ShapeDtypeStruct(shape, jnp.float32)}

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; `prepare` reads the vocoder where it has a source."""
    keys = jax.random.split(key)
    params = {
      "vocoder": generator.init(self.vocoder, keys[0]),
      "adversary": discriminators.init(self.adversary, keys[1]),
    }
    moments = {
      "vocoder": self._tx.init(params["vocoder"]),
      "adversary": {
        kind: self._tx.init(tree) for kind, tree in params["adversary"].items()
      },
    }
    return TrainState(
      step=jnp.int32(0),
      params=params,
      optimiser=moments,
      extra={"averaged": jnp.float32(0)},
      average=self._average_of(params),
    )

  def prepare(
    self, state: TrainState, batches: Iterator[Batch], key: jax.Array
  ) -> TrainState:
    """Reads the vocoder that is trained on."""
    del batches, key
    if self.start == "random":
      return state
    voice = vocoder_sources.weights(self.model, self.vocoder.mel)
    params = state.params | {"vocoder": voice}
    return state._replace(params=params, average=self._average_of(params))

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the discriminators, and one of the generator against them.

    Args:
      state: Of generator, discriminators and their optimisers.
      batch: `audio b n 1`, at the recipe's rate, in [-1, 1].
      key: Not used: nothing is drawn.

    Returns:
      The new state, and scalar metrics by name.
    """
    del key
    audio, mels = self.inputs(batch["audio"])
    with jax.default_matmul_precision(self.precision):
      voice = state.params["vocoder"]
      fake, pull = jax.vjp(lambda params: self.generate(params, mels), voice)
      adversary, moments, told = vocoder_losses.update_discriminators(
        self.adversary,
        self._tx,
        state.params["adversary"],
        state.optimiser["adversary"],
        (audio, fake),
        self.accumulate,
      )

      def loss(fake, audio):
        return vocoder_losses.of_generator(
          self.adversary,
          adversary,
          self.weights,
          self.vocoder.mel,
          audio,
          fake,
        )

      if self.accumulate == 1:
        (value, found), of_fake = jax.value_and_grad(loss, has_aux=True)(
          fake, audio
        )
        (gradient,) = pull(of_fake)
      else:  # what lies between forwards and backwards is that of a part
        (value, found), gradient = gradients.accumulated(
          lambda params, audio, mels: loss(self.generate(params, mels), audio),
          voice,
          (audio, mels),
          self.accumulate,
        )
    updates, own = self._tx.update(gradient, state.optimiser["vocoder"], voice)
    voice = optax.apply_updates(voice, updates)
    average, averaged = states.published_ema(
      state,
      {"vocoder": voice},
      decay=self.average_decay,
      every=self.average_every,
    )
    metrics = {
      "input_rms": jnp.sqrt(jnp.mean(jnp.square(audio))),
      **found,
      "loss": value,
      "grad_norm": optax.tree.norm(gradient),
      **told,
      "lr": jnp.float32(self.optim.rate()(state.step)),
    }
    return TrainState(
      step=state.step + 1,
      params={"vocoder": voice, "adversary": adversary},
      optimiser={"vocoder": own, "adversary": moments},
      extra={"averaged": averaged},
      average=average,
    ), metrics

  def eval_step(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sums over the valid rows of a batch, to be added up."""
    audio, fake = self._through(state, batch)
    rows = {
      "mel_distance": distances.mel_distance(audio, fake, self.rate_hz),
      "mel": jax.vmap(
        lambda a, b: losses.recipe_mel(a[None], b[None], self.vocoder.mel)
      )(audio, fake),
      "log_spectral_distance": distances.log_spectral_distance(audio, fake),
      "si_snr": distances.si_snr(audio, fake, self.rate_hz),
    }
    valid = batch["valid"]
    sums = {name: jnp.sum(x, where=valid) for name, x in rows.items()}
    return sums | {"rows": jnp.sum(valid)}

  def summary(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Figures of an evaluation: means over its rows."""
    rows = float(sums["rows"])
    return {n: float(x) / rows for n, x in sums.items() if n != "rows"}

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sounds and what becomes of their mel spectrograms."""
    audio, fake = self._through(state, batch)
    return {"original": audio, "vocoded": fake}

  def model_flops(self, rows: int, seconds: float) -> float:
    """All of a step at once, which computes nothing twice."""
    plain = dataclasses.replace(self, accumulate=1, remat="none")
    like = jax.eval_shape(plain.init, jax.random.key(0))
    spec, key = self.batch_spec(rows, seconds), jax.random.key(0)
    return cost.flops(plain.train_step, like, spec, key)

  def prepare_programs(
    self,
    state: TrainState,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    key: jax.ShapeDtypeStruct,
    placement: Placement,
  ) -> dict[str, Program]:
    """What the source holds, beside a state that has room for it."""
    del batch, key, placement
    if self.start == "random":
      return {}
    held = state.params["vocoder"], state.average
    return {"prepare": Program(None, (state,), outputs=held)}

  def variants(self) -> "dict[str, VocoderTask]":
    """What the backward pass computes again."""
    replace = functools.partial(dataclasses.replace, self)
    return {f"remat {x}": replace(remat=x) for x in ("none", "activations")}

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the vocoder as a part of a Make-An-Audio, averaged if it is."""
    tree = (state.average or state.params)["vocoder"]
    make_an_audio_rooms.write(folder, "vocoder", self.vocoder, tree)

  def inputs(
    self, audio: Float[Array, "b _ 1"]
  ) -> tuple[Float[Array, "b n 1"], Float[Array, "b t m"]]:
    """Sounds, cut to whole frames, and their mel spectrograms.

    Raises:
      InputError: For rows too short for a frame.
    """
    audio = sharding.constrain(audio, "batch", None, None)
    recipe = self.vocoder.mel
    frames = audio.shape[1] // recipe.hop
    # Recipes that centre frames have one more.
    mels = mel.log_spectrogram(recipe, audio[..., 0])[:, :frames]
    return audio[:, : mels.shape[1] * recipe.hop], mels

  def generate(
    self, params: Tree, mels: Float[Array, "b t m"]
  ) -> Float[Array, "b n 1"]:
    """Sounds of mel spectrograms, in the precision of training."""
    apply = Generator(self.vocoder).apply
    if self.remat == "activations":
      apply = jax.checkpoint(apply, policy=_of_convolutions)
    return apply({"params": params}, mels)

  def _average_of(self, params: Tree) -> Tree:
    """What an EMA starts from; nothing where there is none."""
    if not self.average_every:
      return {}
    return {"vocoder": jax.tree.map(jnp.copy, params["vocoder"])}

  def _through(
    self, state: TrainState, batch: Batch
  ) -> tuple[Float[Array, "b n 1"], Float[Array, "b n 1"]]:
    """Sounds, and what the vocoder makes of them as at inference."""
    audio, mels = self.inputs(batch["audio"])
    params = (state.average or state.params)["vocoder"]
    return audio, generator.synthesize(self.vocoder, params, mels)

  @functools.cached_property
  def _tx(self) -> optax.GradientTransformation:
    return self.optim.make()


def _of_convolutions(primitive: Any, *_: Any, **__: Any) -> bool:
  """What a backward pass keeps: what a convolution gives is dear to compute."""
  return primitive.name == "conv_general_dilated"
