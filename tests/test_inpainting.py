"""Parts of sounds made again: what stays, what is made, what is refused."""

import dataclasses
import json
import re

import numpy as np
import pytest
import soundfile
from published import codec_of, parts_of
from test_magnet import (  # noqa: F401
  CODEC,
  OWN,
  TEXTS,
  model,
  parts,
  published_folder,
  saved,
)

import audiogen_jax as ag
from audiogen_jax.audio import io
from audiogen_jax.cli import maker
from audiogen_jax.codec import pieces
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core import fields, keeping
from audiogen_jax.lm import masked
from audiogen_jax.lm.masked_sampling import MaskedSampling

HOP = 320
SIDE = dataclasses.replace(OWN, span_arrangement="nonoverlap")
NUCLEUS = dataclasses.replace(OWN, top_p=0.9)


def noise(rows=1, samples=15_900):
  values = np.random.default_rng(0).normal(0, 0.1, (rows, samples, 1))
  return values.astype(np.float32)


# What stays


@pytest.mark.parametrize("sampling", [OWN, SIDE], ids=["stride1", "nonoverlap"])
def test_kept_frames_keep_their_codes(model, sampling):  # noqa: F811
  sound = noise(3, 15_500)  # 48.4 frames
  known = model.codec.encode(sound)
  one = model.outside(0.3, 0.62, samples=15_500)
  assert np.flatnonzero(~one).tolist() == [*range(15, 31)]
  each = np.stack([one, ~one, np.arange(49) < 48])
  for keep in (one, each):
    audio, codes = model.inpaint(
      sound, keep, TEXTS, sampling=sampling, return_codes=True
    )
    assert audio.shape == sound.shape and codes.shape == (3, 3, 49)
    stays = np.broadcast_to(keep, (3, 49))
    for row in range(3):
      want, got = known[row], codes[row]
      np.testing.assert_array_equal(got[:, stays[row]], want[:, stays[row]])
      assert np.any(got[:, ~stays[row]] != want[:, ~stays[row]])
    want = model.codec.decode_changed(codes, known, ~stays)
    np.testing.assert_array_equal(audio, want[:, :15_500])


def test_a_prompt_is_one_case_of_it(model):  # noqa: F811
  sound = noise(2, 16_000)
  codes = model.codec.encode(sound)
  begun = model.generate_codes(
    TEXTS[:2], frames=50, prompt_codes=codes[:, :, :21], seed=4
  )
  keep = np.arange(50) < 21
  _, again = model.inpaint(sound, keep, TEXTS[:2], seed=4, return_codes=True)
  np.testing.assert_array_equal(again, begun)


@pytest.mark.parametrize("lstm_layers", [0, 1])
def test_how_far_a_hole_is_heard(model, lstm_layers):  # noqa: F811
  net = dict(ratios=(8, 5, 4, 2), lstm_layers=lstm_layers)
  config = codec_of(net, rvq=CODEC.rvq)
  codec = Encodec(config, parts_of(config).codec_tree)
  other = ag.MAGNeT(
    codec, model.text, model.lm, masking=model.masking, window_s=1.0
  )
  sound = noise(1, 16_000)
  whole = codec.decode(codec.encode(sound))
  keep = other.outside(0.4, 0.5, samples=16_000)
  audio, codes = other.inpaint(sound, keep, ["rain"], return_codes=True)
  changed = np.any(audio != whole, axis=(0, 2))
  before, _, after = pieces.receptive_fields(config.seanet, "decoder")
  field = fields.series(before, after)
  seen = [field.inputs(n, n) for n in range(16_000)]
  reached = np.array([low <= 24 and high >= 20 for low, high in seen])
  assert 0 < reached.sum() < 6000 and changed[reached].mean() > 0.9
  np.testing.assert_array_equal(audio[:, ~reached], whole[:, ~reached])
  hole = slice(20 * HOP, 25 * HOP)
  alone = codec.decode(codes)
  np.testing.assert_array_equal(audio[:, hole], alone[:, hole])
  if lstm_layers:  # it remembers, and what it does is faded out
    later = ~reached & (np.arange(16_000) > 25 * HOP)
    assert np.any(alone[:, later] != whole[:, later])
    last = np.flatnonzero(reached)[-1]
    difference = np.abs(alone - whole)[0, last, 0]
    step = np.abs(audio - whole)[0, last, 0]
    assert 0 < step < 0.01 * difference
    everything = np.ones((1, 50), bool)
    mixed = codec.decode_changed(codes, codec.encode(sound), everything)
    np.testing.assert_array_equal(mixed, alone)
  else:
    np.testing.assert_array_equal(audio, alone)


