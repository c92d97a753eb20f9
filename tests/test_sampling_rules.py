"""The rules of sampling: from the logits of one step to its tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import sampler
from audiogen_jax.lm import sampling as lm_sampling
from audiogen_jax.lm.sampling import Sampling, TracedSampling

SIZE = 24  # entries of a codebook; the default top-k, 250, is lowered to it
GREEDY = Sampling(greedy=True)

draw = jax.jit(lm_sampling.draw)


def draws(logits, sampling, *, count=20_000, place=5):
  """Tokens `count k` that as many keys draw from `logits` `k v`."""
  keys = sampler._keys(jnp.arange(count, dtype=jnp.uint32), jnp.int32(0))
  traced = TracedSampling.make(sampling, logits.shape[1])
  logits = jnp.broadcast_to(logits, (count, *logits.shape)).astype(jnp.float32)
  return np.asarray(draw(logits, keys, jnp.int32(place), traced))


def some_logits(k=2, v=8, seed=0):
  return np.random.default_rng(seed).normal(0, 1.5, (k, v))


@pytest.mark.parametrize(
  "sampling",
  [
    GREEDY,
    Sampling(temperature=0.0),
    Sampling(temperature=0.0, top_p=0.9),
    Sampling(temperature=0.0, top_k=0),
    Sampling(top_k=1),
    Sampling(top_k=1, temperature=50.0),
    Sampling(top_p=1e-6),
    Sampling(top_p=1e-6, temperature=0.5),
    Sampling(greedy=True, top_k=999, top_p=0.9, temperature=3.0),
  ],
)
def test_the_narrowest_rules_take_the_maximum(sampling):
  logits = some_logits(k=4, v=SIZE)
  got = draws(logits, sampling, count=50)
  np.testing.assert_array_equal(got, np.tile(logits.argmax(-1), (50, 1)))


def expected(logits, sampling):
  """Chances `k v` by the published rules, in float64."""
  if sampling.temperature == 0:
    return np.eye(logits.shape[1])[logits.argmax(-1)]
  p = scipy.special.softmax(logits / sampling.temperature, axis=-1)
  if sampling.top_p > 0:
    order = np.argsort(-p, axis=-1)
    ranked = np.take_along_axis(p, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    kept = np.zeros(p.shape, bool)
    np.put_along_axis(kept, order, before <= sampling.top_p, axis=-1)
  else:
    k = min(sampling.top_k, p.shape[1]) or p.shape[1]
    kth = np.sort(p, axis=-1)[:, -k, None]
    kept = p >= kth
  p = np.where(kept, p, 0)
  return p / p.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
  "sampling,kept",
  [
    (Sampling(top_k=0), 8),
    (Sampling(top_k=8), 8),
    (Sampling(top_k=5), 5),
    (Sampling(top_k=2, temperature=3.0), 2),
    (Sampling(temperature=0.6), 8),
    (Sampling(temperature=2.5), 8),
    (Sampling(top_p=1.0), 8),
    (Sampling(top_p=0.8), None),
    (Sampling(top_p=0.8, temperature=2.0), None),
    (Sampling(top_p=0.5, top_k=1), None),
  ],
)
def test_draws_follow_the_softmax(sampling, kept):
  logits = some_logits()
  got = draws(logits, sampling)
  chances = expected(logits, sampling)
  for k in range(2):
    counts = np.bincount(got[:, k], minlength=8)
    possible = chances[k] > 0
    assert kept is None or possible.sum() == kept
    np.testing.assert_array_equal(counts > 0, possible)
    chance = scipy.stats.chisquare(
      counts[possible], len(got) * chances[k][possible]
    ).pvalue
    assert chance > 1e-3  # 0.31 measured


def test_books_steps_and_rows_are_independent():
  flat = np.zeros((2, 4))
  draw = functools.partial(draws, flat, Sampling(top_k=0), count=8000)
  one, two = draw(place=5), draw(place=6)
  for x, y in (
    (one[:, 0], one[:, 1]),  # codebooks
    (one[:, 0], two[:, 0]),  # steps
    (one[:-1, 0], one[1:, 0]),  # rows
  ):
    pairs = np.bincount(4 * x + y, minlength=16)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-3
  np.testing.assert_array_equal(one, draw(place=5))


def test_top_k_keeps_ties():
  logits = np.asarray([[0.0, 3.0, 2.0, 2.0, 2.0, 1.0]])
  for k, want in ((1, {1}), (2, {1, 2, 3, 4}), (4, {1, 2, 3, 4})):
    assert set(draws(logits, Sampling(top_k=k), count=500)[:, 0]) == want


def test_top_p_keeps_the_token_that_crosses_it():
  # In order: 0.5, 0.3, 0.15, 0.05.
  logits = np.log([[0.15, 0.5, 0.05, 0.3]])
  for top_p, want in (
    (0.45, {1}),
    (0.55, {1, 3}),
    (0.75, {1, 3}),
    (0.85, {1, 3, 0}),
    (0.96, {1, 3, 0, 2}),
    (1.0, {1, 3, 0, 2}),
  ):
    for top_k in (0, 1, 2):  # top-p takes precedence
      sampling = Sampling(top_p=top_p, top_k=top_k)
      assert set(draws(logits, sampling, count=2000)[:, 0]) == want
  # The nucleus is that of the tempered chances: squared, the first has 0.68.
  cold = Sampling(top_p=0.6, temperature=0.5)
  assert set(draws(logits, cold, count=2000)[:, 0]) == {1}


@pytest.mark.parametrize(
  "values,words",
  [
    (dict(temperature=-0.1), "temperature -0.1 must lie"),
    (dict(temperature=float("nan")), "temperature nan must lie"),
    (dict(temperature=float("inf")), "temperature inf must lie"),
    (dict(top_k=-1), "top-k -1 must be 0 or more"),
    (dict(top_p=-0.1), r"top-p -0.1 must lie in \[0, 1\]"),
    (dict(top_p=1.1), r"top-p 1.1 must lie in \[0, 1\]"),
    (dict(top_p=float("nan")), "top-p nan must lie"),
    (dict(guidance=float("inf")), "guidance inf must lie"),
    (dict(guidance=float("nan")), "guidance nan must lie"),
  ],
)
def test_sampling_refuses(values, words):
  with pytest.raises(InputError, match=words):
    Sampling(**values)


def test_top_k_and_the_codebook():
  words = r"top-k 25 is above the codebook size 24; take 24 or less, or 0 for"
  with pytest.raises(InputError, match=words):
    TracedSampling.make(Sampling(top_k=25), SIZE)
  with pytest.raises(InputError, match="top-k 250 is above"):
    TracedSampling.make(Sampling(top_k=250), SIZE)  # asked for, and no default
  assert TracedSampling.make(Sampling(), SIZE).top_k == SIZE
  for given, want in ((24, 24), (7, 7), (0, 24)):
    assert TracedSampling.make(Sampling(top_k=given), SIZE).top_k == want
  assert TracedSampling.make(Sampling(), 2048).top_k == 250
  assert (
    TracedSampling.make(Sampling(greedy=True, top_k=25), SIZE).temperature == 0
  )
