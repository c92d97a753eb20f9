"""Published files of CLAP: tokenizers, what is missing, damaged, another's."""

import hashlib
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import safetensors.numpy

from audiogen_jax.convert import torch_file
from audiogen_jax.convert.clap import load_clap
from audiogen_jax.core import word_pieces
from audiogen_jax.core.errors import InputError

GOLDEN = pathlib.Path(__file__).parent / "golden"
LAION = GOLDEN / "eval_clap_laion" / "music_audioset_epoch_15_esc_90.14.pt"
HF, MICROSOFT = GOLDEN / "eval_clap_hf", GOLDEN / "eval_msclap"
HEAD = "module.audio_branch.layers.0.blocks."
TEXTS = [
  "A dog barks, twice!",
  "café au lait, naïve 犬 <s> !!!",
  "",
  "thunderstorms " * 60,
]


def tensors(path, key="state_dict"):
  stored = torch_file.read(path)[key]
  return {name: np.array(tensor.read()) for name, tensor in stored.items()}


def write(folder, state, key="state_dict", name=LAION.name):
  """A file of LAION's with its tokenizer and its settings beside it."""
  shutil.copytree(LAION.parent / "roberta-base", folder / "roberta-base")
  shutil.copy(LAION.parent / "config.json", folder)
  torch_file.write(folder / name, {key: state})
  return folder / name


def copy_of_hf(folder):
  for path in HF.iterdir():
    if path.is_file() and path.suffix != ".npz":
      shutil.copy(path, folder)
  return folder


@pytest.mark.parametrize(
  ("folder", "kind"),
  [
    (LAION.parent / "roberta-base", "roberta"),
    (MICROSOFT / "gpt2", "gpt2"),
    (MICROSOFT / "bert-base-uncased", "bert"),
  ],
)
def test_a_vocabulary_alone_makes_the_same_ids(tmp_path, folder, kind):
  if kind == "bert":
    # The pack's vocab.txt has another order than its tokenizer.json.
    rules = json.loads((folder / "tokenizer.json").read_text())
    ids = rules["model"]["vocab"]
    lines = "\n".join(sorted(ids, key=ids.get))
    (tmp_path / "vocab.txt").write_text(lines + "\n")
  else:
    for name in word_pieces.FILES[kind][1:]:
      shutil.copy(folder / name, tmp_path)
  options = dict(limit=50, behind=" <|endoftext|>", marks=("!",))
  if kind != "gpt2":
    options = dict(limit=50)
  ours = word_pieces.load(tmp_path, kind, **options)
  theirs = word_pieces.load(folder, kind, **options)
  assert ours.vocabulary == theirs.vocabulary
  for text in TEXTS:
    assert ours.ids(text) == theirs.ids(text)
    assert len(ours.ids(text)) <= 50


def test_microsofts_padding_is_a_piece_of_its_own(tmp_path):
  """As `!` is a mark there, " !" is not the one piece that it is in GPT-2."""
  for name in ("CLAP_weights_2023.pth", "config_2023.json"):
    shutil.copy(MICROSOFT / name, tmp_path)
  folder = tmp_path / "gpt2"
  folder.mkdir()
  ids = {"!": 0, "Ġ": 1, "Ġ!": 2, "a": 3, "<|endoftext|>": 4}
  (folder / "vocab.json").write_text(json.dumps(ids))
  (folder / "merges.txt").write_text("#version: 0.2\nĠ !\n")
  plain = word_pieces.load(folder, "gpt2", limit=9)
  assert plain.ids("a !!") == [3, 2, 0]
  words = load_clap(tmp_path / "CLAP_weights_2023.pth")._words
  assert words.ids("a !!") == [3, 1, 0, 0, 1, 4]


def test_what_a_model_says_of_itself():
  model = load_clap(LAION)
  assert model.name == "music_audioset_epoch_15_esc_90.14"
  assert model.sha256 == hashlib.sha256(LAION.read_bytes()).hexdigest()
  assert model.sample_rate_hz == 48_000
  shorter = load_clap(LAION, window_s=4)
  assert (model.config.samples, shorter.config.samples) == (480_000, 192_000)


@pytest.mark.parametrize("window_s", (0, -1.5, float("nan"), 1e9))
def test_windows_that_cannot_be(window_s):
  with pytest.raises(InputError, match=f"a window of {window_s} s; it must"):
    load_clap(LAION, window_s=window_s)


def test_a_window_longer_than_the_image():
  with pytest.raises(InputError, match="hears 1 to 1024: take another"):
    load_clap(LAION, window_s=11)


def test_names_without_module_are_read(tmp_path):
  state = {k.removeprefix("module."): v for k, v in tensors(LAION).items()}
  path = write(tmp_path, state)
  ours, theirs = load_clap(path), load_clap(LAION)
  np.testing.assert_array_equal(
    ours.embed_texts(TEXTS), theirs.embed_texts(TEXTS)
  )


@pytest.mark.parametrize(
  ("name", "said"),
  [
    (
      "630k-audioset-best.pt",
      "hf download lukewys/laion_clap 630k-audioset-best.pt --local-dir {}$",
    ),
    (
      "another.pt",
      "lukewys/laion_clap music_audioset_epoch_15_esc_90.14.pt --local-dir {}$",
    ),
    (
      "CLAP_weights_2022.pth",
      "hf download microsoft/msclap CLAP_weights_2022.pth --local-dir {}$",
    ),
    (
      "clap-htsat-unfused",
      "download laion/clap-htsat-unfused --local-dir {}/clap-htsat-unfused,",
    ),
  ],
)
def test_what_is_missing_is_named_with_its_source(tmp_path, name, said):
  said = said.format(re.escape(str(tmp_path)))
  with pytest.raises(InputError, match=said):
    load_clap(tmp_path / name)


