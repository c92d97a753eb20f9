"""Products in int8: near to those in float32, and nothing else changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.core import sharding
from audiogen_jax.core.errors import InputError

TEXTS = ["a dog barks", "thunder"]


@pytest.fixture(scope="module")
def models(tiny):
  mesh = ag.make_mesh(data=1)
  return {
    dtype: ag.AudioGen.from_pretrained(tiny, dtype=dtype, mesh=mesh)
    for dtype in ("float32", "int8")
  }


def test_what_is_rounded(models):
  """Kernels of the layers and heads, a scale a column; nothing else."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    models["int8"].lm.params
  ):
    name = sharding.path_name(path)
    rounded = "qvalue" in name
    assert (leaf.dtype == jnp.int8) == rounded, name
    large = name.endswith("kernel") and "text_proj" not in name
    assert not large, f"{name} was forgotten"


@pytest.fixture(scope="module")
def codes():
  return np.random.default_rng(0).integers(0, 96, (2, 4, 40)).astype(np.int32)


def rms(values):
  return np.sqrt(np.mean(np.square(values)))


def test_logits_stay_near(models, codes):
  want, valid = models["float32"].logits(codes, TEXTS)
  got, _ = models["int8"].logits(codes, TEXTS)
  want, got = want[:, valid], got[:, valid]
  # Measured: 1.9 % of their spread, and 98 % of the likeliest tokens.
  error = rms(got - want) / want.std()
  assert error > 0
  np.testing.assert_allclose(error, 0, atol=0.04)
  assert np.mean(got.argmax(-1) == want.argmax(-1)) > 0.9


def test_it_makes_sounds(models):
  audio = models["int8"].generate(TEXTS, duration_s=0.5, seed=3)
  assert audio.shape == (2, 8000, 1) and np.isfinite(audio).all()


def test_a_neighbour_changes_no_more_than_a_rounding(models, codes):
  """Some processors add up other batches in another order: see the mesh's."""
  exact, valid = models["float32"].logits(codes[1:], TEXTS[1:])
  alone, _ = models["int8"].logits(codes[1:], TEXTS[1:])
  both, _ = models["int8"].logits(codes, TEXTS)
  exact, alone, both = exact[:, valid], alone[:, valid], both[1:, valid]
  # A neighbour's text that leaked would be an error many times as large.
  error = rms(alone - exact)
  np.testing.assert_allclose(rms(both - alone) / error, 0, atol=1.5)


def test_a_mesh_gives_the_same(tiny, models, codes):
  mesh = ag.make_mesh(data=2, tensor=2)
  spread = ag.AudioGen.from_pretrained(tiny, dtype="int8", mesh=mesh)
  exact, valid = models["float32"].logits(codes, TEXTS)
  want, _ = models["int8"].logits(codes, TEXTS)
  got, _ = spread.logits(codes, TEXTS)
  exact, want, got = exact[:, valid], want[:, valid], got[:, valid]
  # Sums in another order differ by 1e-7, and where that turns a rounding to
  # int8, all that follows may be rounded anew, which differs from processor to
  # processor.  So logits are as far apart as two roundings of the same: at most
  # sqrt(2) of the error of one if no rounding agreed.  Measured: 0.44 to 0.51.
  error = rms(want - exact)
  np.testing.assert_allclose(rms(got - want) / error, 0, atol=1.5)
  np.testing.assert_allclose(rms(got - exact), error, rtol=0.1)  # 1 % measured


def test_not_for_keeps(models, tmp_path):
  with pytest.raises(InputError, match="int8 weights cannot be saved"):
    models["int8"].save(tmp_path / "model")
  with pytest.raises(InputError, match="'int4' is not one of .*, int8"):
    ag.AudioGen.from_pretrained("nano", dtype="int4")
