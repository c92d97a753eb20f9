"""What OpenCLIP and Hugging Face call the tensors of CLIP, and what we do."""

from collections.abc import Mapping
from typing import NamedTuple

from audiogen_jax.convert.clap_networks import dense, norm
from audiogen_jax.convert.engine import (
  Table,
  Target,
  array,
  linear,
  vector,
)
from audiogen_jax.text.clip import ClipConfig, ClipTextConfig
from audiogen_jax.text.clip_image import ClipImageConfig
from audiogen_jax.text.clip_layers import TransformerConfig


class LayerNames(NamedTuple):
  """What a publisher calls the parts of a layer."""

  attention_norm: str
  qkv: tuple[str, ...]  # followed by "weight" or "bias"
  out: str
  ff_norm: str
  up: str
  down: str


class Layout(NamedTuple):
  """What a publisher calls the parts of both towers.

  A `projection` that is named a weight is `[out, in]`, another one `[in, out]`.
  """

  layer: LayerNames
  image: Mapping[str, str]
  text: Mapping[str, str]


OPENCLIP = Layout(
  LayerNames(
    attention_norm="ln_1",
    qkv=("attn.in_proj_",),
    out="attn.out_proj",
    ff_norm="ln_2",
    up="mlp.c_fc",
    down="mlp.c_proj",
  ),
  image=dict(
    patches="visual.conv1.weight",
    class_token="visual.class_embedding",
    positions="visual.positional_embedding",
    in_norm="visual.ln_pre",
    layers="visual.transformer.resblocks",
    out_norm="visual.ln_post",
    projection="visual.proj",
  ),
  text=dict(
    words="token_embedding.weight",
    positions="positional_embedding",
    layers="transformer.resblocks",
    out_norm="ln_final",
    projection="text_projection",
  ),
)
HUGGING_FACE = Layout(
  LayerNames(
    attention_norm="layer_norm1",
    qkv=("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    out="self_attn.out_proj",
    ff_norm="layer_norm2",
    up="mlp.fc1",
    down="mlp.fc2",
  ),
  image=dict(
    patches="vision_model.embeddings.patch_embedding.weight",
    class_token="vision_model.embeddings.class_embedding",
    positions="vision_model.embeddings.position_embedding.weight",
    in_norm="vision_model.pre_layrnorm",  # as it is spelt there
    layers="vision_model.encoder.layers",
    out_norm="vision_model.post_layernorm",
    projection="visual_projection.weight",
  ),
  text=dict(
    words="text_model.embeddings.token_embedding.weight",
    positions="text_model.embeddings.position_embedding.weight",
    layers="text_model.encoder.layers",
    out_norm="text_model.final_layer_norm",
    projection="text_projection.weight",
  ),
)


def table(config: ClipConfig, layout: Layout) -> Table:
  """Every tensor of the towers that there are."""
  made: dict[str, list[Target]] = {}
  if config.image:
    c, names = config.image, layout.image
    shape = (c.transformer.width, 3, c.patch, c.patch)
    kernel = array("image/patches/kernel", *shape, order=(2, 3, 1, 0))
    made[names["patches"]] = [kernel]
    token = vector("image/class_token", c.transformer.width)
    made[names["class_token"]] = [token]
    made |= norm(names["in_norm"], "image/in_norm", c.transformer.width)
    made |= _tower(c, "image", layout.layer, names, c.patches + 1)
  if config.text:
    c, names = config.text, layout.text
    words = array("text/words", c.vocabulary, c.transformer.width)
    made[names["words"]] = [words]
    made |= _tower(c, "text", layout.layer, names, c.length)
  return made


def _tower(
  config: ClipImageConfig | ClipTextConfig,
  ours: str,
  layer: LayerNames,
  names: Mapping[str, str],
  positions: int,
) -> Table:
  """What both towers have."""
  t, d, out = config.transformer, config.transformer.width, config.width
  made: dict[str, list[Target]] = {
    names["positions"]: [array(f"{ours}/positions", positions, d)]
  }
  for i in range(t.layers):
    theirs = f"{names['layers']}.{i}."
    made |= _layer(t, theirs, f"{ours}/transformer/layers", layer, i)
  made |= norm(names["out_norm"], f"{ours}/out_norm", d)
  kernel = f"{ours}/projection/kernel"
  is_weight = names["projection"].endswith(".weight")
  made[names["projection"]] = [
    linear(kernel, (out,), (d,)) if is_weight else array(kernel, d, out)
  ]
  return made


def _layer(
  config: TransformerConfig, theirs: str, ours: str, names: LayerNames, i: int
) -> Table:
  """Layer `i`, of the stacked ones."""
  d, heads, at = (
    config.width,
    (config.heads, config.width // config.heads),
    (i,),
  )
  made: dict[str, list[Target]] = {}
  kernel, bias = f"{ours}/qkv/kernel", f"{ours}/qkv/bias"
  for j, name in enumerate(names.qkv):
    # All three in one tensor, or each in its own.
    one = len(names.qkv) == 1
    shape = (3, *heads) if one else heads
    where = at if one else (i, slice(None), j)
    made[f"{theirs}{name}weight"] = [linear(kernel, shape, (d,), where)]
    where = at if one else (i, j)
    made[f"{theirs}{name}bias"] = [vector(bias, *shape, index=where)]
  kernel, bias = f"{ours}/out/kernel", f"{ours}/out/bias"
  made[f"{theirs}{names.out}.weight"] = [linear(kernel, (d,), heads, at)]
  made[f"{theirs}{names.out}.bias"] = [vector(bias, d, index=at)]
  for name in ("attention_norm", "ff_norm"):
    made |= norm(f"{theirs}{getattr(names, name)}", f"{ours}/{name}", d, at)
  made |= dense(f"{theirs}{names.up}", f"{ours}/up", config.ff, d, at)
  made |= dense(f"{theirs}{names.down}", f"{ours}/down", d, config.ff, at)
  return made
