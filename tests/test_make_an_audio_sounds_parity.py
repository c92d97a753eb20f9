"""Make-An-Audio as its users call it, against the published program.

The packs may have any sizes: whatever they hold, these tests hold for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest
import tiny_make_an_audio
from packs import close, ours

import audiogen_jax as ag
from audiogen_jax import Diffusion
from audiogen_jax.convert import make_an_audio_loading as loading
from audiogen_jax.convert import (
  make_an_audio_parts,
  torch_file,
  vocoders,
)
from audiogen_jax.core.sharding import Placement
from audiogen_jax.make_an_audio import MakeAnAudio

ONE = jax.sharding.Mesh(jax.devices()[:1], ("data",))
STEPS = 10  # of the pack's command line


class Pack:
  """A published folder, what it holds and what was made with it."""

  def __init__(self, name):
    self.folder = packs.folder(name)
    self.want = packs.arrays(self.folder / "expected.npz")

  def of(self, name):
    return ours(self.want[name])


@pytest.fixture(scope="module")
def pack():
  made = Pack("maa_tiny")
  made.model = ag.load(made.folder, mesh=ONE)
  return made


@pytest.fixture
def heard(pack, monkeypatch):
  """The mel spectrograms that the vocoder hears, instead of their sound."""
  mels = []

  def hear(mel):
    mels.append(mel)
    return np.zeros((len(mel), mel.shape[1] * 256, 1), np.float32)

  monkeypatch.setattr(pack.model, "vocoder", hear)
  return mels


def texts(pack, count):
  return [str(text) for text in pack.want["prompts"]][:count]


def seconds(model, columns):
  m = model.mels.config
  return columns * m.ratio * m.mel.hop / model.sample_rate_hz


def test_sound_of_make_an_audio_parity(pack):
  model, noise = pack.model, pack.of("x_T")
  assert isinstance(model, MakeAnAudio)
  options = Diffusion(steps=len(pack.want["ddim_timesteps"]))
  asked = dict(sampling=options, duration_s=seconds(model, noise.shape[1]))
  made = model.generate(texts(pack, len(noise)), noise=noise, **asked)
  close(made[0, :, 0], pack.want["generated_wav"], 1e-4)
  # Without the other, and with it in the other place.
  alone = model.generate(texts(pack, 2)[1:], noise=noise[1:2], **asked)
  close(alone[0], made[1], 1e-5)


def test_command_line_of_make_an_audio_parity(pack):
  want, model = pack.want, pack.model
  made = model.generate(
    texts(pack, 1),
    duration_s=float(want["cli_duration"]),
    sampling=Diffusion(steps=STEPS, length="gen_wav"),
    noise=pack.of("cli_x_T"),
  )
  close(made[0, :, 0], want["cli_wav"], 1e-4)
  for duration, columns in want["cli_widths"]:
    assert model.extent(int(duration), "gen_wav").columns == columns


def test_variation_of_make_an_audio_parity(pack, heard, monkeypatch):
  """The pack's mel hears a hundred samples beyond its last frame."""
  want, model = pack.want, pack.model
  start = pack.of("a2a_noise")
  mel = np.stack([want["mel"].T] * len(start))
  monkeypatch.setattr(model, "_mel", lambda _: mel)
  options = Diffusion(steps=len(want["ddim_timesteps"]), grid="published")
  model.vary(
    np.stack([want["wav"][: mel.shape[1] * 256]] * len(start))[..., None],
    float(want["a2a_strength"]),
    texts(pack, len(start)),
    sampling=options,
    noise=start,
    posterior_noise=pack.of("a2a_posterior_noise"),
  )
  close(heard[0][:1].swapaxes(1, 2), want["a2a_mel"][:, 0], 5e-4)


