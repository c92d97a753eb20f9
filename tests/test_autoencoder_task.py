"""Training of the mel autoencoder."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest
from packs import ours

from audiogen_jax.convert import engine, latent_diffusion
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.gan import mel_discriminators
from audiogen_jax.gan.mel_discriminators import (
  MelDiscriminatorConfig,
  WindowDiscriminator,
)
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.train import state as states
from audiogen_jax.train.autoencoder_task import AutoencoderTask
from audiogen_jax.train.optimiser import OptimiserConfig

RULES = {"batch": ("data",)}
SMALL = AutoencoderConfig(
  filters=32, multipliers=(1, 1), residual_layers=1, attention=()
)
BOTH = MelDiscriminatorConfig(
  kinds=("patch", "window"),
  filters=4,
  layers=1,
  windows=(16,),
  window_filters=4,
)


@pytest.fixture(scope="module")
def task():
  return AutoencoderTask(
    autoencoder=SMALL,
    adversary=BOTH,
    adversary_start=1,
    average_every=1,
    average_decay=0.5,
    optim=OptimiserConfig(lr=1e-3, b1=0.5, b2=0.9),
  )


def batches(rows=4, seconds=0.45):
  for i in itertools.count():
    random = np.random.default_rng(i)
    audio = 0.1 * random.standard_normal((rows, round(seconds * 16_000), 1))
    valid = jnp.ones(rows, bool)
    yield {"audio": jnp.asarray(audio, jnp.float32), "valid": valid}


def conv(kernel):
  """A published kernel over bands and time, as ours over time and bands."""
  return jnp.asarray(kernel.transpose(3, 2, 1, 0))


def patches(want, prefix):
  """The published PatchGAN's parameters."""
  made = {}
  for i, at in enumerate((0, 2, 5, 8, 11)):
    made[f"conv_{i}"] = {"kernel": conv(want[f"{prefix}/main.{at}.weight"])}
    if i in (0, 4):
      made[f"conv_{i}"]["bias"] = want[f"{prefix}/main.{at}.bias"]
    else:
      norm = f"{prefix}/main.{at + 1}"
      made[f"norm_{i}"] = {
        "scale": want[f"{norm}.weight"],
        "bias": want[f"{norm}.bias"],
      }
  return jax.tree.map(jnp.asarray, made)


def test_three_steps_of_make_an_audio_parity():
  """Of both optimisers, without the adversarial terms and with them."""
  yaml = "configs/text_to_audio/txt2audio_args.yaml"
  words = packs.folder("maa_tiny") / "bert-base-uncased"
  pack = packs.MakeAnAudio("maa_tiny", "maa1_*.ckpt", yaml, tokenizer=words)
  want = packs.arrays(pack.folder / "training.npz")
  b1, b2 = (float(x) for x in want["vae_betas"])
  discriminator = patches(want, "disc_init")
  task = AutoencoderTask(
    autoencoder=pack.parts.autoencoder,
    adversary=MelDiscriminatorConfig(
      filters=discriminator["conv_0"]["kernel"].shape[-1]
    ),
    adversary_start=1,
    optim=OptimiserConfig(lr=float(want["vae_learning_rate"]), b1=b1, b2=b2),
  )
  state = task._state(
    {
      "autoencoder": pack.parts.autoencoder_tree,
      "adversary": {"patch": discriminator},
    }
  )
  images = jnp.asarray(want["mels"].swapaxes(1, 2))
  update, key = jax.jit(task.update), jax.random.key(0)
  for i in range(3):
    # Adam's first steps turn rounding into signs: see the pack's README.
    loss, norm = (1e-5, 1e-5) if i == 0 else (2e-3, 1e-2)

    def of(name, i=i):
      return float(want[f"vae_step{i}.{name}"])

    noise = [
      jnp.asarray(ours(want[f"vae_step{i}.{j}/posterior_noise"]))
      for j in (0, 1)
    ]
    state, metrics = update(state, images, *noise, key, key)
    close = pytest.approx
    assert float(metrics["loss"]) == close(of("0/loss"), rel=loss)
    assert float(metrics["mel_l1"]) == close(of("0/rec_loss"), rel=loss)
    assert float(metrics["kl"]) == close(of("0/kl_loss"), rel=loss)
    assert float(metrics["adv_patch"]) == close(of("0/g_loss"), rel=loss)
    weight = of("0/d_weight") * of("0/disc_factor")
    assert float(metrics["weight_patch"]) == close(weight, rel=norm)
    assert float(metrics["grad_norm"]) == close(of("0/grad_norm"), rel=norm)
    assert float(metrics["adversary"]) == close(of("1/disc_loss"), rel=loss)
    assert float(metrics["r1"]) == close(of("1/r1_prnalty"), rel=loss)
    apart = of("1/logits_real") - of("1/logits_fake")
    assert float(metrics["logits_patch"]) == close(apart, rel=5e-3, abs=1e-6)
    found = float(metrics["adversary_grad_norm"])
    assert found == close(of("1/grad_norm"), rel=norm)
  table = latent_diffusion.autoencoder_table(pack.parts.autoencoder)
  after = engine.export(state.params["autoencoder"], table)
  # No parameter moves by more than the rate in a step.
  most = 6.1 * float(want["vae_learning_rate"])
  names = [n for n in want if n.startswith("vae_after/")]
  for name in names:
    got = after[name.removeprefix("vae_after/")].read()
    far = np.abs(got - want[name])
    assert far.max() <= most and far.mean() < 3e-6
  ends = patches(want, "disc_after")
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).mean()),
    state.params["adversary"]["patch"],
    ends,
  )
  assert names and max(jax.tree.leaves(moved)) < 1e-5


