"""Training Make-An-Audio's U-Net (Huang et al., 2023, §3.3).

audio -> mel -> frozen autoencoder -> a draw of the latent, scaled
text -> frozen text tower of CLAP -> states; some texts are left out
latent, a random time, noise, states -> U-Net -> the noise that it finds
      -> mean square -> clip -> optimiser -> EMA

Frozen weights are in the state: a checkpoint needs nothing beside it.
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
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.convert import make_an_audio_parts
from audiogen_jax.convert.make_an_audio_parts import UNET_RANGES, Parts
from audiogen_jax.core import sharding, types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.diffusion import lora, sampler, training, unet
from audiogen_jax.diffusion.lora import LoRAConfig
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.training import Example
from audiogen_jax.diffusion.unet import UNet, UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text_to_latents import columns_of
from audiogen_jax.train import (
  diffusion_inputs,
  diffusion_samples,
  diffusion_sources,
  gradients,
  latents_planning,
)
from audiogen_jax.train import state as states
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.state import Batch, TrainState
from audiogen_jax.vocoder.generator import VocoderConfig


@dataclasses.dataclass(frozen=True)
class DiffusionTask:
  """The U-Net of a latent diffusion model, to train: a `task.Task`.

  Attributes:
    model: Source of a Make-An-Audio, whose autoencoder, text tower and vocoder
      are taken, frozen.
    start: Whether the U-Net starts at random or as that model's, which also
      brings its shape, its schedule and the scale of its latents.
    unet: Its shape.
    schedule: Of the noise.
    autoencoder: What the others are, read from the source before training;
      `plan`, which reads nothing, believes what stands here.
    clap: The text tower.
    vocoder: The vocoder.
    text_dropout: Share of texts left out, for guidance.
    min_snr: γ of min-SNR weighting; 0 for none, as published.
    lora: Adapters of its attention, trained in place of all its parameters.
    scale_batches: Batches by which the scale of the latents is measured.
    window_s: Seconds of a row, noted in the export.
    optim: The optimiser.
    accumulate: Parts of a batch that are gone through one after another.
    average_decay: Decay of the EMA that is evaluated and exported.
    average_every: Steps between its updates; 0 for no average, as published.
    dtype: Type of the U-Net's products; parameters and loss are float32.
    remat: Whether the backward pass computes the U-Net again.
  """

  model: str = ""
  start: Literal["random", "model"] = "random"
  unet: UNetConfig = UNetConfig()
  schedule: Schedule = Schedule()
  autoencoder: AutoencoderConfig = AutoencoderConfig()
  clap: ClapTextConfig = ClapTextConfig()
  vocoder: VocoderConfig = VocoderConfig()
  text_dropout: float = 0.1
  min_snr: float = 0.0
  lora: LoRAConfig = LoRAConfig()
  scale_batches: int = 8
  window_s: float = Parts.window_s
  optim: OptimiserConfig = OptimiserConfig()
  accumulate: int = 1
  average_decay: float = 0.999
  average_every: int = 0
  dtype: Literal["float32", "bfloat16"] = "bfloat16"
  remat: Literal["none", "full"] = "none"

  axes: ClassVar[Mapping[str, Axes]] = diffusion_sources.AXES
  ranges: ClassVar[Mapping[str, tuple[float, float]]] = UNET_RANGES
  best: ClassVar[str] = "loss"

  def __post_init__(self) -> None:
    diffusion_inputs.check_settings(self)
    if self.lora.rank and self.start != "model":
      raise InputError("lora adapts a trained U-Net: give start=model, too")

  def opened(self) -> "DiffusionTask":
    """The task with what its source says of itself; reads no weights.

    Raises:
      InputError: If the source is missing or does not fit.
    """
    parts = diffusion_sources.opened(self.model)
    opened = dataclasses.replace(
      self,
      autoencoder=parts.autoencoder,
      clap=parts.text,
      vocoder=parts.vocoder,
    )
    if self.start == "model":
      opened = dataclasses.replace(
        opened, unet=parts.unet, schedule=parts.schedule
      )
    opened.check_parts()
    return opened

  def check_parts(self) -> None:
    """Raises InputError where U-Net, autoencoder and text tower do not fit."""
    diffusion_sources.check(self.unet, self.autoencoder, self.clap)

  def tokenizer(self) -> WordPieces:
    """What makes ids of captions."""
    return diffusion_sources.tokenizer(self.model)

  @property
  def rate_hz(self) -> int:
    """The sample rate of the mel recipe."""
    return self.autoencoder.mel.rate_hz

  @property
  def wants(self) -> SoundSpec:
    """What the rows of a dataset must hold."""
    return SoundSpec(self.rate_hz, 1)

  def check_data(self, settings: Mapping[str, Any], folders: str) -> None:
    """Whatever `wants` takes will do."""

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Shapes and types of a batch, by name, for so many rows and seconds."""
    return diffusion_inputs.spec(
      self.autoencoder, rows=rows, seconds=seconds, tokens=self.clap.length
    )

  def init(self, key: jax.Array) -> TrainState:
    """A fresh state; `prepare` fills in what comes from the source."""
    params: Tree = {"unet": unet.init(self.unet, key)}
    extra = {"averaged": jnp.float32(0), "scale": jnp.float32(1)}
    if self.lora.rank:
      adapters = lora.init(self.lora, params["unet"], key)
      params, extra["unet"] = {"adapters": adapters}, params["unet"]
    return TrainState(
      step=jnp.int32(0),
      params=params,
      optimiser=self._tx.init(params),
      extra=extra | diffusion_sources.zeros(self._frozen),
      average=jax.tree.map(jnp.copy, params) if self.average_every else {},
    )

  def prepare(
    self, state: TrainState, batches: Iterator[Batch], key: jax.Array
  ) -> TrainState:
    """Reads the frozen weights; measures the scale of latents, or takes it.

    Latent diffusion (Rombach et al., 2022, appendix G): latents are divided by
    their standard deviation, here that of `scale_batches` batches.
    """
    weights = diffusion_sources.frozen(self.model, self._frozen)
    params, extra = state.params, state.extra | weights
    if self.start == "model":
      net = {"unet": diffusion_sources.unet_weights(self.model, self.unet)}
      params, extra = (params, extra | net) if self.lora.rank else (net, extra)
      scale = jnp.float32(self.autoencoder.scale)
    else:
      measured = jax.jit(self.latents)
      fresh = state._replace(extra=extra)
      scale = diffusion_inputs.scale(
        measured(fresh, next(batches), jax.random.fold_in(key, i))
        for i in range(self.scale_batches)
      )
    average = jax.tree.map(jnp.copy, params) if state.average else {}
    return state._replace(
      params=params, extra=extra | {"scale": scale}, average=average
    )

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update on the loss of a batch: (state, metrics)."""
    keys = jax.random.split(key, 3)
    latents = self.latents(state, batch, keys[0])
    dropped = jax.random.bernoulli(
      keys[1], self.text_dropout, latents.shape[:1]
    )
    example = training.drawn(
      latents, self.schedule, keys[2], min_snr=self.min_snr
    )
    context = self.context(state, batch, dropped)
    state, metrics = self.update(state, example, context)
    power = jnp.mean(jnp.square(batch["audio"]))
    return state, {"input_rms": jnp.sqrt(power)} | metrics

  def update(
    self,
    state: TrainState,
    example: Example,
    context: Float[Array, "b l d"],
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update on given noise."""

    def loss(params, context, *rows):
      net = self.net(state, params)
      return jnp.mean(self._squares(net, Example(*rows), context)), {}

    (value, _), gradient = gradients.accumulated(
      loss, state.params, (context, *example), self.accumulate
    )
    updates, moments = self._tx.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    average, averaged = states.published_ema(
      state, params, decay=self.average_decay, every=self.average_every
    )
    metrics = {
      "loss": value,
      "grad_norm": optax.tree.norm(gradient),
      "lr": jnp.float32(self.optim.rate()(state.step)),
    }
    extra = state.extra | {"averaged": averaged}
    return TrainState(state.step + 1, params, moments, extra, average), metrics

  def eval_step(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sums over rows, at times that are spread evenly over them."""
    key = jax.random.key(0)
    latents = self.latents(state, batch, key)
    rows = latents.shape[0]
    time = (jnp.arange(rows) * 2 + 1) * self.schedule.times // (2 * rows)
    noise = jax.random.normal(jax.random.fold_in(key, 1), latents.shape)
    example = training.example(latents, self.schedule, time, noise)
    context = self.context(state, batch, jnp.zeros(rows, bool))
    each = self._squares(self.net(state), example, context)
    valid = batch["valid"]
    return {"loss": jnp.sum(each, where=valid), "rows": jnp.sum(valid)}

  def summary(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean square of the noise that is not found; 1 finds nothing."""
    return {"loss": float(sums["loss"]) / float(sums["rows"])}

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sounds made for the texts of a batch, as long as its rows."""
    seeds = jnp.arange(len(batch["text_ids"]))
    made = self.generated(state, batch, seeds)
    return {"original": batch["audio"], "generated": made}

  def generated(
    self, state: TrainState, batch: Batch, seeds: Int[Array, " b"]
  ) -> Float[Array, "b n c"]:
    """Sounds made for the texts of a batch, as long as its rows."""
    samples = batch["audio"].shape[1]
    none = jnp.zeros(batch["audio"].shape[0], bool)
    audio = diffusion_samples.sample(
      self.unet,
      self.net(state),
      self.schedule,
      self.autoencoder,
      self.vocoder,
      state.extra,
      sampler.paired(
        self.context(state, batch, none), self.context(state, batch, ~none)
      ),
      seeds,
      columns=columns_of(samples, self.autoencoder, self.unet),
      dtype=types.resolve_dtype(self.dtype),
    )
    return audio[:, :samples]

  def recorded(self, state: TrainState, batch: Batch) -> Float[Array, "b n c"]:
    """The recordings that the texts of a batch describe."""
    return batch["audio"]

  def model_flops(self, rows: int, seconds: float) -> float:
    """Of the U-Net, forwards and twice as much backwards."""
    shape = self._shape(1, round(seconds * self.rate_hz))
    context = 1, self.clap.length, self.clap.width
    return 3 * rows * latents_planning.unet_flops(self.unet, shape, context)

  def prepare_programs(
    self,
    state: TrainState,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    key: jax.ShapeDtypeStruct,
    placement: Placement,
  ) -> dict[str, Program]:
    """What the source holds, beside a state that has room for it."""
    del batch, key
    held = {name: state.extra[name] for name in self._frozen}
    return {"prepare": Program(None, (state,), outputs=(held, state.average))}

  def sampling_programs(
    self, rows: int, placement: Placement
  ) -> dict[str, Program]:
    """Those of the model that is exported."""
    dtype = types.resolve_dtype(self.dtype)
    parts = self._parts(self.autoencoder.scale, {})
    return latents_planning.sampling(parts, dtype, rows, placement)

  def variants(self) -> "dict[str, DiffusionTask]":
    """What the backward pass computes again."""
    replace = functools.partial(dataclasses.replace, self)
    return {f"remat {x}": replace(remat=x) for x in ("none", "full")}

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the whole model in our format, the averaged U-Net in it."""
    trees = {name: state.extra[name] for name in self._frozen}
    trees["unet"] = self.net(state)
    parts = self._parts(float(sharding.fetch(state.extra["scale"])), trees)
    make_an_audio_parts.write_orbax(folder, parts, self.tokenizer())

  def net(self, state: TrainState, params: Tree | None = None) -> Tree:
    """The U-Net of these parameters; without them that which is exported."""
    params = params or state.average or state.params
    if not self.lora.rank:
      return params["unet"]
    return lora.merged(self.lora, state.extra["unet"], params["adapters"])

  def latents(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> Float[Array, "b w z c"]:
    """Scaled draws of the latents of a batch, in whole columns."""
    noise = jax.random.normal(key, self._shape(*batch["audio"].shape[:2]))
    found = diffusion_inputs.latents(
      self.autoencoder, state.extra["autoencoder"], batch["audio"], noise
    )
    return state.extra["scale"] * found

  def context(
    self, state: TrainState, batch: Batch, dropped: Bool[Array, " b"]
  ) -> Float[Array, "b l d"]:
    """States of the texts of a batch; of those dropped, of no text."""
    nothing = clap.token_ids(self.clap, self.tokenizer(), [None])
    absent = dropped | ~batch["text_mask"].any(axis=1)
    ids = jnp.where(absent[:, None], nothing, batch["text_ids"])
    found = clap.encode(self.clap, state.extra["text"], ids)
    return jax.lax.stop_gradient(found)

  def _parts(self, scale: float, trees: Mapping[str, Tree]) -> Parts:
    """The model that is trained, without weights where there are no trees."""
    return Parts(
      schedule=self.schedule,
      unet=self.unet,
      unet_tree=trees.get("unet"),
      autoencoder=dataclasses.replace(self.autoencoder, scale=scale),
      autoencoder_tree=trees.get("autoencoder"),
      vocoder=self.vocoder,
      vocoder_tree=trees.get("vocoder"),
      text=self.clap,
      text_tree=trees.get("text"),
      window_s=self.window_s,
    )

  @property
  def _frozen(self) -> dict[str, Any]:
    """Shapes of the parts that are not trained, by name."""
    latent = {"autoencoder": self.autoencoder}
    return latent | {"text": self.clap, "vocoder": self.vocoder}

  @functools.cached_property
  def _tx(self) -> optax.GradientTransformation:
    return self.optim.make()

  def _squares(
    self, net: Tree, example: Example, context: Float[Array, "b l d"]
  ) -> Float[Array, " b"]:
    """The loss of each row."""
    dtype = types.resolve_dtype(self.dtype)
    apply = UNet(self.unet, dtype).apply
    if self.remat == "full":
      apply = jax.checkpoint(apply)
    with jax.default_matmul_precision(types.precision(dtype)):
      found = apply({"params": net}, example.noised, example.time, context)
    return training.squares(found, example)

  def _shape(self, rows: int, samples: int) -> tuple[int, int, int, int]:
    """Of the latents of sounds that are trained on."""
    c = self.autoencoder
    columns = diffusion_inputs.columns(c, samples, self.unet.ratio)
    return rows, columns, c.rows, c.channels
