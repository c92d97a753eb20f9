"""Training of Make-An-Audio's U-Net."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import packs
import pytest
import tiny_make_an_audio as tiny
from etils import epath
from packs import ours

import audiogen_jax as ag
from audiogen_jax import InputError
from audiogen_jax.convert import (
  engine,
  latent_diffusion,
  make_an_audio_parts,
)
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion import training
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.latent import autoencoder
from audiogen_jax.train import diffusion_inputs
from audiogen_jax.train import state as states
from audiogen_jax.train.diffusion_task import DiffusionTask
from audiogen_jax.train.optimiser import OptimiserConfig

RULES = {"batch": ("data",), "heads": ("tensor",), "ff": ("tensor",)}
ADAM = OptimiserConfig(lr=1e-3, b1=0.9, b2=0.999, clip=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("models") / "tiny"
  make_an_audio_parts.write_orbax(path, tiny.parts(), tiny.words())
  return path


@pytest.fixture(scope="module")
def task(folder):
  given = dict(model=str(folder), unet=tiny.UNET, optim=ADAM, dtype="float32")
  given |= dict(scale_batches=2, average_every=1, average_decay=0.5)
  return DiffusionTask(**given).opened()


def batches(task, rows=4, seconds=0.6):
  """Endless; the last row of each has no caption."""
  words = task.tokenizer()
  for i in itertools.count():
    random = np.random.default_rng(i)
    audio = 0.1 * random.standard_normal((rows, round(seconds * 16_000), 1))
    ids = np.zeros((rows, task.clap.length), np.int32)
    for row, text in enumerate(
      ("a dog barks", "rain", "wind", "thunder")[:rows]
    ):
      found = words.ids(text)
      ids[row, : len(found)] = found
    mask = ids > 0
    mask[-1] = False
    yield {
      "audio": jnp.asarray(audio, jnp.float32),
      "text_ids": jnp.asarray(ids),
      "text_mask": jnp.asarray(mask),
      "valid": jnp.ones(rows, bool),
    }


@pytest.fixture(scope="module")
def start(task):
  state = task.init(jax.random.key(0))
  return task.prepare(state, batches(task), jax.random.key(1))


def test_three_steps_of_make_an_audio_parity():
  """The published program's own noise, times and captions."""
  yaml = "configs/text_to_audio/txt2audio_args.yaml"
  words = packs.folder("maa_tiny") / "bert-base-uncased"
  pack = packs.MakeAnAudio("maa_tiny", "maa1_*.ckpt", yaml, tokenizer=words)
  want = packs.arrays(pack.folder / "training.npz")
  optim = OptimiserConfig(
    lr=float(want["ldm_learning_rate"]),
    b1=float(want["ldm_betas"][0]),
    b2=float(want["ldm_betas"][1]),
    weight_decay=float(want["ldm_weight_decay"]),
    warmup=2,
    clip=1.0,
  )
  p = pack.parts
  task = DiffusionTask(
    model=str(pack.folder),
    start="model",
    optim=optim,
    dtype="float32",
  ).opened()
  assert task.unet == p.unet and task.schedule == p.schedule
  params = {"unet": p.unet_tree}
  extra = {
    "averaged": jnp.float32(0),
    "scale": jnp.float32(p.autoencoder.scale),
    "autoencoder": p.autoencoder_tree,
    "text": p.text_tree,
  }
  moments = task._tx.init(params)
  state = states.TrainState(jnp.int32(0), params, moments, extra, {})
  words = task.tokenizer()
  captions = [str(caption) for caption in want["ldm_captions"]]
  ids = np.zeros((len(captions), task.clap.length), np.int32)
  for row, caption in zip(ids, captions, strict=True):
    found = words.ids(caption)
    row[: len(found)] = found
  texts = {"text_ids": jnp.asarray(ids), "text_mask": jnp.asarray(ids > 0)}
  context = task.context(state, texts, jnp.zeros(len(captions), bool))
  mean = float(want["ldm_step0/condition_mean_abs"])
  assert float(jnp.abs(context).mean()) == pytest.approx(mean, rel=1e-5)
  mel = jnp.asarray(want["mels"].swapaxes(1, 2))
  posterior = jax.jit(autoencoder.encode, static_argnums=0)(
    p.autoencoder, p.autoencoder_tree, mel
  )
  first = posterior.sample(jnp.asarray(ours(want["ldm_scale_noise"])))
  scale = float(diffusion_inputs.scale([first]))
  assert scale == pytest.approx(float(want["ldm_scale_factor"]), rel=1e-5)
  update = jax.jit(task.update)
  before = state
  for i in range(3):

    def of(name, i=i):
      return jnp.asarray(want[f"ldm_step{i}/{name}"])

    latents = autoencoder.latent(
      p.autoencoder, posterior, jnp.asarray(ours(of("posterior_noise")))
    )
    example = training.example(
      latents,
      task.schedule,
      of("t").astype(jnp.int32),
      jnp.asarray(ours(of("noise"))),
    )
    if i == 0:
      np.testing.assert_allclose(example.noised, ours(of("x_noisy")), atol=2e-5)
    state, metrics = update(state, example, context)
    for name in ("loss", "grad_norm"):
      assert float(metrics[name]) == pytest.approx(float(of(name)), rel=1e-5)
    assert float(metrics["lr"]) == pytest.approx(float(of("lr")), abs=1e-9)
  exported = published_tensors(p.unet, state.params["unet"])
  origin = published_tensors(p.unet, before.params["unet"])
  names = [n for n in want if n.startswith("ldm_after/")]
  for name in names:
    key = name.removeprefix("ldm_after/")
    np.testing.assert_allclose(exported[key], want[name], atol=1e-6)
    assert np.abs(exported[key] - origin[key]).max() > 1e-5
  assert names