def test_windows_of_make_an_audio_parity():
  """The paper's discriminator, its crops given and nothing left out."""
  folder = packs.folder("maa_tiny")
  want = packs.arrays(folder / "multi_window_discriminator.npz")
  mels = packs.arrays(folder / "training.npz")["mels"]
  real = jnp.asarray(mels.swapaxes(1, 2))
  params = {}
  for i in range(3):
    prefix, one = f"init/discriminator.conv_layers.{i}", {}
    for j in range(3):
      of = f"{prefix}.model.{j}"
      one[f"conv_{j}"] = {
        # It sees time before bands, as we do.
        "kernel": jnp.asarray(want[f"{of}.0.weight"].transpose(2, 3, 1, 0)),
        "bias": jnp.asarray(want[f"{of}.0.bias"]),
      }
      if j:
        one[f"norm_{j}"] = {
          "scale": jnp.asarray(want[f"{of}.3.weight"]),
          "bias": jnp.asarray(want[f"{of}.3.bias"]),
        }
    head = want[f"{prefix}.adv_layer.weight"]  # over channels, time, bands
    width = one["conv_2"]["bias"].size
    head = head.reshape(width, -1, real.shape[2] // 8).transpose(1, 2, 0)
    one["logit"] = {
      "kernel": jnp.asarray(head.reshape(-1, 1)),
      "bias": jnp.asarray(want[f"{prefix}.adv_layer.bias"]),
    }
    params[f"window_{i}"] = one
  windows = tuple(
    8 * params[f"window_{i}"]["logit"]["kernel"].shape[0] // (width * 10)
    for i in range(3)
  )
  config = MelDiscriminatorConfig(
    kinds=("window",), windows=windows, window_filters=width
  )
  starts = jnp.asarray(want["start_frames"])

  def scores(params, images):
    return WindowDiscriminator(config).apply(
      {"params": params}, images[..., None], starts, False
    )

  fake = real[..., ::-1]
  got = scores(params, real), scores(params, fake)
  for one, name in zip(got, ("real", "fake"), strict=True):
    np.testing.assert_allclose(one, want[f"{name}_scores"][:, 0], rtol=1e-4)

  def loss(params):
    return mel_discriminators.hinge(scores(params, real), scores(params, fake))

  value, gradient = jax.value_and_grad(loss)(params)
  assert float(value) == pytest.approx(float(want["hinge"]), rel=1e-5)
  leaves = jax.tree.leaves(gradient)
  norm = float(jnp.sqrt(sum(jnp.sum(x**2) for x in leaves)))
  assert norm == pytest.approx(float(want["grad_norm"]), rel=1e-4)
  assert -float(got[1].mean()) == pytest.approx(float(want["generator"]), 1e-4)


def trained(task, mesh=None, steps=5):
  placement = Placement.make(mesh, RULES) if mesh else None
  step = jax.jit(task.train_step)
  state = jax.jit(task.init)(jax.random.key(0))
  if placement:
    state = jax.device_put(state, states.shardings(state, task.axes, placement))
  metrics = []
  for i, batch in enumerate(itertools.islice(batches(), steps)):
    if placement:
      batch = {
        name: placement.put(x, "batch", *[None] * (x.ndim - 1))
        for name, x in batch.items()
      }
    state, found = step(state, batch, jax.random.key(10 + i))
    metrics.append({name: float(x) for name, x in found.items()})
  return state, metrics


@pytest.mark.slow
def test_eight_devices_train_an_autoencoder_as_one_does(task):
  # Where hinge losses do not count yet, Adam makes whole steps of rounding; and
  # R1's gradient jumps where rounding moves an activation across 0.
  optim = OptimiserConfig(lr=1e-5, b1=0.5, b2=0.9)
  task = dataclasses.replace(task, adversary_start=0, r1=0.0, optim=optim)
  state, metrics = trained(task)
  spread, others = trained(task, make_mesh(data=4, tensor=2))
  for a, b in zip(metrics, others, strict=True):
    for name in ("loss", "mel_l1", "kl", "hinge"):
      assert a[name] == pytest.approx(b[name], rel=1e-5), name
  assert metrics[0]["r1"] == pytest.approx(others[0]["r1"], rel=1e-5)
  apart, count = 0.0, 0
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(spread.params), strict=True
  ):
    apart, count = (
      apart + float(jnp.abs(a - np.asarray(b)).sum()),
      count + a.size,
    )
  assert apart / count < 1e-6  # biases before a norm have no gradient but noise
  again = dataclasses.replace(task, remat="full")
  _, same = trained(again, steps=2)
  assert same[1]["loss"] == pytest.approx(metrics[1]["loss"], rel=1e-4)


