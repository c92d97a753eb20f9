"""What a vocoder's output is held against, as in BigVGAN (Lee et al., 2023).

The discriminators, which are trained along, and the generator's losses.
"""

import dataclasses

import jax
import optax
from jaxtyping import Array, Float

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import Tree
from audiogen_jax.gan import adversarial, discriminators, losses
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.train import gradients


@dataclasses.dataclass(frozen=True)
class VocoderWeights:
  """Weights of a generator's losses.

  Attributes:
    adversarial: Adversarial loss, of each kind of discriminator.
    feature: Feature matching, of each kind of discriminator.
    mel: L1 of log mel spectra, see `losses.recipe_mel`; 0 for none, so of the
      next.
    multi_mel: L1 at several scales, see `losses.bigvgan_mel`.
  """

  adversarial: float = 1.0
  feature: float = 2.0
  mel: float = 45.0
  multi_mel: float = 0.0

  def __post_init__(self) -> None:
    if not any(dataclasses.astuple(self)):
      raise InputError("all weights of losses are 0; there is nothing to learn")


def update_discriminators(
  config: DiscriminatorConfig,
  tx: optax.GradientTransformation,
  params: Tree,
  moments: Tree,
  rows: tuple[Float[Array, "b n 1"], Float[Array, "b n 1"]],
  parts: int,
) -> tuple[Tree, Tree, dict[str, Float[Array, ""]]]:
  """One update of each kind: (parameters, optimisers' states, metrics).

  Args:
    config: The discriminators.
    tx: Their optimiser, which clips the gradient of each kind by itself.
    params: Their parameters, by kind.
    moments: The optimiser's states, by kind.
    rows: Recordings, and what was made of them, which gets no gradient.
    parts: Of the batch, gone through one after another.
  """
  audio, fake = rows[0], jax.lax.stop_gradient(rows[1])
  metrics, updated, after = {}, {}, {}
  for kind in config.kinds:
    one = dataclasses.replace(config, kinds=(kind,))

    def loss(tree, audio, fake, one=one, kind=kind):
      real, made = (
        discriminators.discriminate(one, {kind: tree}, x) for x in (audio, fake)
      )
      return adversarial.discriminator_loss(one, real, made), {}

    (value, _), gradient = gradients.accumulated(
      loss, params[kind], (audio, fake), parts
    )
    updates, after[kind] = tx.update(gradient, moments[kind], params[kind])
    updated[kind] = optax.apply_updates(params[kind], updates)
    metrics[f"adversary_{kind}"] = value
    metrics[f"grad_norm_{kind}"] = optax.tree.norm(gradient)
  return updated, after, metrics


def of_generator(
  config: DiscriminatorConfig,
  params: Tree,
  weights: VocoderWeights,
  recipe: MelConfig,
  audio: Float[Array, "b n 1"],
  fake: Float[Array, "b n 1"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """The generator's loss, and those that it is a sum of, not weighed, by name.

  Args:
    config: The discriminators.
    params: Their parameters, after this step's update.
    weights: Weight of each loss.
    recipe: The vocoder's.
    audio: Recordings.
    fake: What was made of their mel spectrograms.
  """
  found, total = {}, 0.0
  if weights.mel:
    found["mel"] = losses.recipe_mel(audio, fake, recipe)
    total += weights.mel * found["mel"]
  if weights.multi_mel:
    found["multi_mel"] = losses.bigvgan_mel(audio, fake, recipe.rate_hz)
    total += weights.multi_mel * found["multi_mel"]
  real = jax.lax.stop_gradient(
    discriminators.discriminate(config, params, audio)
  )
  made = discriminators.discriminate(config, params, fake)
  for name, value in adversarial.generator_losses(config, real, made).items():
    of_logits = name.startswith("adv_")
    weight = weights.adversarial if of_logits else weights.feature
    found[name], total = value, total + weight * value
  return total, found
