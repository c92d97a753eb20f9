"""Masked decoding's schedule and spans, against the rules written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import masks, spans
from audiogen_jax.lm.masked_sampling import (
  MaskedSampling,
  Masking,
  Passes,
  hidden_counts,
  mask_ratios,
)

# What the published code hides, pass by pass.
COUNTS = {
  (20, 166): "166 165 163 160 157 152 145 138 130 122 112 101 90 79 66 53 40 27"
  " 13 1",
  (10, 166): "166 163 155 143 127 106 82 56 28 1",
  (20, 500): "500 498 493 484 472 457 439 418 394 367 338 307 273 237 200 162"
  " 122 82 41 1",
  (10, 500): "500 492 469 433 383 321 249 171 86 1",
  (4, 16): "16 13 8 1",
  (1, 7): "7",
  (2, 7): "7 1",
}


@pytest.mark.parametrize(("steps", "places"), COUNTS)
def test_counts(steps, places):
  counts = hidden_counts(mask_ratios(steps), np.asarray([places, 2]))
  assert counts[0].tolist() == [*map(int, COUNTS[steps, places].split())]
  assert counts[1, 0] == 2


def test_each_pass():
  sampling = MaskedSampling(
    temperature=3.0,
    guidance=11.0,
    min_guidance=2.0,
    decoding_steps=(5, 4),
  )
  passes = Passes.make(sampling, 0, np.asarray([50]))
  # The first pass is below the temperature already; the last is not quite 0.
  np.testing.assert_allclose(
    passes.temperature[:5], [2.4, 1.8, 1.2, 0.6, 0.01], rtol=1e-6
  )
  ratio = np.cos(np.pi / 2 * np.arange(5) / 4)
  np.testing.assert_allclose(passes.guidance[:5], 2 + 9 * ratio, rtol=1e-6)
  assert not passes.count[:, 5:].any()
  still = MaskedSampling(anneal_temperature=False, decoding_steps=(5, 4))
  assert set(Passes.make(still, 1, np.asarray([50])).temperature[:4]) == {
    np.float32(3.5)
  }


def random(rows, frames, seed):
  draw = np.random.default_rng(seed)
  return -draw.gamma(2.0, size=(rows, frames)).astype(np.float32)


def spans_by_hand(log_p, fresh, count, span):
  """One row, as the rule is written: hide spans, count, bisect."""
  score = np.where(fresh, -log_p, np.float32(-1e4))
  starts = len(score) - span + 1
  value = score[:starts].copy()
  for i in range(1, span):
    value = value + score[i : i + starts]
  order = np.argsort(-value, kind="stable")

  def hide(used):
    hidden = np.zeros(len(score), bool)
    for start in order[:used]:
      hidden[start : start + span] = True
    return hidden

  target = max(count, span)
  low, high = target // span, target - span + 1
  middle = round((low + high) / 2)
  hidden = hide(middle)
  while low < middle < high:
    hidden = hide(middle)
    if hidden.sum() > target:
      high = middle
    else:
      low = middle
    middle = round((low + high) / 2)
  return hidden


@pytest.mark.parametrize("span", [1, 2, 3, 7])
@pytest.mark.parametrize("frames", [7, 50, 61])
def test_spans_anywhere(span, frames):
  log_p = random(4, frames, frames + span)
  fresh = np.random.default_rng(1).random((4, frames)) < 0.6
  more = ((0, 0), (0, 64 - frames))
  # Padding is as uncertain as can be, and is not looked at.
  padded = np.pad(log_p, more, constant_values=-50)
  for count in (1, 2, 5, frames // 2, frames - 1, frames):
    got = spans.hidden_spans(
      jnp.asarray(padded),
      jnp.asarray(np.pad(fresh, more, constant_values=True)),
      count=jnp.full(4, count),
      frames=jnp.int32(frames),
      span=span,
    )
    assert not np.any(got[:, frames:])
    for row in range(4):
      want = spans_by_hand(log_p[row], fresh[row], count, span)
      np.testing.assert_array_equal(got[row, :frames], want)


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("span", [1, 3, 5])
def test_spans_side_by_side(span, summed):
  chunks = 9
  frames = chunks * span
  log_p = random(4, frames, span)
  fresh = np.random.default_rng(2).random((4, chunks)) < 0.7
  of_chunk = log_p.reshape(4, chunks, span)
  score = 1 - np.exp(of_chunk.max(axis=2))
  if summed:
    score = -of_chunk.sum(axis=2)
  order = np.argsort(-np.where(fresh, score, -1e4), axis=1, kind="stable")
  more = ((0, 0), (0, 64 - frames))
  for count in (1, 4, 9):
    got = spans.hidden_chunks(
      jnp.asarray(np.pad(log_p, more, constant_values=-50)),
      jnp.asarray(np.pad(fresh.repeat(span, axis=1), more)),
      count=jnp.full(4, count),
      frames=jnp.int32(frames),
      span=span,
      summed=jnp.asarray(summed),
    )
    want = np.zeros((4, chunks), bool)
    np.put_along_axis(want, order[:, :count], True, axis=1)
    np.testing.assert_array_equal(got[:, :frames], want.repeat(span, axis=1))
    assert not np.any(got[:, frames:])


def test_ties_go_to_what_comes_first():
  same, fresh = jnp.zeros((1, 12)), jnp.ones((1, 12), bool)
  options = dict(frames=jnp.int32(12), span=3)
  got = spans.hidden_chunks(
    same, fresh, count=jnp.asarray([2]), summed=jnp.asarray(False), **options
  )
  assert np.flatnonzero(got).tolist() == [0, 1, 2, 3, 4, 5]
  got = spans.hidden_spans(same, fresh, count=jnp.asarray([3]), **options)
  assert np.flatnonzero(got).tolist() == [0, 1, 2]


def test_the_mask_of_a_codebook():
  picture = """
    x x x . . .
    x x x x . .
    x x x x . .
    . x x x . .
    . . x x x .
    . . . x . x
  """
  want = np.array([row.split() for row in picture.split("\n") if row.strip()])
  for book in (1, 3):
    got = masks.of_codebook(jnp.int32(book), 6, context=2, shown=jnp.int32(4))
    np.testing.assert_array_equal(got[0], want == "x")
  free = np.arange(6)[None] < 4
  for book, context in ((0, 2), (2, -1)):
    got = masks.of_codebook(book, 6, context=context, shown=4)
    np.testing.assert_array_equal(got[0], free | np.eye(6, dtype=bool))


@pytest.mark.parametrize(
  ("options", "words"),
  [
    (dict(decoding_steps=(20, 0, 10)), "-steps 20,0,10 must be whole numbers"),
    (dict(decoding_steps=[20, 1001]), "20,1001 must be .* from 1 to 1000"),
    (dict(decoding_steps=(2.5, 1)), "2.5,1 must be .* such as 20,10,10,10"),
    (dict(decoding_steps=20), "decoding-steps 20 must be"),
    (dict(decoding_steps=()), r"decoding-steps \(\) must be"),
    (dict(decoding_steps="9,x"), "decoding-steps '9,x' must be"),
    (dict(temperature=-1.0), "temperature -1.0 must lie in"),
    (dict(top_p=1.5), "top-p 1.5 must lie in"),
    (dict(guidance="much"), "guidance 'much' must be a number"),
    (dict(min_guidance=float("nan")), "min-guidance nan must lie"),
    (dict(span_arrangement="stride2"), "'stride2' is not one of nonoverlap, s"),
    (dict(span_scoring="sum"), "span-scoring 'sum' is not one of max, prod"),
  ],
)
def test_bad_options(options, words):
  # Made without the constructor, whose types only tests check.
  made = object.__new__(MaskedSampling)
  for name, value in (vars(MaskedSampling()) | options).items():
    object.__setattr__(made, name, value)
  with pytest.raises(InputError, match=words) as caught:
    made.__post_init__()
  assert "\n" not in str(caught.value)


def test_what_does_not_fit_a_model():
  with pytest.raises(InputError, match="for 4 codebooks, and the model has 3"):
    MaskedSampling().check(3, 64)
  with pytest.raises(InputError, match="top-k 65 is above the codebook size"):
    MaskedSampling(top_k=65).check(4, 64)
  side, any_ = MaskedSampling(span_arrangement="nonoverlap"), MaskedSampling()
  masking = Masking(span=3)
  assert (masking.frames(side, 50, 0), masking.frames(any_, 50, 0)) == (48, 50)
  kept = np.arange(50)[None] < [[17], [0]]
  kept[1, 20:] = True  # to the end: two frames of a seventh chunk are to make
  assert masking.places(side, kept[:, :48]).tolist() == [11, 7]
  assert masking.places(side, kept).tolist() == [12, 7]
  assert masking.places(any_, kept).tolist() == [33, 20]
  with pytest.raises(InputError, match="2 frames are fewer than the 3 of a"):
    masking.frames(any_, 2, 0)
  with pytest.raises(InputError, match="has 48 frames, and 48 are made in all"):
    masking.frames(side, 50, 48)
  assert masking.frames(side, 51, 48) == 51
