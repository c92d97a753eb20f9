"""Every configuration, at full size, without memory for it."""

import importlib
import pathlib

import jax
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.train import state
from audiogen_jax.train.configuration import parse

VARIANTS = {
  "lm_1p5b": (),
  "magnet_1p5b": (),
  "lm_3b": (),
  "maa_autoencoder": ("paper", "tiny"),
  "maa_diffusion": ("t5", "tiny"),
  "maa_vocoder": ("tiny", "hifigan", "hifigan+tiny"),
  "paper_codec": ("2", "4", "tiny", "4+tiny"),
  "paper_lm": ("1b", "1b+2", "4", "tiny", "4+tiny"),
}
ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def config(name, variant=""):
  return importlib.import_module(f"configs.{name}").get_config(variant)


@pytest.mark.parametrize(
  ("name", "variant"),
  [(n, v) for n in FILES for v in ("", *VARIANTS.get(n, ("tiny",)))],
)
def test_it_describes_a_run(name, variant):
  """Each parameter has a place, and each key is known."""
  run, task = parse(config(name, variant))
  like = jax.eval_shape(task.init, jax.random.key(0))
  placement = Placement.make(make_mesh(**run.mesh), run.rules)
  places = state.shardings(like, task.axes, placement)
  jax.tree.map(lambda x, place: place.shard_shape(x.shape), like, places)
  spec = task.batch_spec(run.data.batch, run.data.duration_s)
  assert all(x.shape[0] == run.data.batch for x in spec.values())


@pytest.mark.parametrize("name", FILES)
def test_a_variant_that_is_none(name):
  with pytest.raises(ValueError, match=f"{name}.py:huge"):
    config(name, "huge")


def test_frames_and_bits_a_second():
  """What each codec is said to be, in its file's first line."""
  for name, variant, rate_hz, frame_rate_hz, codebooks, size in (
    ("codec_16khz", "", 16_000, 50, 4, 2048),
    ("codec_24khz_causal", "", 24_000, 75, 32, 1024),
    ("codec_32khz", "", 32_000, 50, 4, 2048),
    ("paper_codec", "", 16_000, 500, 1, 2048),
    ("paper_codec", "2", 16_000, 250, 2, 2048),
    ("paper_codec", "4", 16_000, 125, 4, 2048),
  ):
    _, task = parse(config(name, variant))
    tokens = task.encodec.tokens
    assert task.rate_hz == rate_hz
    found = tokens.frame_rate_hz, tokens.codebooks, tokens.size
    assert found == (frame_rate_hz, codebooks, size)


@pytest.mark.parametrize(
  ("lm", "codec", "variant"),
  [
    ("lm_300m", "codec_16khz", ""),
    ("lm_300m", "codec_16khz", "tiny"),
    ("nano_lm", "nano_codec", ""),
    ("nano_lm", "nano_codec", "tiny"),
    ("paper_lm", "paper_codec", "2"),
    ("paper_lm", "paper_codec", "4+tiny"),
  ],
)
def test_a_language_model_plans_with_its_codec(lm, codec, variant):
  """What `plan` takes for the codec is what the codec's training makes."""
  _, ours = parse(config(lm, variant))
  _, theirs = parse(config(codec, variant))
  assert ours.encodec == theirs.encodec
  tokens = theirs.encodec.tokens
  assert (ours.lm.codebooks, ours.lm.size) == (tokens.codebooks, tokens.size)


def test_keys_and_values_that_cannot_be():
  given = config("codec_16khz")
  for path, value, said in (
    ("task", "codecs", "config.task 'codecs' is not one of autoencoder"),
    ("encodec.filters", 3, "unknown configuration key 'encodec.filters'"),
    ("adversary.kinds", ("mp3",), "'mp3' is not one of"),
    ("optim.schedule", "linear", "'linear' is not one of"),
    ("optim", {"schedule": "cosine", "warmup": 400_000}, "the 400000 steps"),
    ("rvq.decay", 1.0, "rvq decay 1.0"),
    ("encodec.renormalise", True, "without stereo_codes and renormalise"),
    ("encodec.rvq.width", 64, "rvq.width = 64 must equal seanet.width = 128"),
  ):
    values = given.to_dict()
    *parents, last = path.split(".")
    inner = values
    for parent in parents:
      inner = inner[parent]
    inner[last] = value
    with pytest.raises(InputError, match=said):
      parse(values)


def test_parameters_of_the_configurations():
  """Those of the specification; for the paper's see the file's head."""

  def millions(name, variant="", part="lm", **changes):
    values = config(name, variant)
    values.lm.transformer.update(changes)
    _, task = parse(values)
    state = jax.eval_shape(task.init, jax.random.key(0))
    tree = (state.params | state.extra)[part]
    return sum(x.size for x in jax.tree.leaves(tree)) / 1e6

  assert millions("lm_300m") == 420.6336
  assert millions("lm_1p5b") == 1839.131136
  assert millions("lm_3b") == 3257.481216
  for variant, lm, text, alone in (
    ("", 230.3, 109.6, 173.7),
    ("1b", 950.6, 334.9, 714.6),
  ):
    args = "paper_lm", variant
    # Off by 0.07 at most.
    assert millions(*args) == pytest.approx(lm, abs=0.15)
    assert millions(*args, part="text") == pytest.approx(text, abs=0.15)
    without = millions(*args, cross_attention=False)
    assert without == pytest.approx(alone, abs=0.15)


@pytest.mark.parametrize(
  ("rules", "said"),
  [
    ({"embd": ("data",)}, "rule 'embd' is about no axis of the parameters"),
    ({"embed": ("fdsp",)}, "rule 'embed' sends to 'fdsp'; the mesh has data"),
  ],
)
def test_rules_that_are_about_nothing(rules, said):
  _, task = parse(config("lm_300m", "tiny"))
  like = jax.eval_shape(task.init, jax.random.key(0))
  placement = Placement.make(make_mesh(data=2), rules)
  with pytest.raises(InputError, match=said):
    state.shardings(like, task.axes, placement)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "variant"),
  [
    ("codec_24khz_causal", "tiny"),
    ("codec_32khz", "tiny"),
    ("paper_codec", "4+tiny"),
  ],
)
def test_a_step_of_tiny_variants(name, variant):
  run, task = parse(config(name, variant))
  key = jax.random.key(0)
  like = jax.eval_shape(task.init, key)
  batch = task.batch_spec(run.data.batch, run.data.duration_s)
  after, values = jax.eval_shape(task.train_step, like, batch, key)
  assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(
    lambda x: x.shape, like
  )
  assert {"loss", "mel_distance"} <= values.keys()
