"""CLIP: its towers against `transformers`, its files in both layouts."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import packs
import pytest
import safetensors.numpy

from audiogen_jax.convert import (
  clip_layouts,
  engine,
  make_an_audio,
  openclip,
  torch_file,
)
from audiogen_jax.convert.keys import Keys
from audiogen_jax.core.errors import InputError
from audiogen_jax.text import clip, clip_image, clip_layers
from audiogen_jax.text.clip import ClipConfig, ClipTextConfig
from audiogen_jax.text.clip_image import ClipImageConfig
from audiogen_jax.text.clip_layers import TransformerConfig

TINY = ClipConfig(
  ClipImageConfig(TransformerConfig(64, 2, 1, 96), 24, image=28, patch=7),
  ClipTextConfig(TransformerConfig(128, 3, 2, 80), 24, 300, length=9),
  logit_scale=2.5,
)
# OpenCLIP's names by those of Hugging Face, with all of their stems.
RENAMED = {
  r"vision_model\.encoder\.layers": "visual.transformer.resblocks",
  r"text_model\.encoder\.layers": "transformer.resblocks",
  r"layer_norm(\d)": r"ln_\1",
  r"self_attn\.out_proj": "attn.out_proj",
  r"mlp\.fc1": "mlp.c_fc",
  r"mlp\.fc2": "mlp.c_proj",
  r"vision_model\.embeddings\.patch_embedding": "visual.conv1",
  r"vision_model\.embeddings\.class_embedding": "visual.class_embedding",
  r"vision_model\.embeddings\.position_embedding\.weight": (
    "visual.positional_embedding"
  ),
  r"vision_model\.pre_layrnorm": "visual.ln_pre",
  r"vision_model\.post_layernorm": "visual.ln_post",
  r"text_model\.embeddings\.token_embedding": "token_embedding",
  r"text_model\.embeddings\.position_embedding\.weight": "positional_embedding",
  r"text_model\.final_layer_norm": "ln_final",
}


def as_openclip(state):
  """Hugging Face's tensors as OpenCLIP names and lays them out."""
  made, fused = {}, {}
  for name, value in state.items():
    if name in ("visual_projection.weight", "text_projection.weight"):
      name = "visual.proj" if name[0] == "v" else "text_projection"
      value = np.ascontiguousarray(value.T)
    for theirs, ours in RENAMED.items():
      name = re.sub(theirs, ours, name)
    part = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
    if part:
      stem, which, kind = part.groups()
      fused.setdefault(f"{stem}.attn.in_proj_{kind}", {})[which] = value
    else:
      made[name] = value
  for name, parts in fused.items():
    made[name] = np.concatenate([parts[which] for which in "qkv"])
  return made


def random(config, seed=0):
  """Arrays of the shapes of a CLIP, with attention that has a choice."""
  rng, shapes = np.random.default_rng(seed), engine.abstract(clip.init, config)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape) / 8, jnp.float32),
    shapes,
  )


def published(config=TINY, tree=None):
  """A state of OpenCLIP's."""
  made = openclip.tensors(config, random(config) if tree is None else tree)
  return {
    name: np.asarray(value.read() if hasattr(value, "read") else value)
    for name, value in made.items()
  }


def write(folder, state, name="open_clip_model.safetensors"):
  safetensors.numpy.save_file(state, folder / name)
  return folder / name


def same(got, want):
  """Whether two trees hold the same arrays."""
  jax.tree.map(np.testing.assert_array_equal, packs.realised(got), want)


def pictures(config, count=3):
  rng = np.random.default_rng(1)
  shape = (count, config.image, config.image, 3)
  return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize("activation", ("gelu", "quick_gelu"))
