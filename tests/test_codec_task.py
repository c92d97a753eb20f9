"""Codec training: the reference's first steps, meshes, one forward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import packs
import pytest
from published_discriminators import adversary_of

from audiogen_jax.codec import layers
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.codec.rvq import RVQTraining
from audiogen_jax.codec.seanet import Encoder, SEANetConfig
from audiogen_jax.convert import audiocraft, torch_file
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.errors import InputError
from audiogen_jax.gan import discriminators, losses
from audiogen_jax.train.codec_task import CodecTask


@dataclasses.dataclass
class Steps:
  """The reference's first steps, and ours beside them."""

  reference: dict
  task: CodecTask
  before: list  # states before each step, and one after the last
  metrics: list
  passes: list  # what the generator gave: (fake, commitment), codes
  penalties: list  # norm of the commitment's gradient alone


@pytest.fixture(scope="module")
def steps(pack):
  if not (pack / "training.npz").is_file():
    pytest.skip(f"{pack} has no training.npz")
  reference = packs.arrays(pack / "training.npz")
  codec = load_codec(pack)
  config, adversary = adversary_of(reference)
  task = CodecTask(
    encodec=codec.config,
    # The reference's revival has no effect.
    rvq=RVQTraining(revive_below=0.0),
    adversary=config,
    precision="highest",
  )
  books = starting_codebooks(reference, codec.variables["codebooks"], task)
  state = fresh(task, codec.variables | {"codebooks": books}, adversary)
  step = jax.jit(task.train_step)
  found = Steps(reference, task, [state], [], [], [])
  key = jax.random.key(0)
  for i in range(3):
    audio = jnp.asarray(reference[f"codec_step{i}/audio"])[..., None]
    made, penalty = generated(task, state, audio, key)
    found.passes.append(made)
    found.penalties.append(penalty)
    state, metrics = step(state, {"audio": audio}, key)
    found.before.append(state)
    found.metrics.append(metrics)
  return found


def starting_codebooks(reference, books, task):
  """Those of the pack, with the counts that the reference began with.

  It began with others than lie in the pack; they follow from its counts after
  the first step and the codes of that step.
  """
  decay, usage = task.rvq.decay, []
  for k in range(task.encodec.rvq.codebooks):
    codes = reference["codec_step0/codes"][:, k].ravel()
    counts = np.bincount(codes, minlength=task.encodec.rvq.size)
    after = reference[f"codec_step0/vq{k}.cluster_size"]
    usage.append((after - (1 - decay) * counts) / decay)
  usage = jnp.asarray(usage, jnp.float32)
  return books | {
    "usage": usage,
    "embed_sum": books["embed"] * usage[..., None],
  }


def fresh(task, variables, adversary):
  """A first state around given parameters."""
  like = jax.eval_shape(task.init, jax.random.key(0))
  state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
  params = {"codec": variables["params"], "adversary": adversary}
  tx = task.optim.make()
  state = state._replace(
    params=params,
    optimiser={name: tx.init(params[name]) for name in params},
    extra=state.extra | {"codebooks": variables["codebooks"]},
    average=variables,
  )
  # As after a step: where only some are on a device for good, JAX compiles the
  # first step apart.
  return jax.device_put(state, jax.devices()[0])


@functools.partial(jax.jit, static_argnums=0)
def generated(task, state, audio, key):
  def generate(params):
    return task.generate(params, state.extra["codebooks"], audio, key)

  with jax.default_matmul_precision("highest"):
    (fake, commitment), pull, coded = jax.vjp(
      generate, state.params["codec"], has_aux=True
    )
    (gradient,) = pull((jnp.zeros_like(fake), jnp.ones_like(commitment)))
  return (fake, coded.codes), optax.tree.norm(gradient)


