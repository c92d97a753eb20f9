"""Vocoders: what a sample sees, pieces of long sounds, files that are wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.convert import vocoders
from audiogen_jax.core.errors import InputError
from audiogen_jax.vocoder import generator, pieces
from audiogen_jax.vocoder.generator import VocoderConfig

SMALL = VocoderConfig(
  mel=MelConfig(
    16_000,
    n_fft=1024,
    hop=4,
    n_mels=3,
    scale="slaney",
    area_norm=True,
    magnitude=True,
    padding="hops",
    window_length=16,
    log="ln",
    clamp=True,
    under_root=1e-9,
  ),
  filters=8,
  ratios=(2, 2),
  ratio_kernels=(4, 6),
  kernels=(3, 5),
  dilations=((1,), (2,)),
)


@pytest.fixture(scope="module")
def params():
  shapes = jax.eval_shape(
    lambda key: generator.init(SMALL, key), jax.random.key(0)
  )
  draw = np.random.default_rng(0).normal
  return jax.tree.map(lambda x: jnp.float32(0.3 * draw(size=x.shape)), shapes)


def test_a_sample_sees_what_the_vocoder_declares(params):
  field, frames = pieces.field(SMALL), 40
  bands = jnp.asarray(noise(1, frames, 3))

  @jax.jit
  def slopes(bands):
    sound = lambda bands: generator.synthesize(SMALL, params, bands)[0, :, 0]  # noqa: E731
    return jnp.abs(jax.jacrev(sound)(bands)).sum((1, 3))

  touched = np.asarray(slopes(bands)) > 0
  assert touched.shape == (frames * field.up, frames)
  for sample in range(18 * field.up, 22 * field.up):
    seen = np.flatnonzero(touched[sample])
    assert (seen[0], seen[-1]) == field.inputs(sample, sample)


def test_pieces_are_the_whole(params):
  config, plain = generator.folded(SMALL, params)
  left, right = pieces.field(config).context()
  frames = left + right + 23
  bands = noise(2, frames, 3)
  run = jax.jit(generator.synthesize, static_argnums=0)
  whole = run(config, plain, jnp.asarray(bands))
  for piece in (7, frames):
    got = pieces.synthesize(config, plain, bands, piece=piece)
    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-7)  # 1.5e-8


def test_the_published_size():
  shapes = jax.eval_shape(
    lambda key: generator.init(VocoderConfig(), key), jax.random.key(0)
  )
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 112_231_250


def test_files_of_vocoders_that_are_wrong(params, tmp_path):
  with pytest.raises(InputError, match="holds no vocoder: it should hold best"):
    vocoders.read(tmp_path)
  vocoders.write(tmp_path, SMALL, params)
  path = tmp_path / "config.json"
  said = json.loads(path.read_text())
  for name, value, message in (
    ("resblock_kernel_sizes", [3, 6], "must be odd"),
    ("resblock_dilation_sizes", [[1], 2], "sizes.1 = 2 must be a list"),
    ("upsample_kernel_sizes", [4, 5], "5 cannot make 2 samples"),
    ("hop_size", 8, "ratios .* make 4 samples of a frame; .* hop of 8"),
    ("activation", "relu", "'relu' is not supported"),
    ("activation", "snake", "holds unknown .*beta"),
    ("num_mels", 4, r"conv_pre.weight_v has shape \[8, 3, 7\]"),
  ):
    path.write_text(json.dumps(said | {name: value}))
    with pytest.raises(InputError, match=message):
      vocoders.read(tmp_path)
  path.unlink()
  with pytest.raises(InputError, match="has neither config.json nor args.yml"):
    vocoders.read(tmp_path)
  (tmp_path / "args.yml").write_text("resblock: !!python/object:os.x {}")
  with pytest.raises(InputError, match="is no plain YAML: could not determine"):
    vocoders.read(tmp_path)