# What is made


def test_rows_do_not_meet(model, saved):  # noqa: F811
  sound = noise(3, 14_000)
  draw = np.random.default_rng(2)
  keep = draw.random((3, 44)) < 0.5
  spread = ag.load(saved, dtype="float32", mesh=ag.make_mesh(data=4, tensor=2))
  for sampling in (NUCLEUS, SIDE):
    options = dict(sampling=sampling, return_codes=True)
    _, together = model.inpaint(sound, keep, TEXTS, seed=5, **options)
    _, varied = model.vary(sound, 0.4, TEXTS, seed=5, **options)
    for i, text in enumerate(TEXTS):
      own = sound[i : i + 1]
      _, alone = model.inpaint(own, keep[i], [text], seed=5 + i, **options)
      np.testing.assert_array_equal(alone[0], together[i])
      _, alone = model.vary(own, 0.4, [text], seed=[5 + i], **options)
      np.testing.assert_array_equal(alone[0], varied[i])
    # The codec runs there, too: codes are the same, sound to rounding.
    _, many = spread.inpaint(sound, keep, TEXTS, seed=5, **options)
    np.testing.assert_array_equal(many, together)


def test_nothing_new_is_compiled(model):  # noqa: F811
  model.generate(["rain"], duration_s=1.0)
  program = masked.compiled(model.lm.config, model.lm.placement)
  size = program._cache_size()
  model.inpaint(noise(), np.arange(50) % 7 < 3, ["rain"])
  model.vary(noise(), 0.7, ["wind"], seed=3)
  assert program._cache_size() == size


def test_variations(model):  # noqa: F811
  sound = noise(1, 16_000)
  known = model.codec.encode(sound)
  options = dict(sampling=NUCLEUS, return_codes=True)
  moved = []
  for amount in (0.1, 0.5, 1.0):
    audio, codes = model.vary(sound, amount, ["rain"], seed=3, **options)
    assert audio.shape == sound.shape
    moved.append(np.any(codes != known, axis=(0, 1)))
    stays = keeping.scattered([3], amount, frames=50, span=2)[0]
    assert np.count_nonzero(~stays) == round(amount * 50)
    assert not np.any(moved[-1] & stays)
  assert moved[0].sum() >= 4 and moved[2].sum() > 40
  _, again = model.vary(sound, 0.5, ["rain"], seed=3, **options)
  _, other = model.vary(sound, 0.5, ["rain"], seed=4, **options)
  np.testing.assert_array_equal(np.any(again != known, axis=(0, 1)), moved[1])
  assert np.any(other != again)
  free = model.generate_codes(["rain"], frames=50, seed=3, sampling=NUCLEUS)
  _, all_of_it = model.vary(sound, 1.0, ["rain"], seed=3, **options)
  np.testing.assert_array_equal(all_of_it, free)


def test_scattered_spans():
  size = dict(frames=200, span=5)
  few = keeping.scattered([0, 1, 0], 0.2, **size)
  many = keeping.scattered([0, 1, 0], 0.6, **size)
  assert np.count_nonzero(~few, axis=1).tolist() == [40] * 3
  assert np.count_nonzero(~many, axis=1).tolist() == [120] * 3
  np.testing.assert_array_equal(few[0], few[2])
  assert np.any(few[0] != few[1]) and not np.any(many & ~few)
  # Spans, not frames: 40 lone frames would begin about 32 runs.
  begins = np.count_nonzero(np.diff(few[0].astype(int)) < 0)
  assert begins <= 40 / 5 + 1
  # A span at least, and of a short sound no more than there is.
  assert np.count_nonzero(~keeping.scattered([7], 1e-9, **size)) == 5
  assert not keeping.scattered([7], 0.5, frames=3, span=5).any()
  # No frame is rarer than others; the seeds are fixed: 0.073 off at most.
  left_out = ~keeping.scattered(range(400), 0.3, frames=20, span=4)
  np.testing.assert_allclose(left_out.mean(axis=0), 0.3, atol=0.2)


# What is refused