def close(ours, theirs, rtol=1e-3):
  """Relative to the largest number of the array, as of a vector."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape
  atol = rtol * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("i", range(3))
def test_every_loss_of_the_reference(steps, i):
  theirs = {
    name.partition("/")[2]: value
    for name, value in steps.reference.items()
    if name.startswith(f"codec_step{i}/")
  }
  ours = steps.metrics[i]
  (fake, codes) = steps.passes[i]
  np.testing.assert_array_equal(codes, theirs["codes"])
  close(fake[..., 0], theirs["recon"])
  audio = jnp.asarray(theirs["audio"])[..., None]
  rate_hz = steps.task.rate_hz
  mel_l1 = jax.jit(losses.mel_l1, static_argnums=2)
  close(mel_l1(audio, fake, rate_hz), theirs["mel"])
  close(losses.negative_si_snr(audio, fake, rate_hz), theirs["sisnr"])
  close(steps.penalties[i], theirs["grad_norm_penalty"])
  names = {
    "adversary": "d_loss",
    "commitment": "penalty",
    "grad_norm": "grad_norm_total",
    "loss": "g_loss",
  }
  same = ["adv_msstft", "feat_msstft", "l1", "msspec"]
  names |= {name: name + "d" * name.endswith("stft") for name in same}
  names |= {f"ratio_{ours}": f"ratio_{names[ours]}" for ours in same}
  for name, published in names.items():
    close(ours[name], theirs[published])
  books = steps.before[i + 1].extra["codebooks"]
  names = {"embed": "embed", "embed_sum": "embed_avg", "usage": "cluster_size"}
  for name, published in names.items():
    for k in range(len(books[name])):
      close(books[name][k], theirs[f"vq{k}.{published}"])


def test_parameters_after_three_steps(steps, tmp_path):
  """Of the codec, by way of a checkpoint in the published format."""
  last = steps.before[-1]
  variables = {
    "params": last.params["codec"],
    "codebooks": last.extra["codebooks"],
  }
  parts = Parts(codec=steps.task.encodec, codec_tree=variables)
  audiocraft.write(tmp_path, parts)
  written = torch_file.read(tmp_path / audiocraft.CODEC_FILE)["best_state"]
  names = [n for n in steps.reference if n.startswith("codec_after/")]
  assert names
  for name in names:
    ours = written[name.partition("/")[2]].read()
    close(ours, steps.reference[name])


def test_adversary_after_three_steps(steps):
  """Biases that do not move there do not move here."""
  _, theirs = adversary_of(steps.reference, "disc_after")
  ours = steps.before[-1].params["adversary"]["msstft"]
  for name, scale in theirs["msstft"].items():  # the reference kept some
    jax.tree.map(close, ours[name], scale)


def test_what_the_adversary_says_at_first(steps):
  reference, (fake, _) = steps.reference, steps.passes[0]
  audio = jnp.asarray(reference["codec_step0/audio"])[..., None]
  adversary = steps.before[0].params["adversary"]
  found = [
    discriminators.discriminate(steps.task.adversary, adversary, x)["msstft"]
    for x in (audio, fake)
  ]
  for i, (real, _) in enumerate(zip(*found, strict=True)):
    close(real.logits, reference[f"disc_logits/{i}"][:, 0])
    for j, feature in enumerate(real.features):
      mean = reference[f"disc_fmap_mean_abs/{i}.{j}"]
      close(jnp.mean(jnp.abs(feature)), mean)


def test_layer_norms_need_biases():
  """Without them silence has a gradient that no float32 holds."""
  seanet = SEANetConfig(
    width=32,
    filters=8,
    ratios=(4, 2, 2, 2),
    lstm_layers=0,
    norm="layer_norm",
  )
  encoder = Encoder(seanet)
  silence, length = jnp.zeros((1, 320, 1)), jnp.array([320])

  @jax.jit
  def norms():
    params = encoder.init(jax.random.key(0), silence, length)["params"]

    def loss(params):
      latent, _ = encoder.apply({"params": params}, silence, length)
      return jnp.sum(latent * jnp.arange(32.0)[None, None])

    both = params, layers.amplify(params, 3**0.5)
    return [optax.tree.norm(jax.grad(loss)(each)) for each in both]

  plain, without = norms()
  assert plain < 1e5 and not without < 1e15
  with pytest.raises(InputError, match="init_gain 1.73205 takes biases away"):
    normed = EncodecConfig(seanet=SEANetConfig(norm="layer_norm"))
    CodecTask(encodec=normed, init_gain=3**0.5)
