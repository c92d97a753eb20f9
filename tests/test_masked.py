"""Masked decoding: what a row becomes, whoever stands beside it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sampler import (
  LENGTHS,
  SEEDS,
  SIZE,
  compilations,  # noqa: F401
  explicit,
  language_model,
  put,
  tiny,
  told,
)

from audiogen_jax.core.sharding import make_mesh
from audiogen_jax.core.types import Cond
from audiogen_jax.lm import masked
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.masked_sampling import MaskedSampling, Masking
from audiogen_jax.lm.model import stack, unstack
from audiogen_jax.lm.patterns import Pattern

PARALLEL = tiny(pattern=Pattern("parallel"))
MASKING = Masking(context=2, span=3)
USUAL = MaskedSampling(decoding_steps=(6, 4, 3, 2))
GREEDY = dataclasses.replace(USUAL, greedy=True)
RULES = [
  USUAL,
  GREEDY,
  dataclasses.replace(USUAL, span_arrangement="nonoverlap", guidance=3.0),
  dataclasses.replace(
    USUAL,
    span_arrangement="nonoverlap",
    span_scoring="prod",
    top_p=0.0,
    top_k=5,
    guidance=1.0,
  ),
]


def generate(
  lm, cond, *, frames=21, seeds=None, sampling=USUAL, prompt=None, **more
):
  b = len(cond.mask)
  if prompt is None:
    prompt = np.zeros((b, 4, 0), np.int32)
  codes = masked.generate(
    lm,
    put(lm, cond),
    masking=MASKING,
    frames=frames,
    seeds=range(b) if seeds is None else seeds,
    sampling=sampling,
    prompt=prompt,
    **more,
  )
  assert codes.shape == (b, 4, MASKING.frames(sampling, frames, 0))
  assert codes.min() >= 0 and codes.max() < SIZE
  return codes


# By hand: one pass has no order, and each codebook is the best guess of it


def test_one_pass_takes_what_the_model_likes_best():
  lm, cond = language_model(PARALLEL), told(5, 2, 1)
  nothing = Cond(np.zeros_like(cond.states), cond.mask)
  for guidance in (3.0, 1.0):
    sampling = MaskedSampling(
      greedy=True,
      guidance=guidance,
      min_guidance=1.0,
      decoding_steps=(1, 1, 1, 1),
    )
    want = np.full((3, 4, 21), SIZE, np.int32)
    for stage in range(4):
      options = dict(masking=MASKING, stage=stage)
      given = masked.logits(lm, want, put(lm, cond), **options)
      without = masked.logits(lm, want, put(lm, nothing), **options)
      best = without + guidance * (given - without)
      want[:, stage] = best[:, stage].argmax(-1)
    got = generate(lm, cond, sampling=sampling)
    np.testing.assert_array_equal(got, want)


def test_finer_codebooks_see_a_band():
  """A frame beyond the reach of all layers changes nothing of a logit."""
  lm, cond = language_model(PARALLEL), told(5)
  codes = np.full((1, 4, 40), 3, np.int32)
  other = codes.copy()
  other[:, :, 20] = 7
  reach = MASKING.context * lm.config.transformer.layers
  for stage in range(4):
    options = dict(masking=MASKING, stage=stage)
    a, b = (
      masked.logits(lm, x, put(lm, cond), **options) for x in (codes, other)
    )
    moved = np.any(a != b, axis=(0, 1, 3))
    if stage:
      assert np.flatnonzero(moved).tolist() == [
        *range(20 - reach, 20 + reach + 1)
      ]
    else:
      assert moved.all()


@pytest.mark.parametrize("sampling", RULES)
def test_prompts_keep_their_codes(sampling):
  lm, cond = language_model(PARALLEL), told(5, 2)
  prompt = np.random.default_rng(3).integers(0, SIZE, (2, 4, 20), np.int32)
  for known in (1, 3, 7, 20):
    got = generate(lm, cond, sampling=sampling, prompt=prompt[:, :, :known])
    np.testing.assert_array_equal(got[:, :, :known], prompt[:, :, :known])
  free = generate(lm, cond, sampling=sampling)
  assert np.any(free[:, :, 7:] != got[:, :, 7:])


def test_without_guidance_rows_are_not_doubled():
  lm, cond = language_model(PARALLEL), told(5, 2)
  near = float(np.nextafter(np.float32(1), np.float32(2)))
  for more in (dict(greedy=True), dict(top_p=0.7)):
    base = dataclasses.replace(USUAL, guidance=1.0, **more)
    both = dataclasses.replace(base, guidance=near)
    assert (base.guided, both.guided) == (False, True)
    alone, pairs = (generate(lm, cond, sampling=s) for s in (base, both))
    np.testing.assert_array_equal(alone, pairs)
    far = generate(lm, cond, sampling=dataclasses.replace(USUAL, **more))
    assert np.any(far != alone)


def test_int8():
  lm, cond = language_model(PARALLEL), told(5, 2)
  dtype = jnp.dtype(jnp.int8)
  params = jax.tree.map(jnp.copy, unstack(stack(lm.params)))
  small = LanguageModel.of(
    lm.config, params, dtype=dtype, placement=lm.placement
  )
  options = dict(masking=MASKING, stage=1)
  codes = np.full((2, 4, 20), 3, np.int32)
  want, got = (
    masked.logits(m, codes, put(m, cond), **options) for m in (lm, small)
  )
  # 1 % of the spread measured.
  assert np.abs(got - want).max() < 0.05 * (want.max() - want.min())
  generate(small, cond)


# Neighbours, padding and the mesh


@pytest.mark.parametrize("sampling", RULES)
def test_rows_become_what_they_become_alone(sampling):
  lm, cond = language_model(PARALLEL), told(*LENGTHS)
  prompts = np.random.default_rng(3).integers(0, SIZE, (8, 4, 6), np.int32)
  for prompt in (prompts[:, :, :0], prompts):
    options = dict(sampling=sampling)
    got = generate(lm, cond, seeds=SEEDS, prompt=prompt, **options)
    for i, length in enumerate(LENGTHS):
      own = Cond(*(x[i : i + 1, :length] for x in cond))
      seeds, own_prompt = SEEDS[i : i + 1], prompt[i : i + 1]
      want = generate(lm, own, seeds=seeds, prompt=own_prompt, **options)
      np.testing.assert_array_equal(got[i], want[0])
  assert len({codes.tobytes() for codes in got}) == 8


@pytest.mark.parametrize("sampling", RULES)
def test_padding_changes_nothing(monkeypatch, sampling):
  lm, cond = language_model(PARALLEL), told(5, 2)
  want = generate(lm, cond, sampling=sampling)
  for least in (8, 32, 128):
    monkeypatch.setattr(masked, "LEAST_PROMPT", least)
    got = generate(lm, cond, sampling=sampling)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
  "mesh",
  [
    make_mesh(data=4, tensor=2),
    make_mesh(data=8),
    make_mesh(tensor=2),
    explicit(data=4, tensor=2),
  ],
  ids=str,
)
def test_a_mesh_gives_the_tokens_of_one_device(mesh):
  cond = told(*LENGTHS[1:6])  # five rows: no mesh divides them
  one, many = (
    language_model(PARALLEL),
    language_model(PARALLEL, mesh=mesh),
  )
  for sampling in RULES:
    options = dict(sampling=sampling, seeds=SEEDS[:5])
    want = generate(one, cond, **options)
    np.testing.assert_array_equal(generate(many, cond, **options), want)


def test_seeds():
  lm, cond = language_model(PARALLEL), told(5, 5, 5)
  cond = Cond(cond.states[:1].repeat(3, axis=0), cond.mask)
  one = generate(lm, cond, seeds=(4, 4, 5))
  np.testing.assert_array_equal(one[0], one[1])
  assert np.mean(one[0] != one[2]) > 0.1
  np.testing.assert_array_equal(generate(lm, cond, seeds=(4, 4, 5)), one)


def test_progress_changes_nothing():
  lm, cond = language_model(PARALLEL), told(5, 2)
  seen = []
  got = generate(lm, cond, progress=lambda *told: seen.append(told))
  assert seen == [(done, 15) for done in range(16)]
  np.testing.assert_array_equal(got, generate(lm, cond))


# Compilations


def test_new_prompts_steps_and_rules_compile_nothing(
  compilations,  # noqa: F811
):
  jax.clear_caches()
  lm = language_model(PARALLEL)
  prompts = np.random.default_rng(3).integers(0, SIZE, (4, 4, 30), np.int32)
  first = generate(lm, told(5, 2, 9), frames=40, prompt=prompts[:3, :, :10])
  # All stages are one program.
  program = masked.compiled(lm.config, lm.placement)
  assert program._cache_size() == 1
  compilations.clear()
  for sampling in RULES[:3]:
    steps = dataclasses.replace(sampling, decoding_steps=(9, 1, 7, 60))
    again = generate(
      lm,
      told(1, 12, 3, 16, seed=1),
      frames=50,
      prompt=prompts[:, :, :20],
      sampling=steps,
      seeds=(9, 8, 7, 6),
      progress=lambda *_: None,
    )
    generate(lm, told(4, 4, 4), sampling=sampling, frames=64)
  assert not compilations
  assert np.any(first[:, :, 20:] != again[:3, :, 20:40])
  # The other half of guidance and the next bucket are programs of their own.
  generate(lm, told(4, 4, 4), sampling=RULES[3])
  assert program._cache_size() == 2
  generate(lm, told(4, 4, 4), frames=65)
  assert program._cache_size() == 3


def test_noise_is_of_a_row_a_codebook_a_pass_and_a_frame():
  keys = jax.vmap(jax.random.key)(jnp.arange(3))
  found = {
    (book, index): masked.noise(keys, jnp.int32(book), jnp.int32(index), 20, 50)
    for book in range(2)
    for index in range(2)
  }
  values = np.stack([*found.values()])
  assert len(np.unique(values)) > 0.999 * values.size
  # Gumbel's mean and deviation, to four standard errors of 12,000 draws.
  np.testing.assert_allclose(values.mean(), np.euler_gamma, atol=0.047)
  np.testing.assert_allclose(values.std(), np.pi / 6**0.5, atol=0.06)
  # However many rows and frames there are.
  alone = masked.noise(keys[1:2], jnp.int32(1), jnp.int32(0), 64, 50)
  np.testing.assert_array_equal(alone[0, :20], found[1, 0][1])
