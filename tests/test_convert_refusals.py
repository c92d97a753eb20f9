"""What conversion refuses, and what it reads beside the two files."""

import dataclasses
import json

import numpy as np
import pytest
from published import (
  CODEC,
  CODEC_FILE,
  LM,
  LM_FILE,
  edit_file,
  lm_of,
  opened,
  parts_of,
  put,
  random_tree,
  same,
  values,
)
from safetensors.numpy import save_file

from audiogen_jax.codec import encodec
from audiogen_jax.convert import (
  audiocraft,
  audiocraft_config,
  engine,
  export,
  huggingface_config,
  opening,
  seanet,
  torch_file,
)
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.text import t5


@pytest.mark.parametrize("file", [LM_FILE, CODEC_FILE])
def test_tensors_that_do_not_fit(folder, file):
  name, path = "decoder.model.0.conv.conv.bias", folder / file
  if file == LM_FILE:
    name = "transformer.layers.1.linear1.weight"
  whole = path.read_bytes()
  for edit, words in (
    (lambda state, _: state.pop(name), f"{file} lacks {name}$"),
    (
      lambda state, _: state.update(surprise=np.zeros(3, np.float32)),
      f"{file} holds unknown surprise$",
    ),
    (
      lambda state, _: state.update({name: state[name][:-1]}),
      rf"{name} has shape \[\d+.*its configuration asks for \[\d+",
    ),
    (
      lambda state, _: state.update(
        {f"x{i}": state.pop(k) for i, k in enumerate(sorted(state)[-5:])}
      ),
      r"lacks \S+, \S+, \S+ and 2 more and holds unknown \S+, \S+, \S+ and 2",
    ),
  ):
    path.write_bytes(whole)
    edit_file(path, edit)
    with pytest.raises(InputError, match=words):
      opened(folder)


BAD = {
  LM_FILE: {
    "lm_model": "transformer_lm_hybrid",
    "transformer_lm.activation": "relu",
    "transformer_lm.norm_first": False,
    "transformer_lm.positional_embedding": "rope",
    "transformer_lm.layer_scale": 0.1,
    "transformer_lm.qk_layer_norm": True,
    "transformer_lm.kv_repeat": 2,
    "transformer_lm.positional_scale": 0.5,
    "transformer_lm.max_period": 100,
    "conditioners.description.t5.normalize_text": True,
    "transformer_lm.past_context": 100,
    "codebooks_pattern.modeling": "music_lm",
    "conditioners.description.model": "clap",
    "conditioners.description.t5.finetune": True,
    "fuser.sum": ["description"],
    "fuser.cross_attention_pos_emb": True,
    "interleave_stereo_codebooks.per_timestep": True,
  },
  CODEC_FILE: {
    "compression_model": "dac",
    "encodec.quantizer": "no_quant",
    "seanet.activation": "Snake",
    "seanet.activation_params.alpha": 0.5,
    "seanet.norm": "spectral_norm",
    "seanet.pad_mode": "replicate",
    "seanet.decoder.trim_right_ratio": 0.5,
    "seanet.decoder.final_activation": "Tanh",
    "seanet.encoder": {"lstm": 4},
  },
}


@pytest.mark.parametrize(
  ("file", "name", "value"),
  [(file, *item) for file, items in BAD.items() for item in items.items()],
)
def test_values_that_are_not_built_are_named(folder, file, name, value):
  edit_file(folder / file, lambda _, cfg: put(cfg, name, value))
  with pytest.raises(InputError) as caught:
    opened(folder)
  last = name.split(".")[-1]
  last = "kind" if last == "model" else last  # of condition
  value = "lstm" if last == "encoder" else value
  assert str(value) in str(caught.value) and last in str(caught.value)


