"""Values that no model can have, in configurations and in weights."""

import json
import shutil
import time

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml
from published import CODEC_FILE, LM_FILE, opened, parts_of, put

import audiogen_jax as ag
from audiogen_jax.convert import (
  audiocraft,
  audiocraft_config,
  engine,
  export,
  finite,
  formats,
  opening,
  torch_file,
)
from audiogen_jax.core import checkpoint
from audiogen_jax.core.errors import InputError

VALUES = [None, [], {}, "64", 64.0, 0, -1, 10**9, True, ["a"], [1] * 999]


@pytest.fixture(scope="module")
def foreign(tiny, tmp_path_factory):
  """A MusicGen folder."""
  folder = tmp_path_factory.mktemp("foreign") / "musicgen"
  export.convert(tiny, folder, to="transformers")
  return folder


@pytest.fixture(scope="module")
def own(tiny, tmp_path_factory):
  """A codec in our own format."""
  folder = tmp_path_factory.mktemp("own") / "codec"
  opening.write_orbax(folder, parts_of(lm=None), ready=jax.device_put)
  return folder


def _bare(folder, source, cfg):
  """The configuration alone: what is wrong with it is found before weights."""
  folder.mkdir(exist_ok=True)
  (folder / "config.json").write_text(cfg)
  weights = folder / "model.safetensors"
  if source is not None and not weights.exists():
    weights.symlink_to(source / "model.safetensors")


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize(
  "key",
  [
    "text_encoder.num_layers",
    "audio_encoder.num_lstm_layers",
    "audio_encoder.num_filters",
    "decoder.num_attention_heads",
    "decoder.hidden_size",
  ],
)
def test_numbers_of_a_musicgen(foreign, tmp_path, key, value):
  if (key, value) == ("audio_encoder.num_lstm_layers", 0):
    return  # a codec may have none
  cfg = json.loads((foreign / "config.json").read_text())
  put(cfg, key, value)
  _bare(tmp_path / "m", foreign, json.dumps(cfg))
  with pytest.raises(InputError) as caught:
    opening.open_parts(tmp_path / "m")
  words = str(caught.value)
  assert f"config.json: {key} = " in words and len(words) < 400


@pytest.mark.parametrize(
  "key", ["audio_encoder", "audio_encoder.upsampling_ratios", "decoder"]
)
@pytest.mark.parametrize("value", [None, 3, [], "x", [[1]], [0], [-2, 10**9]])
def test_shapes_of_a_musicgen(foreign, tmp_path, key, value):
  cfg = json.loads((foreign / "config.json").read_text())
  put(cfg, key, value)
  _bare(tmp_path / "m", foreign, json.dumps(cfg))
  with pytest.raises(InputError, match="audio_encoder|decoder|ratios"):
    opening.open_parts(tmp_path / "m")


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("codec.seanet.lstm_layers", 10**6, "1000000 must lie in 0 to 64"),
    (
      "codec.seanet.ratios",
      [],
      r"ratios \(\) must be one whole number or more",
    ),
    ("codec.seanet.ratios", [4096] * 9, "samples a frame = "),
    ("codec.seanet.compress", 0, "codec.seanet.compress = 0 must lie in 1"),
    ("codec.seanet.filters", 64.0, "filters = 64.0 must be of type int"),
    ("codec.rvq.size", 0, "codec.rvq.size = 0 must lie in 2 to 65536"),
    ("codec.sample_rate_hz", "x" * 70_000, "= 'xxxxx"),
    ("codec.overlap", 1, "codec.overlap = 1.0 must lie in 0 to 0.99"),
    ("window_s", -1, "window_s = -1.0 must lie in 0.001"),
    ("guidance", 10**400, "guidance = inf must lie in"),
    ("codec", {"seanet": {"dilation_base": 64, "residual_layers": 32}}, "dil"),
    ("text_name", "y" * 5000, "length of text_name = 5000"),
    ("version", [1], r"format version \[1\]"),
    ("lm", {"transformer": {"heads": 0}}, "heads = 0 must lie in 1 to 1024"),
    ("lm", {"pattern": {"delays": [3, 1]}}, "delays"),
  ],
)
def test_numbers_of_our_own(own, tmp_path, key, value, words):
  cfg = json.loads((own / "config.json").read_text())
  room, _, rest = key.partition(".")
  if room in ("codec", "lm"):
    cfg["rooms"].setdefault(room, {"kind": room})
    key = ".".join(filter(None, ["rooms", room, "config", rest]))
  put(cfg, key, value)
  _bare(tmp_path / "m", None, json.dumps(cfg))
  with pytest.raises(InputError, match=words) as caught:
    opened(tmp_path / "m")
  assert "m" in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (b"", "is not JSON"),
    (b"\xff\xfe\x00", "is not JSON"),
    (b"[1]", r"holds \[1\] where keys belong"),
    (b"null", "holds None where keys"),
    (b'{"format": ' + b"[" * 100_000, "nested too deeply"),
    (b'{"version": ' + b"9" * 5000 + b"}", "is not JSON"),
    (b'{"version": NaN}', "NaN is no number"),
    (b" " * (1 << 22) + b" {}", "has more than 4,194,304 bytes"),
  ],
)
def test_files_that_are_not_json(tmp_path, text, words):
  (tmp_path / "config.json").write_bytes(text)
  with pytest.raises(InputError, match=words):
    opened(tmp_path)