def test_clip_of_transformers(tmp_path, activation):
  torch = pytest.importorskip("torch")
  from transformers import CLIPConfig, CLIPModel

  torch.manual_seed(0)
  shape = dict(hidden_act=activation, intermediate_size=56)
  config = CLIPConfig(
    vision_config=shape
    | dict(
      hidden_size=60,
      num_hidden_layers=3,
      num_attention_heads=3,
      image_size=42,
      patch_size=14,
    ),
    text_config=shape
    | dict(
      hidden_size=40,
      num_hidden_layers=2,
      num_attention_heads=5,
      vocab_size=200,
      max_position_embeddings=12,
      eos_token_id=199,
      bos_token_id=198,
    ),
    projection_dim=24,
  )
  model = CLIPModel(config).eval()
  with torch.no_grad():
    for name, value in model.named_parameters():
      if value.ndim > 1:  # so that attention has something to choose
        value.normal_(0, 1.5 / np.sqrt(np.prod(value.shape[1:])))
      elif "bias" in name:
        value.normal_(0, 0.1)
  model.save_pretrained(tmp_path)
  config, tree = openclip.read(tmp_path)
  params = packs.realised(tree)

  seen = pictures(config.image)
  ids = np.random.default_rng(2).integers(0, 198, (3, 12)).astype(np.int32)
  ids[:, 0], ids[0, 7], ids[1, 11] = 198, 199, 199
  ids[2] = clip.no_text(config.text)[0]
  with torch.no_grad():
    chw = torch.tensor(seen).permute(0, 3, 1, 2)
    theirs = model.get_image_features(pixel_values=chw)
    read = model.get_text_features(torch.tensor(ids).long())
  got = clip_image.encode(config.image, params["image"], jnp.asarray(seen))
  packs.close(got, embeddings(theirs), 1.5e-5)  # 4e-6 measured
  got = clip.encode(config.text, params["text"], jnp.asarray(ids))
  packs.close(got, embeddings(read), 1.5e-5)  # 4e-6 measured

  # The same weights under OpenCLIP's names are the same parameters.
  folder = tmp_path / "openclip"
  folder.mkdir()
  state = safetensors.numpy.load_file(tmp_path / "model.safetensors")
  write(folder, as_openclip(state))
  says = dict(
    quick_gelu=activation == "quick_gelu",
    vision_cfg=dict(head_width=20),
    text_cfg=dict(heads=5),
  )
  settings = folder / "open_clip_config.json"
  settings.write_text(json.dumps(dict(model_cfg=says)))
  renamed, tree = openclip.read(folder)
  assert renamed == config
  same(tree, params)

  # Both are written as they were read.
  back = published(config, params)
  assert back.keys() == as_openclip(state).keys()
  for name, value in as_openclip(state).items():
    np.testing.assert_array_equal(back[name], value)
  table = clip_layouts.table(config, clip_layouts.HUGGING_FACE)
  for name, value in engine.export(params, table).items():
    np.testing.assert_array_equal(value.read(), state[name])
  assert state.keys() - table.keys() == {"logit_scale"}


def embeddings(found):
  """Older ones return tensors."""
  return np.asarray(getattr(found, "pooler_output", found))


def test_sizes_of_vit_h():
  shapes = engine.abstract(clip.init, ClipConfig())
  count = {
    name: sum(leaf.size for leaf in jax.tree.leaves(tower))
    for name, tower in shapes.items()
  }
  assert count == {"image": 632_076_800, "text": 354_032_640}
  assert sum(count.values()) + 1 == 986_109_441  # with logit_scale