@pytest.mark.parametrize(
  ("file", "edit", "words"),
  [
    (LM_FILE, lambda cfg: cfg.pop("fuser"), "lacks 'fuser'"),
    (
      LM_FILE,
      lambda cfg: cfg["transformer_lm"].pop("n_q"),
      "lacks 'transformer_lm.n_q'",
    ),
    (
      LM_FILE,
      lambda cfg: cfg["transformer_lm"].pop("causal"),
      "lacks 'transformer_lm.causal'",
    ),
    (CODEC_FILE, lambda cfg: cfg["rvq"].pop("bins"), "lacks 'rvq.bins'"),
    (
      LM_FILE,
      lambda cfg: cfg["conditioners"].update(melody={"model": "chroma"}),
      r"\['description', 'melody'\] .* are not supported; only one text",
    ),
    (
      CODEC_FILE,
      lambda cfg: cfg["seanet"].update(channels="${no.where}"),
      "lacks 'no'",
    ),
  ],
)
def test_configurations_that_lack_something(folder, file, edit, words):
  edit_file(folder / file, lambda _, cfg: edit(cfg))
  with pytest.raises(InputError, match=words):
    opened(folder)


def test_what_the_builders_read_is_what_counts(folder):
  """`seanet` says how the codec is built; `encodec` only repeats it."""
  want = opened(folder)

  def edit(_, cfg):
    cfg["encodec"]["causal"], cfg["encodec"]["channels"] = True, 7

  edit_file(folder / CODEC_FILE, edit)
  assert opened(folder).codec == want.codec

  def older(_, cfg):
    cfg["codebooks_pattern"]["modeling"] = None
    cfg["transformer_lm"]["q_modeling"] = "parallel"

  edit_file(folder / LM_FILE, older)
  with pytest.raises(InputError, match="q_modeling.*parallel"):
    opened(folder)


def test_a_language_model_of_fewer_codebooks_than_the_codec(tmp_path):
  pattern = Pattern("delay", delays=(0, 1, 2))
  parts = parts_of(lm=lm_of(codebooks=3, pattern=pattern))
  audiocraft.write(tmp_path, parts)
  edit_file(
    tmp_path / LM_FILE, lambda _, cfg: cfg.update(compression_model_n_q=3)
  )
  again = opened(tmp_path)
  assert again.codec.rvq.codebooks == again.lm.codebooks == 3
  got = values(again.codec_tree["codebooks"])
  for name, whole in parts.codec_tree["codebooks"].items():
    np.testing.assert_array_equal(got[name], whole[:3])
  edit_file(
    tmp_path / LM_FILE, lambda _, cfg: cfg.update(compression_model_n_q=5)
  )
  with pytest.raises(InputError, match="n_q = 5 must lie in 1 to 4"):
    opened(tmp_path)


@pytest.mark.parametrize(
  ("lm", "options", "words"),
  [
    (lm_of(pattern=Pattern("parallel", flatten_first=2)), {}, "flatten_first"),
    (lm_of(prepend_text=True), {}, "prepended and cross-attended"),
    (lm_of(), dict(text_name=None), "names none"),
  ],
)
def test_what_the_published_format_cannot_hold(tmp_path, lm, options, words):
  with pytest.raises(InputError, match=words):
    audiocraft.write(tmp_path, parts_of(lm=lm, **options))
  assert not list(tmp_path.iterdir())


def test_language_model_and_codec_must_agree(folder):
  codec = dataclasses.replace(CODEC.rvq, codebooks=3)
  codec = dataclasses.replace(CODEC, rvq=codec)
  audiocraft.write(folder, parts_of(codec, lm=None))
  words = "writes 4 codebooks of 10, the codec reads 3 of 10"
  with pytest.raises(InputError, match=words):
    opened(folder)


@pytest.mark.parametrize(
  ("saved", "words"),
  [
    ({"xp.cfg": "a: 1"}, "lacks 'best_state'"),
    ({"best_state": {}}, "lacks 'xp.cfg'"),
    ({"best_state": {}, "xp.cfg": "a: [1"}, "not YAML"),
    ({"best_state": {}, "xp.cfg": "just words"}, "holds no keys"),
    ([1, 2], "holds no dictionary"),
  ],
)
def test_files_that_are_something_else(tmp_path, saved, words):
  torch_file.write(tmp_path / CODEC_FILE, saved)
  with pytest.raises(InputError, match=words):
    opened(tmp_path)


# Links


