"""Negative prompts: what guidance leads away from."""

import json

import jax
import numpy as np
import pytest
from test_magnet import OWN, model, parts, published_folder  # noqa: F401
from test_masked import MASKING
from test_masked import PARALLEL as MASKED
from test_sampler import (
  MODELS,
  SIZE,
  compilations,  # noqa: F401
  generate,
  language_model,
  put,
  told,
)

import audiogen_jax as ag
from audiogen_jax.core.sharding import make_mesh
from audiogen_jax.lm import masked
from audiogen_jax.lm.masked_sampling import MaskedSampling
from audiogen_jax.lm.sampling import Sampling

TEXTS = ["a dog barks", None, "thunder, then rain on a roof"]
LONG = "music and speech and wind and a car and a train and a plane and more"


@pytest.fixture(scope="module")
def audiogen_model(tiny):
  mesh = ag.make_mesh(data=1)
  return ag.AudioGen.from_pretrained(tiny, dtype="float32", mesh=mesh)


@pytest.fixture(params=["audiogen", "magnet"])
def either(request):
  name = {"audiogen": "audiogen_model", "magnet": "model"}[request.param]
  return request.getfixturevalue(name)


# By hand: the other half of guidance is the logits of the other text


@pytest.mark.parametrize("lengths", [(1, 4, 2), (3, 20, 1)])
@pytest.mark.parametrize("config", MODELS[:-1])  # the last reads no text
def test_guidance_leads_away_from_it(config, lengths):
  lm, cond = language_model(config), told(5, 2, 1)
  other = told(*lengths, seed=7)
  sampling = Sampling(greedy=True, guidance=3.0)
  codes = generate(
    lm, cond, frames=12, sampling=sampling, negative=put(lm, other)
  )
  given, valid = lm.logits(codes, put(lm, cond))
  away, _ = lm.logits(codes, put(lm, other))
  best = (away + 3.0 * (given - away)).argmax(-1)
  np.testing.assert_array_equal(codes[:, valid], best[:, valid])
  plain = generate(lm, cond, frames=12, sampling=sampling)
  assert np.any(plain != codes)


@pytest.mark.parametrize("lengths", [(1, 4, 2), (3, 20, 1)])
def test_masked_guidance_leads_away_from_it(lengths):
  lm, cond, other = (
    language_model(MASKED),
    told(5, 2, 1),
    told(*lengths, seed=7),
  )
  sampling = MaskedSampling(
    greedy=True, guidance=3.0, decoding_steps=(1, 1, 1, 1)
  )
  want = np.full((3, 4, 21), SIZE, np.int32)
  for stage in range(4):
    given, away = (
      masked.logits(lm, want, put(lm, x), masking=MASKING, stage=stage)
      for x in (cond, other)
    )
    want[:, stage] = (away + 3.0 * (given - away))[:, stage].argmax(-1)
  got = masked.generate(
    lm,
    put(lm, cond),
    masking=MASKING,
    frames=21,
    seeds=(0, 1, 2),
    sampling=sampling,
    prompt=np.zeros((3, 4, 0), np.int32),
    negative=put(lm, other),
  )
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("config", [MODELS[0], MODELS[5]])
def test_a_mesh_gives_the_tokens_of_one_device(config):
  cond, other = told(20, 3, 1, 7, 16), told(2, 5, 30, 1, 1, seed=7)
  want = None
  for mesh in (None, make_mesh(data=4, tensor=2), make_mesh(data=8)):
    lm = language_model(config, mesh=mesh)
    got = generate(lm, cond, negative=put(lm, other))
    want = got if want is None else want
    np.testing.assert_array_equal(got, want)


# The families


def test_one_for_all_or_one_for_each(either):
  options = dict(frames=30, seed=[5, 6, 7])
  plain = either.generate_codes(TEXTS, **options)
  one = either.generate_codes(TEXTS, negative=LONG, **options)
  each = either.generate_codes(TEXTS, negative=[LONG] * 3, **options)
  np.testing.assert_array_equal(one, each)
  assert all(np.any(a != b) for a, b in zip(plain, one, strict=True))
  # Rows do not meet, and one without a negative prompt is as it was.
  mixed = either.generate_codes(TEXTS, negative=["rain", "", LONG], **options)
  np.testing.assert_array_equal(mixed[1], plain[1])
  np.testing.assert_array_equal(mixed[2], one[2])
  for row, text in ((0, "rain"), (2, LONG)):
    alone = either.generate_codes(
      TEXTS[row : row + 1], frames=30, seed=5 + row, negative=text
    )
    np.testing.assert_array_equal(alone[0], mixed[row])


def test_it_is_heard_everywhere(audiogen_model, model):  # noqa: F811
  options = dict(duration_s=0.4, seed=3, negative="music")
  audio = audiogen_model.generate(["rain"], **options)
  *_, streamed = audiogen_model.stream("rain", **options)
  end = streamed.shape[1]
  np.testing.assert_allclose(audio[:, -end:], streamed, atol=1e-4)
  plain = audiogen_model.generate(["rain"], duration_s=0.4, seed=3)
  assert np.any(plain != audio)
  sound = np.random.default_rng(0).normal(0, 0.1, (1, 16_000, 1))
  sound = sound.astype(np.float32)
  for options in (dict(keep=np.arange(50) < 20), dict(amount=0.5)):
    call = model.inpaint if "keep" in options else model.vary
    options |= dict(sound=sound, texts=["rain"], return_codes=True)
    _, plain = call(**options)
    _, other = call(**options, negative="music")
    assert np.any(plain != other)


def test_without_one_nothing_is_compiled(
  either,
  compilations,  # noqa: F811
):
  jax.clear_caches()
  options = dict(frames=30, seed=1)
  want = either.generate_codes(TEXTS, **options)
  compilations.clear()
  for negative in (None, "", [None, "", None]):
    got = either.generate_codes(TEXTS, negative=negative, **options)
    np.testing.assert_array_equal(got, want)
  assert not compilations
  either.generate_codes(TEXTS, negative="music", **options)
  compilations.clear()
  either.generate_codes(TEXTS, negative=["wind", None, "rain"], **options)
  assert not compilations


# What is refused


def unguided(family):
  if family.options is MaskedSampling:
    return MaskedSampling(
      guidance=1.0, min_guidance=1.0, decoding_steps=OWN.decoding_steps
    )
  return Sampling(guidance=1.0, top_k=0)


def test_bad_negative_prompts(either):
  options = dict(sampling=unguided(either))
  for negative in ("music", [None, "music", None]):
    with pytest.raises(ag.InputError, match="guidance 1 reads no negative"):
      either.generate_codes(TEXTS, frames=20, negative=negative, **options)
  either.generate_codes(TEXTS, frames=20, negative="", **options)
  with pytest.raises(ag.InputError, match="2 negative prompts for 3 prompts"):
    either.generate_codes(TEXTS, frames=20, negative=["a", "b"])


def test_the_command_line(audiogen, refused, tiny, tmp_path):
  (tmp_path / "p.txt").write_text("rain\n")
  words = ("generate", "--prompts", tmp_path / "p.txt", "--model", tiny)
  words += ("-o", tmp_path / "out", "--duration", 0.4)
  assert audiogen(*words)[0] == 0
  assert audiogen(*words, "--negative", "music, speech")[0] == 0
  assert "already" in audiogen(*words, "--negative", "music, speech")[1]
  lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
  first, second = map(json.loads, lines)
  assert "negative" not in first and second["negative"] == "music, speech"
  error = refused(*words, "--negative", "music", "--guidance", 1)
  assert "guidance 1 reads no negative prompt" in error
