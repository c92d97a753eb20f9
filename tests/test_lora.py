"""Adapters beside a model's weights: on disk, in sampling, in every type."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from audiogen_jax import AudioGen
from audiogen_jax.convert import adapters, export
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import language_model, lora, model
from audiogen_jax.lm.lora import LoRAConfig

TEXTS = ["a dog barks"]
ONE = LoRAConfig(rank=2, where=r"self_attn/(qkv|out)|cross_attn/.*|up|down")
OTHER = LoRAConfig(rank=3, alpha=4.0, where="self_attn/.*")


def drawn(config, lm, seed):
  """Adapters that do something: B starts at zero."""
  base = jax.eval_shape(lambda: model.init(lm, jax.random.key(0)))
  tree = lora.init(config, base, model.MATRICES, jax.random.key(seed))
  leaves, treedef = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return treedef.unflatten(
    0.05 * jax.random.normal(key, leaf.shape)
    for key, leaf in zip(keys, leaves, strict=True)
  )


@pytest.fixture(scope="module")
def plain(tiny):
  return AudioGen.from_pretrained(tiny, dtype="float32")


@pytest.fixture(scope="module")
def folders(plain, tmp_path_factory):
  made = []
  for i, config in enumerate((ONE, OTHER)):
    folder = tmp_path_factory.mktemp("lora") / "adapters"
    tree = drawn(config, plain.lm.config, i)
    adapters.write(epath.Path(folder), tree, config, "tiny")
    made.append(folder)
  return made


@pytest.fixture(scope="module")
def codes(plain):
  return plain.generate_codes(TEXTS, frames=12)


def test_two_act_as_if_merged(tiny, plain, folders, codes, tmp_path):
  given = [f"{folders[0]}@0.5", str(folders[1])]
  both = AudioGen.from_pretrained(tiny, dtype="float32", adapters=given)
  both.save(tmp_path / "saved")
  merged = AudioGen.from_pretrained(tmp_path / "saved", dtype="float32")
  kernel = model.stack(plain.lm.params)["layers"]["self_attn"]["qkv"]["kernel"]
  want = np.array(kernel)
  for config, seed, strength in ((ONE, 0, 0.5), (OTHER, 1, 1.0)):
    one = drawn(config, plain.lm.config, seed)["layers.self_attn.qkv"]
    scale = strength * config.alpha / config.rank
    want += scale * np.einsum("lir,lro->lio", one["a"], one["b"]).reshape(
      want.shape
    )
  held = model.stack(merged.lm.params)["layers"]["self_attn"]["qkv"]
  np.testing.assert_allclose(held["kernel"], want, atol=1e-5)
  found, _ = both.logits(codes, TEXTS)
  np.testing.assert_allclose(
    found, merged.logits(codes, TEXTS)[0], rtol=1e-4, atol=1e-4
  )
  assert np.abs(found - plain.logits(codes, TEXTS)[0]).max() > 0.1
  np.testing.assert_array_equal(
    both.generate_codes(TEXTS, frames=12),
    merged.generate_codes(TEXTS, frames=12),
  )


def test_a_strength_is_a_value(tiny, plain, folders, codes):
  one = AudioGen.from_pretrained(tiny, dtype="float32", adapters=folders[:1])
  first, _ = one.logits(codes, TEXTS)
  want, _ = plain.logits(codes, TEXTS)
  programs = language_model.logits, lora._beside
  compiled = [program._cache_size() for program in programs]
  one.lm.set_strengths([0])
  np.testing.assert_allclose(one.logits(codes, TEXTS)[0], want, atol=1e-5)
  one.lm.set_strengths([1])
  np.testing.assert_array_equal(one.logits(codes, TEXTS)[0], first)
  assert [program._cache_size() for program in programs] == compiled


def test_int8_weights_and_adapters(tiny, plain, folders, codes):
  want, _ = AudioGen.from_pretrained(
    tiny, dtype="float32", adapters=[folders[0]]
  ).logits(codes, TEXTS)
  found, _ = AudioGen.from_pretrained(
    tiny, dtype="int8", adapters=[folders[0]]
  ).logits(codes, TEXTS)
  without, _ = AudioGen.from_pretrained(tiny, dtype="int8").logits(codes, TEXTS)
  off = np.abs(found - want).mean(), np.abs(without - want).mean()
  assert off[0] < 0.2 * off[1]


def test_conversion_merges(tiny, folders, codes, tmp_path):
  export.convert(
    tiny, tmp_path / "a", dtype="float32", adapters=[f"{folders[0]}@0.5"]
  )
  want = AudioGen.from_pretrained(
    tiny, dtype="float32", adapters=[f"{folders[0]}@0.5"]
  )
  found = AudioGen.from_pretrained(tmp_path / "a", dtype="float32")
  np.testing.assert_allclose(
    found.logits(codes, TEXTS)[0],
    want.logits(codes, TEXTS)[0],
    rtol=1e-4,
    atol=1e-4,
  )


def test_what_cannot_be_adapted(tiny, folders, tmp_path):
  for given, said in (
    (f"{folders[0]}@loud", "strength 'loud' must be a number"),
    (f"{folders[0]}@nan", "must be a number from -100"),
    (f"{folders[0]}@1e9", "must be a number from -100"),
    (tmp_path / "none", "holds no adapters; training with lora.rank"),
  ):
    with pytest.raises(InputError, match=said):
      AudioGen.from_pretrained(tiny, adapters=[given])
  with pytest.raises(InputError, match="do not fit this model: .* trained on"):
    AudioGen.from_pretrained("nano", adapters=folders[:1])
  with pytest.raises(InputError, match="no regular expression"):
    LoRAConfig(rank=1, where="(")
  one = AudioGen.from_pretrained(tiny, adapters=folders[:1])
  with pytest.raises(InputError, match="2 strengths for 1 adapters"):
    one.lm.set_strengths([1, 2])


def test_the_command(audiogen, tiny, folders, tmp_path):
  command = ["generate", "rain", "--model", tiny, "--duration", 0.3]
  made = []
  for i, words in enumerate(([], ["--adapters", f"{folders[0]}@2"])):
    path = tmp_path / f"{i}.wav"
    status, _, errors = audiogen(*command, *words, "-o", path)
    assert status == 0 and not errors.strip(), errors
    made.append(path.read_bytes())
  assert made[0] != made[1]


def test_other_commands(audiogen, refused, tiny, folders, tmp_path):
  """Each that takes a model takes its adapters, and names them."""
  given = ("--adapters", folders[0], "--adapters", f"{folders[1]}@0.5")
  status, output, errors = audiogen("info", tiny, *given)
  assert status == 0 and f"rank {ONE.rank}" in output, errors
  assert f"rank {OTHER.rank}" in output
  path = tmp_path / "sample.json"
  status, _, errors = audiogen(
    *("benchmark", "sample", "--model", tiny, *given, "--runs", 1),
    *("--duration", 0.2, "--json", path),
  )
  told = json.loads(path.read_text())
  assert status == 0 and f"{folders[1]}@0.5" in told["title"], errors
  path = tmp_path / "precision.json"
  status, _, errors = audiogen(
    *("evaluate", "precision", tiny, *given, "--dtype", "bfloat16"),
    *("--duration", 0.2, "--json", path),
  )
  told = json.loads(path.read_text())
  assert status == 0 and told["adapters"] == list(map(str, given[1::2])), errors
  assert "--model" in refused("benchmark", "sample", *given)
  named = refused("benchmark", "startup", "--adapters", tmp_path / "none")
  assert "holds no adapters" in named
