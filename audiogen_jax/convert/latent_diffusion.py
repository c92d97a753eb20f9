"""Tensors of latent diffusion (CompVis) as Make-An-Audio names them.

Images lie there as `b c h w` with mel bands for `h` and time for `w`; here time
comes first, so kernels turn around: `[o i h w]` there, `[w h i o]` here.
"""

import numpy as np
from jaxtyping import Float

from audiogen_jax.convert.clap_networks import dense, norm
from audiogen_jax.convert.engine import Table, Target, array, linear, vector
from audiogen_jax.diffusion import schedule as schedules
from audiogen_jax.diffusion.schedule import Schedule
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig


def _conv(theirs: str, ours: str, out: int, into: int, side: int = 3) -> Table:
  """A convolution; of side 1 it is a matrix here."""
  kernel = array(f"{ours}/kernel", out, into, side, side, order=(3, 2, 1, 0))
  return {
    f"{theirs}.weight": [kernel],
    f"{theirs}.bias": [vector(f"{ours}/bias", out)],
  }


def autoencoder_table(config: AutoencoderConfig) -> Table:
  """Every tensor of the autoencoder."""
  c = config
  made: Table = {}
  deepest, last = c.filters * c.multipliers[-1], len(c.multipliers) - 1

  def residual(theirs, ours, into, out):
    nonlocal made
    for i, size in enumerate((into, out)):
      made |= norm(f"{theirs}.norm{i + 1}", f"{ours}/norm_{i}", size)
      made |= _conv(f"{theirs}.conv{i + 1}", f"{ours}/conv_{i}", out, size)
    if into != out:
      shortcut = f"{theirs}.nin_shortcut"
      made |= _conv(shortcut, f"{ours}/shortcut", out, into, 1)

  def attention(theirs, ours, width):
    nonlocal made
    made |= norm(f"{theirs}.norm", f"{ours}/norm", width)
    for name, mine in (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out")):
      made |= _conv(f"{theirs}.{name}", f"{ours}/{mine}", width, width, 1)

  def ends(side, into, out, inner, outer):
    """First and last convolution, the last norm, the blocks in the middle."""
    nonlocal made
    made |= _conv(f"{side}.conv_in", f"{side}/conv_in", inner, into)
    for i in range(2):
      block = f"{side}/middle_residual_{i}"
      residual(f"{side}.mid.block_{i + 1}", block, deepest, deepest)
    attention(f"{side}.mid.attn_1", f"{side}/middle_attention", deepest)
    made |= norm(f"{side}.norm_out", f"{side}/norm_out", outer)
    made |= _conv(f"{side}.conv_out", f"{side}/conv_out", out, outer)

  def level(side, stack, i, into, count):
    out = c.filters * c.multipliers[i]
    for j in range(count):
      theirs, ours = f"{side}.{stack}.{i}", f"{side}/{stack}_{i}"
      block = f"{ours}_residual_{j}"
      residual(f"{theirs}.block.{j}", block, into if j == 0 else out, out)
      if i in c.attention:
        attention(f"{theirs}.attn.{j}", f"{ours}_attention_{j}", out)
    return out

  ends("encoder", 1, 2 * c.middle, c.filters, deepest)
  width = c.filters
  for i in range(last + 1):
    width = level("encoder", "down", i, width, c.residual_layers)
    if i < last:
      theirs = f"encoder.down.{i}.downsample.conv"
      made |= _conv(theirs, f"encoder/down_{i}/conv", width, width)
  first = c.filters * c.multipliers[0]
  ends("decoder", c.middle, 1, deepest, first)
  width = deepest
  for i in reversed(range(last + 1)):
    width = level("decoder", "up", i, width, c.residual_layers + 1)
    if i:
      theirs = f"decoder.up.{i}.upsample.conv"
      made |= _conv(theirs, f"decoder/up_{i}/conv", width, width)
  both = 2 * c.channels
  made |= _conv("quant_conv", "encoder/posterior", both, 2 * c.middle, 1)
  made |= _conv("post_quant_conv", "decoder/latent", c.middle, c.channels, 1)
  return made


def unet_table(config: UNetConfig) -> Table:
  """Every tensor of the U-Net."""
  c = config
  made: Table = {}
  last = len(c.multipliers) - 1

  def residual(theirs, ours, into, out):
    nonlocal made
    made |= norm(f"{theirs}.in_layers.0", f"{ours}/norm_0", into)
    made |= _conv(f"{theirs}.in_layers.2", f"{ours}/conv_0", out, into)
    made |= dense(f"{theirs}.emb_layers.1", f"{ours}/time", out, c.time_width)
    made |= norm(f"{theirs}.out_layers.0", f"{ours}/norm_1", out)
    made |= _conv(f"{theirs}.out_layers.3", f"{ours}/conv_1", out, out)
    if into != out:
      shortcut = f"{theirs}.skip_connection"
      made |= _conv(shortcut, f"{ours}/shortcut", out, into, 1)

  def attention(theirs, ours, width):
    nonlocal made
    made |= norm(f"{theirs}.norm", f"{ours}/norm", width)
    if c.context_width:
      made |= _with_context(c, theirs, ours, width)
    else:
      made |= _plain(c.heads_of(width), theirs, ours, width)

  made |= dense("time_embed.0", "time_0", c.time_width, c.filters)
  made |= dense("time_embed.2", "time_1", c.time_width, c.time_width)
  made |= _conv("input_blocks.0.0", "conv_in", c.filters, c.channels + c.beside)
  width, kept, n = c.filters, [c.filters], 1
  for i, multiplier in enumerate(c.multipliers):
    for j in range(c.residual_layers):
      theirs, out = f"input_blocks.{n}", c.filters * multiplier
      residual(f"{theirs}.0", f"down_{i}_residual_{j}", width, out)
      if i in c.attention:
        attention(f"{theirs}.1", f"down_{i}_attention_{j}", out)
      width, n = out, n + 1
      kept.append(width)
    if i < last:
      theirs = f"input_blocks.{n}.0"
      if c.resample == "residual":
        residual(theirs, f"down_{i}", width, width)
      else:
        made |= _conv(f"{theirs}.op", f"down_{i}", width, width)
      n += 1
      kept.append(width)
  residual("middle_block.0", "middle_residual_0", width, width)
  attention("middle_block.1", "middle_attention", width)
  residual("middle_block.2", "middle_residual_1", width, width)
  n = 0
  for i in reversed(range(last + 1)):
    for j in range(c.residual_layers + 1):
      theirs, out = f"output_blocks.{n}", c.filters * c.multipliers[i]
      residual(f"{theirs}.0", f"up_{i}_residual_{j}", width + kept.pop(), out)
      if i in c.attention:
        attention(f"{theirs}.1", f"up_{i}_attention_{j}", out)
      width, n = out, n + 1
    if i:
      theirs += ".2" if i in c.attention else ".1"
      if c.resample == "residual":
        residual(theirs, f"up_{i}", width, width)
      else:
        made |= _conv(f"{theirs}.conv", f"up_{i}", width, width)
  made |= norm("out.0", "norm_out", width)
  made |= _conv("out.2", "conv_out", c.channels, width)
  return made


def _with_context(
  config: UNetConfig, theirs: str, ours: str, width: int
) -> Table:
  """Transformer blocks, and what leads into and out of them."""
  heads = config.heads_of(width)
  shape = (heads, width // heads)
  made = _conv(f"{theirs}.proj_in", f"{ours}/into", width, width, 1)
  made |= _conv(f"{theirs}.proj_out", f"{ours}/out", width, width, 1)
  for i in range(config.layers):
    block, mine = f"{theirs}.transformer_blocks.{i}", f"{ours}/block_{i}"
    for j, (name, seen) in enumerate(
      (("self", width), ("cross", config.context_width)), start=1
    ):
      made |= norm(f"{block}.norm{j}", f"{mine}/{name}_norm", width)
      into, stem = f"{block}.attn{j}", f"{mine}/{name}_attn"
      for part, size in (("q", width), ("k", seen), ("v", seen)):
        kernel = linear(f"{stem}/{part}/kernel", shape, (size,))
        made[f"{into}.to_{part}.weight"] = [kernel]
      out = linear(f"{stem}/out/kernel", (width,), shape)
      made[f"{into}.to_out.0.weight"] = [out]
      made[f"{into}.to_out.0.bias"] = [vector(f"{stem}/out/bias", width)]
    made |= norm(f"{block}.norm3", f"{mine}/ff_norm", width)
    gated, up = (2, 4 * width), f"{block}.ff.net.0.proj"
    made[f"{up}.weight"] = [linear(f"{mine}/up/kernel", gated, (width,))]
    made[f"{up}.bias"] = [vector(f"{mine}/up/bias", *gated)]
    made |= dense(f"{block}.ff.net.2", f"{mine}/down", width, 4 * width)
  return made


def _plain(heads: int, theirs: str, ours: str, width: int) -> Table:
  """Attention without a context; heads come before queries, keys, values."""
  e = width // heads
  qkv = Target(
    f"{ours}/qkv/kernel", (heads, 3, e, width, 1), (3, 4, 0, 1, 2), (3, 1, 1)
  )
  out = Target(
    f"{ours}/heads_out/kernel", (width, heads, e, 1), (1, 2, 3, 0), (1, 2, 1)
  )
  return {
    f"{theirs}.qkv.weight": [qkv],
    f"{theirs}.qkv.bias": [vector(f"{ours}/qkv/bias", heads, 3, e)],
    f"{theirs}.proj_out.weight": [out],
    f"{theirs}.proj_out.bias": [vector(f"{ours}/heads_out/bias", width)],
  }


def constants(schedule: Schedule) -> dict[str, Float[np.ndarray, " t"]]:
  """What checkpoints store of a schedule: ᾱ, and what follows of it."""
  betas, kept = schedule.betas, schedules.kept(schedule)
  before = np.append(1.0, kept[:-1])
  variance = betas * (1 - before) / (1 - kept)
  made = {
    "betas": betas,
    "alphas_cumprod": kept,
    "alphas_cumprod_prev": before,
    "sqrt_alphas_cumprod": np.sqrt(kept),
    "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - kept),
    "log_one_minus_alphas_cumprod": np.log(1 - kept),
    "sqrt_recip_alphas_cumprod": np.sqrt(1 / kept),
    "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / kept - 1),
    "posterior_variance": variance,
    "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
    "posterior_mean_coef1": betas * np.sqrt(before) / (1 - kept),
    "posterior_mean_coef2": (1 - before) * np.sqrt(1 - betas) / (1 - kept),
  }
  return {name: values.astype(np.float32) for name, values in made.items()}
