"""What a task has that trains a model on the latents of a frozen autoencoder.

Its sources, what a batch of sounds and texts becomes, sampling, and export:

    audio -> mel -> frozen autoencoder -> a draw of the latent, scaled
    text -> frozen text tower -> states; of texts left out, those of no text

Frozen weights are in the state: a checkpoint needs nothing beside it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.convert import make_an_audio_loading, make_an_audio_parts
from audiogen_jax.convert.make_an_audio_parts import UNET_RANGES, Parts
from audiogen_jax.core import sharding, types
from audiogen_jax.core.abstract import Program
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Axes, Placement
from audiogen_jax.core.types import Tree
from audiogen_jax.data import latents as stored
from audiogen_jax.data.spec import LatentSpec, SoundSpec
from audiogen_jax.diffusion import lora, sampler
from audiogen_jax.diffusion.lora import LoRAConfig
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig, Posterior
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.text.t5_text import T5TextConfig
from audiogen_jax.text.tokenizer import Tokenizer
from audiogen_jax.text.tower import TowerConfig
from audiogen_jax.text_to_latents import columns_of
from audiogen_jax.train import (
  diffusion_inputs,
  diffusion_samples,
  diffusion_sources,
  latents_planning,
)
from audiogen_jax.train.diffusion_sources import Frozen, Sources
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.state import Batch, TrainState
from audiogen_jax.vocoder.generator import VocoderConfig


@dataclasses.dataclass(frozen=True)
class LatentsTask:
  """A U-Net over frozen parts; `DiffusionTask` says how it learns.

  Attributes:
    model: Source of a Make-An-Audio, whose autoencoder, text tower and vocoder
      are taken, frozen.
    sources: Other sources of these; without `model` they name all three.
    start: Whether the U-Net starts at random or as that model's, which also
      brings its shape, its schedule and the scale of its latents.
    unet: Its shape.
    schedule: Of the noise.
    autoencoder: What the others are, read from the source before training;
      `plan`, which reads nothing, believes what stands here.
    reads: Which text tower that is.
    clap: CLAP's.
    t5: T5.
    vocoder: The vocoder.
    cached_latents: The data are latents, from `audiogen data tokenize`.
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
  sources: Sources = Sources()
  start: Literal["random", "model"] = "random"
  unet: UNetConfig = UNetConfig()
  schedule: Schedule = Schedule()
  autoencoder: AutoencoderConfig = AutoencoderConfig()
  reads: Literal["clap", "t5"] = "clap"
  clap: ClapTextConfig = ClapTextConfig()
  t5: T5TextConfig = T5TextConfig()
  vocoder: VocoderConfig = VocoderConfig()
  cached_latents: bool = False
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
  ranges: ClassVar[Mapping[str, tuple[float, float]]] = UNET_RANGES | {
    "rank": (0, 4096)
  }

  def __post_init__(self) -> None:
    for name in ("text_dropout", "average_decay"):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(f"{name} {getattr(self, name)} must lie in [0, 1)")
    for name in ("accumulate", "scale_batches"):
      if getattr(self, name) < 1:
        raise InputError(f"{name} {getattr(self, name)} must be 1 or more")
    if not 0 <= self.min_snr < float("inf"):
      raise InputError(f"min_snr {self.min_snr} must be 0 or more")
    if self.lora.rank and self.start != "model":
      raise InputError("lora adapts a trained U-Net: give start=model, too")

  def opened(self) -> "LatentsTask":
    """The task with what its source says of itself; reads no weights.

    Raises:
      InputError: If the source is missing or does not fit.
    """
    told = diffusion_sources.told(self._opened, whole=self.start == "model")
    opened = dataclasses.replace(self, **told)
    opened.check_parts()
    return opened

  def check_parts(self) -> None:
    """Raises InputError where U-Net, autoencoder and text tower do not fit."""
    diffusion_sources.check(self.unet, self.autoencoder, self.text)

  def tokenizer(self) -> Tokenizer:
    """What makes ids of captions."""
    return diffusion_sources.tokenizer(self.model, self.sources)

  @property
  def text(self) -> TowerConfig:
    """Shape of the text tower that reads the captions."""
    return self.clap if self.reads == "clap" else self.t5

  @property
  def rate_hz(self) -> int:
    """The sample rate of the mel recipe."""
    return self.autoencoder.mel.rate_hz

  @property
  def wants(self) -> SoundSpec | LatentSpec:
    """What the rows of a dataset must hold."""
    if self.cached_latents:
      return stored.spec(self.autoencoder)
    return SoundSpec(self.rate_hz, 1)

  def check_data(self, settings: Mapping[str, Any], folders: str) -> None:
    """Raises InputError for cached latents of another autoencoder."""
    if self.cached_latents:
      own = make_an_audio_loading.of_autoencoder(
        *self._opened.autoencoder, Placement.make(None)
      )
      stored.check(own, settings, folders)

  def batch_spec(self, rows: int, seconds: float) -> dict[str, Any]:
    """Shapes and types of a batch, by name, for so many rows and seconds."""
    return diffusion_inputs.spec(
      self.autoencoder,
      cached=self.cached_latents,
      rows=rows,
      seconds=seconds,
      tokens=self.text.length,
    )

  def net(self, state: TrainState, params: Tree | None = None) -> Tree:
    """The U-Net of these parameters; without them that which is exported."""
    params = params or state.average or state.params
    if not self.lora.rank:
      return params["unet"]
    return lora.merged(self.lora, state.extra["unet"], params["adapters"])

  def samples(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Sounds made for the texts of a batch, as long as its rows."""
    made = self.generated(state, batch, jnp.arange(len(batch["text_ids"])))
    return {"original": self.recorded(state, batch), "generated": made}

  def generated(
    self, state: TrainState, batch: Batch, seeds: Int[Array, " b"]
  ) -> Float[Array, "b n c"]:
    """Sounds made for the texts of a batch, as long as its rows."""
    samples = diffusion_inputs.samples(self.autoencoder, batch)
    none = jnp.zeros(len(seeds), bool)
    made = diffusion_samples.sample(
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
    return made[:, :samples]

  def recorded(self, state: TrainState, batch: Batch) -> Float[Array, "b n c"]:
    """The recordings that the texts of a batch describe.

    Of cached latents, what autoencoder and vocoder make of them.
    """
    if not self.cached_latents:
      return batch["audio"]
    means = self._posterior(state, batch).mean
    return diffusion_samples.heard(
      self.autoencoder, self.vocoder, state.extra, means
    )

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

  def variants(self) -> "dict[str, LatentsTask]":
    """What the backward pass computes again."""
    replace = functools.partial(dataclasses.replace, self)
    return {f"remat {x}": replace(remat=x) for x in ("none", "full")}

  def export(self, state: TrainState, folder: epath.Path) -> None:
    """Writes the whole model in our format, the averaged U-Net in it."""
    trees = {name: state.extra[name] for name in self._frozen}
    trees["unet"] = self.net(state)
    parts = self._parts(float(sharding.fetch(state.extra["scale"])), trees)
    make_an_audio_parts.write_orbax(folder, parts, self.tokenizer())

  def latents(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> Float[Array, "b w z c"]:
    """Scaled draws of the latents of a batch, in whole columns."""
    posterior = self._posterior(state, batch)
    noise = jax.random.normal(key, posterior.mean.shape)
    return state.extra["scale"] * posterior.sample(noise)

  def context(
    self, state: TrainState, batch: Batch, dropped: Bool[Array, " b"]
  ) -> Float[Array, "b l d"]:
    """States of the texts of a batch; of those dropped, of no text."""
    return diffusion_inputs.context(
      self.text, state.extra["text"], self.tokenizer(), batch, dropped
    )

  def _posterior(self, state: TrainState, batch: Batch) -> Posterior:
    """What the latents of a batch may be, before they are scaled."""
    params = state.extra["autoencoder"]
    return diffusion_inputs.posterior(
      self.autoencoder, params, batch, self.unet.ratio
    )

  def _shape(self, rows: int, samples: int) -> tuple[int, int, int, int]:
    """Of the latents of sounds that are trained on."""
    c = self.autoencoder
    columns = diffusion_inputs.columns(c, samples, self.unet.ratio)
    return rows, columns, c.rows, c.channels

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
      text=self.text,
      text_tree=trees.get("text"),
      window_s=self.window_s,
    )

  @property
  def _frozen(self) -> dict[str, Any]:
    """Shapes of the parts that are not trained, by name."""
    latent = {"autoencoder": self.autoencoder}
    return latent | {"text": self.text, "vocoder": self.vocoder}

  @property
  def _opened(self) -> Frozen:
    return diffusion_sources.opened(self.model, self.sources)
