"""A step of HiFi-GAN's training beside PyTorch: losses, and what they move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.gan.discriminators import DiscriminatorConfig
from audiogen_jax.train.optimiser import OptimiserConfig
from audiogen_jax.train.vocoder_task import VocoderTask
from audiogen_jax.vocoder.generator import VocoderConfig

pytestmark = pytest.mark.torch

TASK = VocoderTask(
  vocoder=VocoderConfig(
    mel=MelConfig(
      16_000, n_fft=256, hop=64, n_mels=16, scale="slaney", area_norm=True,
      magnitude=True, padding="hops", clamp=True, log="ln", under_root=1e-9,
    ),
    filters=8, ratios=(8, 8), ratio_kernels=(16, 16), kernels=(3, 5),
    dilations=((1, 3), (1, 3)), activation="leaky_relu",
  ),
  adversary=DiscriminatorConfig(
    kinds=("mpd", "hifi_msd"), loss="mse", filters=4, periods=(2, 3), rates=2,
    slope=0.1, summed=True,
  ),
  optim=OptimiserConfig(lr=2e-4, b1=0.8, b2=0.99, weight_decay=0.01),
  precision="highest",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def torch():
  return pytest.importorskip("torch")


class Twin:
  """The published program's networks as functions of our parameters."""

  def __init__(self, torch, params):
    self.torch, self.f = torch, torch.nn.functional
    self.params = jax.tree.map(
      lambda x: torch.tensor(np.asarray(x)).requires_grad_(), params
    )

  def conv(self, p, x, *, up=False, **options):
    v, over = p["kernel_v"], (0, 2) if up else (0, 1)
    if v.ndim == 4:
      over = (0, 1, 2)
    g = p["kernel_g"].reshape((-1, 1) if up else (-1,))
    weight = g * v / v.pow(2).sum(over, keepdim=True).sqrt()
    if v.ndim == 4:
      return self.f.conv2d(x, weight.permute(3, 2, 0, 1), p["bias"], **options)
    if up:
      weight = weight.permute(1, 2, 0)
      return self.f.conv_transpose1d(x, weight, p["bias"], **options)
    return self.f.conv1d(x, weight.permute(2, 1, 0), p["bias"], **options)

  def generate(self, mels):
    c, p, f = TASK.vocoder, self.params["vocoder"], self.f
    x = self.conv(p["conv_in"], mels, padding=3)
    for i, (ratio, width) in enumerate(
      zip(c.ratios, c.ratio_kernels, strict=True)
    ):
      x = self.conv(
        p[f"up_{i}_transposed"], f.leaky_relu(x, 0.1), up=True, stride=ratio,
        padding=(width - ratio) // 2,
      )  # fmt: skip
      made = []
      for j, k in enumerate(c.kernels):
        y, block = x, p[f"up_{i}_block_{j}"]
        for n, d in enumerate(c.dilations[j]):
          z = f.leaky_relu(y, 0.1)
          pad = (k - 1) * d // 2
          z = self.conv(block[f"conv_{n}"], z, padding=pad, dilation=d)
          z = f.leaky_relu(z, 0.1)
          y = y + self.conv(block[f"conv_{n}_after"], z, padding=k // 2)
        made.append(y)
      x = sum(made) / len(made)
    x = self.conv(p["conv_out"], f.leaky_relu(x), padding=3)
    return x.tanh()

  def discriminate(self, audio):
    """Logits and features of each discriminator, by kind."""
    c, f, found = TASK.adversary, self.f, {"mpd": [], "hifi_msd": []}
    for period in c.periods:
      p = self.params["adversary"]["mpd"][f"period_{period}"]
      x = f.pad(audio, (0, -audio.shape[-1] % period), "reflect")
      x, maps = x.reshape(len(x), 1, -1, period), []
      for i in range(5):
        stride = (3 if i < 4 else 1, 1)
        x = self.conv(p[f"conv_{i}"], x, stride=stride, padding=(2, 0))
        x = f.leaky_relu(x, 0.1)
        maps.append(x)
      maps.append(self.conv(p["conv_post"], x, padding=(1, 0)))
      found["mpd"].append(maps)
    x = audio
    for i in range(c.rates):
      p = self.params["adversary"]["hifi_msd"][f"rate_{i}"]
      y, maps = x, []
      for n, (k, stride, groups) in enumerate(
        [(15, 1, 1), (41, 2, 4), (41, 2, 16), (41, 4, 16), (41, 4, 16)]
        + [(41, 1, 16), (5, 1, 1)]
      ):
        options = dict(stride=stride, groups=groups, padding=k // 2)
        y = f.leaky_relu(self.conv(p[f"conv_{n}"], y, **options), 0.1)
        maps.append(y)
      maps.append(self.conv(p["conv_post"], y, padding=1))
      found["hifi_msd"].append(maps)
      x = f.avg_pool1d(x, 4, 2, padding=2)
    return found

  def mels(self, audio, filters):
    """Natural logarithms of magnitudes, `b m t`."""
    m = TASK.vocoder.mel
    x = self.f.pad(audio, ((m.n_fft - m.hop) // 2,) * 2, "reflect")[:, 0]
    spectrum = self.torch.stft(
      x, m.n_fft, m.hop, window=self.torch.hann_window(m.n_fft), center=False,
      return_complex=True,
    )  # fmt: skip
    power = spectrum.real.pow(2) + spectrum.imag.pow(2)
    magnitude = (power + 1e-9).sqrt()
    return (filters.T @ magnitude).clamp(min=1e-5).log()

  def step(self, audio):
    """The losses of one step, as published."""
    torch, found = self.torch, {}
    filters = torch.tensor(np.asarray(mel.filters(TASK.vocoder.mel)))
    optimisers = [
      torch.optim.AdamW(
        jax.tree.leaves(self.params[name]),
        lr=2e-4,
        betas=(0.8, 0.99),
        weight_decay=0.01,
      )
      for name in ("adversary", "vocoder")
    ]
    want = self.mels(audio, filters)
    fake = self.generate(want)
    real, made = self.discriminate(audio), self.discriminate(fake.detach())
    for kind in real:
      found[f"adversary_{kind}"] = sum(
        (1 - r[-1]).pow(2).mean() + m[-1].pow(2).mean()
        for r, m in zip(real[kind], made[kind], strict=True)
      )
    sum(found.values()).backward()
    optimisers[0].step()
    real, made = self.discriminate(audio), self.discriminate(fake)
    found["mel"] = (want - self.mels(fake, filters)).abs().mean()
    loss = 45 * found["mel"]
    for kind in real:
      adv = sum((1 - m[-1]).pow(2).mean() for m in made[kind])
      feat = sum(
        (a - b).abs().mean()
        for r, m in zip(real[kind], made[kind], strict=True)
        for a, b in zip(r, m, strict=True)
      )
      found |= {f"adv_{kind}": adv, f"feat_{kind}": feat}
      loss = loss + adv + 2 * feat
    optimisers[1].zero_grad()
    loss.backward()
    optimisers[1].step()
    return found | {"loss": loss}


def test_a_step_is_that_of_pytorch(torch):
  state = jax.jit(TASK.init)(jax.random.key(0))
  audio = 0.3 * jax.random.normal(jax.random.key(1), (2, 1024, 1))
  twin = Twin(torch, state.params)
  want = twin.step(torch.tensor(np.asarray(audio)).permute(0, 2, 1))
  after, found = jax.jit(TASK.train_step)(
    state, {"audio": audio}, jax.random.key(0)
  )
  for name, value in want.items():
    assert float(found[name]) == pytest.approx(value.item(), rel=1e-5), name
  apart, count = 0, 0
  for ours, theirs in zip(
    jax.tree.leaves(after.params), jax.tree.leaves(twin.params), strict=True
  ):
    # Adam's first step is the sign of a gradient, which rounding may turn.
    differ = np.abs(ours - theirs.detach().numpy())
    assert differ.max() < 5e-4
    apart, count = apart + (differ > 1e-6).sum(), count + differ.size
  assert apart < 0.01 * count
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).mean()), after.params, state.params
  )
  assert min(jax.tree.leaves(moved)) > 1e-5
