"""Tensors of the networks that CLAPs join: HTSAT, Cnn14, BERT, GPT-2.

Sizes are read from the tensors' shapes; what those cannot tell, such as numbers
of heads, comes from the publisher's file.
"""

import dataclasses
from typing import NamedTuple

from audiogen_jax.convert import panns
from audiogen_jax.convert.clap_parts import Tensors
from audiogen_jax.convert.engine import (
  Table,
  Target,
  array,
  linear,
  vector,
)
from audiogen_jax.core.bert import BertConfig
from audiogen_jax.embedding.cnn14 import Cnn14Config
from audiogen_jax.embedding.gpt2 import GPT2Config
from audiogen_jax.embedding.htsat import HTSATConfig

# Published with the weights and constant, or of no use to who judges.
UNUSED = (
  r"(.*\.)?(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
  r"|.*\.(attn_mask|relative_position_index|num_batches_tracked)$"
  r"|.*\.embeddings\.(position_ids|token_type_ids)$"
  r"|.*\.h\.\d+\.attn\.(masked_)?bias$"
)


class HTSATNames(NamedTuple):
  """What a publisher calls parts of HTSAT, for `htsat`."""

  bands: str
  attention_norm: str
  mlp_norm: str
  bias: str
  qkv: tuple[str, ...]
  out: str
  up: str
  down: str


LAION = HTSATNames(
  bands="bn0",
  attention_norm="norm1",
  mlp_norm="norm2",
  bias="attn.relative_position_bias_table",
  qkv=("attn.qkv",),
  out="attn.proj",
  up="mlp.fc1",
  down="mlp.fc2",
)
HUGGING_FACE = HTSATNames(
  bands="batch_norm",
  attention_norm="layernorm_before",
  mlp_norm="layernorm_after",
  bias="attention.self.relative_position_bias_table",
  qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
  out="attention.output.dense",
  up="intermediate.dense",
  down="output.dense",
)


def htsat_sizes(tensors: Tensors, stem: str) -> dict[str, int | tuple]:
  """Those fields of an `HTSATConfig` that its tensors tell."""
  width, _, patch, _ = tensors.shape(f"{stem}patch_embed.proj.weight", 4)
  stages = tensors.count(f"{stem}layers")
  depths = [tensors.count(f"{stem}layers.{i}.blocks") for i in range(stages)]
  return dict(width=width, patch=patch, depths=tuple(depths))


