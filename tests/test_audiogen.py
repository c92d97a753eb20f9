"""The whole model: parity with the reference, windows, seeds, Orbax."""

import json
import shutil

import jax
import numpy as np
import pytest

import audiogen_jax as ag
from audiogen_jax.convert import opening
from audiogen_jax.core import checkpoint
from audiogen_jax.lm import sampler, windows

PROMPTS = ["a dog barks", "thunder", "footsteps on gravel, then a door"]
GREEDY = ag.Sampling(greedy=True, guidance=3.0)


@pytest.fixture(scope="module")
def one():
  return ag.make_mesh(data=1)


@pytest.fixture(scope="module")
def model(tiny, one):
  return ag.AudioGen.from_pretrained(tiny, dtype="float32", mesh=one)


@pytest.fixture(scope="module")
def masked(pack, one):
  return ag.AudioGen.from_pretrained(
    pack, text_encoder=pack / "t5", dtype="float32", mesh=one
  )


@pytest.fixture(scope="module")
def released(pack, one):
  return ag.AudioGen.from_pretrained(
    pack,
    text_encoder=pack / "t5",
    dtype="float32",
    mesh=one,
    mask_text_padding=False,
  )


@pytest.fixture(scope="module")
def want(pack):
  return np.load(pack / "expected.npz")


@pytest.fixture(scope="module")
def prompts(want):
  return [str(p) for p in want["prompts"]]


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp("export") / "model"
  model.save(folder)
  return folder


class TestParity:
  """What audiocraft computes from the same checkpoint, in float32.

  Bounds are those set for any pack; measured on the committed one: condition
  4e-6, logits 1e-5, sound 5e-7.
  """

  def test_condition(self, released, want, prompts):
    states, _ = released.encode_text(prompts)
    np.testing.assert_allclose(states, want["cond"][: len(prompts)], atol=2e-4)

  @pytest.mark.parametrize("name", ["teacher_logits", "teacher_logits_null"])
  def test_logits(self, released, want, prompts, name):
    texts = [None] * len(prompts) if name.endswith("null") else prompts
    logits, valid = released.logits(want["teacher_codes"], texts)
    mask = want["teacher_logits_mask"]
    np.testing.assert_array_equal(np.broadcast_to(valid, mask.shape), mask)
    np.testing.assert_allclose(logits[mask], want[name][mask], atol=2e-3)

  @pytest.mark.parametrize("guidance", [1.0, 3.0])
  def test_tokens(self, released, want, prompts, guidance):
    expected = want[f"greedy_cfg{guidance:.0f}"]
    codes = released.generate_codes(
      prompts,
      frames=expected.shape[-1],
      sampling=ag.Sampling(greedy=True, guidance=guidance),
    )
    np.testing.assert_array_equal(codes, expected)

  def test_unconditional(self, released, want):
    expected = want["greedy_uncond"]
    codes = released.generate_codes(
      [None] * len(expected), frames=expected.shape[-1], sampling=GREEDY
    )
    np.testing.assert_array_equal(codes, expected)

  def test_continuation(self, released, want, prompts):
    expected = want["greedy_continuation"]
    start = want["teacher_codes"][..., :15]
    codes = released.generate_codes(
      prompts, frames=expected.shape[-1], sampling=GREEDY, prompt_codes=start
    )
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(codes[..., :15], start)

  def test_each_prompt_as_if_alone(self, masked, want, prompts):
    frames = want["greedy_cfg3"].shape[-1]
    codes = masked.generate_codes(prompts, frames=frames, sampling=GREEDY)
    for i in range(len(prompts)):
      np.testing.assert_array_equal(codes[i], want[f"greedy_cfg3_alone_{i}"])

  def test_sound(self, released, want, prompts):
    audio = released.generate(prompts, duration_s=1.0, sampling=GREEDY)
    np.testing.assert_allclose(audio[..., 0], want["wav_greedy_1s"], atol=1e-3)

  def test_longer_than_the_window(self, released, want, prompts):
    audio, codes = released.generate(
      prompts[:1],
      duration_s=1.6,
      window_s=1.0,
      stride_s=0.5,
      sampling=GREEDY,
      return_codes=True,
    )
    name = "greedy_long_1p6s_max1_stride0p5"
    np.testing.assert_array_equal(codes, want[f"codes_{name}"])
    np.testing.assert_allclose(audio[..., 0], want[f"wav_{name}"], atol=1e-3)


