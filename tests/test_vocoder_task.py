"""Training of vocoders; BigVGAN's first steps are in its own file."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_make_an_audio as tiny
from etils import epath

import audiogen_jax as ag
from audiogen_jax import InputError
from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import (
  make_an_audio_parts,
  make_an_audio_rooms,
  vocoders,
)
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.train import state as states
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.vocoder_losses import VocoderWeights
from audiogen_jax.train.vocoder_task import VocoderTask
from audiogen_jax.vocoder.generator import VocoderConfig

RECIPE = MelConfig(
  16_000, n_fft=256, hop=64, n_mels=16, magnitude=True, clamp=True, log="ln"
)
VOICE = VocoderConfig(
  mel=RECIPE, filters=8, ratios=(8, 8), ratio_kernels=(16, 16), kernels=(3,),
  dilations=((1,),), paired=False,
)  # fmt: skip
TASK = VocoderTask(
  vocoder=VOICE,
  adversary=DiscriminatorConfig(
    kinds=("mpd", "mrd"), loss="mse", filters=2, periods=(3,),
    resolutions=((256, 50, 120),), slope=0.1, summed=True,
  ),
  optim=OptimiserConfig(lr=1e-3, b1=0.8, b2=0.99, weight_decay=0.01, clip=1e3),
  average_every=1,
  average_decay=0.5,
)  # fmt: skip


STEP = jax.jit(TASK.train_step)


def batches(rows=8, samples=1030):
  """Endless; the samples do not fill their last frame."""
  for i in itertools.count():
    random = np.random.default_rng(i)
    hz = random.uniform(200, 2000, (rows, 1))
    audio = 0.3 * np.sin(2 * np.pi * hz * np.arange(samples) / 16_000)
    audio = audio + 0.01 * random.standard_normal((rows, samples))
    yield {
      "audio": jnp.asarray(audio[..., None], jnp.float32),
      "valid": jnp.arange(rows) < rows - 1,
    }


@pytest.fixture(scope="module")
def start():
  return jax.jit(TASK.init)(jax.random.key(0))


def trained(task, state, mesh=None, steps=5):
  placement = mesh and Placement.make(mesh, {"batch": ("data",)})
  if placement:
    state = jax.device_put(state, states.shardings(state, task.axes, placement))
  step, found = STEP if task is TASK else jax.jit(task.train_step), []
  for batch in itertools.islice(batches(), steps):
    if placement:
      batch = {
        name: placement.put(x, "batch", *[None] * (x.ndim - 1))
        for name, x in batch.items()
      }
    state, metrics = step(state, batch, jax.random.key(1))
    found.append({name: float(x) for name, x in metrics.items()})
  return state, found


@pytest.fixture(scope="module")
def whole(start):
  return trained(TASK, start)


def near(found, others, rel):
  for one, other in zip(found, others, strict=True):
    assert other == pytest.approx(one, rel=rel)


@pytest.mark.slow
def test_eight_devices_train_as_one_does(start, whole):
  state, found = whole
  spread, others = trained(TASK, start, make_mesh(data=8))
  near(found, others, 1e-5)
  for a, b in zip(
    jax.tree.leaves(state.average), jax.tree.leaves(spread.average), strict=True
  ):
    # Adam moves by the sign of what is near 0, which rounding may turn.
    assert float(jnp.abs(a - np.asarray(b)).mean()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
  "change", [{"accumulate": 2}, {"remat": "activations"}], ids=str
)
def test_in_parts_and_computed_again_is_the_same(start, whole, change):
  task = dataclasses.replace(TASK, **change)
  _, others = trained(task, start, steps=2)
  near(whole[1][:2], others, 1e-4)


def test_the_loss_is_the_sum_of_its_parts(whole):
  for metrics in whole[1]:
    parts = {"mel": 45, "adv_mpd": 1, "adv_mrd": 1, "feat_mpd": 2}
    parts |= {"feat_mrd": 2}
    total = sum(weight * metrics[name] for name, weight in parts.items())
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)
    assert metrics["lr"] == pytest.approx(1e-3)


def test_a_batch_that_is_learnt_is_heard(start):
  """The mel distance of held-out rows falls; both sides learn."""
  batch = next(batches())
  state, losses = start, []
  evaluate = jax.jit(TASK.eval_step)
  before = TASK.summary(jax.device_get(evaluate(start, batch)))
  for _ in range(40):
    state, metrics = STEP(state, batch, jax.random.key(0))
    losses.append(float(metrics["mel"]))
  assert losses[-1] < 0.8 * losses[0]
  assert float(metrics["adversary_mpd"]) < 1.5
  after = TASK.summary(jax.device_get(evaluate(state, batch)))
  assert after["mel"] < 0.8 * before["mel"]
  assert {"mel_distance", "log_spectral_distance", "si_snr"} < after.keys()
  made = jax.jit(TASK.samples)(state, batch)
  assert made["vocoded"].shape == made["original"].shape == (8, 1024, 1)


def test_rows_that_do_not_count_do_not(start):
  batch = next(batches())
  evaluate = jax.jit(TASK.eval_step)
  louder = batch | {"audio": batch["audio"].at[-1].mul(3)}
  one, other = (
    TASK.summary(jax.device_get(evaluate(start, each)))
    for each in (batch, louder)
  )
  assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize(
  "recipe", [mel.MAKE_AN_AUDIO, mel.MAKE_AN_AUDIO_OLDER], ids=["log10", "older"]
)
def test_a_frame_is_a_hop_by_either_recipe(recipe):
  task = VocoderTask(vocoder=VocoderConfig(mel=recipe))
  like = task.batch_spec(2, 0.512)["audio"]
  audio, mels = jax.eval_shape(task.inputs, like)
  assert audio.shape == (2, 8192, 1) and mels.shape == (2, 32, 80)


def test_an_export_is_a_part_of_a_make_an_audio(tmp_path):
  parts = tiny.parts()
  task = VocoderTask(vocoder=parts.vocoder, adversary=TASK.adversary)
  like = jax.eval_shape(task.init, jax.random.key(2))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
  voice = tiny.parts(seed=1).vocoder_tree
  state = zeros._replace(params=zeros.params | {"vocoder": voice})
  task.export(state, epath.Path(tmp_path / "export"))
  joined = make_an_audio_rooms.exchanged(parts, "vocoder", tmp_path / "export")
  held = joined.vocoder_tree
  want = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape,
      x.dtype,
      sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    ),
    held.abstract(),
  )
  joined = dataclasses.replace(joined, vocoder_tree=held.restore(want))
  make_an_audio_parts.write_orbax(tmp_path / "model", joined, tiny.words())
  model = ag.load(tmp_path / "model", mesh=make_mesh(data=1))
  jax.tree.map(np.testing.assert_array_equal, model.vocoder.params, voice)
  # By itself it is no model, and one line says so.
  with pytest.raises(InputError, match="unet is missing; vocoder alone"):
    ag.load(tmp_path / "export")
  # A whole model has a vocoder, too.
  for source in ("export", "model"):
    onward = VocoderTask(
      model=str(tmp_path / source), start="model", adversary=TASK.adversary
    ).opened()
    assert onward.vocoder == parts.vocoder
    fresh = onward.prepare(zeros, iter(()), jax.random.key(6))
    jax.tree.map(np.testing.assert_array_equal, fresh.params["vocoder"], voice)


def test_a_published_vocoder_is_trained_on(start, tmp_path):
  recipe = dataclasses.replace(
    mel.MAKE_AN_AUDIO, n_mels=16, hop=64, log="ln", clip=False
  )
  voice = dataclasses.replace(VOICE, mel=recipe)
  params = start.params["vocoder"]
  # Its file says the length of the window, which is no other recipe.
  written = dataclasses.replace(recipe, window_length=1024)
  vocoders.write(tmp_path, dataclasses.replace(voice, mel=written), params)
  other = VocoderConfig(
    mel=recipe, ratios=(64,), ratio_kernels=(64,), filters=2
  )
  onward = dataclasses.replace(
    TASK, model=str(tmp_path), start="model", vocoder=other
  ).opened()
  assert onward.vocoder.ratios == voice.ratios
  zeros = jax.tree.map(jnp.zeros_like, start)
  fresh = onward.prepare(zeros, iter(()), jax.random.key(4))
  for tree in (fresh.params, fresh.average):
    jax.tree.map(np.testing.assert_array_equal, tree["vocoder"], params)


def test_what_does_not_fit_is_refused(start, tmp_path):
  with pytest.raises(InputError, match="give --config.model=SOURCE"):
    VocoderTask(start="model").opened()
  TASK.export(start, epath.Path(tmp_path / "export"))
  given = dict(model=str(tmp_path / "export"), start="model")
  with pytest.raises(InputError, match=r"another recipe .*n_fft 1024 and 256"):
    VocoderTask(**given).opened()
  assert VocoderTask(**given, vocoder=VOICE).opened().vocoder == VOICE
  with pytest.raises(InputError, match="accumulate 0"):
    VocoderTask(accumulate=0)
  with pytest.raises(InputError, match="nothing to learn"):
    VocoderWeights(0.0, 0.0, 0.0, 0.0)
  with pytest.raises(InputError, match="does not divide into accumulate = 3"):
    task = dataclasses.replace(TASK, accumulate=3)
    jax.eval_shape(task.train_step, start, next(batches()), jax.random.key(0))
  with pytest.raises(InputError, match="needs 97 samples, got 90"):
    TASK.model_flops(1, 90 / 16_000)
  assert TASK.model_flops(2, 0.064) == 2 * TASK.model_flops(1, 0.064) > 0
  parts = tiny.parts()
  with pytest.raises(InputError, match="vocoder of the same generation"):
    make_an_audio_rooms.exchanged(parts, "vocoder", tmp_path / "export")
  with pytest.raises(InputError, match="has no autoencoder"):
    make_an_audio_rooms.read(tmp_path / "export", "autoencoder")