def test_a_folder_without_settings(tmp_path):
  with pytest.raises(InputError, match=r"lacks config.json.*\.pt or \.pth$"):
    load_clap(tmp_path)


@pytest.mark.parametrize(
  ("source", "kind", "hub_id"),
  [
    (LAION, "roberta-base", "FacebookAI/roberta-base"),
    (MICROSOFT / "CLAP_weights_2022.pth", "bert-base-uncased", "google-bert"),
    (MICROSOFT / "CLAP_weights_2023.pth", "gpt2", "openai-community/gpt2"),
  ],
)
def test_a_missing_tokenizer_is_named_with_its_source(
  tmp_path, source, kind, hub_id
):
  shutil.copy(source, tmp_path)
  for settings in source.parent.glob("config*.json"):
    shutil.copy(settings, tmp_path)
  said = rf"no tokenizer of .* hf download {hub_id}.* tokenizer\.json --local-"
  with pytest.raises(InputError, match=rf"{said}dir .*/{kind}$"):
    load_clap(tmp_path / source.name)


def _without(state):
  for j in range(2):
    for name in ("weight", "bias"):
      del state[f"{HEAD}{j}.norm1.{name}"]


def _with(state):
  for i in range(5):
    state[f"module.stranger.{i}"] = np.ones(2, np.float32)


def _other_width(state):
  state["module.text_projection.0.bias"] = np.ones(7, np.float32)


def _fused(state):
  for name in ("mel_conv2d.weight", "fusion_model.local_att.0.weight"):
    state[f"module.audio_branch.patch_embed.{name}"] = np.ones((2, 2))


def _nan(state):
  state["module.text_branch.pooler.dense.bias"][3] = np.nan


def _other_filters(state):
  state["module.audio_branch.logmel_extractor.melW"][40, 5] += 0.01


def _no_layers(state):
  for name in [name for name in state if ".encoder.layer." in name]:
    del state[name]


def _scale(state):
  state["module.logit_scale_a"] = np.float32(np.nan) * np.ones(())


DAMAGE = {
  _without: r"lacks audio_branch\.layers\.0\.blocks\.0\.norm1\.weight, .* 1 mo",
  _with: r"holds unknown stranger\.0, stranger\.1, stranger\.2 and 2 more",
  _other_width: r"text_projection\.0\.bias has shape \[7\]; .* for \[32\]",
  _fused: r"feature fusion \(2 tensors of it\).* 630k-audioset-best\.pt",
  _nan: r"text_branch\.pooler\.dense\.bias",
  _other_filters: r"mel filters \[513, 64\] .* 50 to 14000 Hz at 48000 Hz",
  _no_layers: r"lacks text_branch\.encoder\.layer\.0",
  _scale: "logit_scale_a is not finite",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path, damage):
  state = tensors(LAION)
  damage(state)
  path = write(tmp_path, state)
  with pytest.raises(InputError, match=DAMAGE[damage]) as error:
    load_clap(path)
  assert "\n" not in str(error.value)


def test_a_file_of_something_else(tmp_path):
  path = write(tmp_path, {"weight": np.ones(3, np.float32)})
  with pytest.raises(InputError, match="holds 1 tensors, but none of a CLAP"):
    load_clap(path)


def test_a_hugging_face_folder_with_fusion(tmp_path):
  copy_of_hf(tmp_path)
  settings = json.loads((tmp_path / "config.json").read_text())
  settings["audio_config"]["enable_fusion"] = True
  (tmp_path / "config.json").write_text(json.dumps(settings))
  with pytest.raises(InputError, match="fusion, which is not supported; take"):
    load_clap(tmp_path)


@pytest.mark.parametrize(
  ("file", "key", "value", "said"),
  [
    ("preprocessor_config.json", "padding", "pad", "padding = 'pad' is not"),
    ("preprocessor_config.json", "hop_length", 0, "hop_length = 0"),
    ("config.json", "model_type", "clip", "model_type = 'clip' is not"),
  ],
)
def test_hugging_face_settings_that_are_not_built(
  tmp_path, file, key, value, said
):
  copy_of_hf(tmp_path)
  settings = json.loads((tmp_path / file).read_text()) | {key: value}
  (tmp_path / file).write_text(json.dumps(settings))
  with pytest.raises(InputError, match=said):
    load_clap(tmp_path)


def test_a_hugging_face_folder_that_leaves_its_settings_out(tmp_path):
  """As the first published one does: what it is built of tells its sizes."""
  copy_of_hf(tmp_path)
  settings = json.loads((tmp_path / "config.json").read_text())
  kept = {
    "model_type": "clap",
    "audio_config": {
      "num_attention_heads": settings["audio_config"]["num_attention_heads"]
    },
    "text_config": {
      "num_attention_heads": settings["text_config"]["num_attention_heads"]
    },
  }
  (tmp_path / "config.json").write_text(json.dumps(kept))
  assert load_clap(tmp_path).config == load_clap(HF).config


def test_a_hugging_face_folder_that_lacks_a_tensor(tmp_path):
  copy_of_hf(tmp_path)
  path = tmp_path / "model.safetensors"
  state = safetensors.numpy.load_file(path)
  del state["audio_projection.linear2.bias"]
  safetensors.numpy.save_file(state, path)
  with pytest.raises(InputError, match=r"lacks audio_projection\.linear2\.bia"):
    load_clap(tmp_path)