class TestGenerate:
  def test_windows(self):
    # The spec's example: 20 s are 500 + 5 x 100 frames, 400 of them known.
    found = windows.windows(0, 1000, 500, 100)
    assert found[0] == (0, 0, 500)
    assert found[1:] == [
      (100 * i, 400 + 100 * i, 500 + 100 * i) for i in range(1, 6)
    ]

  def test_a_prompt_longer_than_the_window_is_continued(self):
    assert windows.windows(700, 850, 500, 100) == [
      (300, 700, 800),
      (400, 800, 850),
    ]

  def test_continues_a_sound(self, model):
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 8000, 1))
    sound = noise.astype(np.float32)
    audio, codes = model.generate(
      ["rain"],
      duration_s=1.0,
      sampling=GREEDY,
      prompt=sound,
      return_codes=True,
    )
    known = model.codec.encode(sound)
    np.testing.assert_array_equal(codes[..., : known.shape[2]], known)
    assert audio.shape == (1, 16000, 1)

  def test_seeds_belong_to_prompts(self, model):
    texts = ["thunder", "thunder", "rain"]
    options = dict(frames=20, sampling=ag.Sampling(top_k=0))
    together = model.generate_codes(texts, seed=5, **options)
    assert not np.array_equal(together[0], together[1])
    apart = model.generate_codes(texts, seed=[6, 5, 7], **options)
    np.testing.assert_array_equal(apart[:2], together[1::-1])
    np.testing.assert_array_equal(apart[2], together[2])
    alone = model.generate_codes(["rain"], seed=7, **options)
    np.testing.assert_array_equal(alone[0], together[2])

  def test_windows_draw_different_numbers(self, model):
    options = dict(sampling=ag.Sampling(), return_codes=True, window_s=0.4)
    _, codes = model.generate([None], duration_s=0.8, stride_s=0.39, **options)
    assert codes.shape[2] == 40
    assert not np.array_equal(codes[..., :19], codes[..., 20:39])

  @pytest.mark.parametrize(
    "options",
    [
      {"chunk_s": 0.5},
      {"chunk_s": 0.02, "duration_s": 0.3},
      {"chunk_s": 9.0},
      {"chunk_s": 0.3, "window_s": 1.0, "stride_s": 0.5},
    ],
  )
  @pytest.mark.parametrize("continued", [False, True])
  def test_a_stream_is_the_whole(self, model, options, continued):
    options = {"duration_s": 1.7, "seed": 3} | options
    if continued:
      noise = np.random.default_rng(0).normal(0, 0.1, (2, 4000, 1))
      options["prompt"] = noise.astype(np.float32)
      options["duration_s"] += 0.5
    chunk_s = options.pop("chunk_s")
    whole = model.generate(PROMPTS[:2], **options)
    chunks = [*model.stream(PROMPTS[:2], chunk_s=chunk_s, **options)]
    joined = np.concatenate(chunks, axis=1)
    assert joined.shape == whole.shape
    # Of full scale: 3e-7 measured.
    scale = np.abs(whole).max()
    np.testing.assert_allclose(joined, whole, atol=1e-5 * scale)
    if chunk_s == 0.5:
      assert len(chunks) >= 3
    if chunk_s < 9:
      sizes = [chunk.shape[1] / 16_000 for chunk in chunks]
      assert max(sizes) <= chunk_s + 0.2

  def test_a_stream_comes_early(self, model, monkeypatch):
    """The first chunk is there before the rest is sampled."""
    places = []
    sample = sampler.generate

    def told(*arguments, **options):
      for steps, codes in sample(*arguments, **options):
        places.append(codes.shape[2])
        yield steps, codes

    monkeypatch.setattr(sampler, "generate", told)
    stream = model.stream("a dog barks", chunk_s=0.5, duration_s=2.0)
    assert next(stream).shape[2] == 1 and places[-1] <= 25

  def test_the_models_own_guidance(self, model, monkeypatch, tmp_path, one):
    """Kept with the model, and used where nothing else is asked for."""
    monkeypatch.setattr(model, "guidance", 6.0)
    model.save(tmp_path / "own")
    own = ag.AudioGen.from_pretrained(tmp_path / "own", mesh=one)
    assert own.guidance == 6.0
    found = own.generate_codes(["rain"], frames=20)
    want = own.generate_codes(
      ["rain"], frames=20, sampling=ag.Sampling(guidance=6.0)
    )
    np.testing.assert_array_equal(found, want)
    other = own.generate_codes(["rain"], frames=20, sampling=ag.Sampling())
    assert np.any(found != other)

  def test_progress_counts_all_windows(self, model):
    seen = []
    model.generate(
      ["rain"],
      duration_s=1.0,
      window_s=0.6,
      stride_s=0.2,
      sampling=GREEDY,
      progress=lambda done, total: seen.append((done, total)),
    )
    done, totals = zip(*seen, strict=True)
    assert done[0] == 0 and done[-1] == totals[0] and len(set(totals)) == 1
    assert list(done) == sorted(done)

  @pytest.mark.parametrize(
    ("options", "words"),
    [
      (dict(duration_s=0), "duration 0 s"),
      (dict(duration_s=-1.0), "duration -1.0 s"),
      (dict(duration_s=float("nan")), "duration nan s"),
      (dict(stride_s=10.0, duration_s=20.0), "stride 10.0 s must be shorter"),
      (dict(prompt=np.zeros((1, 16000, 1)), duration_s=1.0), "not longer"),
      (dict(prompt=np.zeros((1, 1600, 2))), r"\[batch, samples, 1\]"),
      (dict(prompt=np.full((1, 1600, 1), np.nan)), "1600 NaN or infinite"),
      (dict(prompt=np.zeros((2, 1600, 1))), "2 sounds and 1 texts"),
      (dict(seed=[1, 2]), "2 seeds for 1 prompts"),
      (dict(seed=-1), "must lie in"),
      (dict(sampling=ag.Sampling(top_k=5000)), "top-k 5000 is above"),
    ],
  )
  def test_bad_input(self, model, options, words):
    with pytest.raises(ag.InputError, match=words):
      model.generate(["rain"], **options)

  def test_no_prompt(self, model):
    with pytest.raises(ag.InputError, match="no prompt"):
      model.generate([])

  def test_absurdly_long_prompt(self, model):
    with pytest.raises(ag.InputError, match="at most 512"):
      model.generate(["rain " * 2000])

  def test_codes_out_of_range(self, model):
    codes = np.full((1, model.codec.tokens.codebooks, 4), 10**6)
    with pytest.raises(ag.InputError, match="1000000"):
      model.logits(codes, ["rain"])


