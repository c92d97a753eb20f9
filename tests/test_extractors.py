"""Published files of networks that judge: opened, or refused in one line."""

import hashlib
import json

import jax
import numpy as np
import pytest

from audiogen_jax.convert import engine, extractors, panns, torch_file
from audiogen_jax.convert import hear21passt as passt_file
from audiogen_jax.convert import torchvggish as vggish_file
from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import cnn14, passt, vggish
from audiogen_jax.embedding.cnn14 import Cnn14Config
from audiogen_jax.embedding.passt import PaSSTConfig
from audiogen_jax.embedding.vggish import VGGishConfig

VGGISH = VGGishConfig(blocks=((4,), (5, 6)), widths=(9, 8, 7))
CNN14 = Cnn14Config(
  channels=(2, 3, 4, 5, 6, 7), width=8, classes=9, mel=cnn14.RATE_32K
)
PASST = PaSSTConfig(width=24, layers=2, heads=12, ff=9, classes=5, times=20)
NAMES = {name: next(iter(p.files)) for name, p in extractors.PUBLISHED.items()}


def foreign(room, config, table):
  """Random tensors by their published names, and the tree that they are of."""
  draw = np.random.default_rng(0)
  tree = jax.tree.map(
    lambda leaf: draw.normal(size=leaf.shape).astype(np.float32),
    engine.abstract(room.init, config),
  )
  stored = engine.export(tree, table(config))
  return {name: np.asarray(lazy.read()) for name, lazy in stored.items()}, tree


def tensors_of(name):
  if name == "vggish":
    return foreign(vggish, VGGISH, vggish_file._table)
  if name == "passt":
    state, tree = foreign(passt, PASST, passt_file._table)
    return state | {"head_dist.weight": np.zeros((5, 24), "f4")}, tree
  state, tree = foreign(cnn14, CNN14, panns.table)
  steps = {"bn0.num_batches_tracked": np.array(3)}
  constants = {"spectrogram_extractor.stft.conv_real.weight": np.zeros(1, "f4")}
  filters = {"logmel_extractor.melW": np.array(panns.mel.filters(CNN14.mel))}
  return state | steps | constants | filters, tree


def write(folder, name, edit=lambda state: state):
  """A file under its published name, in its published layout."""
  state = edit(tensors_of(name)[0])
  saved = {"model": state, "iteration": 1} if name == "cnn14" else state
  torch_file.write(folder / NAMES[name], saved)
  return folder / NAMES[name]


def refused(*arguments):
  with pytest.raises(InputError) as caught:
    extractors.load_extractor(*arguments)
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_opens_its_file_and_reads_the_shape_of_it(tmp_path, name):
  path = write(tmp_path, name)
  model = extractors.load_extractor(name, tmp_path)  # finds it by its name
  config = {"vggish": VGGISH, "cnn14": CNN14, "passt": PASST}[name]
  assert model.config == config and model.name == name
  assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  assert model.sample_rate_hz == config.mel.rate_hz
  jax.tree.map(np.testing.assert_array_equal, model.params, tensors_of(name)[1])
  again = extractors.load_extractor(name, path)
  assert (again.config, again.sha256) == (config, model.sha256)


def test_options_are_those_of_the_class(tmp_path):
  path = write(tmp_path, "vggish")
  model = extractors.load_extractor("vggish", path, windows=vggish.PATCHES)
  assert model.windows == vggish.PATCHES


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_its_address(tmp_path, name):
  file = NAMES[name]
  address = extractors.PUBLISHED[name].files[file]
  for path in (tmp_path / "elsewhere.pth", tmp_path / file, tmp_path):
    message = refused(name, path)
    assert f"is missing: {name} needs {file}" in message
    assert address in message and f"put it at {tmp_path / file}" in message


def test_of_several_files_the_one_that_was_named():
  message = refused("cnn14", "nowhere/Cnn14_mAP=0.431.pth")
  assert "needs Cnn14_mAP=0.431.pth" in message
  assert message.endswith("at nowhere/Cnn14_mAP=0.431.pth")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_the_file_of_another_network(tmp_path, name, other):
  if name != other:
    message = refused(name, write(tmp_path, other))
    assert f"holds {other} (" in message and ", not a " in message


def test_files_of_anything_else(tmp_path):
  path = tmp_path / "a.pt"
  clap = {"module.audio_branch.x": np.zeros(1, "f4")}
  torch_file.write(path, {"state_dict": clap, "epoch": 15})
  assert "holds a CLAP, not a PaSST" in refused("passt", path)
  torch_file.write(path, {"x": np.zeros(1, "f4")})
  message = refused("vggish", path)
  assert "1 tensors of something else" in message
  assert "lacks features.0.weight; download vggish-10086976.pth" in message
  torch_file.write(path, [1])
  assert "holds [1] where tensors belong" in refused("vggish", path)
  torch_file.write(path, {"features.0.weight": 5})
  assert "'features.0.weight' is 5 where a tensor" in refused("vggish", path)
  path.write_bytes(b"no file")
  assert "7 bytes are no file of torch.save" in refused("vggish", path)
  assert "'openl3' is no network" in refused("openl3", path)


@pytest.mark.parametrize("name", NAMES)
def test_missing_and_unknown_tensors_are_named_and_counted(tmp_path, name):
  def edit(state):
    gone = [n for n in state if n.endswith(".bias")][-4:]
    kept = {n: v for n, v in state.items() if n not in gone}
    return kept | {"more.weight": np.zeros(1, "f4")}

  message = refused(name, write(tmp_path, name, edit))
  assert "lacks" in message and "and 1 more" in message
  assert message.endswith("and holds unknown more.weight")


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_another_shape(tmp_path, name):
  def edit(state):
    lasts = {"vggish": "embeddings.4", "cnn14": "fc1", "passt": "head.1"}
    last = f"{lasts[name]}.weight"
    return state | {last: state[last][:, :-1]}

  message = refused(name, write(tmp_path, name, edit))
  assert "has shape" in message and "asks for" in message


@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_no_numbers(tmp_path, name):
  def edit(state):
    last = next(n for n in state if n.endswith(".bias"))
    return state | {last: np.full_like(state[last], np.nan)}

  assert "not finite" in refused(name, write(tmp_path, name, edit))


def test_cnn14_knows_its_rate_by_its_filters(tmp_path):
  def edit(state):
    return state | {"logmel_extractor.melW": np.ones((513, 64), "f4")}

  message = refused("cnn14", write(tmp_path, "cnn14", edit))
  assert "mel filters [513, 64] in it are none" in message
  path = write(
    tmp_path,
    "cnn14",
    lambda state: {n: v for n, v in state.items() if "melW" not in n},
  )
  assert "lacks logmel_extractor.melW" in refused("cnn14", path)


def test_passt_is_told_what_tensors_cannot_tell(tmp_path):
  path, beside = write(tmp_path, "passt"), tmp_path / "config.json"
  beside.write_text(json.dumps({"num_heads": 4, "stride": [10, 10]}))
  assert extractors.load_extractor("passt", path).config.heads == 4
  for said, part in (
    ({"num_heads": 5}, "width 24 is no multiple of 5 heads"),
    ({"num_heads": "4"}, "num_heads = '4' must be a whole number"),
    ({"stride": [10]}, "stride [10] must be two numbers"),
    ({"input_fdim": 8}, "input_fdim 8 must be no less than"),
    ({"input_fdim": 256}, "has shape"),
  ):
    beside.write_text(json.dumps(said))
    assert part in refused("passt", path)
