"""The codec's tensors in the two foreign formats.

Both number the layers of a sequential stack; they differ in prefixes.
"""

import dataclasses

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.convert.engine import Table, array, linear, vector


@dataclasses.dataclass(frozen=True)
class Names:
  """How a format spells the codec's layers.

  Attributes:
    stack: Between `encoder.` and the layer's number.
    conv: A convolution within its layer.
    transposed: A transposed convolution within its layer.
    norm: A convolution's norm within its layer.
    codebook: A codebook; takes its number.
    g: Weight norm's length.
    v: Weight norm's direction.
  """

  stack: str
  conv: str
  transposed: str
  norm: str
  codebook: str
  g: str = "weight_g"
  v: str = "weight_v"


AUDIOCRAFT = Names(
  stack="model",
  conv="conv.conv",
  transposed="convtr.convtr",
  norm="conv.norm",
  codebook="quantizer.vq.layers.{}._codebook",
)
TRANSFORMERS = Names(
  stack="layers",
  conv="conv",
  transposed="conv",
  norm="norm",
  codebook="quantizer.layers.{}.codebook",
  g="parametrizations.weight.original0",
  v="parametrizations.weight.original1",
)


def table(config: EncodecConfig, names: Names) -> Table:
  """Every tensor of a codec."""
  c = config.seanet
  made: dict[str, list] = {}
  stages, per_stage = len(c.ratios), c.residual_layers + 2
  lstm = 1 if c.lstm_layers else 0

  def conv(layer, ours, block, width, into, out, transposed=False):
    conv_name = names.transposed if transposed else names.conv
    stem, ours = f"{layer}.{conv_name}", f"params/{ours}"
    # Kernels are [out, in, w], transposed ones [in, out, w]; ours [w, in, out].
    shape = (into, out, width) if transposed else (out, into, width)
    order = (2, 0, 1) if transposed else (2, 1, 0)
    norm = c.norm_of(block)
    if norm == "weight_norm":
      made[f"{stem}.{names.g}"] = [array(f"{ours}/kernel_g", shape[0], 1, 1)]
      kernel, ours_kernel = f"{stem}.{names.v}", f"{ours}/kernel_v"
    else:
      kernel, ours_kernel = f"{stem}.weight", f"{ours}/kernel"
    made[kernel] = [array(ours_kernel, *shape, order=order)]
    made[f"{stem}.bias"] = [vector(f"{ours}/bias", out)]
    if norm == "layer_norm":
      norm_name = f"{layer}.{names.norm}"
      if transposed:
        norm_name = norm_name.replace("conv.", "convtr.")
      made[f"{norm_name}.weight"] = [vector(f"{ours}/norm/scale", out)]
      made[f"{norm_name}.bias"] = [vector(f"{ours}/norm/bias", out)]

  def residuals(first, ours, block, channels):
    narrow = channels // c.compress
    for j in range(c.residual_layers):
      layer, mine = f"{first(j)}", f"{ours}_residual_{j}"
      width = c.residual_kernel
      conv(f"{layer}.block.1", f"{mine}/narrow", block, width, channels, narrow)
      conv(f"{layer}.block.3", f"{mine}/widen", block, 1, narrow, channels)
      if not c.true_skip:
        shortcut = f"{mine}/shortcut"
        conv(f"{layer}.shortcut", shortcut, block, 1, channels, channels)

  def lstms(layer, ours, channels):
    for i in range(c.lstm_layers):
      for theirs, mine in (("ih", "input"), ("hh", "hidden")):
        stem = f"params/{ours}/layer_{i}_{mine}"
        gates = (4 * channels,)
        made[f"{layer}.lstm.weight_{theirs}_l{i}"] = [
          linear(f"{stem}_kernel", gates, (channels,))
        ]
        made[f"{layer}.lstm.bias_{theirs}_l{i}"] = [
          vector(f"{stem}_bias", *gates)
        ]

  inner = stages + 1  # the block next to the latents
  e, d = f"encoder.{names.stack}", f"decoder.{names.stack}"

  channels = c.filters
  conv(f"{e}.0", "encoder/conv_in", 0, c.kernel, c.channels, channels)
  for i, ratio in enumerate(reversed(c.ratios)):
    at = 1 + i * per_stage
    residuals(
      lambda j, at=at: f"{e}.{at + j}", f"encoder/down_{i}", i + 1, channels
    )
    layer = f"{e}.{at + c.residual_layers + 1}"
    ours = f"encoder/down_{i}"
    conv(layer, ours, i + 1, 2 * ratio, channels, 2 * channels)
    channels *= 2
  at = 1 + stages * per_stage
  lstms(f"{e}.{at}", "encoder/lstm", channels)
  layer = f"{e}.{at + lstm + 1}"
  conv(layer, "encoder/conv_out", inner, c.last_kernel, channels, c.width)

  conv(f"{d}.0", "decoder/conv_in", inner, c.kernel, c.width, channels)
  lstms(f"{d}.1", "decoder/lstm", channels)
  for i, ratio in enumerate(c.ratios):
    at, block = 1 + lstm + i * per_stage, stages - i
    layer, ours = f"{d}.{at + 1}", f"decoder/up_{i}"
    conv(
      layer,
      f"{ours}_transposed",
      block,
      2 * ratio,
      channels,
      channels // 2,
      transposed=True,
    )
    channels //= 2
    residuals(lambda j, at=at: f"{d}.{at + 2 + j}", ours, block, channels)
  layer = f"{d}.{1 + lstm + stages * per_stage + 1}"
  conv(layer, "decoder/conv_out", 0, c.last_kernel, channels, c.channels)

  size, width = config.rvq.size, config.rvq.width
  for k in range(config.rvq.codebooks):
    stem = names.codebook.format(k)
    ours = "codebooks"
    made[f"{stem}.inited"] = [
      array(f"{ours}/ready", 1, index=(slice(k, k + 1),))
    ]
    made[f"{stem}.cluster_size"] = [array(f"{ours}/usage", size, index=(k,))]
    made[f"{stem}.embed"] = [array(f"{ours}/embed", size, width, index=(k,))]
    made[f"{stem}.embed_avg"] = [
      array(f"{ours}/embed_sum", size, width, index=(k,))
    ]
  return made
