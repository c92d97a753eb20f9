"""Make-An-Audio as its users call it, with small random weights."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_make_an_audio as tiny

import audiogen_jax as ag
from audiogen_jax import Diffusion, InputError
from audiogen_jax.benchmark import diffusing
from audiogen_jax.benchmark.sample import Work
from audiogen_jax.convert import (
  export,
  make_an_audio_parts,
  torch_file,
)
from audiogen_jax.diffusion import denoiser
from audiogen_jax.text_to_latents import Noise

FEW = Diffusion(steps=4)
SECONDS = 0.5  # one bucket, of 4 columns


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("models") / "tiny"
  make_an_audio_parts.write_orbax(path, tiny.parts(), tiny.words())
  return path


@pytest.fixture(scope="module")
def model(folder):
  return ag.load(folder, mesh=jax.sharding.Mesh(jax.devices()[:1], ("data",)))


@pytest.fixture(scope="module")
def recording():
  at_s = np.arange(9000) / 16_000
  wave = 0.3 * np.sin(2 * np.pi * 440 * at_s) * np.exp(-4 * at_s)
  return wave.astype(np.float32)[None, :, None]


def made(model, texts, seconds=SECONDS, sampling=FEW, **more):
  return model.generate(texts, duration_s=seconds, sampling=sampling, **more)


def test_a_prompt_does_not_depend_on_its_neighbours(model):
  texts = ["a dog barks", None, "rain falls"]
  all_ = made(model, texts, seed=[5, 6, 7])
  assert all_.shape == (3, 8000, 1) and np.abs(all_).max() > 1e-3
  for row, text in enumerate(texts):
    alone = made(model, [text], seed=[5 + row])
    np.testing.assert_allclose(alone[0], all_[row], atol=1e-5)
  other = made(model, texts[:1], seed=[6])
  assert np.abs(other - all_[:1]).max() > 1e-3
  said = made(model, ["thunder"], seed=[5])
  assert np.abs(said - all_[:1]).max() > 1e-4


def test_eight_devices_give_what_one_gives(model, folder):
  texts = ["a dog barks", "rain falls", "thunder"]
  want = made(model, texts)
  for sizes in (dict(data=8), dict(data=2, tensor=2)):
    spread = ag.load(folder, mesh=ag.make_mesh(**sizes))
    np.testing.assert_allclose(made(spread, texts), want, atol=1e-5)


def test_negative_prompts_and_guidance(model):
  plain = made(model, ["a dog barks"])
  away = made(model, ["a dog barks"], negative="rain")
  assert np.abs(plain - away).max() > 1e-4
  each = made(model, ["a dog barks"] * 2, seed=[0, 0], negative=["rain", None])
  np.testing.assert_allclose(each, [away[0], plain[0]], atol=1e-5)
  none = dataclasses.replace(FEW, guidance=1.0)
  with pytest.raises(InputError, match="guidance 1 reads no negative"):
    made(model, ["a dog barks"], sampling=none, negative="rain")


def test_any_prompt_and_options_are_one_program(model):
  made(model, ["a dog barks"])
  before = denoiser._run._cache_size()
  for options in (
    Diffusion(steps=7, guidance=5.0),
    Diffusion(steps=4, eta=0.5),
    Diffusion(steps=4, solver="plms"),
    Diffusion(steps=4, solver="dpm++"),
  ):
    made(model, ["rain falls"], seconds=0.4, sampling=options, seed=9)
  model.vary(np.ones((1, 5000, 1), np.float32) / 9, 0.5, ["wind"], sampling=FEW)
  model.vary(np.ones((1, 5000, 1), np.float32) / 9, 1, ["wind"], sampling=FEW)
  assert denoiser._run._cache_size() == before


def test_durations_are_as_asked_for(model):
  for seconds, columns in ((0.01, 4), (0.512, 4), (0.513, 8), (10, 80)):
    extent = model.extent(seconds)
    assert extent == (columns, round(seconds * 16_000), 0)
  # The published programs', which a recording of 10 s comes out longer by.
  assert model.extent(10, "gen_wav") == (80, 163_840, 0)
  by_tsv = model.extent(10, "gen_wavs_by_tsv")
  assert by_tsv == (76, 155_648, 4352)
  assert by_tsv.samples + 2 * by_tsv.silence == 164_352
  short = made(
    model, ["wind"], 0.6, dataclasses.replace(FEW, length="gen_wavs_by_tsv")
  )
  silent = model.extent(0.6, "gen_wavs_by_tsv").silence
  assert silent > 0
  assert not short[:, :silent].any() and not short[:, -silent:].any()
  for wrong in (0, -1, 61, 3600, float("nan"), 10**400):
    with pytest.raises(InputError, match="duration"):
      made(model, ["wind"], wrong)
  with pytest.raises(InputError, match=r"at least 0\.6 s"):
    model.extent(0.5, "gen_wavs_by_tsv")


def test_noise_in_place_of_seeds(model):
  want = made(model, ["wind"], seed=3)
  noise = denoiser.drawn([3], (4, 10, 4), denoiser.START)
  np.testing.assert_array_equal(made(model, ["wind"], noise=noise), want)
  with pytest.raises(InputError, match=r"noise has shape \[1, 4, 10, 4\]"):
    made(model, ["wind"], seconds=0.6, noise=noise)
  with pytest.raises(InputError, match="not finite"):
    made(model, ["wind"], noise=noise * np.nan)
  eta = Diffusion(steps=4, eta=1.0)
  drawn = made(model, ["wind"], sampling=eta, seed=3)
  given = np.random.default_rng(0).standard_normal((4, 1, 4, 10, 4))
  other = made(model, ["wind"], sampling=eta, seed=3, step_noise=given)
  assert np.abs(drawn - other).max() > 1e-4
  with pytest.raises(InputError, match="step_noise has shape"):
    made(model, ["wind"], sampling=FEW, step_noise=given[:3])


def test_varying_little_keeps_more_than_varying_much(model, recording):
  """The latent of a sound, that is: random decoders say nothing."""
  heard = []

  def hear(latent):
    heard.append(latent)
    return np.zeros((1, 1, 80), np.float32)

  decode, model.mels.decode = model.mels.decode, hear
  vocoder, model.vocoder = model.vocoder, lambda _: recording
  try:
    for amount in (0.1, 0.5, 1.0):
      model.vary(recording, amount, ["wind"], sampling=Diffusion(steps=10))
  finally:
    model.mels.decode, model.vocoder = decode, vocoder
  own = model._latent(model._mel(recording), Noise(), [0])
  away = [np.abs(latent - own).mean() for latent in heard]
  assert away[0] < away[1] < away[2]
  with pytest.raises(InputError, match="strength 0.01 of 10 steps leaves none"):
    model.vary(recording, 0.01, ["wind"], sampling=Diffusion(steps=10))
  for wrong in (0, 1.5, -1, float("nan")):
    with pytest.raises(InputError, match=r"must lie in \(0, 1\]"):
      model.vary(recording, wrong, ["wind"])


@pytest.mark.parametrize("net", [tiny.UNET, tiny.HOLES], ids=["any", "trained"])
def test_what_stays_of_a_sound_stays(net, tmp_path, model, recording):
  if net is not tiny.UNET:
    path = tmp_path / "holes"
    make_an_audio_parts.write_orbax(path, tiny.parts(net), None)
    model = ag.load(path, mesh=model.placement.mesh)
    text, sampling = None, dataclasses.replace(FEW, guidance=1.0)
  else:
    text, sampling = "a dog barks", FEW
  keep = model.outside(0.2, 0.3, samples=recording.shape[1])
  out = model.inpaint(recording, keep, [text], sampling=sampling)
  assert out.shape == recording.shape
  # The hole takes whole frames; 10 ms beside it are a cross-fade.
  first, last = 12 * 256, 19 * 256
  np.testing.assert_array_equal(
    out[:, : first - 160], recording[:, : first - 160]
  )
  np.testing.assert_array_equal(
    out[:, last + 160 :], recording[:, last + 160 :]
  )
  inside = out[:, first:last] - recording[:, first:last]
  assert np.abs(inside).max() > 1e-3
  again = model.inpaint(recording, keep, [text], sampling=sampling, seed=1)
  assert np.abs(again - out)[:, first:last].max() > 1e-5
  with pytest.raises(InputError, match="is all of the sound"):
    model.outside(0, 0.5625, samples=recording.shape[1])
  with pytest.raises(InputError, match="one value a band"):
    model.inpaint(recording, np.ones((1, 3, 80), bool), [text])


def test_exports_in_both_formats_give_the_same_sounds(model, tmp_path):
  want = made(model, ["a dog barks"])
  model.save(tmp_path / "orbax")
  again = ag.load(tmp_path / "orbax", mesh=model.placement.mesh)
  np.testing.assert_array_equal(made(again, ["a dog barks"]), want)
  export.convert(tmp_path / "orbax", tmp_path / "theirs", to="make-an-audio")
  theirs = ag.load(tmp_path / "theirs", mesh=model.placement.mesh)
  assert theirs.window_s == model.window_s
  np.testing.assert_allclose(made(theirs, ["a dog barks"]), want, atol=1e-6)
  export.convert(tmp_path / "theirs", tmp_path / "back", dtype="bfloat16")
  back = ag.load(tmp_path / "back", mesh=model.placement.mesh)
  close = made(back, ["a dog barks"])
  # What bfloat16 costs random weights says nothing of trained ones.
  assert np.isfinite(close).all() and np.abs(close - want).max() > 0
  with pytest.raises(InputError, match="audiocraft"):
    export.convert(tmp_path / "theirs", tmp_path / "no", to="audiocraft")
  assert not (tmp_path / "no").exists()


def test_what_is_missing_is_named_with_its_place(model, tmp_path):
  whole = tmp_path / "whole"
  export.convert(save(model, tmp_path / "orbax"), whole, to="make-an-audio")
  for gone, said in (
    ("configs/text_to_audio/txt2audio_args.yaml", "lacks the YAML file"),
    ("useful_ckpts/bigvgan/best_netG.pt", "holds no vocoder: put"),
    ("useful_ckpts/bigvgan/args.yml", "has neither config.json nor args.yml"),
    ("bert-base-uncased/tokenizer.json", "holds no tokenizer of bert"),
  ):
    kept = (whole / gone).read_bytes()
    (whole / gone).unlink()
    with pytest.raises(InputError, match=said):
      ag.load(whole)
    (whole / gone).write_bytes(kept)
  file = whole / "useful_ckpts" / "maa1_full.ckpt"
  twice = file.with_name("maa1_caps.ckpt")
  twice.write_bytes(file.read_bytes())
  with pytest.raises(InputError, match="holds 2 checkpoints"):
    ag.load(whole)
  twice.unlink()
  name = "encoder.conv_in.weight"
  one = {f"first_stage_model.{name}": np.zeros((4, 80, 3), np.float32)}
  two = {name: np.zeros((4, 1, 3, 3), np.float32)}
  for other, said in ((two, "no U-Net"), (one, "is a Make-An-Audio 2")):
    torch_file.write(file, {"state_dict": other})
    with pytest.raises(InputError, match=said):
      ag.load(whole)


def save(model, folder):
  model.save(folder)
  return folder


def test_parts_that_do_not_fit_are_refused(tmp_path):
  parts = tiny.parts()
  heard = dataclasses.replace(parts.vocoder.mel, log="ln")
  for change, said in (
    (
      dict(vocoder=dataclasses.replace(parts.vocoder, mel=heard)),
      "other mel spectrograms than the vocoder hears .log log10 and ln",
    ),
    (dict(text=dataclasses.replace(parts.text, width=64)), "states of 64"),
    (dict(text=None), "nothing that makes them"),
    (
      dict(unet=dataclasses.replace(parts.unet, beside=3)),
      "reads 3 channels beside",
    ),
  ):
    with pytest.raises(InputError, match=said):
      make_an_audio_parts.checked(dataclasses.replace(parts, **change), "x")


def test_options_out_of_range_are_refused(model):
  with pytest.raises(InputError, match="steps"):
    Diffusion(steps=0)
  with pytest.raises(InputError, match="steps"):
    Diffusion(steps=5000)
  with pytest.raises(InputError, match="no prompt"):
    made(model, [])


def test_progress_counts_the_runs_of_the_unet(model):
  seen = []
  made(
    model,
    ["wind"],
    sampling=Diffusion(steps=12),
    progress=lambda *counts: seen.append(counts),
  )
  assert seen == [(0, 12), (5, 12), (10, 12), (12, 12)]


def test_a_contestant_of_the_benchmark_says_what_a_step_takes(model):
  own, work = diffusing.Diffusing(model), Work(2, SECONDS)
  run, passes = own.run(work), own.passes(work)
  assert 0 < run.vocoder_s < run.total_s - run.lm_s < run.total_s
  assert own.tokens(work) == 4 * 10 * 4 and own.latency_s(work) is None
  assert passes.count == Diffusion().steps
  params = sum(x.size for x in jax.tree.leaves(model.denoiser.params))
  assert passes.floor_bytes == 4 * params
  # Twice the rows: with guidance each sound is run with its text and without.
  alone = own.passes(dataclasses.replace(work, guidance=1.0))
  assert passes.flops == pytest.approx(2 * alone.flops)
