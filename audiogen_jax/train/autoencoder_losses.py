"""What a mel autoencoder is trained against (Rombach et al., 2022, appendix G).

    images -> encoder -> a draw of the posterior -> decoder -> made images
    L1, summed over an image                           -> gradient of the made
    -logits of each discriminator, of its own weight   -> gradient of the made
    KL of the posterior, weighted                      -> back to the parameters

The weight of a discriminator is such that at the decoder's last convolution its
gradient is as long as that of L1 (Esser et al., 2021, equation 7).
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from audiogen_jax.core.types import Tree
from audiogen_jax.gan import mel_discriminators
from audiogen_jax.gan.mel_discriminators import Logits, MelDiscriminatorConfig
from audiogen_jax.latent.autoencoder import (
  AutoencoderConfig,
  Decoder,
  Encoder,
  Posterior,
)

_MOST = 1e4  # of a weight, before the configuration's own
_LEAST = 1e-4  # keeps a weight finite


# Parameters, images and noise -> what becomes of the images, and posteriors.
Apply: TypeAlias = Callable[..., tuple[Float[Array, "b t m"], Posterior]]


class Weights(NamedTuple):
  """Weights of the losses.

  Attributes:
    kl: Of the KL divergence, summed over a latent.
    adversarial: Of each discriminator, times its adaptive weight.
    r1: Of the gradient penalty, on recordings.
  """

  kl: Float[Array, ""] | float
  adversarial: Float[Array, ""] | float
  r1: Float[Array, ""] | float


def reconstruct(
  config: AutoencoderConfig,
  params: Tree,
  images: Float[Array, "b t m"],
  noise: Float[Array, "b w z c"],
  dtype: jnp.dtype,
) -> tuple[Float[Array, "b t m"], Posterior]:
  """Images through a draw of their latents, and the posteriors.

  Args:
    config: The autoencoder.
    params: Its parameters.
    images: Mel spectrograms, as `autoencoder.image` makes them.
    noise: By which latents are drawn; zeros for their mean.
    dtype: Of matrix products.
  """
  encoder, decoder = Encoder(config, dtype), Decoder(config, dtype)
  both = encoder.apply({"params": params["encoder"]}, images[..., None])
  posterior = Posterior.of(both)
  latent = posterior.sample(noise)
  made = decoder.apply({"params": params["decoder"]}, latent)
  return made[..., 0], posterior


def generator_gradient(
  adversary: MelDiscriminatorConfig,
  weights: Weights,
  params: Tree,
  discriminators: Tree,
  images: Float[Array, "b t m"],
  noise: Float[Array, "b w z c"],
  key: jax.Array,
  apply: Apply,
) -> tuple[dict[str, Float[Array, ""]], Tree]:
  """Losses of the autoencoder by name, and the gradient of its parameters.

  Args:
    adversary: The discriminators.
    weights: Of the losses; no discriminator counts while `adversarial` is 0.
    params: Parameters of the autoencoder.
    discriminators: Of the discriminators.
    images: What is to be made again.
    noise: By which latents are drawn.
    key: For the discriminators.
    apply: `reconstruct` of the autoencoder.
  """

  def forward(params):
    made, posterior = apply(params, images, noise)
    return made, jnp.mean(posterior.kl())

  (made, kl), pull = jax.vjp(forward, params)

  def last(gradient):
    whole = pull((gradient, jnp.zeros_like(kl)))[0]
    return optax.tree.norm(whole["decoder"]["conv_out"]["kernel"])

  rows = images.shape[0]
  l1, gradient = jax.value_and_grad(
    lambda made: jnp.sum(jnp.abs(images - made)) / rows
  )(made)
  metrics = {"mel_l1": l1 * rows / images.size, "kl": kl}
  total, length = l1 + weights.kl * kl, last(gradient)

  def fooled(made):
    logits = mel_discriminators.discriminate(
      adversary, discriminators, made, key
    )
    return {kind: -jnp.mean(x) for kind, x in logits.items()}

  by_kind, pull_logits = jax.vjp(fooled, made)
  for name, value in by_kind.items():
    one = {kind: jnp.float32(kind == name) for kind in by_kind}
    (own,) = pull_logits(one)
    ratio = jnp.clip(length / (last(own) + _LEAST), 0, _MOST)
    weight = jax.lax.stop_gradient(weights.adversarial * ratio)
    gradient += weight * own
    total += weight * value
    metrics |= {f"adv_{name}": value, f"weight_{name}": weight}
  (moved,) = pull((gradient, jnp.float32(weights.kl)))
  return {"loss": total} | metrics, moved


def discriminator_gradient(
  adversary: MelDiscriminatorConfig,
  weights: Weights,
  discriminators: Tree,
  images: Float[Array, "b t m"],
  made: Float[Array, "b t m"],
  key: jax.Array,
  *,
  penalised: bool,
) -> tuple[dict[str, Float[Array, ""]], Tree]:
  """Losses of the discriminators by name, and the gradient of their parameters.

  Args:
    adversary: The discriminators.
    weights: `adversarial` is 1 or 0 here: whether hinge losses count yet.
    discriminators: Parameters.
    images: Recordings.
    made: What became of them.
    key: For the discriminators.
    penalised: Whether the gradient penalty R1 (Mescheder et al., 2018) is
      looked at, which goes through them three times.
  """
  keys = jax.random.split(key)

  def of(params: Tree, images: Float[Array, "b t m"], key: jax.Array) -> Logits:
    return mel_discriminators.discriminate(adversary, params, images, key)

  def loss(params):
    def summed(images):
      logits = of(params, images, keys[0])
      return sum(map(jnp.sum, logits.values()), jnp.float32(0)), logits

    if penalised:
      slope, real = jax.grad(summed, has_aux=True)(images)
    else:
      slope, (_, real) = jnp.zeros(()), summed(images)
    fake = of(params, made, keys[1])
    each = [mel_discriminators.hinge(real[k], fake[k]) for k in real]
    hinges = sum(each, jnp.float32(0))
    penalty = jnp.mean(jnp.square(slope))
    value = weights.adversarial * hinges + weights.r1 * penalty
    means = {f"logits_{k}": jnp.mean(real[k] - fake[k]) for k in real}
    return value, {"adversary": value, "hinge": hinges, "r1": penalty} | means

  (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
    discriminators
  )
  return metrics, gradient