class TestOrbax:
  def test_the_same_model(self, saved, model, one):
    again = ag.AudioGen.from_pretrained(saved, dtype="float32", mesh=one)
    for ours, theirs in (
      (model.lm.params, again.lm.params),
      (model.text.params, again.text.params),
      (model.codec.variables, again.codec.variables),
    ):
      jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert again.window_s == model.window_s
    options = dict(duration_s=0.5, sampling=GREEDY)
    np.testing.assert_array_equal(
      model.generate(PROMPTS, **options), again.generate(PROMPTS, **options)
    )

  def test_restored_onto_a_mesh(self, saved, model):
    mesh = ag.make_mesh(data=4, tensor=2)
    spread = ag.AudioGen.from_pretrained(saved, dtype="float32", mesh=mesh)
    kernel = spread.lm.params["layer_0"]["up"]["kernel"]
    assert kernel.sharding.spec[-1] == "tensor"
    assert kernel.addressable_shards[0].data.shape[1] * 2 == kernel.shape[1]
    for sampling in (GREEDY, ag.Sampling(top_k=0, temperature=0.8)):
      options = dict(frames=24, sampling=sampling)
      np.testing.assert_array_equal(
        spread.generate_codes(PROMPTS, **options),
        model.generate_codes(PROMPTS, **options),
      )

  def test_a_mesh_with_explicit_axes(self, tiny, model):
    mesh = jax.make_mesh((4, 2), ("data", "tensor"))
    spread = ag.AudioGen.from_pretrained(tiny, dtype="float32", mesh=mesh)
    np.testing.assert_array_equal(
      spread.generate_codes(PROMPTS, frames=24, sampling=GREEDY),
      model.generate_codes(PROMPTS, frames=24, sampling=GREEDY),
    )

  def test_bfloat16(self, saved, one):
    half = ag.AudioGen.from_pretrained(saved, dtype="bfloat16", mesh=one)
    assert half.lm.params["embed"].dtype == "bfloat16"
    assert half.generate(["rain"], duration_s=0.3).dtype == np.float32

  def test_config_says_what_it_is(self, saved):
    config = json.loads((saved / checkpoint.CONFIG).read_text())
    assert (config["format"], config["version"]) == ("audiogen_jax", 2)
    assert config["family"] == "audiogen"
    kinds = {name: room["kind"] for name, room in config["rooms"].items()}
    assert kinds == {"codec": "encodec", "lm": "lm", "text": "t5"}

  def test_a_key_of_older_versions(self, saved, tmp_path):
    """`packed` stood in every export, and was true in each."""
    old = tmp_path / "old"
    shutil.copytree(saved, old)
    config = json.loads((old / checkpoint.CONFIG).read_text())
    config["rooms"]["lm"]["config"]["transformer"]["packed"] = True
    (old / checkpoint.CONFIG).write_text(json.dumps(config))
    assert ag.load(old).lm.config == ag.load(saved).lm.config

  def test_never_over_something_else(self, saved, model):
    with pytest.raises(ag.InputError, match="exists already"):
      model.save(saved)

  def test_nothing_half_written(self, model, tmp_path, monkeypatch):
    def fail(*_):
      raise RuntimeError("the disk is gone")

    monkeypatch.setattr(type(model.text.tokenizer), "save", fail)
    with pytest.raises(RuntimeError):
      model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())

  @pytest.mark.parametrize(
    ("edit", "words"),
    [
      (dict(version=3), "format version 3"),
      (dict(family="other"), "of the family other, not an AudioGen"),
      (dict(rooms=[]), "rooms must hold keys and values"),
      (dict(rooms={"codec": {}}), "rooms.'codec' has no config"),
      (dict(rooms={}), "the room codec is missing"),
      (dict(format="other"), "describes"),
      (dict(surprise=1), "unknown configuration key 'surprise'"),
    ],
  )
  def test_other_versions(self, saved, tmp_path, edit, words):
    config = json.loads((saved / checkpoint.CONFIG).read_text()) | edit
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ag.InputError, match=words):
      opening.open_parts(tmp_path)

  def test_damaged(self, saved, tmp_path, one):
    config = json.loads((saved / checkpoint.CONFIG).read_text())
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ag.InputError, match="tokenizer is missing"):
      ag.AudioGen.from_pretrained(tmp_path, mesh=one)
    shutil.copytree(saved / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(ag.InputError, match="does not exist"):
      ag.AudioGen.from_pretrained(tmp_path, mesh=one)
    (tmp_path / "codec").mkdir()
    with pytest.raises(ag.InputError, match="codec cannot be restored"):
      ag.AudioGen.from_pretrained(tmp_path, mesh=one)

  def test_codec_alone(self, saved, model):
    codec = ag.load_codec(saved, mesh=ag.make_mesh(data=1))
    assert codec.config == model.codec.config
