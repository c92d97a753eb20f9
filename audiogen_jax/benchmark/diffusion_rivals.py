"""PyTorch's parts of latent diffusion, of Make-An-Audio's published sizes.

U-Net and autoencoder are those of `diffusers`; BigVGAN is written anew, with
its filters as the published program runs them, one channel at a time.  They
need PyTorch, which nothing else here does.
"""

from typing import Any

import numpy as np

from audiogen_jax.benchmark.diffusion import (
  LATENT,
  SOUND,
  TOKENS,
  UNET,
  Work,
)
from audiogen_jax.benchmark.rivals import check_installed
from audiogen_jax.vocoder.activations import low_pass


def open_rival(name: str, width: int) -> Work:
  """PyTorch's part for latents of so many columns.

  Raises:
    InputError: If a package is missing.
  """
  packages = ("torch",) if name == "vocoder" else ("torch", "diffusers")
  check_installed(name, packages)
  import torch

  run = {"unet": _unet, "decoder": _decoder, "vocoder": _vocoder}[name](width)

  def work() -> None:
    with torch.inference_mode():
      run()

  return work


def _unet(width: int) -> Work:
  import diffusers
  import torch

  c, levels = UNET, len(UNET.multipliers)
  model = diffusers.UNet2DConditionModel(
    in_channels=c.channels,
    out_channels=c.channels,
    block_out_channels=tuple(c.filters * m for m in c.multipliers),
    layers_per_block=c.residual_layers,
    down_block_types=("CrossAttnDownBlock2D",) * levels,
    up_block_types=("CrossAttnUpBlock2D",) * levels,
    cross_attention_dim=c.context_width,
    attention_head_dim=c.heads,  # they call it so
  ).eval()
  image = torch.randn(2, c.channels, LATENT.rows, width)
  context = torch.randn(2, TOKENS, c.context_width)
  return lambda: model(image, torch.ones(2), context)


def _decoder(width: int) -> Work:
  import diffusers
  import torch

  c = LATENT
  levels = range(len(c.multipliers))
  attends = ["Attn" if i in c.attention else "" for i in levels]
  model = diffusers.AutoencoderKL(
    in_channels=1,
    out_channels=1,
    latent_channels=c.channels,
    block_out_channels=tuple(c.filters * m for m in c.multipliers),
    layers_per_block=c.residual_layers,
    down_block_types=tuple(f"{a}DownEncoderBlock2D" for a in attends),
    up_block_types=tuple(f"{a}UpDecoderBlock2D" for a in reversed(attends)),
  ).eval()
  latent = torch.randn(1, c.channels, c.rows, width)
  return lambda: model.decode(latent)


def _vocoder(width: int) -> Work:
  import torch
  from torch import nn
  from torch.nn import functional

  c = SOUND
  taps = torch.from_numpy(np.array(low_pass()))[None, None]

  class Bend(nn.Module):
    def __init__(self, channels: int) -> None:
      super().__init__()
      self.alpha = nn.Parameter(torch.zeros(1, channels, 1))
      self.beta = nn.Parameter(torch.zeros(1, channels, 1))
      self.register_buffer("taps", taps.expand(channels, -1, -1))

    def forward(self, x: Any) -> Any:
      channels = x.shape[1]
      x = functional.pad(x, (5, 5), mode="replicate")
      x = functional.conv_transpose1d(x, self.taps, stride=2, groups=channels)
      x = 2 * x[..., 15:-15]
      sine = torch.sin(x * self.alpha.exp())
      x = x + sine**2 / (self.beta.exp() + 1e-9)
      x = functional.pad(x, (5, 6), mode="replicate")
      return functional.conv1d(x, self.taps, stride=2, groups=channels)

  def conv(channels: int, width: int, dilation: int) -> nn.Conv1d:
    reach = (width - 1) // 2 * dilation
    return nn.Conv1d(channels, channels, width, 1, reach, dilation)

  class Block(nn.Module):
    def __init__(self, channels: int, which: int) -> None:
      super().__init__()
      self.pairs = nn.ModuleList(
        nn.Sequential(
          Bend(channels),
          conv(channels, c.kernels[which], dilation),
          Bend(channels),
          conv(channels, c.kernels[which], 1),
        )
        for dilation in c.dilations[which]
      )

    def forward(self, x: Any) -> Any:
      for pair in self.pairs:
        x = x + pair(x)
      return x

  class Mean(nn.Module):
    def __init__(self, channels: int) -> None:
      super().__init__()
      count = range(len(c.kernels))
      self.blocks = nn.ModuleList(Block(channels, i) for i in count)

    def forward(self, x: Any) -> Any:
      return sum(block(x) for block in self.blocks) / len(self.blocks)

  layers = [nn.Conv1d(c.mel.n_mels, c.filters, 7, padding=3)]
  channels = c.filters
  for ratio, wide in zip(c.ratios, c.ratio_kernels, strict=True):
    trim = (wide - ratio) // 2
    up = nn.ConvTranspose1d(channels, channels // 2, wide, ratio, trim)
    channels //= 2
    layers += [up, Mean(channels)]
  layers += [Bend(channels), nn.Conv1d(channels, 1, 7, padding=3), nn.Tanh()]
  model = nn.Sequential(*layers).eval()
  bands = torch.randn(1, c.mel.n_mels, width * LATENT.ratio)
  return lambda: model(bands)
