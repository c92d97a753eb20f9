"""Files of Make-An-Audio that are wrong, damaged or hostile: one line each."""

import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_make_an_audio as tiny
import yaml

from audiogen_jax.convert import (
  export,
  hub,
  make_an_audio,
  make_an_audio_folder,
  make_an_audio_loading,
  make_an_audio_parts,
  torch_file,
  yaml_file,
)
from audiogen_jax.core import errors
from audiogen_jax.core.errors import InputError

YAML = "configs/text_to_audio/txt2audio_args.yaml"
CHECKPOINT = "useful_ckpts/maa1_full.ckpt"
VOCODER = "useful_ckpts/bigvgan/best_netG.pt"


@pytest.fixture(scope="module")
def parts():
  return tiny.parts()


@pytest.fixture(scope="module")
def theirs(parts, tmp_path_factory):
  """A model in the published layout."""
  path = tmp_path_factory.mktemp("published") / "model"
  make_an_audio_folder.write(path, parts, tiny.words())
  return path


@pytest.fixture(scope="module")
def ours(parts, tmp_path_factory):
  """A model in our own format."""
  path = tmp_path_factory.mktemp("ours") / "model"
  make_an_audio_parts.write_orbax(path, parts, tiny.words())
  return path


@pytest.fixture
def folder(theirs, tmp_path):
  """A copy that may be damaged."""
  return shutil.copytree(theirs, tmp_path / "model")


def said_of(folder):
  with pytest.raises(InputError) as error:
    make_an_audio_parts.open_parts(folder)
  assert "\n" not in str(error.value)
  return str(error.value)


def set_within(values, path, value):
  *groups, name = path.split(".")
  for group in groups:
    values = values[group]
  values[name] = value


UNET_OF = "model.params.unet_config.params."


@pytest.mark.parametrize(
  ("path", "value", "said"),
  [
    (f"{UNET_OF}channel_mult", [], "levels of the U-Net = 0 must lie in 1 to"),
    (f"{UNET_OF}channel_mult", [1] * 100, "levels of the U-Net = 100 must lie"),
    (f"{UNET_OF}transformer_depth", 1024, "transformer blocks on the way up ="),
    (f"{UNET_OF}model_channels", 48, "48 channels do not divide into 32"),
    (f"{UNET_OF}in_channels", 1, "reads 1 channels, fewer than the 4 of a"),
    ("model.params.linear_end", 1, "β from 0.00085 to 1 must rise within 0"),
  ],
)
def test_sizes_that_cannot_be_meant(folder, path, value, said):
  file = folder / YAML
  values = yaml.safe_load(file.read_text())
  set_within(values, path, value)
  file.write_text(yaml.safe_dump(values))
  message = said_of(folder)
  assert said in message and message.startswith(str(file))


def test_windows_that_cannot_be_meant(folder):
  file = folder / YAML
  values = yaml.safe_load(file.read_text())
  values["model"]["params"]["mel_length"] = 1_000_000
  file.write_text(yaml.safe_dump(values))
  # It could be converted, and the result not be opened.
  assert "window_s = 128000.0 must lie in 0.001 to 86400" in said_of(folder)


def test_vocoders_that_cannot_be_meant(folder):
  file = folder / VOCODER.replace("best_netG.pt", "args.yml")
  values = yaml.safe_load(file.read_text())
  values["resblock_dilation_sizes"] = [[1] * 256]
  file.write_text(yaml.safe_dump(values))
  message = said_of(folder)
  assert "dilated convolutions of the vocoder = 1536 must lie in" in message
  assert message.startswith(str(file))


def test_references_that_grow_without_end(tmp_path):
  lists = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
  for i in range(9):
    lists.append(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]")
  maps = ["a0: &a0 {x: 1}"]
  for i in range(9):
    maps.append(f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}")
  path = tmp_path / "grows.yaml"
  for lines in (lists, maps, ["a: &a [*a]"]):
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="once its references are followed"):
      yaml_file.read(path)
  path.write_text("a: &a [1, 3, 5]\nb: [*a, *a]")
  assert yaml_file.read(path).values["b"] == [[1, 3, 5]] * 2
  path.write_text("")
  with pytest.raises(InputError, match="holds no keys and values"):
    yaml_file.read(path)


@pytest.mark.parametrize(
  ("name", "dtype"),
  [
    ("scale_factor", np.complex64),
    ("model.diffusion_model.out.2.bias", np.complex64),
    ("first_stage_model.quant_conv.bias", np.int64),
  ],
)
def test_weights_that_are_no_real_numbers(folder, name, dtype):
  file = folder / CHECKPOINT
  saved = torch_file.read(file)
  saved["state_dict"][name] = saved["state_dict"][name].read().astype(dtype)
  torch_file.write(file, saved)
  want = f"{name} holds {np.dtype(dtype)} where weights belong"
  assert want in said_of(folder)


def test_a_folder_full_of_yaml_files(folder):
  (folder / "environment.yaml").write_text("name: ldm")
  make_an_audio_parts.open_parts(folder)
  for i in range(20):
    (folder / f"{i}.yml").write_text("a: 1")
  assert "holds 22 YAML files; leave the one with the sizes" in said_of(folder)