def published_tensors(config, tree):
  made = engine.export(tree, latent_diffusion.unet_table(config))
  return {name: lazy.read() for name, lazy in made.items()}


def test_the_scale_makes_latents_of_unit_spread(task, start):
  found = [
    task.latents(start, batch, jax.random.key(i))
    for i, batch in enumerate(itertools.islice(batches(task), 2))
  ]
  assert float(jnp.std(jnp.concatenate(found))) == pytest.approx(1, abs=0.02)


def test_texts_left_out_are_read_as_none(task, start):
  batch = next(batches(task))
  read = task.context(start, batch, jnp.asarray([False, True, False, False]))
  none = task.context(start, batch, jnp.ones(4, bool))
  np.testing.assert_allclose(read[1], none[0], atol=1e-6)
  np.testing.assert_allclose(read[3], none[0], atol=1e-6)  # without a caption
  assert float(jnp.abs(read[0] - none[0]).max()) > 1e-3


def test_min_snr_weighs_times_with_much_signal_less():
  schedule, latents = Schedule(), jnp.zeros((3, 2, 2, 1))
  time = jnp.asarray([0, 300, 999])
  found = training.example(latents, schedule, time, latents, min_snr=5.0)
  level = schedules.kept(schedule)[np.asarray(time)]
  ratio = level / (1 - level)
  want = np.minimum(ratio, 5) / ratio
  np.testing.assert_allclose(found.weight, want, rtol=1e-4)
  assert found.weight[0] < 0.01 and found.weight[2] == 1


def trained(task, state, mesh=None, steps=5):
  placement = Placement.make(mesh, RULES) if mesh else None
  step = jax.jit(task.train_step)
  if placement:
    state = jax.device_put(state, states.shardings(state, task.axes, placement))
  losses = []
  for i, batch in enumerate(itertools.islice(batches(task), steps)):
    if placement:
      batch = {
        name: placement.put(x, "batch", *[None] * (x.ndim - 1))
        for name, x in batch.items()
      }
    state, metrics = step(state, batch, jax.random.key(10 + i))
    losses.append(float(metrics["loss"]))
  return state, losses