def test_an_autoencoder_learns_a_batch(task):
  plain = dataclasses.replace(task, adversary=MelDiscriminatorConfig(kinds=()))
  batch, key = next(batches(rows=2)), jax.random.key(1)
  step, state = (
    jax.jit(plain.train_step),
    jax.jit(plain.init)(jax.random.key(0)),
  )
  losses = []
  for _ in range(20):
    state, metrics = step(state, batch, key)
    losses.append(float(metrics["mel_l1"]))
  assert losses[-1] < 0.7 * losses[0]
  sums = jax.device_get(jax.jit(plain.eval_step)(state, batch))
  found = plain.summary(sums)
  assert found["mel_l1"] < losses[0]
  assert found["kl"] > 0


def test_discriminators_count_from_their_step_and_are_penalised_in_turn(task):
  task = dataclasses.replace(task, r1_every=2)
  _, metrics = trained(task, steps=3)
  weights = [x["weight_patch"] for x in metrics]
  assert weights[0] == 0 and min(weights[1:]) > 0
  assert min(x["weight_window"] for x in metrics[1:]) > 0
  assert [x["r1"] > 0 for x in metrics] == [True, False, True]
  # Before they count, R1 alone is in the loss of the discriminators.
  first = metrics[0]
  whole = task.r1 * task.r1_every * first["r1"]
  assert first["adversary"] == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_parts_of_a_batch_are_averaged(task):
  plain = dataclasses.replace(task, adversary=MelDiscriminatorConfig(kinds=()))
  _, whole = trained(plain, steps=1)
  _, parted = trained(dataclasses.replace(plain, accumulate=2), steps=1)
  assert parted[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-5)
  norms = whole[0]["grad_norm"], parted[0]["grad_norm"]
  assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_what_an_adversary_cannot_look_at_is_refused(task):
  with pytest.raises(InputError, match="rows have 12 frames"):
    task.batch_spec(2, 0.2)
  with pytest.raises(InputError, match="multiples of 8"):
    MelDiscriminatorConfig(windows=(30,))
  with pytest.raises(InputError, match="names one twice"):
    MelDiscriminatorConfig(kinds=("patch", "patch"))
  with pytest.raises(InputError, match="r1_every 0"):
    dataclasses.replace(task, r1_every=0)
  assert task.model_flops(2, 0.45) > 0
