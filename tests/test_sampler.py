"""Sampling: what a row becomes, whoever stands beside it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.core import sharding
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.core.types import Cond, bucket
from audiogen_jax.lm import model, sampler
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.sampling import Sampling
from audiogen_jax.lm.transformer import TransformerConfig

SIZE = 24  # entries of a codebook; the default top-k, 250, is lowered to it
DELAY = Pattern()
WARM = Sampling(temperature=0.8, top_k=9)
GREEDY = Sampling(greedy=True)


def tiny(*, pattern=DELAY, cross=True, prepend=False):
  return LMConfig(
    codebooks=4,
    size=SIZE,
    transformer=TransformerConfig(
      width=32, layers=2, heads=2, ff=64, cross_attention=cross
    ),
    pattern=pattern,
    text_width=8,
    prepend_text=prepend,
  )


@functools.cache
def language_model(config=None, mesh=None):
  """Random weights, on one device unless there is a mesh."""
  config = config or tiny()
  placement = Placement.make(make_mesh(data=1) if mesh is None else mesh)
  draw = np.random.default_rng(1)

  def one(path, leaf):
    values = 0.2 * draw.standard_normal(leaf.shape, np.float32)
    return values + sharding.path_name(path).endswith("scale")

  params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
  params = jax.tree_util.tree_map_with_path(one, params)
  places = sharding.shardings(params, model.AXES, placement)
  params = model.unstack(jax.device_put(params, places))
  dtype = jnp.dtype(jnp.float32)
  return LanguageModel(config, params, dtype=dtype, placement=placement)


def told(*lengths, seed=0):
  """Text of these lengths, padded to the longest."""
  draw = np.random.default_rng(seed)
  mask = np.arange(max(lengths))[None] < np.asarray(lengths)[:, None]
  states = np.zeros((*mask.shape, 32), np.float32)
  for row, length in enumerate(lengths):
    states[row, :length] = draw.standard_normal((length, 32))
  return Cond(states, mask)


def put(lm, cond):
  """Rows and length in their buckets, on the devices; see `lm.condition`."""
  b, length = cond.mask.shape
  more = (0, lm.rows(b) - b), (0, bucket(length, least=16) - length)
  states = np.pad(cond.states, (*more, (0, 0)))
  mask = np.pad(cond.mask, more)
  mask[b:, 0] = True
  place = lm.placement.put
  return Cond(place(states, "batch", None, None), place(mask, "batch", None))


def generate(
  lm, cond, *, frames=20, seeds=None, sampling=WARM, prompt=None, **more
):
  b = len(cond.mask)
  if prompt is None:
    prompt = np.zeros((b, lm.config.codebooks, 0), np.int32)
  *_, (_, codes) = sampler.generate(
    lm,
    put(lm, cond),
    frames=frames,
    seeds=range(b) if seeds is None else seeds,
    sampling=sampling,
    prompt=prompt,
    **more,
  )
  assert codes.shape == (b, lm.config.codebooks, frames)
  assert codes.min() >= 0 and codes.max() < SIZE
  return codes


# Against the model's own logits

PATTERNS = [
  Pattern(),
  Pattern("delay", delays=(0, 1, 1, 3), flatten_first=2, empty_initial=1),
  Pattern("parallel"),
  Pattern("unroll", flattening=(0, 1, 1, 2), delays=(0, 2, 2, 1)),
  Pattern("coarse_first", delays=(0, 1, 2)),
]
MODELS = [tiny(pattern=pattern) for pattern in PATTERNS] + [
  tiny(cross=False, prepend=True),
  tiny(cross=True, prepend=True),
  tiny(cross=False),
]


@pytest.mark.parametrize("config", MODELS)
def test_greedy_takes_what_the_whole_model_likes_best(config):
  lm, cond = language_model(config), told(5, 2, 1)
  nothing = Cond(np.zeros_like(cond.states), cond.mask)
  for guidance in (3.0, 1.0, 0.0):
    sampling = Sampling(greedy=True, guidance=guidance)
    codes = generate(lm, cond, frames=12, sampling=sampling)
    given, valid = lm.logits(codes, put(lm, cond))
    without, _ = lm.logits(codes, put(lm, nothing))
    best = (without + guidance * (given - without)).argmax(-1)
    assert valid.sum() > 30
    np.testing.assert_array_equal(codes[:, valid], best[:, valid])
    # A prompt stays as it is, and goes on as it went on.
    for known in (1, 7, 11):
      prompt = codes[:, :, :known]
      again = generate(lm, cond, frames=12, sampling=sampling, prompt=prompt)
      np.testing.assert_array_equal(again, codes)
    prompt = (codes[:, :, :5] + 1) % SIZE
    other = generate(lm, cond, frames=12, sampling=sampling, prompt=prompt)
    np.testing.assert_array_equal(other[:, :, :5], prompt)
    assert np.any(other[:, :, 5:] != codes[:, :, 5:])


def test_long_prompts_keep_their_codes():
  lm, cond = language_model(), told(5, 2)
  codes = generate(lm, cond, frames=150)
  # 64 and 80 steps are buckets of what prefill reads.
  for known in (63, 64, 65, 81, 149):
    prompt = codes[:, :, :known]
    again = generate(lm, cond, frames=150, prompt=prompt)
    np.testing.assert_array_equal(again, codes)
  flipped = codes[:, :, 100::-1]
  longer = generate(lm, cond, frames=150, prompt=flipped)
  np.testing.assert_array_equal(longer[:, :, :101], flipped)


def test_without_guidance_rows_are_not_doubled(monkeypatch):
  lm, cond = language_model(), told(5, 2)
  rows = []
  compiled = sampler.compiled

  def spied(*args):
    programs = compiled(*args)

    def spy(params, state, *args, **kwargs):
      rows.append(state.caches[0].k.shape[0])
      return programs.decode(params, state, *args, **kwargs)

    return programs._replace(decode=spy)

  monkeypatch.setattr(sampler, "compiled", spied)
  for sampling in (dict(greedy=True), dict(temperature=0.9, top_p=0.8)):
    alone = generate(lm, cond, sampling=Sampling(guidance=1.0, **sampling))
    near = float(np.nextafter(np.float32(1), np.float32(2)))
    both = generate(lm, cond, sampling=Sampling(guidance=near, **sampling))
    np.testing.assert_array_equal(alone, both)
    far = generate(lm, cond, sampling=Sampling(guidance=3.0, **sampling))
    assert np.any(far != both)
  assert rows == [2, 4, 4] * 2


# Neighbours, padding and the mesh

LENGTHS = 20, 3, 1, 7, 16, 2, 11, 5
SEEDS = 7, 0, 7, 1, 2**32 - 1, 40, 3, 12
RULES = [
  GREEDY,
  Sampling(temperature=1.2),
  Sampling(top_k=5, temperature=0.7),
  Sampling(top_p=0.8, guidance=2.0),
]


@pytest.mark.parametrize("prepend", [False, True])
def test_rows_become_what_they_become_alone(prepend):
  lm, cond = language_model(tiny(prepend=prepend)), told(*LENGTHS)
  prompts = np.random.default_rng(3).integers(0, SIZE, (8, 4, 6), np.int32)
  for sampling in RULES[: 2 if prepend else None]:
    for prompt in (prompts[:, :, :0], prompts):
      options = dict(sampling=sampling, frames=16)
      got = generate(lm, cond, seeds=SEEDS, prompt=prompt, **options)
      for i, length in enumerate(LENGTHS):
        own = Cond(*(x[i : i + 1, :length] for x in cond))
        own_prompt = prompt[i : i + 1]
        want = generate(
          lm, own, seeds=SEEDS[i : i + 1], prompt=own_prompt, **options
        )
        np.testing.assert_array_equal(got[i], want[0])
  # Rows differ, even those with one seed.
  assert len({codes.tobytes() for codes in got}) == 8


def explicit(**sizes):
  kinds = (AxisType.Explicit,) * len(sizes)
  return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds)


@pytest.mark.parametrize(
  "mesh",
  [
    make_mesh(data=4, tensor=2),
    make_mesh(data=8),
    make_mesh(tensor=2),
    make_mesh(tensor=2, data=2, spare=2),
    explicit(data=4, tensor=2),
  ],
  ids=str,
)
def test_a_mesh_gives_the_tokens_of_one_device(mesh):
  cond = told(*LENGTHS[1:6])  # five rows: no mesh divides them
  one, many = language_model(), language_model(mesh=mesh)
  for sampling in RULES:
    options = dict(sampling=sampling, frames=16, seeds=SEEDS[:5])
    want = generate(one, cond, **options)
    np.testing.assert_array_equal(generate(many, cond, **options), want)
  got, _ = many.logits(want, put(many, cond))
  want, _ = one.logits(want, put(one, cond))
  np.testing.assert_allclose(got, want, atol=5e-6)  # 1.7e-6 measured


def test_seeds_and_windows():
  lm, cond = language_model(), told(5, 5, 5)
  cond = Cond(cond.states[:1].repeat(3, axis=0), cond.mask)
  one = generate(lm, cond, seeds=(4, 4, 5))
  np.testing.assert_array_equal(one[0], one[1])
  assert np.mean(one[0] != one[2]) > 0.3
  np.testing.assert_array_equal(generate(lm, cond, seeds=(4, 4, 5)), one)
  later = generate(lm, cond, seeds=(4, 4, 5), window=1)
  np.testing.assert_array_equal(later[0], later[1])
  assert np.mean(later[0] != one[0]) > 0.3
  assert np.any(generate(lm, cond, seeds=(2**32 - 1, 0, 1))[0] != one[0])


@pytest.mark.parametrize("known,frames", [(0, 60), (20, 60), (59, 60), (0, 1)])
def test_results_on_the_way(known, frames):
  """Steps add up, and a frame that is finished stays as it is."""
  lm, cond = language_model(), told(5, 2)
  prompt = np.ones((2, 4, known), np.int32)
  want = generate(lm, cond, frames=frames, prompt=prompt)
  found = [
    *sampler.generate(
      lm,
      put(lm, cond),
      frames=frames,
      seeds=range(2),
      sampling=WARM,
      prompt=prompt,
      every=25,
    )
  ]
  steps = [done for done, _ in found]
  assert sum(steps) == lm.steps(frames, known) == frames - known + 3
  assert all(0 < done <= 25 for done in steps)
  place = known + 1
  for done, codes in found:
    place += done
    # Three steps later than the first codebook comes the last one.
    finished = min(frames, place - 4)
    assert codes.shape == (2, 4, finished)
    np.testing.assert_array_equal(codes, want[:, :, :finished])


@pytest.mark.parametrize("known", [0, 15, 16, 40])
@pytest.mark.parametrize("prepend", [False, True])
def test_caches_grow(monkeypatch, known, prepend):
  """Over and over, or large enough at once: the same tokens."""
  config = dataclasses.replace(tiny(), prepend_text=prepend)
  lm, cond = language_model(config), told(5, 2)
  prompt = np.ones((2, 4, known), np.int32)
  want = generate(lm, cond, frames=70, prompt=prompt, sampling=GREEDY)
  capacities = []
  compiled = sampler.compiled

  def spied(*args):
    programs = compiled(*args)

    def spy(params, state, *args, **kwargs):
      capacities.append(state.steps.shape[2])
      return programs.decode(params, state, *args, **kwargs)

    return programs._replace(decode=spy)

  monkeypatch.setattr(sampler, "compiled", spied)
  monkeypatch.setattr(sampler, "LEAST_STEPS", 16)
  got = generate(lm, cond, frames=70, prompt=prompt, sampling=GREEDY)
  np.testing.assert_array_equal(got, want)
  first = {0: 16, 15: 16, 16: 32, 40: 64}[known]
  assert capacities[-1] == 128 and capacities[0] in (first, 2 * first)


# Compilations


@pytest.fixture
def compilations():
  """A list that grows by one with every program that is compiled."""
  met = []

  def listen(name, duration_s, **_):
    if name == "/jax/core/compile/backend_compile_duration":
      met.append(duration_s)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield met
  jax.monitoring.unregister_event_duration_listener(listen)


def test_new_prompts_and_rules_compile_nothing(compilations):
  # A model that no other test has compiled for.
  lm = language_model(tiny(pattern=Pattern("delay", delays=(0, 0, 1, 2))))
  prompts = np.random.default_rng(3).integers(0, SIZE, (4, 4, 30), np.int32)
  first = generate(
    lm,
    told(5, 2, 9),
    frames=40,
    prompt=prompts[:3, :, :10],
    sampling=Sampling(top_k=3),
  )
  assert compilations
  compilations.clear()
  again = generate(
    lm,
    told(1, 12, 3, 16, seed=1),
    frames=120,
    prompt=prompts,
    sampling=Sampling(temperature=0.5, top_p=0.9, guidance=2.0),
    seeds=(9, 8, 7, 6),
    window=2,
  )
  generate(lm, told(4, 4, 4), sampling=GREEDY, prompt=prompts[:3, :, :19])
  generate(
    lm,
    told(4, 4, 4),
    prompt=prompts[:3, :, :2],
    every=25,
  )
  assert not compilations
  assert np.any(first[:, :, 10:20] != again[:3, :, 10:20])
  # The other half of guidance and the next bucket are programs of their own.
  generate(lm, told(4, 4, 4), frames=125, prompt=prompts[:3, :, :2])
  assert not compilations
  generate(lm, told(4, 4, 4), frames=126, prompt=prompts[:3, :, :2])
  assert compilations


def test_from_text_to_sound_nothing_new_is_compiled(pack, compilations):
  jax.clear_caches()  # other tests may have compiled for this pack
  audiogen = AudioGen.from_pretrained(
    pack, dtype="float32", mesh=make_mesh(data=1)
  )
  audio = audiogen.generate(["rain"], duration_s=0.9)
  assert audio.shape == (1, 14400, 1)
  assert compilations
  compilations.clear()
  other = Sampling(temperature=0.8, top_k=20, top_p=0.5, guidance=2.5)
  audio = audiogen.generate(
    ["a dog barks"], duration_s=1.1, sampling=other, seed=3
  )
  assert audio.shape == (1, 17600, 1)
  audiogen.generate([None], duration_s=1.0, sampling=GREEDY)
  assert not compilations

  # And from sound to sound.
  audiogen.generate(["rain"], duration_s=0.9, prompt=audio[:, :6000])
  compilations.clear()
  audiogen.generate(["wind"], duration_s=1.1, prompt=audio[:, :7001])
  assert not compilations
