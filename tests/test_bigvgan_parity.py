"""HiFi-GAN and BigVGAN against the published programs.

The packs may have any sizes: whatever they hold, these tests hold for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest
from packs import realised

from audiogen_jax.audio import mel
from audiogen_jax.convert import torch_file, vocoders
from audiogen_jax.vocoder import generator
from audiogen_jax.vocoder.generator import Generator

# Of each kind one folder, whose files have the published names.
FOLDERS = {
  "bigvgan v1": ("bigvgan_tiny", "v1_snakebeta"),
  "bigvgan v2": ("bigvgan_tiny", "v2_clamped"),
  "bigvgan snake": ("bigvgan_tiny", "snake_resblock2"),
  "hifigan": ("hifigan_tiny",),
  "make-an-audio": ("maa_tiny", "useful_ckpts", "bigvgan"),
}


class Pack:
  """A vocoder with its weights, and what the reference made of it."""

  def __init__(self, folder):
    self.folder = folder
    self.config, tree = vocoders.read(folder)
    self.params = realised(tree)
    file, *above = (f / "expected.npz" for f in (folder, *folder.parents))
    if file.is_file():
      self.want = packs.arrays(file)
      return
    # Of Make-An-Audio's the beginning of its mel is vocoded.
    want = packs.arrays(above[1])
    sound = want["vocoder_wav_of_mel64"]
    bands = want["mel"][None, :, : len(sound) // self.config.mel.hop]
    wav = want["wav"][: len(sound) + 2 * self.config.mel.n_fft]
    self.want = {"wav": wav, "mel": bands, "wav_out": sound}


@pytest.fixture(scope="module", params=FOLDERS)
def pack(request):
  return Pack(packs.folder(*FOLDERS[request.param]))


def close(got, want, atol):
  """Ours `1 t c` against theirs `1 c t`, which may stop earlier."""
  got = np.asarray(got)[:, : want.shape[-1]].swapaxes(1, 2)
  np.testing.assert_allclose(got, want, 0, atol)


def test_mel_recipe_of_a_vocoder_parity(pack):
  got = mel.log_spectrogram(pack.config.mel, jnp.asarray(pack.want["wav"]))
  # 2e-5 measured, near silence; natural logarithms.
  close(got[None], pack.want["mel"], 4e-4)


def test_layers_of_bigvgan_parity(pack):
  names = "conv_pre", "after_up0", "after_resblock0"
  if names[0] not in pack.want:
    pytest.skip("of this one only the sound is stored")

  @jax.jit
  def run(params, bands):
    with jax.default_matmul_precision("highest"):
      network = Generator(pack.config).bind({"params": params})
      up, (block, *_) = network.stages[0]
      x = network.conv_in(bands)
      y = up(x)
      return x, y, block(y)

  frames = pack.want["conv_pre"].shape[-1]
  bands = pack.want["mel"][..., :frames].swapaxes(1, 2)
  for got, name in zip(run(pack.params, bands), names, strict=True):
    close(got, pack.want[name], 1e-5)


def test_anti_aliased_activation_parity(pack):
  if "activation_in" not in pack.want:
    pytest.skip("of this one only the sound is stored")
  c, x = pack.config, pack.want["activation_in"].swapaxes(1, 2)
  act = generator.Bend(c.activation, c.log_scale)
  params = pack.params["up_0_block_0"]["conv_0_act"]
  got = jax.jit(act.apply)({"params": params}, x)
  close(got, pack.want["activation_out"], 5e-6)  # 7e-7 measured


def test_sound_of_a_vocoder_parity(pack):
  run = jax.jit(generator.synthesize, static_argnums=0)
  bands = jnp.asarray(pack.want["mel"].swapaxes(1, 2))
  got = run(pack.config, pack.params, bands)[0, :, 0]
  atol = 1e-5  # 1.3e-6 measured
  np.testing.assert_allclose(got, pack.want["wav_out"], 0, atol)
  if "wav_out_folded" not in pack.want:
    return
  (file,) = pack.folder.glob("*_folded.pt")
  config, tree = vocoders.read(file)
  folded = generator.folded(pack.config, pack.params)
  assert folded[0] == config
  for params in (realised(tree), folded[1]):
    got = run(config, params, bands)[0, :, 0]
    np.testing.assert_allclose(got, pack.want["wav_out_folded"], 0, atol)


def test_published_vocoder_files_parity(pack, tmp_path):
  """What is written is what was read: every tensor, and the configuration."""
  vocoders.write(tmp_path, pack.config, pack.params)
  assert vocoders.read(tmp_path).config == pack.config
  (ours,) = [f for f in tmp_path.iterdir() if f.suffix not in (".json", ".yml")]
  theirs = pack.folder / ours.name
  if not theirs.is_file():
    (theirs,) = pack.folder.glob("g_*")
  theirs, ours = (torch_file.read(f)["generator"] for f in (theirs, ours))
  assert ours.keys() == theirs.keys()
  for name, tensor in theirs.items():
    atol = 1e-6 if name.endswith(".filter") else 0  # whose taps we compute
    np.testing.assert_allclose(ours[name].read(), tensor.read(), 0, atol)