def test_links_within_the_configuration():
  text = """
    rate: 16000
    base: {rate: "${rate}", list: [8, 5]}
    encodec: {sample_rate: "${base.rate}", net: "${base}"}
    text: "about ${rate}"
  """
  cfg = audiocraft_config.parse(text).values
  assert cfg["encodec"]["sample_rate"] == 16000
  assert cfg["encodec"]["net"]["rate"] == 16000
  assert cfg["base"]["list"] == [8, 5]
  assert cfg["text"] == "about ${rate}"  # only whole values are links
  assert cfg.get("nothing") is None and len(cfg) == 4
  assert cfg["encodec"].get("net").get("rate") == 16000


def test_linked_values_build_the_same_codec(folder):
  want = opened(folder).codec

  def link(_, cfg):
    cfg["shape"] = {"width": cfg["seanet"]["dimension"], "n": "${rvq.n_q}"}
    cfg["seanet"]["dimension"] = "${shape.width}"
    cfg["encodec"]["causal"] = "${seanet.causal}"
    cfg["sample_rate"], rate = 44100, cfg["sample_rate"]
    cfg["rate"], cfg["encodec"]["sample_rate"] = rate, "${rate}"

  edit_file(folder / CODEC_FILE, link)
  assert opened(folder).codec == want


# Folders


def test_a_codec_that_lies_beside(folder):
  codec = dataclasses.replace(CODEC, overlap=0.01)
  tree = random_tree(encodec.init, codec)
  write_encodec(folder / "its_codec", codec, tree)
  torch_file.write(folder / CODEC_FILE, {"pretrained": "its_codec"})
  parts = opened(folder)
  assert parts.codec == codec
  same(values(parts.codec_tree), tree)
  torch_file.write(folder / CODEC_FILE, {"pretrained": "some/where_else"})
  with pytest.raises(InputError, match="hf download some/where_else"):
    opened(folder)


def write_encodec(folder, codec, tree):
  """An EnCodec folder of Hugging Face."""
  parts = Parts(codec, tree, lm=LM, text=t5.T5Config(width=5))
  described = huggingface_config.musicgen(parts)["audio_encoder"]
  table = seanet.table(codec, seanet.TRANSFORMERS)
  tensors = engine.export(tree, table)
  folder.mkdir()
  (folder / "config.json").write_text(json.dumps(described))
  save_file(values(tensors), folder / "model.safetensors")


def test_folders_of_no_kind(tmp_path, tiny):
  words = "holds no model: it is in none of the formats audiocraft, encodec, ma"
  with pytest.raises(InputError, match=words):
    opening.open_parts(tmp_path)
  (tmp_path / "config.json").write_text('{"model_type": "bert"}')
  with pytest.raises(InputError, match="describes 'bert', which is not"):
    opening.open_parts(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(InputError, match="is not JSON"):
    opening.open_parts(tmp_path)
  with pytest.raises(InputError, match="holds a t5, not an AudioGen"):
    opening.open_parts(tiny / "t5")
  with pytest.raises(InputError, match="is not a folder with a model"):
    opening.open_parts(tiny / LM_FILE)
  for name in ("./nothing", "/no/where", "a/b/c"):
    with pytest.raises(InputError, match=f"{name} does not exist"):
      opening.open_parts(name)
  with pytest.raises(InputError, match="'npz' is not one of orbax, audiocraft"):
    export.convert(tiny, tmp_path / "out", to="npz")


def test_text_encoders_that_do_not_fit(folder, tiny):
  with pytest.raises(
    InputError, match="states of 512; .* trained with 5 .some"
  ):
    opening.open_parts(folder, text_encoder=tiny / "t5")
  with pytest.raises(InputError, match="is a audiocraft model, not a T5"):
    opening.open_parts(folder, text_encoder=tiny)
  with pytest.raises(InputError, match="text encoder: .*/nothing does not"):
    opening.open_parts(folder, text_encoder="./nothing")
  # The checkpoint's own is a hub id, and there is no network.
  words = "text encoder: some-t5 is neither .*hf download some-t5 --local-dir"
  with pytest.raises(InputError, match=words):
    opening.open_parts(folder)


def test_a_hub_id_without_a_network():
  words = "facebook/audiogen-medium is neither a folder .* and name the folder"
  with pytest.raises(InputError, match=words):
    opening.open_parts("facebook/audiogen-medium")
