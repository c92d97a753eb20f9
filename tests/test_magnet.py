"""MAGNeT's page: its folders, its defaults, what it refuses."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import soundfile
from published import (
  LM_FILE,
  audiocraft,
  codec_of,
  edit_file,
  lm_of,
  parts_of,
  put,
  same,
  values,
)

import audiogen_jax as ag
from audiogen_jax.codec.rvq import RVQConfig
from audiogen_jax.convert import export, opening
from audiogen_jax.core import checkpoint
from audiogen_jax.lm.masked_sampling import MaskedSampling, Masking
from audiogen_jax.lm.patterns import Pattern

TEXTS = ["a dog barks", None, "thunder, then rain on a roof"]
CODEC = codec_of(
  dict(ratios=(8, 5, 4, 2)), rvq=RVQConfig(codebooks=3, size=10, width=6)
)
LM = lm_of(codebooks=3, pattern=Pattern("parallel"), text_width=512)
OWN = MaskedSampling(
  temperature=2.0,
  top_k=4,
  top_p=0.0,
  guidance=5.0,
  min_guidance=2.0,
  decoding_steps=(4, 3, 2),
  span_scoring="prod",
  anneal_temperature=False,
)
MASKING = Masking(context=4, span=2, sampling=OWN)


@pytest.fixture
def one():
  return ag.make_mesh(data=1)


@pytest.fixture(scope="module")
def parts():
  made = parts_of(CODEC, LM, masking=MASKING, window_s=1.0)
  # Smaller weights: sums in another order stay the same to six digits.
  made.lm_tree.update(jax.tree.map(lambda x: 0.3 * x, made.lm_tree))
  return made


@pytest.fixture(scope="module")
def published_folder(parts, tiny, tmp_path_factory):
  """A tiny MAGNeT of three codebooks in the published format."""
  folder = tmp_path_factory.mktemp("magnet")
  audiocraft.write(folder, parts)
  (folder / "t5").symlink_to(tiny / "t5")
  return folder


@pytest.fixture
def copied(published_folder, tmp_path):
  """A folder to change."""
  for path in published_folder.glob("*.bin"):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  return tmp_path


@pytest.fixture(scope="module")
def model(published_folder):
  mesh = ag.make_mesh(data=1)
  return ag.load(published_folder, dtype="float32", mesh=mesh)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp("export") / "model"
  model.save(folder)
  return folder


def opened(folder, family="magnet"):
  return opening.open_parts(folder, family=family, need_text=False)


# Folders


def test_the_published_format_holds_it(published_folder, parts):
  again = opened(published_folder)
  assert (again.lm, again.codec) == (LM, CODEC)
  assert (again.window_s, again.masking) == (1.0, MASKING)
  same(values(again.lm_tree), parts.lm_tree)


def test_where_the_published_format_says_it(copied):
  """The copies within `transformer_lm` hold nothing, or what they will."""
  for duration, span in ((0, -1), (77, 7)):

    def edit(_, cfg, duration=duration, span=span):
      put(cfg, "transformer_lm.segment_duration", duration)
      put(cfg, "transformer_lm.span_len", span)
      put(cfg, "dataset.segment_duration", 2)
      put(cfg, "masking.span_len", 4)
      put(cfg, "transformer_lm.subcodes_context", -1)

    edit_file(copied / LM_FILE, edit)
    again = opened(copied)
    assert again.window_s == 2.0
    assert (again.masking.span, again.masking.context) == (4, -1)
  edit_file(copied / LM_FILE, lambda _, cfg: put(cfg, "masking.span_len", -1))
  assert opened(copied).masking.span == 1


def test_options_come_with_the_model(copied):
  assert opened(copied).masking.sampling == OWN
  usual = MaskedSampling(decoding_steps=(20, 10, 10))
  edit_file(copied / LM_FILE, lambda _, cfg: cfg.pop("generate"))
  assert opened(copied).masking.sampling == usual
  # A configuration for four codebooks says nothing of three; spans lie as the
  # authors advise, not as in the training's own samples.
  lm = {"decoding_steps": [20, 10, 10, 10], "temp": 3.0}
  lm |= {"span_arrangement": "nonoverlap"}
  edit_file(copied / LM_FILE, lambda _, cfg: put(cfg, "generate", {"lm": lm}))
  want = dataclasses.replace(usual, temperature=3.0)
  assert opened(copied).masking.sampling == want


def test_the_published_defaults():
  own = MaskedSampling()
  assert (own.temperature, own.top_p) == (3.5, 0.8)
  assert (own.guidance, own.min_guidance) == (20, 1)
  assert own.decoding_steps == (20, 10, 10, 10)
  assert (own.span_arrangement, own.span_scoring) == ("stride1", "max")


def test_orbax(saved, model, one):
  config = json.loads((saved / checkpoint.CONFIG).read_text())
  assert config["family"] == "magnet" and config["masking"]["span"] == 2
  again = ag.load(saved, dtype="float32", mesh=one)
  assert isinstance(again, ag.MAGNeT) and again.masking == MASKING
  jax.tree.map(np.testing.assert_array_equal, again.lm.params, model.lm.params)
  np.testing.assert_array_equal(again.generate(TEXTS), model.generate(TEXTS))


def test_from_format_to_format(published_folder, saved, tmp_path):
  export.convert(published_folder, tmp_path / "ours")
  export.convert(tmp_path / "ours", tmp_path / "theirs", to="audiocraft")
  for folder in (tmp_path / "ours", tmp_path / "theirs"):
    assert opened(folder, family=None).masking == MASKING
  for name in (LM_FILE, "compression_state_dict.bin"):
    got, want = (f / name for f in (tmp_path / "theirs", published_folder))
    assert got.read_bytes() == want.read_bytes()
  with pytest.raises(ag.InputError, match="cannot hold masked decoding"):
    export.convert(saved, tmp_path / "other", to="transformers")
  assert ag.load_codec(saved).config == CODEC


def test_info(audiogen, published_folder):
  status, output, _ = audiogen("info", published_folder)
  assert status == 0
  for words in ("magnet", "spans of 2", "±4 frames", "4 + 3 + 2", "5 to 2"):
    assert words in output


# Refusals


def test_a_causal_model_is_none(tiny, published_folder, saved):
  for source in (tiny, "nano"):
    with pytest.raises(ag.InputError, match="audiogen, not a MAGNeT"):
      ag.MAGNeT.from_pretrained(source)
  for source in (published_folder, saved):
    with pytest.raises(ag.InputError, match="family magnet, not an AudioGen"):
      ag.AudioGen.from_pretrained(source)
    with pytest.raises(ag.InputError, match="family magnet, not an AudioGen"):
      opening.open_parts(source)


@pytest.mark.parametrize(
  ("name", "value", "words"),
  [
    ("lm_model", "transformer_lm", "transformer_lm.causal = False is not"),
    ("transformer_lm.causal", True, "causal = True is not supported; only F"),
    ("codebooks_pattern.modeling", "delay", "modeling = 'delay' is not"),
    (
      "codebooks_pattern.parallel.empty_initial",
      0,
      "empty_initial = 0 is not supported; only -1",
    ),
    ("fuser.prepend", ["description"], "prepend = .* only cross"),
    ("masking", None, "masking = None must be keys and values"),
    ("transformer_lm.subcodes_context", -2, "= -2 must lie in -1"),
    ("dataset.segment_duration", 0, "segment_duration = 0 must lie"),
    ("generate.lm.decoding_steps", [4, 0, 2], "decoding_steps = 0 must lie"),
    ("generate.lm.top_k", 11, "top-k 11 is above the codebook size 10"),
    ("generate.lm.span_scoring", "sum", "span_scoring = 'sum' is not"),
  ],
)
def test_what_is_not_built(copied, name, value, words):
  edit_file(copied / LM_FILE, lambda _, cfg: put(cfg, name, value))
  with pytest.raises(ag.InputError, match=words) as caught:
    opened(copied, family=None)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("edit", "words"),
  [
    ({"masking": None}, "masking = None must hold keys"),
    ({"guidance": 3.0}, "unknown configuration key 'guidance'"),
    ({"masking": {"span": 0}}, "masking.span = 0 must lie in 1"),
    ({"masking": {"sampling": {"top_p": 2}}}, "top_p = 2.0 must lie in 0"),
    (
      {"masking": {"sampling": {"decoding_steps": [4, 4]}}},
      "are for 2 codebooks, and the model has 3",
    ),
    (
      {"masking": {"sampling": {"span_scoring": "sum"}}},
      "span_scoring = 'sum' is not one of",
    ),
  ],
)
def test_damaged_exports(saved, tmp_path, edit, words):
  config = json.loads((saved / checkpoint.CONFIG).read_text()) | edit
  (tmp_path / checkpoint.CONFIG).write_text(json.dumps(config))
  with pytest.raises(ag.InputError, match=words):
    opened(tmp_path)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    (dict(duration_s=1.5), "1.5 s are 75 frames, and this model makes 1 s, 50"),
    (dict(duration_s=0.0), "duration 0.0 s must be at least"),
    (dict(duration_s=0.02), "1 frames are fewer than the 2 of a span"),
    (dict(prompt=np.zeros((1, 16000, 1), np.float32)), "the prompt has 50"),
    (dict(seed=[1, 2]), "2 seeds for 1 prompts"),
    (dict(sampling=MaskedSampling()), "4 codebooks, and the model has 3"),
  ],
)
def test_bad_input(model, options, words):
  with pytest.raises(ag.InputError, match=words) as caught:
    model.generate(["rain"], **options)
  assert "\n" not in str(caught.value)


def test_logits_of_a_stage(model):
  hidden = np.full((1, 3, 20), 10)
  found = model.logits(hidden, ["rain"], stage=2)
  assert found.shape == (1, 3, 20, 10) and np.isfinite(found).all()
  for codes, stage, words in (
    (hidden, 3, "stage 3 must be a codebook, 0 to 2"),
    (hidden + 1, 0, r"codes lie in \[11, 11\]; this model's lie in \[0, 10\]"),
    (hidden[:, :2], 0, "codes have 2 codebooks; the model 3"),
    (np.full((1, 3, 51), 10), 0, "51 frames, and this model makes 1 s"),
  ):
    with pytest.raises(ag.InputError, match=words):
      model.logits(codes, ["rain"], stage=stage)


# Sounds


def test_it_is_a_family(model, published_folder):
  assert isinstance(model, ag.MAGNeT) and isinstance(model, ag.TextToAudio)
  assert model.masking.sampling == OWN
  audio, codes = model.generate(TEXTS, return_codes=True)
  assert audio.shape == (3, 16000, 1) and codes.shape == (3, 3, 50)
  side = dataclasses.replace(OWN, span_arrangement="nonoverlap")
  odd = model.generate(TEXTS, duration_s=0.5, sampling=side)
  assert odd.shape == (3, 24 * 320, 1)


def test_prompts_do_not_meet(model, saved):
  options = dict(frames=40, sampling=dataclasses.replace(OWN, top_p=0.9))
  together = model.generate_codes(TEXTS, seed=[5, 6, 7], **options)
  for i, text in enumerate(TEXTS):
    alone = model.generate_codes([text], seed=5 + i, **options)
    np.testing.assert_array_equal(alone[0], together[i])
  mesh = ag.make_mesh(data=4, tensor=2)
  spread = ag.load(saved, dtype="float32", mesh=mesh)
  np.testing.assert_array_equal(
    spread.generate_codes(TEXTS, seed=5, **options), together
  )


def test_continues_a_sound(model):
  noise = np.random.default_rng(0).normal(0, 0.1, (1, 8000, 1))
  sound = noise.astype(np.float32)
  _, codes = model.generate(["rain"], prompt=sound, return_codes=True)
  known = model.codec.encode(sound)
  np.testing.assert_array_equal(codes[..., : known.shape[2]], known)
  assert codes.shape[2] == 50


def test_the_command_line(audiogen, refused, published_folder, tmp_path):
  words = ("generate", "rain", "--model", published_folder, "-o", tmp_path)
  status, _, errors = audiogen(
    *words, "--duration", 0.5, "--top-k", 3, "--min-guidance", 1.5
  )
  assert status == 0, errors
  asked = ("--decoding-steps", "3,2,1", "--span-arrangement", "nonoverlap")
  (tmp_path / "p.txt").write_text("rain\n")
  listed = ("generate", "--prompts", tmp_path / "p.txt", "--duration", 0.5)
  listed += ("--model", published_folder, "-o", tmp_path / "out", *asked)
  assert audiogen(*listed)[0] == 0
  line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
  assert line["decoding_steps"] == [3, 2, 1]
  assert line["span_arrangement"] == "nonoverlap"
  assert "1 of 1 are there already" in audiogen(*listed)[1]
  audio, rate = soundfile.read(tmp_path / "rain_seed0.wav")
  assert (len(audio), rate) == (8000, 16000)
  error = refused(*words, "--duration", 5)
  assert "5 s are 250 frames, and this model makes 1 s, 50 frames" in error
  for given, told in (
    ("4,0,2", "decoding-steps 4,0,2 must be whole numbers from 1 to 1000"),
    ("4,3", "decoding-steps 4,3 are for 2 codebooks, and the model has 3"),
    ("many", "decoding-steps 'many' must be whole numbers"),
  ):
    assert told in refused(*words, "--decoding-steps", given)
  error = refused(*words, "--span-scoring", "sum")
  assert "span-scoring 'sum' is not one of max, prod" in error
  assert "makes no windows" in refused(*words, "--stride", 1)
  assert "top-k 11 is above" in refused(*words, "--top-k", 11)