@pytest.mark.parametrize(
  "name", ("ViT-H-14", "ViT-g-14", "ViT-bigG-14", "B/32")
)
def test_published_shapes_are_read_from_tensors(name):
  look, read, width, patch = {
    "ViT-H-14": ((1280, 32, 16, 5120), (1024, 24, 16, 4096), 1024, 14),
    "ViT-g-14": ((1408, 40, 16, 6144), (1024, 24, 16, 4096), 1024, 14),
    "ViT-bigG-14": ((1664, 48, 16, 8192), (1280, 32, 20, 5120), 1280, 14),
    "B/32": ((768, 12, 12, 3072), (512, 12, 8, 2048), 512, 32),
  }[name]
  activation = "quick_gelu" if name == "B/32" else "gelu"
  config = ClipConfig(
    ClipImageConfig(TransformerConfig(*look, activation), width, patch=patch),
    ClipTextConfig(TransformerConfig(*read, activation), width),
  )
  table = clip_layouts.table(config, clip_layouts.OPENCLIP)
  state = engine.export(engine.abstract(clip.init, config), table)
  says = {"model_cfg": {"quick_gelu": activation == "quick_gelu"}}
  got, _ = openclip.read_openclip(state, "a file", Keys(says, "settings"))
  assert got == config


def test_sentences_without_words():
  ids = clip.no_text(ClipTextConfig())
  assert ids.shape == (1, 77) and not ids[0, 2:].any()
  assert list(ids[0, :2]) == [49406, 49407]
  c, params = TINY.text, random(TINY)["text"]
  other = clip.no_text(c)
  other[0, 2:] = 7  # nothing behind the end is looked at
  got, padded = (
    clip.encode(c, params, jnp.asarray(x)) for x in (clip.no_text(c), other)
  )
  np.testing.assert_array_equal(got, padded)
  length = np.linalg.norm(clip_layers.normalised(got), axis=1)
  np.testing.assert_allclose(length, 1, rtol=1e-6)


def test_one_tower_alone(tmp_path):
  tree, state = random(TINY), published()
  parts = {
    "image": {k: v for k, v in state.items() if k.startswith("visual.")},
    "text": {k: v for k, v in state.items() if not k.startswith("visual.")},
  }
  parts["image"]["logit_scale"] = state["logit_scale"]
  for name, other in (("image", "text"), ("text", "image")):
    config, read = openclip.read(write(tmp_path, parts[name]))
    assert config == dataclasses.replace(TINY, **{other: None})
    same(read, {name: tree[name]})
  folder = tmp_path / "vision"
  folder.mkdir()
  config = dataclasses.replace(TINY, text=None, logit_scale=None)
  table = clip_layouts.table(config, clip_layouts.HUGGING_FACE)
  table = engine.export({"image": tree["image"]}, table)
  state = {name: lazy.read() for name, lazy in table.items()}
  write(folder, state, "model.safetensors")
  says = dict(model_type="clip_vision_model", num_attention_heads=1)
  says["hidden_act"] = "gelu"
  (folder / "config.json").write_text(json.dumps(says))
  got, read = openclip.read(folder)
  assert got == config
  same(read, {"image": tree["image"]})


def test_clip_in_a_checkpoint_of_make_an_audio(tmp_path):
  folder = packs.folder("maa_visual_tiny")
  (file,) = (folder / "useful_ckpts").glob("ta54*.ckpt")
  settings = folder / "configs/img_to_audio/img2audio_args.yaml"
  assert make_an_audio.read(file, settings).clip is None
  state = torch_file.read(file)["state_dict"]
  prefix = "cond_stage_model.model."
  own = {f"{prefix}{name}": value for name, value in published().items()}
  own[f"{prefix}attn_mask"] = np.zeros((9, 9), np.float32)
  made = tmp_path / "ta54.ckpt"
  torch_file.write(made, {"state_dict": {**state, **own}})
  parts = make_an_audio.read(made, settings)
  assert parts.clip == TINY
  same(parts.clip_tree, random(TINY))

  parts = parts._replace(
    unet_tree=packs.realised(parts.unet_tree),
    autoencoder_tree=packs.realised(parts.autoencoder_tree),
    clip_tree=packs.realised(parts.clip_tree),
  )
  make_an_audio.write(made, parts)
  back = torch_file.read(made)["state_dict"]
  assert {n for n in back if n.startswith(prefix)} == {
    n for n in own if "attn_mask" not in n
  }
  for name, value in published().items():
    np.testing.assert_array_equal(back[f"{prefix}{name}"].read(), value)
  own[f"{prefix}other"] = np.zeros(2, np.float32)
  torch_file.write(made, {"state_dict": {**state, **own}})
  with pytest.raises(InputError, match="ta54.ckpt holds unknown other"):
    make_an_audio.read(made, settings)


