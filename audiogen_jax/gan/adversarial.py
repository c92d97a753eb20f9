"""Adversarial losses: hinge and least squares, and feature matching.

What a loss says of the discriminators of a kind, and of their layers, is
averaged, or added up where the configuration says `summed`.

`real` and `fake` are the outputs of `discriminators.discriminate` for
recordings and for what the generator makes of them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from audiogen_jax.gan.discriminators import DiscriminatorConfig, Outputs


def discriminator_loss(
  config: DiscriminatorConfig, real: Outputs, fake: Outputs
) -> Float[Array, ""]:
  """The loss of the discriminators: a sum over the kinds.

  `real` and `fake` should come from two calls of `discriminate`.  Then the
  gradients of the last biases, which differ in sign alone, cancel exactly; from
  one call with both in a batch a rounding error would be left, and Adam, which
  knows no size, would make a full step of it.
  """
  total = jnp.float32(0)
  for kind in config.kinds:
    parts = [
      _fake_loss(config, f.logits) + _real_loss(config, r.logits)
      for r, f in zip(real[kind], fake[kind], strict=True)
    ]
    total += _total(config, parts)
  return total


def generator_losses(
  config: DiscriminatorConfig, real: Outputs, fake: Outputs
) -> dict[str, Float[Array, ""]]:
  """The losses of the generator, two for each kind of discriminator.

  `adv_<kind>` is low when the discriminators take its sounds for recordings;
  `feat_<kind>`, feature matching, is the mean absolute difference of their
  activations, not divided by the activations' size, unlike in EnCodec's paper.
  """
  losses = {}
  for kind in config.kinds:
    adv = [_adversarial_loss(config, f.logits) for f in fake[kind]]
    feat = [
      feature_matching(config, r.features, f.features)
      for r, f in zip(real[kind], fake[kind], strict=True)
    ]
    losses[f"adv_{kind}"] = _total(config, adv)
    losses[f"feat_{kind}"] = _total(config, feat)
  return losses


def feature_matching(
  config: DiscriminatorConfig,
  real: Sequence[Float[Array, "..."]],
  fake: Sequence[Float[Array, "..."]],
) -> Float[Array, ""]:
  """Mean absolute difference of the maps of one discriminator."""
  apart = [jnp.mean(jnp.abs(r - f)) for r, f in zip(real, fake, strict=True)]
  return _total(config, apart)


def _total(
  config: DiscriminatorConfig, parts: Sequence[Float[Array, ""]]
) -> Float[Array, ""]:
  """Mean or sum of what is said of several."""
  return sum(parts) / (1 if config.summed else len(parts))


def _real_loss(
  config: DiscriminatorConfig, logits: Float[Array, "..."]
) -> Float[Array, ""]:
  if config.loss == "mse":
    return jnp.mean(jnp.square(logits - 1))
  return jnp.mean(jax.nn.relu(1 - logits))


def _fake_loss(
  config: DiscriminatorConfig, logits: Float[Array, "..."]
) -> Float[Array, ""]:
  if config.loss == "mse":
    return jnp.mean(jnp.square(logits))
  return jnp.mean(jax.nn.relu(1 + logits))


def _adversarial_loss(
  config: DiscriminatorConfig, logits: Float[Array, "..."]
) -> Float[Array, ""]:
  if config.loss == "mse":
    return jnp.mean(jnp.square(logits - 1))
  if config.loss == "hinge2":
    return jnp.mean(jax.nn.relu(1 - logits))
  return -jnp.mean(logits)
