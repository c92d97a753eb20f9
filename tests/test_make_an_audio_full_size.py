"""Make-An-Audio at its real size, with random weights."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import full_size
import numpy as np
import pytest
import soundfile
import tiny_make_an_audio
import yaml

from audiogen_jax.convert import (
  latent_diffusion,
  make_an_audio,
  make_an_audio_yaml,
  torch_file,
  vocoders,
)
from audiogen_jax.convert.make_an_audio_yaml import Settings
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.text.clap import ClapTextConfig
from audiogen_jax.vocoder.generator import VocoderConfig

# `ru_maxrss` would count the parent's memory, from before the program began.
_RUN = textwrap.dedent("""
  import sys
  from audiogen_jax import cli
  sys.argv = ["audiogen", *sys.argv[1:]]
  try:
    cli.main()
  finally:
    status = open("/proc/self/status")
    peak = [line for line in status if line.startswith("VmHWM")]
    print(int(peak[0].split()[1]) / 2**20)
""")


@pytest.fixture
def published(tmp_path):
  """The published folder: 1.36 GB and 0.45 GB."""
  if shutil.disk_usage(tmp_path).free < 6e9:
    pytest.skip("needs 6 GB of free disk")
  top = tmp_path / "in"
  for name in ("useful_ckpts/bigvgan", "configs/text_to_audio"):
    (top / name).mkdir(parents=True)
  unet, latent, sound = UNetConfig(), AutoencoderConfig(), VocoderConfig()
  tables = {
    "model.diffusion_model.": latent_diffusion.unet_table(unet),
    "first_stage_model.": latent_diffusion.autoencoder_table(latent),
    "cond_stage_model.caption_encoder.": make_an_audio.text_table(
      ClapTextConfig()
    ),
  }
  state = dict(latent_diffusion.constants(Schedule()))
  state["scale_factor"] = np.asarray(0.5, np.float32)
  for prefix, table in tables.items():
    made = full_size.random(table, np.float32)
    state |= {prefix + name: tensor for name, tensor in made.items()}
  file = top / "useful_ckpts" / "maa1_full.ckpt"
  torch_file.write(file, {"state_dict": state, "global_step": 0})
  make_an_audio_yaml.write(
    top / "configs/text_to_audio/txt2audio_args.yaml",
    Settings(Schedule(), unet, latent, 78),
  )
  bigvgan = top / "useful_ckpts" / "bigvgan"
  weights = full_size.random(vocoders.table(sound), np.float32)
  torch_file.write(bigvgan / "best_netG.pt", {"generator": weights})
  settings = vocoders.published_settings(sound)
  (bigvgan / "args.yml").write_text(yaml.safe_dump(settings))
  words = top / "bert-base-uncased"
  tiny_make_an_audio.words().save(words)
  (words / "config.json").write_text(json.dumps({"num_attention_heads": 12}))
  yield top
  shutil.rmtree(tmp_path)


@pytest.mark.full
@pytest.mark.skipif(
  not Path("/proc/self/status").exists(), reason="peak memory is read on Linux"
)
def test_a_full_size_checkpoint_converts_and_samples(published):
  """998 tensors are 1,362 MB; 784 of the vocoder 449 MB."""
  size = (published / "useful_ckpts" / "maa1_full.ckpt").stat().st_size
  assert size == pytest.approx(1_362.2e6, rel=1e-3)
  ours, sound = published.parent / "out", published.parent / "sound.wav"
  asked = ["--steps", "2", "--duration", "10", "-o", sound]
  for words in (
    ["convert", published, ours],
    ["generate", "a dog barks", "--model", published, *asked],
    ["generate", "a dog barks", "--model", ours, *asked],
  ):
    done = subprocess.run(
      [sys.executable, "-c", _RUN, *map(str, words)],
      env=os.environ | {"XLA_FLAGS": ""},
      capture_output=True,
      text=True,
      timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    peak = float(done.stdout.split()[-1])
    print(f"{words[0]}: {peak:.2f} GiB")
    assert peak < 6
  assert soundfile.info(sound).frames == 160_000