def _lacks(state):
  del state["visual.ln_pre.weight"]


def _lacks_text(state):
  del state["ln_final.bias"]


def _strange(state):
  state["visual.attn_pool.query"] = np.ones(3, np.float32)


def _other_width(state):
  state["visual.proj"] = np.ones((64, 25), np.float32)


def _not_square(state):
  state["visual.positional_embedding"] = np.ones((16, 64), np.float32)


def _odd_heads(state):
  state["visual.positional_embedding"] = np.ones((17, 65), np.float32)


def _not_finite(state):
  state["logit_scale"] = np.full((), np.nan, np.float32)


def _another(state):
  state.clear()
  state["weight"] = np.ones(3, np.float32)


DAMAGE = {
  _lacks: r"lacks visual\.ln_pre\.weight",
  _lacks_text: r"lacks ln_final\.bias",
  _strange: r"holds unknown visual\.attn_pool\.query",
  _other_width: "embeddings of 25 of pictures and 24 of sentences",
  _not_square: r"visual\.positional_embedding has shape \[16, 64\]; its",
  _odd_heads: "width 65 is no multiple of 64, the size of its heads; put",
  _not_finite: "logit_scale is not finite",
  _another: "holds 1 tensors, but none of a CLIP; name a file of OpenCLIP",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path, damage):
  state = published()
  damage(state)
  path = write(tmp_path, state)
  with pytest.raises(InputError, match=DAMAGE[damage]) as error:
    openclip.read(path)
  assert (
    "\n" not in str(error.value)
    and path.name in str(error.value)
    or (damage is _other_width)
  )


def test_files_that_are_wrong(tmp_path):
  path = write(tmp_path, published())
  path.write_bytes(path.read_bytes()[:500])
  with pytest.raises(InputError, match="is truncated or damaged"):
    openclip.read(path)
  path.unlink()
  with pytest.raises(
    InputError, match="hf download laion/CLIP-ViT-H-14-laion2"
  ):
    openclip.read(path)
  with pytest.raises(InputError, match="lacks model.safetensors"):
    openclip.read(tmp_path)
  path = tmp_path / "open_clip_pytorch_model.bin"
  path.write_text("no weights")
  with pytest.raises(InputError, match="open_clip_pytorch_model.bin: "):
    openclip.read(tmp_path)
  torch_file.write(path, published())
  assert openclip.read(tmp_path)[0] == TINY
  settings = tmp_path / "open_clip_config.json"
  settings.write_text(json.dumps(dict(preprocess_cfg=dict(mean=[0.5] * 3))))
  with pytest.raises(InputError, match=r"preprocess_cfg\.mean = \[0\.5"):
    openclip.read(tmp_path)


def test_shapes_that_cannot_be():
  for make, said in (
    (lambda: TransformerConfig(60, 1, 7, 9), "60 is no multiple of 7 heads"),
    (lambda: ClipImageConfig(patch=15), "of 224 pixels do not divide into"),
    (lambda: ClipImageConfig(image=0), "pictures of 0 pixels"),
  ):
    with pytest.raises(InputError, match=said):
      make()
  tree = random(TINY)
  with pytest.raises(InputError, match="20 x 28 pixels do not fit; this CLIP"):
    clip_image.encode(TINY.image, tree["image"], jnp.zeros((1, 20, 28, 3)))
  with pytest.raises(InputError, match="10 tokens do not fit into 9 positions"):
    clip.encode(TINY.text, tree["text"], jnp.zeros((1, 10), jnp.int32))
