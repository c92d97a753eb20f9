"""Training of the quantiser: averages, gradients, revival, k-means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.codec import rvq
from audiogen_jax.codec.rvq import Codebooks, RVQConfig, RVQTraining
from audiogen_jax.core.errors import InputError

CONFIG = RVQConfig(codebooks=3, size=8, width=4)
STILL = RVQTraining(revive_below=0.0)


def books_of(key, config=CONFIG) -> Codebooks:
  """Random entries, each chosen by ten so far."""
  k, v, d = config.codebooks, config.size, config.width
  embed = jax.random.normal(key, (k, v, d))
  usage = jnp.full((k, v), 10.0)
  return Codebooks(embed, embed * usage[..., None], usage, jnp.ones(k))


def latents_of(seed, rows=6, frames=5):
  return jax.random.normal(jax.random.key(seed), (rows, frames, CONFIG.width))


def test_training_quantises_as_inference_does(key):
  books, latents = books_of(key), latents_of(1)
  made = rvq.train(latents, books, key, STILL)
  codes = rvq.encode(latents, books)
  np.testing.assert_array_equal(made.codes, codes)
  np.testing.assert_allclose(made.latents, rvq.decode(codes, books), atol=1e-6)


def test_averages_by_hand(key):
  """One level, against sums and counts written out in numpy."""
  config = RVQConfig(codebooks=1, size=4, width=2)
  books = books_of(key, config)
  latents = jax.random.normal(jax.random.key(1), (3, 5, 2))
  made = rvq.train(latents, books, key, RVQTraining(0.9, revive_below=0.0))
  rows, codes = latents.reshape(-1, 2), made.codes.reshape(-1)
  usage = np.full(4, 9.0) + 0.1 * np.bincount(codes, minlength=4)
  sums = 0.9 * np.array(books.embed_sum[0])
  np.add.at(sums, codes, 0.1 * np.asarray(rows))
  smoothed = (usage + 1e-5) / (usage.sum() + 4e-5) * usage.sum()
  np.testing.assert_allclose(made.codebooks.usage[0], usage, rtol=1e-6)
  np.testing.assert_allclose(made.codebooks.embed_sum[0], sums, rtol=1e-5)
  np.testing.assert_allclose(
    made.codebooks.embed[0], sums / smoothed[:, None], rtol=1e-5
  )


def test_gradients_pass_straight_through_and_commit(key):
  books, latents = books_of(key), latents_of(1)

  def summed(latents):
    return jnp.sum(rvq.train(latents, books, key, STILL).latents * 3)

  np.testing.assert_array_equal(
    jax.grad(summed)(latents), 3 * jnp.ones((6, 5, 4))
  )

  # Every level pulls the latent towards what the levels up to it stand for.
  def commitment(latents):
    return rvq.train(latents, books, key, STILL).commitment

  codes = rvq.encode(latents, books)
  pull = sum(latents - rvq.decode(codes[:, : k + 1], books) for k in range(3))
  np.testing.assert_allclose(
    jax.grad(commitment)(latents),
    pull * 2 / 3 / latents.size,
    rtol=1e-4,
    atol=1e-7,
  )


def test_codebooks_get_no_gradient(key):
  def loss(books):
    made = rvq.train(latents_of(1), books, key, STILL)
    return jnp.sum(made.latents) + made.commitment

  gradient = jax.grad(loss)(books_of(key))
  assert all(not np.any(x) for x in gradient)


def test_dropout_leaves_later_codebooks_alone(key):
  books, latents = books_of(key), latents_of(1)
  seen = set()
  for seed in range(12):
    made = rvq.train(
      latents,
      books,
      jax.random.key(seed),
      RVQTraining(dropout=True, revive_below=0.0),
    )
    changed = [
      bool(np.any(made.codebooks.embed[k] != books.embed[k])) for k in range(3)
    ]
    used = sum(changed)
    assert changed == [k < used for k in range(3)]
    np.testing.assert_allclose(
      made.latents, rvq.decode(made.codes[:, :used], books), atol=1e-6
    )
    seen.add(used)
    # Levels that are left out commit to nothing.
    far, rest = 0.0, latents
    for k in range(used):
      entries = books.embed[k, made.codes[:, k]]
      far, rest = far + jnp.mean(jnp.square(rest - entries)), rest - entries
    assert float(made.commitment) == pytest.approx(float(far) / used, rel=1e-5)
  assert seen == {1, 2, 3}


def stuck(key) -> Codebooks:
  """Codebooks whose entries but one lie too far away to be chosen."""
  books = books_of(key)
  far = books.embed.at[:, 1:].set(1e3)
  return books._replace(embed=far, embed_sum=far * books.usage[..., None])


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_dead_entries_come_back_for_good(key, share):
  books, config = stuck(key), RVQTraining(decay=0.9, revive_below=share)
  step = jax.jit(lambda x, books, key: rvq.train(x, books, key, config))
  for seed in range(60):
    books = step(latents_of(seed, 16), books, jax.random.key(seed)).codebooks
  made = rvq.train(latents_of(99, 64), books, key, STILL)
  chosen = [len(np.unique(made.codes[:, k])) for k in range(3)]
  # Without revival one entry serves all; this is what the published code does.
  assert chosen == [1, 1, 1] if not share else min(chosen) >= 6, chosen


def test_revival_is_kept_by_the_next_batch(key):
  """The published code forgets it: the sums still stand for the old entry."""
  config = RVQTraining(decay=0.99, revive_below=0.1)
  books = stuck(key)._replace(usage=jnp.zeros((3, 8)).at[:, 0].set(80.0))
  once = rvq.train(latents_of(1), books, key, config).codebooks
  assert np.abs(once.embed).max() < 10
  twice = rvq.train(latents_of(2), once, key, STILL).codebooks
  assert np.abs(twice.embed).max() < 10


def test_k_means_finds_clusters(key):
  config = RVQConfig(codebooks=2, size=4, width=2)
  centres = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], np.float32)
  noise = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
  rows = np.repeat(centres, 100, 0) + 0.1 * noise
  # From a start with one row of each cluster; others may settle elsewhere.
  books = None
  for seed in range(20):
    books = rvq.initialise(
      jnp.asarray(rows), jax.random.key(seed), config, iterations=10, batches=2
    )
    if np.allclose(books.usage[0], 50):
      break
  found = books.embed[0][np.lexsort(np.round(books.embed[0]).T)]
  np.testing.assert_allclose(found, centres, atol=0.1)
  np.testing.assert_allclose(books.usage[0], 50)  # 100 rows in two batches
  assert np.all(books.ready == 1)
  # The second level describes the noise that the first leaves.
  assert np.abs(books.embed[1]).max() < 1


def test_k_means_of_fewer_rows_than_entries(key):
  books = rvq.initialise(latents_of(1)[0], key, CONFIG, iterations=5)
  assert np.all(np.isfinite(books.embed))
  made = rvq.train(latents_of(1)[:1], books, key, RVQTraining())
  assert np.all(np.isfinite(made.codebooks.embed))


def test_silence_harms_nothing(key):
  books = books_of(key)
  for _ in range(3):
    books = rvq.train(jnp.zeros((2, 5, 4)), books, key, RVQTraining()).codebooks
  assert all(np.all(np.isfinite(x)) for x in books)


def test_perplexity_is_that_of_the_counts(key):
  books = books_of(key)._replace(usage=jnp.zeros((3, 8)).at[:, :2].set(1e6))
  metrics = rvq.train(latents_of(1), books, key, STILL).metrics
  np.testing.assert_allclose(metrics["codebook_perplexity_0"], 2, rtol=1e-3)
  np.testing.assert_allclose(metrics["codebook_usage_0"], 2 / 8)


@pytest.mark.parametrize(
  ("options", "said"),
  [({"decay": 1.0}, "decay 1.0"), ({"revive_below": 2.0}, "revive_below 2.0")],
)
def test_numbers_that_cannot_be(options, said):
  with pytest.raises(InputError, match=said):
    RVQTraining(**options)
