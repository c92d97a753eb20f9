"""Three steps of BigVGAN's training against the published program's.

Losses, norms of gradients and parameters, of both versions: mel L1, and the
multi-scale loss with clipped gradients.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest

from audiogen_jax.convert import engine, torch_file, vocoders
from audiogen_jax.core.sharding import path_name
from audiogen_jax.gan import discriminators, losses
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.state import TrainState
from audiogen_jax.train.vocoder_losses import VocoderWeights
from audiogen_jax.train.vocoder_task import VocoderTask

# Published names of kinds of discriminators, and ours of each one.
ONE = {
  "mpd": lambda i: f"period_{(2, 3, 5, 7, 11)[i]}",
  "mrd": lambda i: f"resolution_{i}",
}


def theirs(kind, tree):
  """Our parameters of a kind, as published."""
  numbers = {ONE[kind](i): i for i in range(5 if kind == "mpd" else 3)}
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    one, conv, name = path_name(path).split("/")
    conv = conv.replace("conv_", "convs.") if conv != "conv_post" else conv
    name = name.replace("kernel", "weight")
    if name.endswith("_v"):
      leaf = leaf.transpose(3, 2, 0, 1)
    elif name.endswith("_g"):
      leaf = leaf.reshape(-1, 1, 1, 1)
    found[f"discriminators.{numbers[one]}.{conv}.{name}"] = leaf
  return found


def ours(kind, state, like):
  """Published parameters of a kind, as ours."""
  names = jax.tree_util.tree_map_with_path(
    lambda path, leaf: path_name(path), like
  )

  def one(name, leaf):
    which, conv, last = name.split("/")
    (number,) = [i for i in range(5) if ONE[kind](i) == which]
    conv = conv.replace("conv_", "convs.") if conv != "conv_post" else conv
    last = last.replace("kernel", "weight")
    found = state[f"discriminators.{number}.{conv}.{last}"].read()
    if last == "weight_v":
      found = found.transpose(2, 3, 1, 0)
    return jnp.asarray(found.reshape(leaf.shape))

  return jax.tree.map(one, names, like)


class Steps:
  """The published program's steps, and ours beside them."""

  def __init__(self, folder):
    told = json.loads((folder / "config.json").read_text())
    self.want = packs.arrays(folder / "training.npz")
    voice = vocoders.read(folder)
    multi = told.get("use_multiscale_melloss", False)
    amount = float(told.get("lambda_melloss", 45))
    self.task = VocoderTask(
      vocoder=voice.config,
      adversary=DiscriminatorConfig(
        kinds=("mpd", "mrd"),
        loss="mse",
        filters=round(32 * told["discriminator_channel_mult"]),
        periods=tuple(told["mpd_reshapes"]),
        resolutions=tuple(map(tuple, told["resolutions"])),
        slope=0.1,
        summed=True,
      ),
      weights=VocoderWeights(
        mel=amount * (not multi), multi_mel=amount * multi
      ),
      optim=OptimiserConfig(
        lr=float(self.want["learning_rate"]),
        b1=told["adam_b1"],
        b2=told["adam_b2"],
        weight_decay=0.01,
        schedule="exponential",
        decay=1,
        decay_rate=told["lr_decay"],
        clip=float(told.get("clip_grad_norm", 1000)),
      ),
      precision="highest",
    )
    file = torch_file.read(folder / "bigvgan_discriminator_optimizer.pt")
    like = jax.eval_shape(self.task.init, jax.random.key(0))
    adversary = like.params["adversary"]
    params = {
      "vocoder": packs.realised(voice.tree),
      "adversary": {k: ours(k, file[k], adversary[k]) for k in adversary},
    }
    tx = self.task.optim.make()
    moments = {
      "vocoder": tx.init(params["vocoder"]),
      "adversary": {k: tx.init(x) for k, x in params["adversary"].items()},
    }
    extra = {"averaged": jnp.float32(0)}
    self.start = TrainState(jnp.int32(0), params, moments, extra, {})
    self.audio = jnp.asarray(self.want["audio"])[..., None]
    step, state, self.metrics = jax.jit(self.task.train_step), self.start, []
    for _ in range(3):
      state, found = step(state, {"audio": self.audio}, jax.random.key(0))
      self.metrics.append(found)
    self.last = state