def test_a_byte_order_mark_is_no_fault(own, tmp_path):
  text = (own / "config.json").read_text()
  (tmp_path / "config.json").write_text("\ufeff" + text)
  assert opened(tmp_path).codec == opened(own).codec


@pytest.mark.parametrize(
  ("index", "words"),
  [
    ({}, "lacks 'weight_map'"),
    ({"weight_map": ["a"]}, "weight_map = .* must be keys and values"),
    ({"weight_map": {"a": 3}}, "weight_map.'a' = 3 must be a name"),
    ({"weight_map": {"a": "b"}}, "lacks 'b', which model.safetensors.index"),
  ],
)
def test_an_index_of_weights(foreign, tmp_path, index, words):
  _bare(tmp_path / "m", foreign, (foreign / "config.json").read_text())
  path = tmp_path / "m" / "model.safetensors.index.json"
  path.write_text(json.dumps(index))
  with pytest.raises(InputError, match=words):
    opened(tmp_path / "m")


GROWING = "a: &a [x, x]\n" + "".join(
  f"b{i}: &b{i} [*{'a' if not i else f'b{i - 1}'}, *a]\n" for i in range(60)
)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (GROWING, r"repeats itself by an alias, \*a"),
    ("a: &a [*a]", "repeats itself by an alias"),
    ("a: " + "[" * 100_000, "nested more than 64 deep|nesting depth"),
    ("a: 2020-99-99", "is not YAML"),
    ("a: " + "9" * 5000, "is not YAML"),
    ("? [a]\n: b", "is not YAML"),
    ("a: !!python/name:os.system", "is not YAML"),
    ("a: b\n" * (1 << 19), "characters; it is none"),
  ],
)
def test_yaml_that_grows_or_is_none(text, words):
  begun = time.monotonic()
  with pytest.raises(InputError, match=words) as caught:
    audiocraft_config.parse(text)
  assert time.monotonic() - begun < 5 and len(str(caught.value)) < 300


def test_links_that_lead_back():
  many = "".join(
    f'a{i}: "${{{".".join([f"a{i + 1}"] * 10)}}}"\n' for i in range(9)
  )
  for text in ('a: "${a}"', 'a: "${b.c}"\nb: "${a}"', many + "a9: {a9: 1}"):
    with pytest.raises(InputError, match="leads back to itself|lacks"):
      audiocraft_config.parse(text).any(text.split(":")[0])


@pytest.mark.parametrize(
  ("file", "key", "value", "words"),
  [
    (LM_FILE, "transformer_lm.num_layers", 10**9, "must lie in 1 to 1024"),
    (LM_FILE, "transformer_lm.dim", "8", "transformer_lm.dim = '8' must be"),
    (LM_FILE, "transformer_lm.hidden_scale", float("nan"), "hidden_scale"),
    (LM_FILE, "transformer_lm.bias_ff", 1, "must be true or false"),
    (LM_FILE, "dataset.segment_duration", None, "must be a number"),
    (LM_FILE, "fuser.cross", 3, "fuser.cross = 3 must be a list of names"),
    (LM_FILE, "codebooks_pattern.delay.delays", [0, -1], "= -1 must lie in 0"),
    (CODEC_FILE, "seanet.lstm", 10**6, "seanet.lstm = 1000000 must lie in 0"),
    (CODEC_FILE, "seanet", [], r"seanet = \[\] must be keys and values"),
    (CODEC_FILE, "rvq.bins", 64.0, "rvq.bins = 64.0 must be a whole number"),
  ],
)
def test_numbers_of_the_published_format(folder, file, key, value, words):
  saved = torch_file.read(folder / file)
  cfg = yaml.safe_load(saved["xp.cfg"])
  put(cfg, key, value)
  state = {k: np.array(v.read()) for k, v in saved["best_state"].items()}
  text = yaml.safe_dump(cfg)
  torch_file.write(folder / file, saved | {"best_state": state, "xp.cfg": text})
  with pytest.raises(InputError, match=words) as caught:
    opened(folder)
  assert file in str(caught.value)


