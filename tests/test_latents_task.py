"""A latent diffusion model's parts, what it adapts and what it predicts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_codes
import tiny_make_an_audio as tiny
from etils import epath
from recordings import dataset
from test_diffusion_task import ADAM, RULES, batches, folder, start, task

import audiogen_jax as ag
from audiogen_jax import InputError
from audiogen_jax.convert import make_an_audio_parts, make_an_audio_rooms
from audiogen_jax.convert.make_an_audio_loading import load_autoencoder
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.data import latents
from audiogen_jax.data.encoding import TokenizeConfig
from audiogen_jax.data.loader import Loader, Part
from audiogen_jax.data.mixing import MixConfig
from audiogen_jax.data.rows import LoaderConfig
from audiogen_jax.data.spec import SoundSpec
from audiogen_jax.diffusion import sampling, training
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion.lora import LoRAConfig
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.train import state as states
from audiogen_jax.train.diffusion_sources import Sources
from audiogen_jax.train.diffusion_task import DiffusionTask

__all__ = ["folder", "start", "task"]  # fixtures


def test_parts_come_from_where_they_are(folder, tmp_path):
  """Autoencoder and vocoder of trainings, and an AudioGen's text encoder."""
  model = make_an_audio_parts.open_parts(folder)
  for name in ("autoencoder", "vocoder"):
    tree = getattr(tiny.parts(), f"{name}_tree")
    make_an_audio_rooms.write(tmp_path / name, name, getattr(model, name), tree)
  net = dataclasses.replace(tiny.UNET, context_width=128)
  names = {name: str(tmp_path / name) for name in ("autoencoder", "vocoder")}
  task = DiffusionTask(
    sources=Sources(text="nano", **names),
    unet=net,
    optim=ADAM,
    dtype="float32",
    scale_batches=1,
  ).opened()
  assert task.reads == "t5" and task.autoencoder == model.autoencoder
  state = jax.jit(task.init)(jax.random.key(0))
  state = task.prepare(state, batches(task), jax.random.key(1))
  task.export(state, epath.Path(tmp_path / "export"))
  made = ag.load(tmp_path / "export", mesh=make_mesh(data=1))
  states = made.text(["a dog barks", None])
  batch = next(batches(task, rows=2))
  got = task.context(state, batch, jnp.zeros(2, bool))
  np.testing.assert_allclose(got[0], states[0], atol=1e-5)
  np.testing.assert_allclose(got[1], states[1], atol=1e-5)  # has no caption
  audio = made.generate(["a dog barks"], duration_s=0.3)
  assert np.isfinite(audio).all()
  with pytest.raises(InputError, match="its U-Net"):
    dataclasses.replace(task, start="model").opened()
  with pytest.raises(InputError, match="--config.sources.vocoder"):
    dataclasses.replace(task, sources=Sources(autoencoder=str(folder))).opened()
  with pytest.raises(InputError, match="has no vocoder"):
    wrong = dataclasses.replace(task.sources, vocoder=names["autoencoder"])
    dataclasses.replace(task, sources=wrong).opened()


def test_cached_latents_are_those_of_sounds(task, start, folder, tmp_path):
  """The joint of dataset, autoencoder and task."""
  noise = np.random.default_rng(0)
  sounds = dataset(
    tmp_path / "sounds", [8192] * 4, spec=SoundSpec(), make=test_codes.noise
  )
  model = load_autoencoder(folder)
  config = TokenizeConfig(min_duration_s=0.5, batch=3)
  latents.tokenize(sounds, model, tmp_path / "latents", config=config)
  cached = dataclasses.replace(task, cached_latents=True)
  config = LoaderConfig(batch=2, duration_s=0.512, epochs=1, text_buckets=(77,))
  both = []
  for one, place in ((task, sounds), (cached, tmp_path / "latents")):
    words, alone = one.tokenizer(), Placement.make(make_mesh(data=1))
    loader = Loader([Part(place)], config, tokenizer=words, placement=alone)
    one.wants.check(loader.settings, str(place))
    one.check_data(loader.settings, str(place))
    with loader.batches() as rows:
      batch = dict(next(iter(rows)))
    batch.pop("caption")
    batch = {k: jnp.asarray(np.asarray(v)) for k, v in batch.items()}
    spec = one.batch_spec(2, 0.512)
    for name in set(spec) - {"text_ids", "text_mask"}:
      assert batch[name].shape == spec[name].shape
    both.append((one, batch))
  means = [one._posterior(start, batch).mean for one, batch in both]
  np.testing.assert_allclose(*means, atol=2e-2)  # of 16 bits, and crops
  step = jax.jit(cached.train_step)
  _, metrics = step(start, both[1][1], jax.random.key(0))
  assert np.isfinite(float(metrics["loss"]))
  made = jax.jit(cached.samples)(start, both[1][1])
  assert made["original"].shape == made["generated"].shape
  with pytest.raises(InputError, match="cached_latents=True"):
    task.wants.check(loader.settings, "x")
  other = tmp_path / "other"
  shaken = dataclasses.replace(
    tiny.parts(),
    autoencoder_tree=jax.tree.map(
      lambda x: x + 0.3 * noise.standard_normal(x.shape).astype("f"),
      tiny.parts().autoencoder_tree,
    ),
  )
  make_an_audio_parts.write_orbax(other, shaken, tiny.words())
  with pytest.raises(InputError, match="made by another autoencoder"):
    dataclasses.replace(cached, model=str(other)).opened().check_data(
      loader.settings, "x"
    )
  with pytest.raises(InputError, match="latents cannot be mixed"):
    Loader([Part(tmp_path / "latents")], LoaderConfig(batch=1, mix=MixConfig()))


