"""Training Make-An-Audio's U-Net (Huang et al., 2023, §3.3).

audio -> mel -> frozen autoencoder -> a draw of the latent, scaled
text -> frozen text tower, CLAP's or T5 -> states; some texts are left out
latent, a random time, noise, states -> U-Net -> the noise, or the velocity
      -> mean square -> clip -> optimiser -> EMA

Frozen weights are in the state: a checkpoint needs nothing beside it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from audiogen_jax.convert.make_an_audio_rooms import Part
from audiogen_jax.core import types
from audiogen_jax.core.types import Tree
from audiogen_jax.diffusion import lora, training, unet
from audiogen_jax.diffusion.training import Example
from audiogen_jax.diffusion.unet import UNet
from audiogen_jax.train import (
  diffusion_inputs,
  diffusion_sources,
  gradients,
  latents_planning,
)
from audiogen_jax.train import state as states
from audiogen_jax.train.latents_task import LatentsTask
from audiogen_jax.train.state import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class DiffusionTask(LatentsTask):
  """The U-Net of a latent diffusion model, to train: a `task.Task`."""

  best: ClassVar[str] = "loss"

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
    parts = self._opened
    extra = state.extra | diffusion_sources.weights(parts)
    params = state.params
    if self.start == "model":
      whole = Part(self.unet, parts.model.unet_tree)
      net = {"unet": diffusion_sources.read(unet, whole)}
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
    rows = latents.shape[:1]
    dropped = jax.random.bernoulli(keys[1], self.text_dropout, rows)
    example = training.drawn(
      latents, self.schedule, keys[2], min_snr=self.min_snr
    )
    context = self.context(state, batch, dropped)
    state, metrics = self.update(state, example, context)
    heard = batch["latents" if self.cached_latents else "audio"]
    rms = jnp.sqrt(jnp.mean(jnp.square(heard)))
    return state, {"input_rms": rms} | metrics

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

  def model_flops(self, rows: int, seconds: float) -> float:
    """Of the U-Net, forwards and twice as much backwards."""
    shape = self._shape(1, round(seconds * self.rate_hz))
    context = 1, self.text.length, self.text.width
    return 3 * rows * latents_planning.unet_flops(self.unet, shape, context)

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
