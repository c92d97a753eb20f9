"""The published format, written and read."""

import itertools
import math

import jax
import numpy as np
import pytest
import yaml
from published import (
  CODEC,
  CODEC_FILE,
  LM_FILE,
  codec_of,
  edit_file,
  lm_of,
  opened,
  parts_of,
  same,
  values,
)

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert import (
  audiocraft,
  audiocraft_yaml,
  export,
  opening,
  seanet,
  torch_file,
)
from audiogen_jax.convert.opening import Parts
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern

# Write, then read


def test_the_files_of_the_pack_come_out_as_they_went_in(pack, tmp_path):
  out = tmp_path / "out"
  export.convert(pack, out, to="audiocraft")
  assert sorted(path.name for path in out.iterdir()) == [CODEC_FILE, LM_FILE]
  for name in (LM_FILE, CODEC_FILE):
    want = torch_file.read(pack / name)["best_state"]
    got = torch_file.read(out / name)["best_state"]
    assert got.keys() == want.keys()
    for key, tensor in want.items():
      assert got[key].shape == tensor.shape and got[key].dtype == tensor.dtype
      assert got[key].read().tobytes() == tensor.read().tobytes(), key
  ours, theirs = opened(out), opened(pack)
  assert (ours.lm, ours.codec) == (theirs.lm, theirs.codec)
  assert (ours.text_name, ours.window_s) == (theirs.text_name, theirs.window_s)


PATTERNS = [
  Pattern("delay"),
  Pattern("delay", delays=(0, 0, 2, 5)),
  Pattern("delay", delays=(1, 1, 2, 2), flatten_first=3, empty_initial=2),
  Pattern("parallel"),
  Pattern("parallel", empty_initial=1),
  Pattern("unroll"),
  Pattern("unroll", flattening=(0, 1, 1, 2), delays=(0, 3, 3, 3)),
  Pattern("coarse_first"),
  Pattern("coarse_first", delays=(0, 1, 2)),
]


@pytest.mark.parametrize(
  "lm",
  [
    *(lm_of(pattern=pattern) for pattern in PATTERNS),
    lm_of(dict(cross_attention=False), prepend_text=True),
    lm_of(dict(attention_bias=True, ff_bias=True), head_bias=True),
    lm_of(dict(ff=20)),  # not a multiple of the width
  ],
)
def test_every_option_of_the_language_model_survives(lm, tmp_path):
  parts = parts_of(lm=lm)
  audiocraft.write(tmp_path, parts)
  again = opened(tmp_path)
  assert again.lm == lm
  assert (again.text_name, again.window_s) == ("some-t5", 7.5)
  same(values(again.lm_tree), parts.lm_tree)
  same(values(again.codec_tree), parts.codec_tree)


def test_every_ratio_of_widths_survives():
  """The format has ff / width; its readers round the product down."""
  for width, ff in itertools.product((48, 56, 104), range(1, 500, 3)):
    lm = lm_of(dict(width=width, heads=4, ff=ff))
    parts = Parts(CODEC, None, lm=lm, text_name="t5-large")
    scale = audiocraft_yaml.language_model(parts)["transformer_lm"][
      "hidden_scale"
    ]
    scale = yaml.safe_load(yaml.safe_dump(scale))
    assert int(scale * width) == ff


@pytest.mark.parametrize(
  "codec",
  [
    codec_of(dict(norm="layer_norm", pad_mode="reflect"), renormalise=True),
    codec_of(dict(norm="none", lstm_layers=0, channels=2)),
    codec_of(dict(causal=True, true_skip=False, residual_layers=3)),
    codec_of(dict(lstm_layers=3, unnormed_outer_blocks=2, ratios=(5,))),
    codec_of(
      dict(kernel=5, last_kernel=3, residual_kernel=5, dilation_base=3),
      sample_rate_hz=24000,
    ),
  ],
)
def test_every_option_of_the_codec_survives(codec, tmp_path):
  parts = parts_of(codec, lm=None)
  audiocraft.write(tmp_path, parts)
  again = opened(tmp_path)
  assert again.codec == codec and again.lm is None
  same(values(again.codec_tree), parts.codec_tree)