# Weights


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_published_weights_that_are_not_finite(tmp_path, bad):
  parts = parts_of(lm=None)
  params = parts.codec_tree["params"]["decoder"]["conv_out"]
  params["bias"] = np.full_like(params["bias"], bad)
  audiocraft.write(tmp_path, parts)
  words = rf"{CODEC_FILE}: decoder\S+bias holds 1 values that are not finite"
  with pytest.raises(InputError, match=words):
    ag.load_codec(tmp_path)
  with pytest.raises(InputError, match=words):
    export.convert(tmp_path, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_our_weights_that_are_not_finite(tmp_path):
  parts = parts_of(lm=None)
  kernel = parts.codec_tree["params"]["encoder"]["conv_in"]["kernel_v"]
  kernel.flat[3] = np.nan
  opening.write_orbax(tmp_path / "m", parts, ready=jax.device_put)
  words = "m/codec: params/encoder/conv_in/kernel_v holds values that are not"
  with pytest.raises(InputError, match=words):
    ag.load_codec(tmp_path / "m", mesh=ag.make_mesh(data=2, tensor=2))


def test_weights_too_large_for_a_type(tmp_path):
  parts = parts_of(lm=None)
  parts.codec_tree["params"]["encoder"]["conv_in"]["bias"][0] = 1e5
  audiocraft.write(tmp_path, parts)
  words = "encoder/conv_in/bias reaches 1e.05, which is too large for float16"
  with pytest.raises(InputError, match=words):
    export.convert(tmp_path, tmp_path / "out", dtype="float16")
  export.convert(tmp_path, tmp_path / "out", dtype="bfloat16")


def test_the_check_sees_every_type_and_shard():
  placement = ag.make_mesh(data=8)
  where = jax.sharding.NamedSharding(placement, jax.P("data"))
  for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
    for i in range(8):
      values = np.ones((8, 3), dtype)
      tree = {"a": jax.device_put(values, where), "b": jax.numpy.arange(3)}
      finite.check(tree, tree)
      values[i, 1] = np.nan
      tree["a"] = jax.device_put(values, where)
      with pytest.raises(InputError, match="^a "):
        finite.check(tree, {"a": engine.Lazy((8, 3), values.dtype, tuple)})


# Files of our own format


@pytest.mark.parametrize("how", ["gone", "empty", "half"])
def test_damaged_exports(own, tmp_path, how):
  for path in sorted((own / "codec").rglob("*")):
    if path.is_dir() or not path.stat().st_size:
      continue
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(own, folder)
    hurt = folder / path.relative_to(own)
    data = hurt.read_bytes()
    hurt.unlink()
    if how != "gone":
      hurt.write_bytes(b"" if how == "empty" else data[: len(data) // 2])
    with pytest.raises(InputError, match="is missing of|bytes of") as caught:
      ag.load_codec(folder)
    assert str(hurt) in str(caught.value)


def test_plain_orbax_reads_an_export(own):
  """Without this library, its configuration, or the mesh that wrote it."""
  with ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.restore(own / "codec")
  want = parts_of(lm=None).codec_tree
  jax.tree.map(np.testing.assert_array_equal, tree, want)
  assert not list(own.rglob("_sharding"))


def test_a_codec_on_a_mesh_is_written_without_it(tmp_path):
  mesh = ag.make_mesh(data=8)
  spread = jax.sharding.NamedSharding(mesh, jax.P())
  checkpoint.export(
    tmp_path / "m", {}, [("a", {"x": jax.device_put(np.arange(8.0), spread)})]
  )
  assert not list(tmp_path.rglob("_sharding"))


# Folders


class _Full:
  """Says that the disk is full at the first byte that is written."""

  def __init__(self, error):
    self.error = error

  def __call__(self, *_, **__):
    raise self.error


@pytest.mark.parametrize("to", ["orbax", "audiocraft", "transformers"])
def test_a_full_disk(tiny, tmp_path, monkeypatch, to):
  full = OSError(28, "No space left on device")
  if to == "orbax":
    full = ValueError("RESOURCE: pwrite: No space left on device [source …]")
    monkeypatch.setattr(ocp.Checkpointer, "save", _Full(full))
  elif to == "audiocraft":
    monkeypatch.setattr(torch_file, "_add", _Full(full))
  else:
    monkeypatch.setattr("pathlib.Path.write_text", _Full(full))
  with pytest.raises(InputError, match="No space left on device.*make room"):
    export.convert(tiny, tmp_path / "out", to=to)
  assert not list(tmp_path.iterdir())


def test_two_write_one_folder(tiny, tmp_path, monkeypatch):
  """The second finds at the end that the first was there."""
  write = audiocraft.write

  def meanwhile(work, parts):
    write(work, parts)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()

  monkeypatch.setattr(audiocraft, "write", meanwhile)
  with pytest.raises(InputError, match="somebody else wrote it meanwhile"):
    export.convert(tiny, tmp_path / "out", to="audiocraft")
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_foreign_formats_in_buckets(monkeypatch):
  monkeypatch.setattr(
    formats, "locate", lambda _: formats.epath.Path("gs://b/t5")
  )
  monkeypatch.setattr(formats, "is_kind", lambda _, __, kind: kind == "t5")
  with pytest.raises(InputError, match="only our own is read from a bucket"):
    opening.open_text("gs://b/t5")