@pytest.mark.parametrize(
  ("hole", "words"),
  [
    ((0.5, 0.5), "the hole from 0.5 s to 0.5 s is empty"),
    ((0.6, 0.5), "from 0.6 s to 0.5 s is empty"),
    ((-0.1, 0.5), "from -0.1 s to 0.5 s lies outside of the sound"),
    ((0.5, 1.01), "outside of the sound; choose it from 0 s to 1 s"),
    ((2, 3), "from 2 s to 3 s lies outside"),
    ((0.0, 1.0), "from 0 s to 1 s is all of the sound's 50 frames"),
    ((float("nan"), 1.0), "nan must be a number of seconds, 0 to 1"),
  ],
)
def test_holes_that_are_none(model, hole, words):  # noqa: F811
  with pytest.raises(ag.InputError, match=re.escape(words)) as caught:
    model.outside(*hole, samples=16_000)
  assert "\n" not in str(caught.value)


def test_holes_are_whole_frames(model):  # noqa: F811
  for ends, frames in (((0, 0.3), 15), ((0.301, 1.0), 35), ((0.1, 0.101), 1)):
    keep = model.outside(*ends, samples=16_000)
    assert keep.shape == (50,) and np.count_nonzero(~keep) == frames
  # The last frame of a sound may be begun only.
  assert np.count_nonzero(~model.outside(0.5, 0.98, samples=15_500)) == 24


@pytest.mark.parametrize(
  ("keep", "words"),
  [
    (np.ones(50, bool), "all 50 frames of sound 0 are kept"),
    (np.arange(100).reshape(2, 50) < 50, "all 50 frames of sound 0 are kept"),
    (np.arange(100).reshape(2, 50) % 50 < [[3], [0]], "none of the 50 frames"),
    (np.ones(49, bool), "bool of shape [50], or [2, 50]"),
  ],
)
def test_what_cannot_be_kept(model, keep, words):  # noqa: F811
  with pytest.raises(ag.InputError, match=re.escape(words)) as caught:
    model.inpaint(noise(2), keep, TEXTS[:2])
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    (dict(amount=0.0), "amount 0.0 must lie in (0, 1]"),
    (dict(amount=1.5), "amount 1.5 must lie in (0, 1]"),
    (dict(amount=float("nan")), "amount nan must lie in"),
    (dict(sound=noise(1, 16_400)), "52 frames, and this model makes 1 s, 50"),
    (dict(sound=noise(1, 300)), "1 frames are fewer than the 2 of a span"),
    (dict(sound=noise(2)), "2 sounds and 1 texts"),
    (dict(seed=[1, 2]), "2 seeds for 1 prompts"),
    (dict(sampling=MaskedSampling()), "4 codebooks, and the model has 3"),
  ],
)
def test_bad_variations(model, options, words):  # noqa: F811
  asked = dict(sound=noise(), amount=0.5, texts=["rain"]) | options
  with pytest.raises(ag.InputError, match=re.escape(words)):
    model.vary(**asked)


# On the command line


@pytest.fixture
def sound_file(tmp_path):
  path = tmp_path / "sound.wav"
  soundfile.write(path, noise(1, 15_500)[0], 16_000)
  return path


@pytest.fixture
def words(published_folder, tmp_path):  # noqa: F811
  out = tmp_path / "out"
  return ("generate", "rain", "--model", published_folder, "-o", out)


def test_edits(audiogen, words, sound_file, model, tmp_path):  # noqa: F811
  hole = ("--inpaint", sound_file, "--from", 0.3, "--to", 0.62)
  status, _, errors = audiogen(*words, *hole, "--no-normalize", "--seed", 4)
  assert status == 0, errors
  made, _ = soundfile.read(tmp_path / "out" / "rain_seed4.wav")
  sound, _ = io.read(sound_file)
  keep = model.outside(0.3, 0.62, samples=15_500)
  want = model.inpaint(sound[None], keep, ["rain"], seed=4)[0, :, 0]
  np.testing.assert_allclose(made, want.clip(-1, 1 - 2**-15), atol=2**-15)
  (tmp_path / "p.txt").write_text("rain\nwind\nsnow\n")
  listed = ("generate", "--prompts", tmp_path / "p.txt", "--batch", 2)
  listed += (*words[2:], "--vary", sound_file, "--amount", 0.4)
  assert audiogen(*listed)[0] == 0
  lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
  told = json.loads(lines[0])
  assert (told["vary"], told["amount"]) == (str(sound_file), 0.4)
  assert told["duration_s"] is None and "inpaint" not in told
  assert "3 of 3 are there already" in audiogen(*listed)[1]
  # Without prompts, and from the beginning.
  alone = ("generate", *words[2:], "--inpaint", sound_file, "--to", 0.5)
  status, told, errors = audiogen(*alone)
  assert status == 0, errors
  assert len(soundfile.read(told.split()[-1])[0]) == 15_500


