"""Make-An-Audio's rooms: published sizes, and files that are wrong."""

import jax
import numpy as np
import packs
import pytest

from audiogen_jax.convert import make_an_audio, torch_file
from audiogen_jax.core.errors import InputError
from audiogen_jax.diffusion import unet
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent import autoencoder
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text import clap
from audiogen_jax.text.clap import ClapTextConfig

SIZES = {
  "U-Net": (unet, UNetConfig(), 160_223_684),
  # Of the inpainting model, which has no text and other attention.
  "U-Net, inpainting": (
    unet,
    UNetConfig(beside=5, context_width=0, resample="residual"),
    107_344_324,
  ),
  "autoencoder": (autoencoder, AutoencoderConfig(), 68_984_037),
  "CLAP": (clap, ClapTextConfig(), 111_319_296),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
  room, config, want = SIZES[name]
  shapes = jax.eval_shape(lambda key: room.init(config, key), jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(shapes)) == want


@pytest.mark.parametrize(
  ("make", "said"),
  [
    (lambda: UNetConfig(heads=0), "give heads or head_size, not both; got 0"),
    (
      lambda: UNetConfig(filters=48),
      "48 channels do not divide into 32 groups",
    ),
    (lambda: UNetConfig(beside=-2), "reads 2 channels, fewer than the 4"),
    (lambda: UNetConfig(known_by_time=True), "context of 1024 cannot be added"),
    (lambda: AutoencoderConfig(filters=40), "40 filters times .* 32 groups"),
    (lambda: AutoencoderConfig(scale=0.0), "scale 0.0 must be more than 0"),
    (lambda: ClapTextConfig(length=600), "600 tokens do not fit into the 512"),
  ],
)
def test_shapes_that_cannot_be(make, said):
  with pytest.raises(InputError, match=said):
    make()


def test_checkpoints_that_are_wrong(tmp_path):
  folder = packs.folder("maa_tiny")
  yaml = folder / "configs/text_to_audio/txt2audio_args.yaml"
  (path,) = (folder / "useful_ckpts").glob("maa1_*.ckpt")
  state = torch_file.read(path)["state_dict"]
  file = tmp_path / "maa.ckpt"

  def read(change):
    torch_file.write(file, {"state_dict": {**state, **change}})
    words = folder / "bert-base-uncased"
    return make_an_audio.read(file, yaml, words)

  dead = {"model_ema.decay": np.float32([1])}
  made = read(dead).text.width
  name = "cond_stage_model.caption_encoder.projection.linear1.weight"
  assert made == state[name].shape[0]
  for change, said in (
    ({"model.other": np.zeros(2)}, "maa.ckpt holds unknown model.other"),
    ({"alphas_cumprod": np.ones(1000)}, "is not that of β from 0.00085 to"),
    ({"scale_factor": np.array(-1.0)}, "scale_factor .* is no scale"),
    (
      {"first_stage_model.quant_conv.bias": np.zeros(3)},
      r"quant_conv.bias has shape \[3\]; its configuration asks for",
    ),
  ):
    with pytest.raises(InputError, match=said):
      read(change)
  torch_file.write(file, {"generator": {}})
  with pytest.raises(InputError, match="lacks 'state_dict'; a checkpoint of"):
    make_an_audio.read(file, yaml)