def htsat(config: HTSATConfig, stem: str, names: HTSATNames) -> Table:
  """Every tensor of HTSAT, below `audio`."""
  made: dict[str, list[Target]] = {}
  c, ours = config, "audio"
  bands = {"weight": "scale", "bias": "bias"}
  bands |= {"running_mean": "mean", "running_var": "variance"}
  for theirs, name in bands.items():
    part = vector(f"{ours}/bands/{name}", c.mel.n_mels)
    made[f"{stem}{names.bands}.{theirs}"] = [part]
  kernel = array(
    f"{ours}/patches/kernel", c.width, 1, c.patch, c.patch, order=(2, 3, 1, 0)
  )
  made[f"{stem}patch_embed.proj.weight"] = [kernel]
  bias = vector(f"{ours}/patches/bias", c.width)
  made[f"{stem}patch_embed.proj.bias"] = [bias]
  made |= norm(f"{stem}patch_embed.norm", f"{ours}/patches_norm", c.width)
  for i, (depth, heads) in enumerate(zip(c.depths, c.heads, strict=True)):
    d = c.width << i
    side = min(c.window, c.image // c.patch >> i)
    for j in range(depth):
      block, to = f"{stem}layers.{i}.blocks.{j}", f"{ours}/stage_{i}_block_{j}"
      table = array(f"{to}/attention/bias", (2 * side - 1) ** 2, heads)
      made[f"{block}.{names.bias}"] = [table]
      made |= _attention(
        [f"{block}.{name}" for name in names.qkv],
        f"{block}.{names.out}",
        f"{to}/attention/",
        (heads, d // heads),
      )
      for theirs, name in (
        (names.attention_norm, "attention_norm"),
        (names.mlp_norm, "mlp_norm"),
      ):
        made |= norm(f"{block}.{theirs}", f"{to}/{name}", d)
      made |= dense(f"{block}.{names.up}", f"{to}/up", c.mlp * d, d)
      made |= dense(f"{block}.{names.down}", f"{to}/down", d, c.mlp * d)
    if i < len(c.depths) - 1:
      merge = f"{stem}layers.{i}.downsample"
      made |= norm(f"{merge}.norm", f"{ours}/stage_{i}_norm", 4 * d)
      down = linear(f"{ours}/stage_{i}_down/kernel", (2 * d,), (4 * d,))
      made[f"{merge}.reduction.weight"] = [down]
  made |= norm(f"{stem}norm", f"{ours}/out_norm", c.out_width)
  return made


def cnn14(config: Cnn14Config, stem: str) -> Table:
  """Every tensor of Cnn14, below `audio`."""
  return {
    f"{stem}{name}": [
      dataclasses.replace(part, path=f"audio/{part.path}") for part in parts
    ]
    for name, parts in panns.table(config).items()
  }


def bert_sizes(tensors: Tensors, stem: str) -> dict[str, int]:
  """Those fields of a `BertConfig` that its tensors tell."""
  rows = f"{stem}embeddings."
  first = f"{stem}encoder.layer.0.intermediate.dense.weight"
  vocabulary, width = tensors.shape(f"{rows}word_embeddings.weight", 2)
  return dict(
    vocabulary=vocabulary,
    width=width,
    layers=tensors.count(f"{stem}encoder.layer"),
    ff=tensors.shape(first, 2)[0],
    positions=tensors.shape(f"{rows}position_embeddings.weight", 2)[0],
    kinds=tensors.shape(f"{rows}token_type_embeddings.weight", 2)[0],
  )


def bert(config: BertConfig, stem: str) -> Table:
  """Every tensor of BERT or RoBERTa, below `text`."""
  c, d = config, config.width
  made: dict[str, list[Target]] = {}
  for theirs, name, rows in (
    ("word", "words", c.vocabulary),
    ("position", "positions", c.positions),
    ("token_type", "kinds", c.kinds),
  ):
    table = array(f"text/{name}", rows, d)
    made[f"{stem}embeddings.{theirs}_embeddings.weight"] = [table]
  made |= norm(f"{stem}embeddings.LayerNorm", "text/words_norm", d)
  to, heads = "text/layers", (c.heads, d // c.heads)
  for i in range(c.layers):
    layer, at = f"{stem}encoder.layer.{i}", (i,)
    attention = f"{layer}.attention"
    made |= _attention(
      [f"{attention}.self.{name}" for name in ("query", "key", "value")],
      f"{attention}.output.dense",
      f"{to}/",
      heads,
      at,
    )
    after = f"{attention}.output.LayerNorm"
    made |= norm(after, f"{to}/attention_norm", d, at)
    made |= dense(f"{layer}.intermediate.dense", f"{to}/up", c.ff, d, at)
    made |= dense(f"{layer}.output.dense", f"{to}/down", d, c.ff, at)
    made |= norm(f"{layer}.output.LayerNorm", f"{to}/ff_norm", d, at)
  if c.pooled:
    made |= dense(f"{stem}pooler.dense", "text/pool", d, d)
  return made


def gpt2_sizes(tensors: Tensors, stem: str) -> dict[str, int]:
  """Those fields of a `GPT2Config` that its tensors tell."""
  vocabulary, width = tensors.shape(f"{stem}wte.weight", 2)
  return dict(
    vocabulary=vocabulary,
    width=width,
    layers=tensors.count(f"{stem}h"),
    ff=tensors.shape(f"{stem}h.0.mlp.c_fc.weight", 2)[1],
    positions=tensors.shape(f"{stem}wpe.weight", 2)[0],
  )


def gpt2(config: GPT2Config, stem: str) -> Table:
  """Every tensor of GPT-2, below `text`; its matrices are `[in, out]`."""
  c, d, f = config, config.width, config.ff
  heads = (c.heads, d // c.heads)
  made: dict[str, list[Target]] = {
    f"{stem}wte.weight": [array("text/words", c.vocabulary, d)],
    f"{stem}wpe.weight": [array("text/positions", c.positions, d)],
  }
  for i in range(c.layers):
    layer, to, at = f"{stem}h.{i}", "text/layers", (i,)
    for theirs, name, into, out in (
      ("attn.c_attn", "qkv", (d,), (3, *heads)),
      ("attn.c_proj", "out", heads, (d,)),
      ("mlp.c_fc", "up", (d,), (f,)),
      ("mlp.c_proj", "down", (f,), (d,)),
    ):
      axes, rank = (*into, *out), (len(into), len(out))
      order = tuple(range(len(axes)))
      kernel = Target(f"{to}/{name}/kernel", axes, order, rank, at)
      made[f"{layer}.{theirs}.weight"] = [kernel]
      bias = vector(f"{to}/{name}/bias", *out, index=at)
      made[f"{layer}.{theirs}.bias"] = [bias]
    made |= norm(f"{layer}.ln_1", f"{to}/attention_norm", d, at)
    made |= norm(f"{layer}.ln_2", f"{to}/ff_norm", d, at)
  return made | norm(f"{stem}ln_f", "text/out_norm", d)


def _attention(
  qkv: list[str],
  out: str,
  ours: str,
  heads: tuple[int, int],
  at: tuple[int, ...] = (),
) -> Table:
  """Queries, keys and values in one tensor or in three, and what follows."""
  d = heads[0] * heads[1]
  made: dict[str, list[Target]] = {}
  kernel, bias = f"{ours}qkv/kernel", f"{ours}qkv/bias"
  if len(qkv) == 1:
    made[f"{qkv[0]}.weight"] = [linear(kernel, (3, *heads), (d,), at)]
    made[f"{qkv[0]}.bias"] = [vector(bias, 3, *heads, index=at)]
  else:
    for i, name in enumerate(qkv):
      part = linear(kernel, heads, (d,), (*at, slice(None), i))
      made[f"{name}.weight"] = [part]
      made[f"{name}.bias"] = [vector(bias, *heads, index=(*at, i))]
  made[f"{out}.weight"] = [linear(f"{ours}out/kernel", (d,), heads, at)]
  made[f"{out}.bias"] = [vector(f"{ours}out/bias", d, index=at)]
  return made


def dense(
  theirs: str, ours: str, out: int, into: int, at: tuple[int, ...] = ()
) -> Table:
  """A matrix and a bias."""
  return {
    f"{theirs}.weight": [linear(f"{ours}/kernel", (out,), (into,), at)],
    f"{theirs}.bias": [vector(f"{ours}/bias", out, index=at)],
  }


def norm(theirs: str, ours: str, width: int, at: tuple[int, ...] = ()) -> Table:
  """Scale and bias of a norm."""
  return {
    f"{theirs}.weight": [vector(f"{ours}/scale", width, index=at)],
    f"{theirs}.bias": [vector(f"{ours}/bias", width, index=at)],
  }