def test_refused_edits(refused, words, sound_file, tiny, tmp_path):
  long = tmp_path / "long.wav"
  soundfile.write(long, noise(1, 20_000)[0], 16_000)
  fill = ("--inpaint", sound_file)
  for given, told in (
    ((*fill, "--from", 0.5, "--to", 0.5), "from 0.5 s to 0.5 s is empty"),
    ((*fill, "--from", 0.5, "--to", 2), "2 s lies outside of the sound;"),
    ((*fill, "--from", -1), "from -1 s to 0.96875 s lies outside"),
    (fill, "from 0 s to 0.96875 s is all of the sound's 49 frames"),
    (("--vary", sound_file, "--amount", 0), "amount 0.0 must lie in (0, 1]"),
    (("--vary", sound_file, "--amount", 1.5), "amount 1.5 must lie in (0, 1]"),
    (("--vary", long), "1.26 s are 63 frames, and this model makes 1 s, 50"),
    (("--inpaint", long, "--to", 1), "63 frames, and this model makes 1 s, 50"),
    ((*fill, "--vary", long), "--inpaint and --vary: a sound has one use"),
    ((*fill, "--continue-from", long), "--continue-from and --inpaint: a"),
    ((*fill, "--duration", 2), "--duration 2: "),
    ((*fill, "--stride", 1), "makes no windows"),
    (("--from", 1), "--from 1 is for --inpaint FILE, which was not given"),
    (("--amount", 0.5), "--amount 0.5 is for --vary FILE"),
    (("--vary", tmp_path / "none.wav"), "none.wav"),
  ):
    assert told in refused(*words, *given), given
  error = refused("generate", "rain", "--model", tiny, "--vary", sound_file)
  assert "is of the family audiogen, which has no --vary; magnet, " in error
  assert not list((tmp_path / "out").glob("*.wav"))


# On the page


def made(model, folder, **asked):  # noqa: F811
  usual = dict(prompt="rain", upload=None, duration_s=0.5, seed=4, sampling=OWN)
  usual |= dict(progress=lambda *_: None, note=pytest.fail)
  return soundfile.read(maker.make(model, folder, **usual | asked).sound)[0]


def test_a_visitor_edits(audiogen, model, words, sound_file, tmp_path):  # noqa: F811
  for flags, asked in (
    (("--inpaint", sound_file, "--from", 0.2), dict(from_s=0.2)),
    (("--vary", sound_file, "--amount", 0.3), dict(amount=0.3)),
  ):
    got = made(model, tmp_path, upload=sound_file, **asked)
    assert audiogen(*words, *flags, "--seed", 4)[0] == 0
    want, _ = soundfile.read(tmp_path / "out" / "rain_seed4.wav")
    np.testing.assert_array_equal(got, want)
  (tmp_path / "none.wav").write_text("no sound")
  for asked, told in (
    (dict(from_s=0.2), "there is no sound to fill or to vary"),
    (dict(upload=sound_file, to_s=0.2, amount=0.5), "vary 0.5 and a hole"),
    (dict(upload=sound_file, to_s=3), "to 3 s lies outside of the sound"),
    (dict(upload=tmp_path / "none.wav", amount=0.5), "read none.wav as sound"),
  ):
    with pytest.raises(ag.InputError, match=told) as caught:
      made(model, tmp_path, **asked)
    assert str(tmp_path) not in str(caught.value)


def test_what_the_page_offers(model, tiny, tmp_path):  # noqa: F811
  pytest.importorskip("gradio")
  from audiogen_jax.cli import page

  def labels(family, sampling):
    blocks = page.build(family, sampling, "tiny", tmp_path, lambda: False)
    (function,) = [f for f in blocks.fns.values() if f.api_name == "generate"]
    return [component.label for component in function.inputs]

  edits = {"Fill from", "Fill to", "Vary"}
  assert edits <= set(labels(model, OWN))
  other = ag.AudioGen.from_pretrained(tiny)
  assert not edits & set(labels(other, ag.Sampling()))
