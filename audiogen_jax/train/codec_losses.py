"""What a codec's output is held against (Défossez et al., 2022, §3.4).

The discriminators, which are trained along, and the losses that the balancer
weighs.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from audiogen_jax.core.types import Tree
from audiogen_jax.gan import adversarial, discriminators, losses
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.train.optimiser import OptimiserConfig


def update_discriminators(
  config: DiscriminatorConfig,
  optim: OptimiserConfig,
  params: Tree,
  moments: optax.OptState,
  audio: Float[Array, "b n c"],
  fake: Float[Array, "b n c"],
) -> tuple[Tree, optax.OptState, Float[Array, ""]]:
  """One update of the discriminators: (parameters, optimiser's state, loss).

  Args:
    config: The discriminators.
    optim: Their optimiser.
    params: Their parameters.
    moments: The optimiser's state.
    audio: What was coded.
    fake: What became of it; it gets no gradient.
  """
  fake = jax.lax.stop_gradient(fake)

  def loss(params):
    return adversarial.discriminator_loss(
      config,
      discriminators.discriminate(config, params, audio),
      discriminators.discriminate(config, params, fake),
    )

  value, gradient = jax.value_and_grad(loss)(params)
  updates, moments = optim.make().update(gradient, moments, params)
  return optax.apply_updates(params, updates), moments, value


def with_gradients(
  config: DiscriminatorConfig,
  params: Tree,
  wanted: Mapping[str, float],
  audio: Float[Array, "b n c"],
  fake: Float[Array, "b n c"],
  rate_hz: int,
) -> tuple[dict[str, Float[Array, ""]], dict[str, Float[Array, "b n c"]]]:
  """Every wanted loss and its gradient with respect to `fake`, by name.

  Args:
    config: The discriminators.
    params: Parameters of the discriminators, after this step's update.
    wanted: Weight by name: `l1`, `l2`, `msspec`, `mel`, `paper_mel`, `si_snr`,
      and `adv_KIND` and `feat_KIND` of each kind of discriminator.
    audio: What was coded.
    fake: What became of it.
    rate_hz: Sample rate of both.
  """
  plain = {
    "l1": losses.l1,
    "l2": losses.l2,
    "msspec": lambda a, b: losses.multi_scale_mel(a, b, rate_hz),
    "mel": lambda a, b: losses.mel_l1(a, b, rate_hz),
    "paper_mel": lambda a, b: losses.paper_mel(a, b, rate_hz),
    "si_snr": lambda a, b: losses.negative_si_snr(a, b, rate_hz),
  }
  values, gradients = {}, {}
  real = jax.lax.stop_gradient(
    discriminators.discriminate(config, params, audio)
  )

  def generator_losses(fake):
    outputs = discriminators.discriminate(config, params, fake)
    return adversarial.generator_losses(config, real, outputs)

  # One forward pass of the discriminators for all their losses.
  by_kind, pull = jax.vjp(generator_losses, fake)
  for name, value in by_kind.items():
    one = {k: jnp.float32(k == name) for k in by_kind}
    if name in wanted:
      values[name], (gradients[name],) = value, pull(one)
  for name, loss in plain.items():
    if name in wanted:
      values[name], gradients[name] = jax.value_and_grad(
        lambda y, loss=loss: loss(audio, y)
      )(fake)
  return values, gradients
