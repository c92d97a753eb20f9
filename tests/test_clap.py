"""CLAP: clips of any length, sentences of any length, networks by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from signals import noise

from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core import bert, word_pieces
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.word_pieces import WordPieces
from audiogen_jax.embedding import (
  clap,
  cnn14,
  extractor,
  gpt2,
  htsat,
)
from audiogen_jax.embedding.clap import Clap, ClapConfig
from audiogen_jax.embedding.cnn14 import Cnn14Config
from audiogen_jax.embedding.gpt2 import GPT2Config
from audiogen_jax.embedding.htsat import HTSATConfig

MEL = MelConfig(4_000, n_fft=128, hop=64, n_mels=8, padding="center")
HEARS = HTSATConfig(
  mel=MEL, width=4, depths=(2, 2), heads=(1, 2), window=4, image=32
)
READS = BertConfig(
  vocabulary=40, width=8, layers=2, heads=2, ff=12, positions=30
)
WIDTH, SAMPLES, LIMIT = 6, 4_000, 24
WORDS = "a dog barks cat rain on the roof and wind in trees".split()


def config_of(**changes):
  usual = ClapConfig(
    audio=HEARS,
    text=READS,
    width=WIDTH,
    rate_hz=4_000,
    samples=SAMPLES,
    fill="whole",
    projection="perceptron",
  )
  return dataclasses.replace(usual, **changes)


def words(first=2, limit=LIMIT):
  """A word, an id."""
  table = {word: first + i for i, word in enumerate(WORDS)}
  rules = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(table | {"?": 0}, unk_token="?")
  )
  rules.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  return WordPieces(rules, limit=limit)


def model_of(config=None, **options):
  config = config or config_of()
  numbers = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: clap.init(config, jax.random.key(0)))

  def made(path, leaf):
    drawn = numbers.normal(0, 0.3, leaf.shape)
    ones = path[-1].key in ("scale", "variance")
    return jnp.asarray(1 + drawn / 4 if ones else drawn, jnp.float32)

  params = jax.tree_util.tree_map_with_path(made, shapes)
  return Clap(
    config, params, words(), name="tiny", sha256="", scale=2.0, **options
  )


@pytest.fixture(scope="module")
def model():
  return model_of()


def heard(model, *sounds):
  return np.concatenate([each.embeddings for each in model.embed(sounds)])


def test_it_is_an_extractor_of_texts(model):
  assert isinstance(model, extractor.TextExtractor)
  assert model.embed([]) == []
  assert model.embed_texts([]).shape == (0, WIDTH)
  (one,) = model.embed([noise(500, 1)[:, 0]])
  assert one.embeddings.shape == (1, WIDTH) and one.logits is None


def test_a_clip_is_heard_whatever_its_neighbours(model):
  clips = [noise(n, 1)[:, 0] for n in (700, 1200, 5000, 33, 4000, 2500)]
  together = heard(model, *clips)
  for clip, row in zip(clips, together, strict=True):
    # Programs for one and for four clips add in another order.
    np.testing.assert_allclose(heard(model, clip)[0], row, atol=2e-6)
  turned = heard(model, *clips[::-1])[::-1]
  np.testing.assert_allclose(turned, together, atol=2e-6)
  assert np.ptp(together, axis=0).max() > 1e-3


def test_a_sentence_is_read_whatever_its_neighbours(model):
  texts = ["a dog barks", "rain", "", " ".join(2 * WORDS)]
  texts += ["wind in the trees", "cat"] * 9
  together = model.embed_texts(texts)
  for text, row in zip(texts[:5], together, strict=False):
    np.testing.assert_array_equal(model.embed_texts([text])[0], row)
  assert np.abs(together[0] - together[1]).max() > 1e-3


def test_only_the_first_window_is_heard(model):
  clip = noise(3 * SAMPLES, 1)[:, 0]
  first = heard(model, clip[:SAMPLES])
  np.testing.assert_array_equal(heard(model, clip), first)
  assert np.abs(heard(model, clip[1:]) - first).max() > 1e-4


@pytest.mark.parametrize("fill", ("whole", "cut"))
@pytest.mark.parametrize("n", (1, 1500, SAMPLES // 2, SAMPLES - 1))
def test_a_short_clip_fills_the_window(fill, n):
  model = model_of(config_of(fill=fill))
  clip = noise(n, 1)[:, 0]
  filled = np.zeros(SAMPLES, np.float32)
  for i in range(SAMPLES):
    if fill == "cut" or i < SAMPLES // n * n:
      filled[i] = clip[i % n]
  np.testing.assert_array_equal(heard(model, clip), heard(model, filled))


def test_a_clip_of_no_samples_is_refused(model):
  with pytest.raises(InputError, match=r"4000 samples.* 1 sample on.* has 0:"):
    model.embed([np.zeros(10, np.float32), np.zeros(0, np.float32)])


def test_silence_of_any_length_is_one_sound(model):
  silences = heard(model, *(np.zeros(n, np.float32) for n in (1, 900, 9000)))
  assert np.isfinite(silences).all()
  np.testing.assert_array_equal(silences, silences[:1].repeat(3, axis=0))


def test_quantised_sounds_have_16_bits():
  exact, rounded = model_of(), model_of(quantise=True)
  clip = 1.5 * noise(3000, 1)[:, 0] / 3  # some of it beyond full scale
  clip[7] = -1.2
  levels = np.trunc(np.clip(clip, -1, 1) * 32767)
  again = (levels / 32767).astype(np.float32)
  np.testing.assert_array_equal(heard(rounded, clip), heard(exact, again))
  assert not np.array_equal(heard(rounded, clip), heard(exact, clip))


def test_long_sentences_are_cut(model):
  text = " ".join(5 * WORDS)
  cut = " ".join((5 * WORDS)[:LIMIT])
  np.testing.assert_array_equal(*model.embed_texts([text, cut]))
  shorter = " ".join((5 * WORDS)[: LIMIT - 1])
  assert np.abs(np.subtract(*model.embed_texts([text, shorter]))).max() > 1e-5


@pytest.mark.parametrize("network", ("bert", "gpt2"))
def test_padding_says_nothing(network, key):
  if network == "bert":
    config, room = READS, bert

    def made(*inputs):
      _, vector = bert.Bert(READS).apply(*inputs)
      return vector
  else:
    config = GPT2Config(
      vocabulary=40, width=8, layers=2, heads=2, ff=12, positions=30
    )
    room, made = gpt2, gpt2.GPT2(config).apply
  params = {"params": room.init(config, key)}
  run = jax.jit(made)
  ids = jnp.array([[5, 9, 7, 3, 4]])
  padded = jnp.pad(ids, ((0, 0), (0, 11)), constant_values=config.padding)
  np.testing.assert_allclose(run(params, padded), run(params, ids), atol=2e-6)
  with pytest.raises(InputError, match="31 tokens do not fit into"):
    made(params, jnp.ones((1, 31), jnp.int32))


def test_gpt2_counts_what_is_no_padding(key):
  config = GPT2Config(
    vocabulary=20, width=8, layers=1, heads=2, ff=12, positions=9
  )
  params = {"params": gpt2.init(config, key)}
  run = jax.jit(gpt2.GPT2(config).apply)
  # Three ids are no padding, so the third is taken for the last of four.
  within = jnp.array([[5, 0, 7, 3, 0, 0]])
  got = run(params, within)
  unheard = run(params, within.at[0, 3].set(9))
  np.testing.assert_allclose(got, unheard, atol=1e-6)
  other = run(params, within.at[0, 2].set(9))
  assert np.abs(got - other).max() > 1e-4


def test_unit_length_is_for_perceptrons_alone():
  clips = [noise(n, 1)[:, 0] for n in (700, 900)]
  length = np.linalg.norm(heard(model_of(), *clips), axis=1)
  np.testing.assert_allclose(length, 1, atol=1e-6)
  other = model_of(config_of(projection="residual"))
  assert np.abs(np.linalg.norm(heard(other, *clips), axis=1) - 1).min() > 0.01


def test_cnn14_hears_the_whole_window():
  network = Cnn14Config(channels=(4,) * 6, width=8, classes=3, mel=MEL)
  model = model_of(config_of(audio=network))
  clip = noise(SAMPLES, 1)[:, 0]
  bands = htsat.log_mel(MEL, jnp.asarray(clip)[None])
  params = {"params": model.params["audio"]}
  x, _ = cnn14.Cnn14(network).apply(params, bands, jnp.array([63]))
  assert bands.shape[1] == 63
  p = model.params["audio_projection"]
  x = jax.nn.relu(x @ p["first"]["kernel"] + p["first"]["bias"][None])
  x = x @ p["second"]["kernel"] + p["second"]["bias"][None]
  want = x / jnp.linalg.norm(x)
  np.testing.assert_allclose(heard(model, clip), want, atol=1e-5)


def test_the_image_lays_segments_one_below_the_other():
  config = dataclasses.replace(HEARS, image=16, patch=4)
  bands = noise(2, 32 * 8).reshape(2, 32, 8)  # the image's own length
  got = htsat.to_image(config, jnp.asarray(bands))
  for segment in range(2):
    want = bands[:, 16 * segment : 16 * segment + 16].swapaxes(1, 2)
    rows = got[:, 8 * segment : 8 * segment + 8]
    np.testing.assert_allclose(rows, want, atol=1e-6)


def test_stretching_keeps_ends_and_straight_lines():
  weights = htsat.stretching(101, 128)
  np.testing.assert_allclose(weights.sum(axis=0), 1, atol=4e-6)
  assert weights[0, 0] == 1 and weights[-1, -1] == 1
  line = np.arange(101) @ weights
  want = np.linspace(0, 100, 128)
  # A cubic of slope -0.75 wavers about a line by less than 0.1 of a frame.
  np.testing.assert_allclose(line[4:-4], want[4:-4], atol=0.1)
  assert np.abs(line[4:-4] - want[4:-4]).max() > 0.03  # at -0.5 it would not


def test_what_is_behind_an_edge_is_kept_apart():
  side, window, shift = 12, 4, 2
  edges = htsat._edges(side, window, shift)
  at = np.roll(np.arange(side * side).reshape(side, side), (-2, -2), (0, 1))
  for w, (y, x) in enumerate(np.ndindex(3, 3)):
    cut = at[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].ravel()
    rows, columns = np.divmod(cut, side)
    near = np.abs(rows[:, None] - rows) < window
    near &= np.abs(columns[:, None] - columns) < window
    np.testing.assert_array_equal(edges[w] == 0, near)


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({"heads": (1,)}, "2 stages have 1 numbers of heads"),
    ({"heads": (1, 3)}, "stage 1 has width 8 for 3 heads"),
    ({"image": 36}, "8 mel bands do not fill 36 rows"),
    ({"window": 3}, r"grids of \[8, 4\] tokens, which windows of 3"),
  ],
)
def test_networks_that_cannot_be(given, said):
  with pytest.raises(InputError, match=said):
    dataclasses.replace(HEARS, **given)


def test_windows_that_cannot_be():
  with pytest.raises(InputError, match="8192 samples has 129 .* 1 to 128:"):
    config_of(samples=8192)
  network = Cnn14Config(channels=(4,) * 6, width=8, classes=3, mel=MEL)
  with pytest.raises(InputError, match="1900 samples has 30 .* hears 32 to"):
    config_of(audio=network, samples=1900)
  with pytest.raises(InputError, match="width 8 is no multiple of 3 heads"):
    dataclasses.replace(READS, heads=3)


def test_a_tokenizer_of_another_model_is_refused():
  small = dataclasses.replace(READS, vocabulary=10)
  with pytest.raises(InputError, match="has 14 pieces, its text network 10"):
    model_of(config_of(text=small))


@pytest.mark.parametrize("kind", word_pieces.FILES)
def test_no_tokenizer(tmp_path, kind):
  with pytest.raises(InputError, match=f"no tokenizer of {kind}; .* hold"):
    word_pieces.load(tmp_path, kind, limit=9)
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(InputError, match=f"no tokenizer of {kind} can be read"):
    word_pieces.load(tmp_path, kind, limit=9)