def test_adapters_are_trained_alone_and_merged(task, start, tmp_path):
  # A fresh U-Net's attention adds nothing, and would not learn from it.
  random = np.random.default_rng(0)
  net = jax.tree.map(
    lambda x: x + 0.1 * random.standard_normal(x.shape).astype("f"),
    start.average["unet"],
  )
  start = start._replace(average={"unet": net})
  first = tmp_path / "first"
  task.export(start, epath.Path(first))
  adapting = dataclasses.replace(
    task, model=str(first), start="model", lora=LoRAConfig(rank=2)
  ).opened()
  state = jax.jit(adapting.init)(jax.random.key(0))
  state = adapting.prepare(state, batches(task), jax.random.key(1))
  before = state
  jax.tree.map(
    np.testing.assert_array_equal, adapting.net(state), task.net(start)
  )
  batch, step = next(batches(task)), jax.jit(adapting.train_step)
  losses = []
  for _ in range(12):
    state, metrics = step(state, batch, jax.random.key(3))
    losses.append(float(metrics["loss"]))
  assert losses[-1] < losses[0]
  jax.tree.map(
    np.testing.assert_array_equal, state.extra["unet"], before.extra["unet"]
  )
  adapting.export(state, epath.Path(tmp_path / "second"))
  model = ag.load(tmp_path / "second", mesh=make_mesh(data=1))
  kernel = adapting.net(state)["middle_attention"]["block_0"]["self_attn"]["q"]
  got = model.denoiser.params["middle_attention"]["block_0"]["self_attn"]["q"]
  np.testing.assert_array_equal(got["kernel"], kernel["kernel"])
  old = task.net(start)["middle_attention"]["block_0"]["self_attn"]["q"]
  assert np.abs(old["kernel"] - kernel["kernel"]).max() > 1e-5
  rules = dict(RULES)
  placement = Placement.make(make_mesh(data=4, tensor=2), rules)
  states.shardings(state, adapting.axes, placement)
  with pytest.raises(InputError, match="give start=model"):
    dataclasses.replace(task, lora=LoRAConfig(rank=2))


def test_velocity_says_what_noise_says():
  """A U-Net that knows the latent samples it, whatever it predicts."""
  random = np.random.default_rng(0)
  latent, noise = (random.standard_normal((2, 3, 2, 1)) for _ in range(2))
  time = jnp.asarray([30, 900])
  for solver in ("ddim", "plms", "dpm++"):
    options = Diffusion(steps=8, solver=solver)
    lines = [
      sampling.plan(options, Schedule(predicts=what)).plan
      for what in ("noise", "velocity")
    ]
    for i in (0, 1, 5):
      level = schedules.kept(Schedule())
      at = float(lines[0].time[i])
      ratio = np.interp(at, np.arange(1000), np.log(level / (1 - level)))
      level = 1 / (1 + np.exp(-ratio))
      x = np.sqrt(level) * latent + np.sqrt(1 - level) * noise
      velocity = np.sqrt(level) * noise - np.sqrt(1 - level) * latent
      want, got = (
        line.foretold[i, 0] * x + line.foretold[i, 1] * found
        for line, found in zip(lines, (noise, velocity), strict=True)
      )
      np.testing.assert_allclose(got, want, atol=1e-4)
  latent, noise = jnp.asarray(latent), jnp.asarray(noise)
  example = training.example(
    latent, Schedule(predicts="velocity"), time, noise, min_snr=5.0
  )
  level = schedules.kept(Schedule())[np.asarray(time)]
  signal = np.sqrt(level)[:, None, None, None] * example.noised
  found = signal - np.sqrt(1 - level)[:, None, None, None] * example.target
  np.testing.assert_allclose(found, latent, atol=1e-5)
  ratio = level / (1 - level)
  want = np.minimum(ratio, 5) / (ratio + 1)
  np.testing.assert_allclose(example.weight, want, rtol=1e-4)