def test_zero_shot_inpainting_of_make_an_audio_parity(pack, heard, monkeypatch):
  want, model = pack.want, pack.model
  latent, start = pack.of("a2a_latent"), pack.of("x_T")
  monkeypatch.setattr(model, "_latent", lambda *_: latent)
  ratio = model.mels.config.ratio
  keep = np.repeat(ours(want["inpaint_mask"])[..., 0] > 0, ratio, axis=1)
  keep = np.broadcast_to(
    np.repeat(keep, ratio, axis=2), (len(start), *want["mel"].T.shape)
  )
  sound = np.stack([want["wav"][: keep.shape[1] * 256]] * len(start))
  model.inpaint(
    sound[..., None],
    keep,
    texts(pack, len(start)),
    sampling=Diffusion(steps=len(want["ddim_timesteps"])),
    noise=start,
    step_noise=pack.of("inpaint_noise"),
  )
  want_mel = model.mels.decode(jnp.asarray(pack.of("inpaint_out")))
  close(heard[0][~keep], want_mel[~keep], 5e-4)
  close(heard[0][keep], model._mel(sound[..., None])[keep], 0)


def completed(pack, folder):
  """A pack's folder with a vocoder, which it lacks, that hears older mels."""
  for item in pack.folder.iterdir():
    if item.is_dir():
      (folder / item.name).symlink_to(item, target_is_directory=True)
  beside = folder / "vocoder" / "logs" / "bigv16k53w"
  beside.mkdir(parents=True)
  parts = tiny_make_an_audio.parts()
  vocoders.write(beside, parts.vocoder, parts.vocoder_tree)
  return folder


def test_trained_inpainting_of_make_an_audio_parity(heard, tmp_path, pack):
  other = Pack("maa_inpaint_tiny")
  want = other.want
  model = ag.load(completed(other, tmp_path), mesh=ONE)
  model.vocoder = pack.model.vocoder
  frames = want["mask"].shape[1]
  sound, keep = (
    want["wav"][None, : frames * 256, None],
    want["mask"].T[None] == 0,
  )
  model.inpaint(
    sound,
    keep,
    [None],
    sampling=Diffusion(steps=int(want["ddim_steps"]), guidance=1.0),
    noise=other.of("x_T"),
    posterior_noise=other.of("posterior_noise"),
  )
  close(heard[0][0].T, want["inpainted_mel"], 2e-4)
  with pytest.raises(ag.InputError, match="fills holes alone"):
    model.generate(["a dog barks"])
  with pytest.raises(ag.InputError, match="reads no text"):
    model.inpaint(sound, keep, ["a dog barks"])


def test_sound_of_pictures_of_make_an_audio_parity(
  heard, tmp_path, pack, monkeypatch
):
  """Its pack has no CLIP either: a random one, whose embedding of no text …"""
  other = Pack("maa_visual_tiny")
  want = other.want
  seen, none = want["image_embedding"][:, 0], want["null_embedding"][0]
  completed(other, tmp_path)
  (tmp_path / "clip").mkdir()
  state = tiny_make_an_audio.open_clip(seen.shape[-1])
  torch_file.write(tmp_path / "clip" / "open_clip_pytorch_model.bin", state)
  model = ag.load(tmp_path, mesh=ONE)
  model.vocoder = pack.model.vocoder
  # … the pack's stands for.
  assert model.clip.nothing().shape == none.shape
  monkeypatch.setattr(model.clip, "nothing", lambda: none)
  start = other.of("x_T")
  model.generate_from(
    seen,
    duration_s=seconds(model, start.shape[1]),
    sampling=Diffusion(steps=int(want["ddim_steps"])),
    noise=start,
  )
  close(heard[0].swapaxes(1, 2), want["mel"], 1e-4)
  with pytest.raises(ag.InputError, match="reads no text"):
    model.generate(["a dog barks"])
  with pytest.raises(ag.InputError, match="does not look at pictures"):
    pack.model.generate_from(seen)


def test_published_folder_of_make_an_audio_parity(pack):
  """The text tower that counts is the checkpoint's, and people are told."""
  described = MakeAnAudio.describe(pack.folder)
  rows = dict(described.rows())
  assert rows["checkpoint"].startswith("maa1_")
  assert "differ; the checkpoint's count" in rows["CLAP's own file"]
  assert described.sampling == Diffusion()
  parts = make_an_audio_parts.open_parts(pack.folder)
  text = loading.text(parts, Placement.make(ONE))
  states = text([*texts(pack, 3)])
  close(np.asarray(states), pack.want["text_condition"], 3e-5)
