"""Discriminators and their losses; parity is held in test_codec_task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import axes_of, path_name
from audiogen_jax.gan import adversarial, discriminators
from audiogen_jax.gan.discriminators import DiscriminatorConfig, Output

SMALL = DiscriminatorConfig(
  filters=8,
  n_ffts=(128, 64),
  periods=(2, 3),
  rates=2,
  resolutions=((128, 30, 60), (64, 20, 64)),
)


def said(logits, features=()):
  """The output of one discriminator."""
  features = [jnp.asarray(f, jnp.float32) for f in features]
  return {"msstft": [Output(jnp.asarray(logits, jnp.float32), features)]}


@pytest.mark.parametrize(
  ("loss", "of_adversary", "of_codec"),
  [
    # real 0.5 and 2, fake -2 and 1: worked out by hand.
    ("hinge", 0.25 + 1.0, 0.5),
    ("hinge2", 0.25 + 1.0, 1.5),
    ("mse", 0.625 + 2.5, 4.5),
  ],
)
def test_losses_by_hand(loss, of_adversary, of_codec):
  config = DiscriminatorConfig(loss=loss)
  real, fake = said([0.5, 2]), said([-2, 1])
  assert float(
    adversarial.discriminator_loss(config, real, fake)
  ) == pytest.approx(of_adversary)
  found = adversarial.generator_losses(
    config, said([0], [[1, 2, 3]]), said([-2, 1], [[2, 10, 3]])
  )
  assert float(found["adv_msstft"]) == pytest.approx(of_codec)
  assert float(found["feat_msstft"]) == pytest.approx(3)


def test_sums_over_discriminators_and_their_layers():
  config = DiscriminatorConfig(loss="mse", summed=True)
  one = said([0.5, 2], [[1, 2], [3, 3]])["msstft"]
  other = said([-2, 1], [[2, 4], [3, 4]])["msstft"]
  real, fake = {"msstft": one + one}, {"msstft": other + other}
  value = adversarial.discriminator_loss(config, real, fake)
  assert float(value) == pytest.approx(2 * (0.625 + 2.5))
  found = adversarial.generator_losses(config, real, fake)
  assert float(found["adv_msstft"]) == pytest.approx(2 * 4.5)
  assert float(found["feat_msstft"]) == pytest.approx(2 * (1.5 + 0.5))


@pytest.mark.parametrize(
  ("kind", "count", "maps"),
  [
    ("msstft", 2, 5),
    ("mpd", 2, 6),
    ("msd", 2, 7),
    ("hifi_msd", 2, 8),
    ("mrd", 2, 6),
  ],
)
def test_every_kind(kind, count, maps, key):
  config = dataclasses.replace(SMALL, kinds=(kind,))
  params = discriminators.init(config, key)
  audio = 0.1 * jax.random.normal(key, (2, 1001, 1))

  @jax.jit
  def discriminate(params, audio):
    return discriminators.discriminate(config, params, audio)

  outputs = discriminate(params, audio)
  assert list(outputs) == [kind] and len(outputs[kind]) == count
  for logits, features in outputs[kind]:
    assert logits.shape[0] == 2 and len(features) == maps
  # Every parameter is used, and rows do not see each other.
  other = discriminate(params, audio.at[1].set(0))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b[0], atol=1e-6),
    outputs,
    other,
  )
  gradient = jax.jit(
    jax.grad(
      lambda p: sum(
        jnp.sum(out.logits**2) for out in discriminate(p, audio)[kind]
      )
    )
  )(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.abs(leaf).max() > 0, path_name(path)
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    axes_of(f"{path_name(path)}", leaf.ndim, discriminators.AXES)


def test_rates_are_really_halved(key):
  """The published code hands all of its scales the same sound."""
  config = dataclasses.replace(SMALL, kinds=("msd",))
  params = discriminators.init(config, key)
  audio = jax.random.normal(key, (1, 2048, 1))
  first, second = discriminators.discriminate(config, params, audio)["msd"]
  one, half = (output.features[0].shape[1] for output in (first, second))
  assert 2 * half - 2 <= one <= 2 * half + 2  # whole frames


def test_the_gradient_of_the_last_biases_cancels(key):
  """Exactly, or Adam would make full steps of a rounding error."""
  params = discriminators.init(SMALL, key)
  real, fake = 0.05 * jax.random.normal(key, (2, 2, 800, 1))

  @jax.jit
  @jax.grad
  def gradient(params):
    return adversarial.discriminator_loss(
      SMALL,
      discriminators.discriminate(SMALL, params, real),
      discriminators.discriminate(SMALL, params, fake),
    )

  for scale in gradient(params)["msstft"].values():
    assert float(scale["conv_post"]["bias"][0]) == 0


def test_a_sound_shorter_than_the_longest_window(key):
  params = discriminators.init(SMALL, key)
  with pytest.raises(InputError, match="128"):
    discriminators.discriminate(SMALL, params, jnp.zeros((1, 50, 1)))


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({"kinds": ("mpd", "mpd")}, "names one twice"),
    ({"kinds": ("hifi_msd",), "filters": 6}, "6 must be a multiple of 4"),
    ({"resolutions": ((512, 50, 600),)}, r"resolutions \(512, 50, 600\)"),
    ({"kinds": ("msd",), "filters": 12}, "filters 12 must be a multiple of 8"),
  ],
)
def test_what_cannot_be(given, said):
  with pytest.raises(InputError, match=said):
    DiscriminatorConfig(**given)