def test_stereo_codes_survive(tmp_path):
  codec = codec_of(stereo_codes=True)
  lm = lm_of(codebooks=8, pattern=Pattern("delay", (0, 0, 1, 1, 2, 2, 3, 3)))
  audiocraft.write(tmp_path, parts_of(codec, lm))
  again = opened(tmp_path)
  assert (again.codec, again.lm) == (codec, lm)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_survive(dtype, tmp_path):
  parts = parts_of(dtype=jax.numpy.dtype(dtype))
  audiocraft.write(tmp_path, parts)
  same(values(opened(tmp_path).lm_tree), parts.lm_tree)


def test_layers_of_several_types_become_float32(folder):
  name = "transformer.layers.0.linear1.weight"

  def half(state, _):
    state[name] = state[name].astype(np.float16)

  edit_file(folder / LM_FILE, half)
  stacked = values(opened(folder).lm_tree)["layers"]["up"]["kernel"]
  want = parts_of().lm_tree["layers"]["up"]["kernel"]
  assert stacked.dtype == np.float32
  np.testing.assert_array_equal(stacked[1], want[1])
  np.testing.assert_array_equal(stacked[0], want[0].astype(np.float16))


def test_the_published_names_and_shapes():
  table = audiocraft.lm_table(LMConfig(), "description")
  assert len(table) == 588
  codec = seanet.table(EncodecConfig(), seanet.AUDIOCRAFT)
  assert len(codec) == 116
  shapes = {
    name: (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
    for name, parts in (table | codec).items()
  }
  layer = "transformer.layers.47"
  for name, *shape in (
    (f"{layer}.self_attn.in_proj_weight", 4608, 1536),
    (f"{layer}.cross_attention.in_proj_weight", 4608, 1536),
    (f"{layer}.linear2.weight", 1536, 6144),
    ("emb.3.weight", 2049, 1536),
    ("linears.3.weight", 2048, 1536),
    ("condition_provider.conditioners.description.output_proj.weight", 1536)
    + (1024,),
    ("encoder.model.12.conv.conv.weight_v", 1024, 512, 16),
    ("encoder.model.13.lstm.weight_hh_l1", 4096, 1024),
    ("decoder.model.3.convtr.convtr.weight_g", 1024, 1, 1),
    ("decoder.model.3.convtr.convtr.weight_v", 1024, 512, 16),
    ("decoder.model.15.conv.conv.bias", 1),
    ("quantizer.vq.layers.3._codebook.embed_avg", 2048, 128),
  ):
    assert shapes[name] == tuple(shape)
  sizes = [math.prod(shapes[name]) for name in table]
  assert sum(sizes) == 1_839_131_136


def test_other_spellings_of_the_same_tensors(folder):
  want = opened(folder)
  new = "parametrizations.weight.original"

  def mha(state, _):
    for name in list(state):
      if "attn." in name or "cross_attention." in name:
        other = name.replace("attn.", "attn.mha.")
        other = other.replace("cross_attention.", "cross_attention.mha.")
        state[other] = state.pop(name)

  def parametrised(state, _):
    for name in list(state):
      other = name.replace("weight_g", f"{new}0").replace("weight_v", f"{new}1")
      state[other] = state.pop(name)

  trees = values(want.lm_tree), values(want.codec_tree)
  edit_file(folder / LM_FILE, mha)
  edit_file(folder / CODEC_FILE, parametrised)
  again = opened(folder)
  same(values(again.lm_tree), trees[0])
  same(values(again.codec_tree), trees[1])


def test_parts_of_published_arrays(folder):
  """What a host reads of each is what the whole has there."""
  parts = opening.open_parts(folder, need_text=False)
  seen = 0
  for tree in (parts.lm_tree, parts.codec_tree):
    for leaf in jax.tree.leaves(tree, is_leaf=lambda x: hasattr(x, "part")):
      whole = leaf.read()
      where = tuple(
        slice(size // 2, size) if i % 2 else slice(0, -(-size // 2))
        for i, size in enumerate(leaf.shape)
      )
      np.testing.assert_array_equal(leaf.part(where), whole[where])
      seen += leaf.read_part is not None and len(leaf.shape) > 1
  assert seen > 20