@pytest.fixture(scope="module", params=["v1_snakebeta", "v2_clamped"])
def steps(request):
  return Steps(packs.folder("bigvgan_tiny", request.param))


@pytest.mark.slow
def test_what_the_discriminators_say_at_first_parity(steps):
  adversary = steps.start.params["adversary"]
  found = discriminators.discriminate(
    steps.task.adversary, adversary, steps.audio
  )
  for i, one in enumerate(found["mpd"]):
    want = steps.want[f"mpd_real_logits/{i}"]
    np.testing.assert_allclose(one.logits.reshape(2, -1), want, atol=1e-5)
  for i, one in enumerate(found["mrd"]):
    logits = one.logits.reshape(2, -1)
    want = steps.want[f"mrd_real_logits_first64/{i}"]
    np.testing.assert_allclose(logits[:, :64], want, atol=1e-5)
  for kind, outputs in found.items():
    means = [[jnp.abs(x).mean() for x in one.features] for one in outputs]
    want = steps.want[f"{kind}_fmap_mean_abs"]
    np.testing.assert_allclose(means, want, rtol=1e-5)


@pytest.mark.slow
def test_mel_spectrogram_and_its_losses_parity(steps):
  recipe = steps.task.vocoder.mel
  audio, mels = steps.task.inputs(steps.audio)
  want = steps.want["mel_in"].swapaxes(1, 2)
  np.testing.assert_allclose(mels, want, atol=4e-4)  # natural logarithms
  fake = jnp.asarray(steps.want["fake"])[..., None]
  for loss, name, of in (
    (losses.recipe_mel, "mel_single", recipe),
    (losses.bigvgan_mel, "mel_multi", recipe.rate_hz),
  ):
    want = float(steps.want[f"step0/{name}"])
    assert float(loss(audio, fake, of)) == pytest.approx(want, rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("i", range(3))
def test_losses_of_three_steps_parity(steps, i):
  found, weights = steps.metrics[i], steps.task.weights

  def of(name):
    return float(steps.want[f"step{i}/{name}"])

  names = {"loss": "loss_gen_all", "lr": "lr"}
  names |= {"mel": "mel_single"} if weights.mel else {"multi_mel": "mel_multi"}
  for kind in ("mpd", "mrd"):
    names |= {f"adversary_{kind}": f"loss_disc_{kind}"}
    names |= {f"adv_{kind}": f"gen_{kind}"}
    feature = weights.feature * float(found[f"feat_{kind}"])
    assert feature == pytest.approx(of(f"fm_{kind}"), rel=1e-5)
    norm = float(found[f"grad_norm_{kind}"])
    assert norm == pytest.approx(of(f"grad_norm_{kind}"), rel=3e-4)
  for name, published in names.items():
    assert float(found[name]) == pytest.approx(of(published), rel=1e-5), name
  norm = float(found["grad_norm"])
  assert norm == pytest.approx(of("grad_norm_g"), rel=3e-4)


@pytest.mark.slow
def test_parameters_after_three_steps_parity(steps):
  params = steps.last.params
  table = vocoders.table(steps.task.vocoder)
  exported = engine.export(params["vocoder"], table)
  made = {"after": {n: lazy.read() for n, lazy in exported.items()}}
  for kind, tree in params["adversary"].items():
    made[f"after_{kind}"] = theirs(kind, tree)
  names = [n for n in steps.want if n.startswith("after")]
  assert len(names) >= 10
  for name in names:
    group, _, key = name.partition("/")
    found = np.asarray(made[group][key])
    np.testing.assert_allclose(found, steps.want[name], atol=1e-4)
