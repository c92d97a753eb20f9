"""What goes between host and devices while a sentence becomes codes."""

import jax
import numpy as np
import pytest

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.core.sharding import fetch, make_mesh
from audiogen_jax.lm import language_model, sampler


@pytest.mark.parametrize("sizes", [dict(data=1), dict(data=4, tensor=2)])
def test_text_stays_on_the_devices(pack, monkeypatch, sizes):
  """Nothing moves unasked, and what is fetched are new tokens alone."""
  model = AudioGen.from_pretrained(
    pack, dtype="float32", mesh=make_mesh(**sizes)
  )
  texts = ["rain", None, "a dog barks at the moon"]
  want = model.generate_codes(texts, frames=140)
  fetched = []

  def seen(x):
    fetched.append(x.shape)
    return fetch(x)

  monkeypatch.setattr(sampler, "fetch", seen)
  monkeypatch.setattr(language_model, "fetch", seen)
  monkeypatch.setattr("audiogen_jax.audiogen.fetch", seen)
  with jax.transfer_guard("disallow"):
    got = model.generate_codes(texts, frames=140)
  np.testing.assert_array_equal(got, want)
  # The steps, once before the caches grow and once after.
  rows, books = model.lm.rows(3), model.codec.tokens.codebooks
  assert fetched == [(rows, books, 128), (rows, books, 256)]