@pytest.mark.parametrize(
  "name", [YAML, CHECKPOINT, VOCODER, "bert-base-uncased/config.json"]
)
def test_pipes_are_not_waited_for(folder, name):
  (folder / name).unlink()
  os.mkfifo(folder / name)
  said = said_of(folder)
  assert name in said and ("no regular file" in said or "no file" in said)


def test_names_do_not_color_the_terminal(folder):
  file = folder / CHECKPOINT
  saved = torch_file.read(file)
  saved["state_dict"]["model.\x1b[31m\nred"] = np.zeros(2, np.float32)
  torch_file.write(file, saved)
  with pytest.raises(InputError) as error:
    make_an_audio_parts.open_parts(folder)
  assert r"holds unknown model.\x1b[31m red" in errors.line(error.value)


def test_constants_that_are_no_numbers(folder):
  file = folder / CHECKPOINT
  saved = torch_file.read(file)
  saved["state_dict"]["alphas_cumprod"] = np.full(1000, np.nan, np.float32)
  torch_file.write(file, saved)
  said = said_of(folder)
  assert "alphas_cumprod is not that of β" in said
  assert f"{YAML} says)" in said


def test_filters_and_weights_of_vocoders(folder):
  file = folder / VOCODER
  tensors = torch_file.read(file)["generator"]
  (name, *_) = (name for name in tensors if name.endswith("upsample.filter"))
  nan = np.full(tensors[name].shape, np.nan, np.float32)
  torch_file.write(file, {"generator": {**tensors, name: nan}})
  assert f"{name} is not the filter of" in said_of(folder)


def test_half_precision_is_taken(folder):
  file = folder / CHECKPOINT
  state = torch_file.read(file)["state_dict"]
  halves = {
    name: tensor.read().astype(jnp.bfloat16) for name, tensor in state.items()
  }
  halves |= {"alphas_cumprod": state["alphas_cumprod"]}
  torch_file.write(file, {"state_dict": halves, "optimizer_states": []})
  opened = make_an_audio_parts.open_parts(folder)
  assert opened.unet_tree["conv_out"]["bias"].dtype == jnp.bfloat16


def test_what_is_missing_is_named_with_its_place(folder, monkeypatch):
  def nowhere(hub_id, wanted):
    raise InputError(f"{hub_id} could not be had")

  monkeypatch.setattr(hub, "download", nowhere)
  shutil.rmtree(folder / "bert-base-uncased")
  assert "32 wide, which are not the 12 heads of bert-base" in said_of(folder)
  monkeypatch.setattr(make_an_audio, "_HEADS", 2)
  said = said_of(folder)
  assert "lacks the tokenizer of its prompts: put google-bert/" in said
  assert "into bert-base-uncased/ (" in said


@pytest.mark.parametrize(
  ("path", "value", "said"),
  [
    ("rooms.unet.config.multipliers", [], "levels of the U-Net = 0 must lie"),
    ("rooms.unet.config.attention", [0, 1], "down_0_attention_0/"),
    ("rooms.text.config.bert.heads", 0, "heads = 0 must lie in 1 to 1024"),
    ("rooms.text.config.bert.padding", 15, "padding 15 is no row of 15"),
    ("rooms.text.config.bert.kinds", 0, "kinds = 0 must lie in 1 to"),
    ("rooms.text.config.bert.first_position", -1, "= -1 must lie in 0 to"),
    ("rooms.text.config.bert.vocabulary", 16, "asks for [16, 32]; copy the"),
  ],
)
def test_our_format_with_other_sizes(ours, tmp_path, path, value, said):
  folder = shutil.copytree(ours, tmp_path / "model")
  file = folder / "config.json"
  values = json.loads(file.read_text())
  set_within(values, path, value)
  file.write_text(json.dumps(values))
  with pytest.raises(InputError) as error:
    make_an_audio_loading.rows(make_an_audio_parts.open_parts(folder))
  assert said in str(error.value)
  other = tmp_path / "other"
  with pytest.raises(InputError) as error:
    export.convert(folder, other, to="make-an-audio")
  assert said in str(error.value) and not other.exists()


@pytest.mark.parametrize("net", [tiny.LOOKS, tiny.HOLES])
def test_what_reads_no_text_is_not_written_as_published(net, tmp_path):
  make_an_audio_parts.write_orbax(tmp_path / "own", tiny.parts(net), None)
  to = tmp_path / "theirs"
  with pytest.raises(InputError, match="own reads no text, and the published"):
    export.convert(tmp_path / "own", to, to="make-an-audio")


@pytest.mark.parametrize(
  ("name", "value", "said"),
  [
    ("window_length", 0, "window_length = 0 must lie in 1 to 65536"),
    ("under_root", -1, "under_root = -1.0 must lie in 0 to 1"),
    ("range_db", [1e308, 0], "range_db = 1e+308 must lie in -1000 to 1000"),
    (
      "padding",
      "none",
      "makes 5 frames of 8 hops (padding 'none', n_fft 1024)",
    ),
    ("n_fft", 1023, "makes 7 frames of 8 hops (padding 'hops', n_fft 1023)"),
  ],
)
def test_mel_recipes_nobody_has(ours, tmp_path, name, value, said):
  folder = shutil.copytree(ours, tmp_path / "model")
  file = folder / "config.json"
  values = json.loads(file.read_text())
  for room in ("autoencoder", "vocoder"):
    values["rooms"][room]["config"]["mel"][name] = value
  file.write_text(json.dumps(values))
  assert said in said_of(folder)
