"""Masked decoding against its rules, written out a step at a time in numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from test_masked import PARALLEL
from test_sampler import SIZE, language_model, put, told
from test_spans import spans_by_hand

from audiogen_jax.core.types import Cond
from audiogen_jax.lm import masked, sampler
from audiogen_jax.lm.masked_sampling import MaskedSampling, Masking

BOOKS = 4


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def filtered(p, sampling):
  """What is drawn from, and the probabilities that scores are of."""
  order = np.argsort(-p, axis=-1)
  if sampling.top_p:
    ranked = np.take_along_axis(p, order, -1)
    keep = np.cumsum(ranked, -1) - ranked <= sampling.top_p
  elif sampling.top_k:
    keep = np.broadcast_to(np.arange(SIZE) < sampling.top_k, p.shape)
  else:
    return p, p
  kept = np.zeros_like(p)
  np.put_along_axis(kept, order, np.where(keep, 1.0, 0.0), -1)
  kept = kept * p
  return kept, p if sampling.top_p else kept / kept.sum(-1, keepdims=True)


def decode(lm, cond, masking, frames, sampling, seeds, prompt, keep=None):
  """The published loop, with the model's logits and the project's noise."""
  nothing = Cond(np.zeros_like(cond.states), cond.mask)
  b, _, known = prompt.shape
  span, side = masking.span, sampling.span_arrangement == "nonoverlap"
  if keep is None:
    keep = np.ones((b, known), bool)
    if side:
      frames = frames // span * span
  stays = np.zeros((b, frames), bool)
  stays[:, :known] = keep
  given = np.full((b, BOOKS, frames), SIZE, np.int32)
  given[:, :, :known] = prompt
  x = np.where(stays[:, None], given, SIZE)
  chunks = [slice(at, at + span) for at in range(0, frames, span)]
  keys = sampler.row_keys(lm, seeds, 0)
  for stage, steps in enumerate(sampling.decoding_steps):
    current = np.full((b, frames), SIZE, np.int32)
    log_p = np.zeros((b, frames))
    fresh = ~stays
    if side:
      for chunk in chunks:
        fresh[:, chunk] = fresh[:, chunk].any(1, keepdims=True)
    places = fresh[:, ::span].sum(1) if side else fresh.sum(1)
    for i in range(steps):
      r = np.cos(np.pi / 2 * i / max(steps - 1, 1))
      hidden = np.zeros_like(fresh)
      for row in range(b):
        count = max(int(r * places[row] + 1e-6), 1)
        if i == 0:
          hidden[row] = fresh[row]
        elif side:
          own = [log_p[row, chunk] for chunk in chunks]
          score = np.array([1 - np.exp(each.max()) for each in own])
          if sampling.span_scoring == "prod":
            score = np.array([-each.sum() for each in own])
          score[~fresh[row, ::span]] = -1e4
          for chunk in np.argsort(-score, kind="stable")[:count]:
            hidden[row, chunks[chunk]] = True
        else:
          own = log_p[row].astype(np.float32)
          hidden[row] = spans_by_hand(own, fresh[row], count, span)
      current[hidden] = SIZE
      current = np.where(stays, given[:, stage], current)
      x[:, stage] = current
      g = r * sampling.guidance + (1 - r) * sampling.min_guidance
      with_text, without = (
        masked.logits(lm, x, put(lm, c), masking=masking, stage=stage)[:, stage]
        for c in (cond, nothing)
      )
      logits = (without + g * (with_text - without)).astype(np.float64)
      left = (steps - 1 - i) / steps if sampling.anneal_temperature else 1.0
      p = softmax(logits / max(sampling.temperature * left, 0.01))
      if sampling.greedy:
        drawn = logits.argmax(-1)
      else:
        drawable, p = filtered(p, sampling)
        noise = masked.noise(
          keys, jnp.int32(stage), jnp.int32(i), frames, SIZE
        )[:b]
        with np.errstate(divide="ignore"):
          drawn = (np.log(drawable) + noise).argmax(-1)
      own = np.take_along_axis(p, drawn[..., None], -1)[..., 0]
      log_p, fresh = np.log(own), hidden
      current = np.where(current == SIZE, drawn, current).astype(np.int32)
      x[:, stage] = current
  return x


RULES = {
  "greedy": dict(greedy=True, top_p=0.0),
  "nucleus": dict(),
  "top-k": dict(top_p=0.0, top_k=5),
  "all, not annealed": dict(top_p=0.0, anneal_temperature=False),
  "without guidance": dict(guidance=1.0),
}


WAYS = ("stride1", "max", "prod")


def in_turn(shapes):
  """Every rule in every way, and every shape of spans in every way."""
  return [
    (rule, way, *shapes[(i + j) % len(shapes)])
    for i, rule in enumerate(RULES)
    for j, way in enumerate(WAYS)
  ]


@pytest.mark.parametrize(
  ("rule", "way", "context", "span", "frames", "known"),
  in_turn([(2, 3, 32, 0), (-1, 4, 35, 9), (1, 1, 24, 5), (5, 5, 29, 5)]),
)
def test_the_rules(rule, way, context, span, frames, known):
  usual = dict(decoding_steps=(6, 4, 1, 3), temperature=2.0, guidance=6.0)
  sampling = MaskedSampling(**usual | RULES[rule])
  if way != "stride1":
    lies = dict(span_arrangement="nonoverlap", span_scoring=way)
    sampling = dataclasses.replace(sampling, **lies)
  lm, cond = language_model(PARALLEL), told(5, 2)
  masking = Masking(context=context, span=span)
  prompt = np.random.default_rng(3).integers(0, SIZE, (2, BOOKS, known))
  options = dict(
    masking=masking,
    frames=frames,
    sampling=sampling,
    seeds=(3, 4),
    prompt=prompt.astype(np.int32),
  )
  got = masked.generate(lm, put(lm, cond), **options)
  np.testing.assert_array_equal(got, decode(lm, cond, **options))


@pytest.mark.parametrize(
  ("rule", "way", "context", "span", "frames"),
  in_turn([(2, 3, 32), (-1, 4, 35), (1, 1, 24)]),
)
def test_the_rules_with_holes(rule, way, context, span, frames):
  """Rows keep other frames, and chunks are kept, cut or made in part."""
  usual = dict(decoding_steps=(5, 3, 1, 4), temperature=2.0, guidance=6.0)
  sampling = MaskedSampling(**usual | RULES[rule])
  if way != "stride1":
    lies = dict(span_arrangement="nonoverlap", span_scoring=way)
    sampling = dataclasses.replace(sampling, **lies)
  lm, cond = language_model(PARALLEL), told(5, 2, 3)
  draw = np.random.default_rng(4)
  at = np.arange(frames)
  keep = np.stack(
    [(at < 7) | (at >= 19), draw.random(frames) < 0.4, at < frames - 2]
  )
  options = dict(
    masking=Masking(context=context, span=span),
    frames=frames,
    sampling=sampling,
    seeds=(3, 4, 5),
    prompt=draw.integers(0, SIZE, (3, BOOKS, frames), np.int32),
    keep=keep,
  )
  got = masked.generate(lm, put(lm, cond), **options)
  np.testing.assert_array_equal(got, decode(lm, cond, **options))
  stays = np.broadcast_to(keep[:, None], got.shape)
  np.testing.assert_array_equal(got[stays], options["prompt"][stays])
  # What was there where frames are made says nothing.
  other = np.where(stays, options["prompt"], 0)
  again = masked.generate(lm, put(lm, cond), **options | {"prompt": other})
  np.testing.assert_array_equal(got, again)