@pytest.mark.slow
def test_eight_devices_train_as_one_does(task, start):
  state, losses = trained(task, start)
  assert np.isfinite(losses).all()
  mesh = make_mesh(data=4, tensor=2)
  spread, others = trained(task, start, mesh)
  np.testing.assert_allclose(others, losses, atol=1e-5)
  pairs = zip(
    jax.tree.leaves(state.params), jax.tree.leaves(spread.params), strict=True
  )
  # Adam moves by the sign of what is near 0, which rounding may turn.
  assert max(float(jnp.abs(a - np.asarray(b)).mean()) for a, b in pairs) < 1e-5
  parts = dataclasses.replace(task, accumulate=2)
  _, parted = trained(parts, start, steps=2)
  np.testing.assert_allclose(parted, losses[:2], atol=1e-5)
  again = dataclasses.replace(task, remat="full")
  _, same = trained(again, start, steps=2)
  np.testing.assert_allclose(same, losses[:2], atol=1e-5)


def test_a_batch_that_is_learnt_is_known(task, start):
  """The noise of one batch, at its times, over and over."""
  batch = next(batches(task))
  step = jax.jit(task.train_step)
  state, losses = start, []
  for _ in range(25):
    state, metrics = step(state, batch, jax.random.key(3))
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.8 * losses[0]
  sums = jax.device_get(jax.jit(task.eval_step)(state, batch))
  assert 0 < task.summary(sums)["loss"] < 3
  assert optax.tree.norm(
    jax.tree.map(jnp.subtract, state.average, start.average)
  )


def test_what_is_trained_is_exported(task, start, tmp_path):
  batch = next(batches(task, rows=2))
  made = jax.jit(task.samples)(start, batch)
  assert made["generated"].shape == made["original"].shape
  assert jnp.isfinite(made["generated"]).all()
  task.export(start, epath.Path(tmp_path / "export"))
  model = ag.load(tmp_path / "export", mesh=make_mesh(data=1))
  scale = model.mels.config.scale
  assert scale == pytest.approx(float(start.extra["scale"]))
  audio = model.generate(["a dog barks"], duration_s=0.3)
  assert audio.shape == (1, 4800, 1) and np.isfinite(audio).all()
  onward = dataclasses.replace(
    task, model=str(tmp_path / "export"), start="model"
  ).opened()
  state = onward.prepare(
    onward.init(jax.random.key(5)), batches(task), jax.random.key(6)
  )
  assert float(state.extra["scale"]) == pytest.approx(scale)
  jax.tree.map(
    np.testing.assert_array_equal, state.params["unet"], start.average["unet"]
  )


def test_what_does_not_fit_is_refused(task, folder):
  with pytest.raises(InputError, match="give --config.model=SOURCE"):
    DiffusionTask().opened()
  wide = dataclasses.replace(tiny.UNET, context_width=64)
  with pytest.raises(InputError, match="context_width 64 must be the 32"):
    dataclasses.replace(task, unet=wide).opened()
  with pytest.raises(InputError, match="beside 5"):
    beside = dataclasses.replace(tiny.UNET, beside=5)
    dataclasses.replace(task, unet=beside).opened()
  with pytest.raises(InputError, match="hold no column of a latent"):
    task.model_flops(1, 0.1)
  silent = ({**b, "audio": b["audio"] * np.nan} for b in batches(task))
  with pytest.raises(InputError, match="variance of nan"):
    task.prepare(task.init(jax.random.key(0)), silent, jax.random.key(0))
  programs = task.sampling_programs(2, Placement.make(make_mesh(data=2)))
  assert set(programs) == {"text", "U-Net", "autoencoder", "vocoder"}
  assert task.model_flops(2, 1.0) == 2 * task.model_flops(1, 1.0) > 0
