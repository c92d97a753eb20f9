"""Training Make-An-Audio's mel autoencoder (Huang et al., 2023, §3.2).

One step, in the order of the published code:

    audio -> mel -> autoencoder -> made      losses of `made`, and the KL
      -> gradient -> optimiser -> EMA        one update of the autoencoder
    mel -> the new autoencoder -> made       another draw of the latents
      -> hinge losses and R1 -> optimiser    one update of the discriminators
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

from audiogen_jax.audio import mel
from audiogen_jax.convert import make_an_audio_rooms
from audiogen_jax.convert.make_an_audio_parts import UNET_RANGES
from audiogen_jax.convert.make_an_audio_rooms import Part
from audiogen_jax.core import cost, types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement, constrain
from audiogen_jax.core.types import Tree
from audiogen_jax.gan import mel_discriminators
from audiogen_jax.gan.mel_discriminators import MelDiscriminatorConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig, Posterior
from audiogen_jax.train import (
  autoencoder_losses,
  diffusion_inputs,
  diffusion_sources,
  gradients,
)
from audiogen_jax.train import state as states
from audiogen_jax.train.autoencoder_losses import Weights
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.sounds_task import SoundsTask
from audiogen_jax.train.state import Batch, TrainState

_TABLES = {
  "params/autoencoder/": autoencoder.AXES,
  "params/adversary/": mel_discriminators.AXES,
}
_AXES = {
  f"{prefix}({rule})": axes
  for prefix, table in _TABLES.items()
  for rule, axes in table.items()
} | {"extra/averaged": ()}


@dataclasses.dataclass(frozen=True)
class AutoencoderTask(SoundsTask):
  """A mel autoencoder to train: a `task.Task`.

  Attributes:
    model: Source of a Make-An-Audio, for `start`.
    start: Whether the autoencoder starts at random or as that model's, which
      also brings its shape.
    autoencoder: Its shape.
    adversary: The discriminators.
    adversary_start: Steps before they count; they see `r1` alone until then.
      The published 50,001 counts the updates of both optimisers.
    adversarial: Weight of each discriminator, times its adaptive weight.
    kl: Weight of the KL divergence.
    r1: Weight of the gradient penalty.
    r1_every: Steps between its uses, where it weighs so many times as much
      (lazy regularisation: Karras et al., 2020); 1 as published.
    optim: Settings of both optimisers.
    accumulate: Parts of a batch that are gone through one after another.
    average_decay: Decay of the EMA that is evaluated and exported.
    average_every: Steps between its updates; 0 for no average, as published.
    dtype: Type of the autoencoder's products; all else is float32.
    remat: Whether the backward pass computes the autoencoder again.
  """

  model: str = ""
  start: Literal["random", "model"] = "random"
  autoencoder: AutoencoderConfig = AutoencoderConfig()
  adversary: MelDiscriminatorConfig = MelDiscriminatorConfig()
  adversary_start: int = 25_000
  adversarial: float = 0.5
  kl: float = 1e-6
  r1: float = 5.0
  r1_every: int = 1
  optim: OptimiserConfig = OptimiserConfig()
  accumulate: int = 1
  average_decay: float = 0.999
  average_every: int = 0
  dtype: Literal["float32", "bfloat16"] = "float32"
  remat: Literal["none", "full"] = "none"

  ranges: ClassVar[Mapping[str, tuple[float, float]]] = UNET_RANGES
  axes: ClassVar[Mapping[str, Axes]] = _AXES
  best: ClassVar[str] = "mel_l1"

  def __post_init__(self) -> None:
    for name in ("adversarial", "kl", "r1", "adversary_start"):
      if not 0 <= getattr(self, name) < float("inf"):
        raise InputError(f"{name} {getattr(self, name)} must be 0 or more")
    for name in ("accumulate", "r1_every"):
      if getattr(self, name) < 1:
        raise InputError(f"{name} {getattr(self, name)} must be 1 or more")
    if not 0 <= self.average_decay < 1:
      raise InputError(f"average_decay {self.average_decay} must lie in [0, 1)")

  def opened(self) -> "AutoencoderTask":
    """The task with the shape of the autoencoder that it starts from.

    Raises:
      InputError: If the source is missing or holds no autoencoder.
    """
    if self.start == "random":
      return self
    return dataclasses.replace(self, autoencoder=self._source.config)

  @property
  def rate_hz(self) -> int:
    """The sample rate of the mel recipe."""
    return self.autoencoder.mel.rate_hz

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Shapes and types of a batch, by name, for so many rows and seconds."""
    samples = round(seconds * self.rate_hz)
    self.adversary.check(self._shape(rows, samples)[1] * self._ratio)
    return {"audio": jax.ShapeDtypeStruct((rows, samples, 1), jnp.float32)}

  def init(self, key: jax.Array) -> TrainState:
    """A state at step 0, all networks drawn at random."""
    keys = jax.random.split(key)
    bands = self.autoencoder.mel.n_mels
    params = {
      "autoencoder": autoencoder.init(self.autoencoder, keys[0]),
      "adversary": mel_discriminators.init(
        self.adversary, keys[1], bands=bands
      ),
    }
    return self._state(params)

  def prepare(
    self, state: TrainState, batches: Iterator[Batch], key: jax.Array
  ) -> TrainState:
    """Reads the autoencoder that training starts from, if any."""
    if self.start == "random":
      return state
    weights = diffusion_sources.read(autoencoder, self._source)
    return self._state(state.params | {"autoencoder": weights})

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the autoencoder, and one of the discriminators."""
    keys = jax.random.split(key, 4)
    audio = constrain(batch["audio"], "batch", None, None)
    images = self.images(audio)
    shape = self._shape(*audio.shape[:2])
    drawn = [jax.random.normal(k, shape) for k in keys[:2]]
    state, metrics = self.update(state, images, *drawn, *keys[2:])
    power = jnp.mean(jnp.square(audio))
    return state, {"input_rms": jnp.sqrt(power)} | metrics

  def update(
    self,
    state: TrainState,
    images: Float[Array, "b t m"],
    first: Float[Array, "b w z c"],
    second: Float[Array, "b w z c"],
    key: jax.Array,
    other: jax.Array,
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of both on given noise.

    Args:
      state: Before.
      images: Mel spectrograms as the networks see them.
      first: Noise by which the autoencoder's latents are drawn.
      second: Noise of the latents that the discriminators are shown.
      key: For the discriminators, in the autoencoder's update.
      other: For them, in their own.
    """
    params, moments = state.params, state.optimiser
    counts = jnp.float32(state.step >= self.adversary_start)

    def generator(params, images, noise):
      return autoencoder_losses.generator_gradient(
        self.adversary,
        Weights(self.kl, counts * self.adversarial, 0.0),
        params["autoencoder"],
        params["adversary"],
        images,
        noise,
        key,
        self._through,
      )

    metrics, gradient = gradients.averaged(
      generator, params, (images, first), self.accumulate
    )
    metrics["grad_norm"] = optax.tree.norm(gradient)
    metrics["lr"] = jnp.float32(self.optim.rate()(state.step))
    new, moved = {}, {}
    new["autoencoder"], moved["autoencoder"] = self._moved(
      gradient, moments["autoencoder"], params["autoencoder"]
    )

    def discriminator(params, images, noise, *, penalised: bool):
      made, _ = self._through(params["autoencoder"], images, noise)
      return autoencoder_losses.discriminator_gradient(
        self.adversary,
        Weights(0.0, counts, self.r1 * self.r1_every),
        params["adversary"],
        images,
        jax.lax.stop_gradient(made),
        other,
        penalised=penalised,
      )

    def with_penalty(penalised: bool):
      return gradients.averaged(
        functools.partial(discriminator, penalised=penalised),
        params | {"autoencoder": new["autoencoder"]},
        (images, second),
        self.accumulate,
      )

    if self.r1_every == 1:
      found, gradient = with_penalty(True)
    else:
      found, gradient = jax.lax.cond(
        state.step % self.r1_every == 0,
        lambda: with_penalty(True),
        lambda: with_penalty(False),
      )
    new["adversary"], moved["adversary"] = self._moved(
      gradient, moments["adversary"], params["adversary"]
    )
    found["adversary_grad_norm"] = optax.tree.norm(gradient)
    average, averaged = states.published_ema(
      state,
      new["autoencoder"],
      decay=self.average_decay,
      every=self.average_every,
    )
    extra = state.extra | {"averaged": averaged}
    state = TrainState(state.step + 1, new, moved, extra, average)
    return state, metrics | found

  def eval_step(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sums over rows, of what is made of the means of latents."""
    images = self.images(batch["audio"])
    noise = jnp.zeros(self._shape(*batch["audio"].shape[:2]))
    made, posterior = self._through(self._exported(state), images, noise)
    rows = {
      "mel_l1": jnp.mean(jnp.abs(images - made), axis=(1, 2)),
      "mel_l2": jnp.mean(jnp.square(images - made), axis=(1, 2)),
      "kl": posterior.kl(),
    }
    valid = batch["valid"]
    sums = {name: jnp.sum(x, where=valid) for name, x in rows.items()}
    return sums | {"rows": jnp.sum(valid)}

  def summary(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Figures of an evaluation: means over its rows."""
    rows = float(sums["rows"])
    names = [name for name in sums if name != "rows"]
    return {name: float(sums[name]) / rows for name in names}

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """No sounds: mel spectrograms become sound in a vocoder alone."""
    return {}

  def model_flops(self, rows: int, seconds: float) -> float:
    """All of a step: no part of it is frozen, none is done twice."""
    once = dataclasses.replace(self, accumulate=1, remat="none")
    key = jax.random.key(0)
    like = jax.eval_shape(once.init, key)
    spec = once.batch_spec(rows, seconds)
    return cost.flops(once.train_step, like, spec, key)

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
    held = state.params["autoencoder"], state.average
    return {"prepare": Program(None, (state,), outputs=held)}

  def variants(self) -> "dict[str, AutoencoderTask]":
    """What the backward pass computes again."""
    replace = functools.partial(dataclasses.replace, self)
    return {f"remat {x}": replace(remat=x) for x in ("none", "full")}

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the autoencoder in our format, as a part of a Make-An-Audio."""
    tree = self._exported(state)
    make_an_audio_rooms.write(folder, "autoencoder", self.autoencoder, tree)

  def images(self, audio: Float[Array, "b n 1"]) -> Float[Array, "b t m"]:
    """Mel spectrograms of whole columns, as the networks see them."""
    c = self.autoencoder
    frames = self._shape(*audio.shape[:2])[1] * self._ratio
    found = mel.log_spectrogram(c.mel, audio[..., 0])[:, :frames]
    return autoencoder.image(c, found)

  def _through(
    self,
    params: Tree,
    images: Float[Array, "b t m"],
    noise: Float[Array, "b w z c"],
  ) -> tuple[Float[Array, "b t m"], Posterior]:
    """Images through draws of their latents."""
    dtype = types.resolve_dtype(self.dtype)
    apply = functools.partial(
      autoencoder_losses.reconstruct, self.autoencoder, dtype=dtype
    )
    if self.remat == "full":
      apply = jax.checkpoint(apply)
    with jax.default_matmul_precision(types.precision(dtype)):
      return apply(params, images, noise)

  def _exported(self, state: TrainState) -> Tree:
    """Parameters of the autoencoder that is evaluated and exported."""
    return state.average or state.params["autoencoder"]

  def _state(self, params: Tree) -> TrainState:
    """The state in which these are the parameters, and no step is made."""
    average = jax.tree.map(jnp.copy, params["autoencoder"])
    return TrainState(
      step=jnp.int32(0),
      params=params,
      optimiser={name: self._tx.init(params[name]) for name in params},
      extra={"averaged": jnp.float32(0)},
      average=average if self.average_every else {},
    )

  def _moved(
    self, gradient: Tree, moments: optax.OptState, params: Tree
  ) -> tuple[Tree, optax.OptState]:
    """Parameters after an update, and the state of their optimiser."""
    updates, moments = self._tx.update(gradient, moments, params)
    return optax.apply_updates(params, updates), moments

  @property
  def _source(self) -> Part:
    """The autoencoder that training starts from, no weights read."""
    if not self.model:
      raise InputError(
        "start=model: give --config.model=SOURCE, whose autoencoder is trained"
        " on"
      )
    return make_an_audio_rooms.read(self.model, "autoencoder")

  @functools.cached_property
  def _tx(self) -> optax.GradientTransformation:
    return self.optim.make()

  @property
  def _ratio(self) -> int:
    """Frames of a column of the latent."""
    return self.autoencoder.ratio

  def _shape(self, rows: int, samples: int) -> tuple[int, int, int, int]:
    """Of the latents of sounds that are trained on."""
    c = self.autoencoder
    columns = diffusion_inputs.columns(c, samples, 1)
    return rows, columns, c.rows, c.channels
