"""What models that diffuse latents of mel spectrograms are made of.

Text encoder, U-Net, autoencoder, vocoder; how they are asked and saved, and how
long sounds are in their columns:

    sound -> mel spectrogram -> latent          what is edited
    latent -> mel spectrogram -> sound          what is heard
"""

import math
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from audiogen_jax.audio import checks
from audiogen_jax.audio import mel as mel_spectrograms
from audiogen_jax.convert import make_an_audio_parts
from audiogen_jax.convert.make_an_audio_parts import Parts
from audiogen_jax.core import keeping, sharding
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, Seconds
from audiogen_jax.diffusion import denoiser as denoisers
from audiogen_jax.diffusion.denoiser import POSTERIOR, START, Denoiser
from audiogen_jax.diffusion.sampling import Diffusion, Length, Planned
from audiogen_jax.diffusion.unet import UNetConfig
from audiogen_jax.latent.autoencoder import AutoencoderConfig
from audiogen_jax.latent.mel_autoencoder import MelAutoencoder
from audiogen_jax.text import prompts
from audiogen_jax.text.clip_embedder import ClipEmbedder
from audiogen_jax.text.tower import TextTower
from audiogen_jax.vocoder.vocoder import Vocoder

_LONGEST_S = 60.0  # every place of a latent attends to all others
_COLUMNS = 4  # latents are a multiple of so many wide, as published
_PUBLISHED_COLUMNS_HZ = 7.8  # as the published programs round it

_log_mel = jax.jit(mel_spectrograms.log_spectrogram, static_argnums=0)


class Extent(NamedTuple):
  """How long a sound is to be.

  Attributes:
    columns: Of its latent.
    samples: Of the vocoder's sound, those that are wanted.
    silence: Samples of silence before it, and once more behind it.
  """

  columns: int
  samples: int
  silence: int = 0


class Noise(NamedTuple):
  """What is random in a sound, where it is given in place of seeds.

  Attributes:
    start: What the steps begin with, or what is added to a latent.
    posterior: By which latents of sounds are drawn.
    steps: Of each step, for DDIM's η, or for what stays of a sound.
  """

  start: Float[AnyArray, "b w z c"] | None = None
  posterior: Float[AnyArray, "b w z c"] | None = None
  steps: Float[AnyArray, "s b w z c"] | None = None


class TextToLatents:
  """Text encoder, U-Net, autoencoder and vocoder of a family.

  Attributes:
    text: Sentences -> states, of a model that reads.
    clip: Pictures -> embeddings, of a model that looks.
    denoiser: Noise and states -> latents.
    mels: Mel spectrograms <-> latents.
    vocoder: Mel spectrograms -> sounds.
    window_s: The duration trained on.
    sample_rate_hz: Of the sounds.
    channels: Of the sounds: 1.
    placement: The devices.
    ranges: Narrower ends of options, for this model.
  """

  options = Diffusion
  channels = 1

  def __init__(
    self,
    denoiser: Denoiser,
    mels: MelAutoencoder,
    vocoder: Vocoder,
    text: TextTower | None = None,
    clip: ClipEmbedder | None = None,
    *,
    window_s: Seconds = Parts.window_s,
  ) -> None:
    self.denoiser = denoiser
    self.mels = mels
    self.vocoder = vocoder
    self.text = text
    self.clip = clip
    self.window_s = window_s
    self.sample_rate_hz = mels.config.mel.rate_hz
    self.placement = denoiser.placement
    self.ranges = {"steps": (1, min(denoiser.schedule.times, 200))}
    if not denoiser.config.context_width:
      self.ranges["guidance"] = (1, 1)

  def check(self, sampling: Diffusion) -> None:
    """Raises InputError for options that this model cannot follow."""
    self.denoiser.plan(sampling)
    if sampling.guided and not self.denoiser.config.context_width:
      raise InputError(
        f"guidance {sampling.guidance:g} of a model that reads nothing; take 1"
      )

  def save(self, folder: str | Path) -> None:
    """Exports the model; `from_pretrained(folder)` gives the same one.

    Args:
      folder: A local folder or gs:// URI that does not exist yet.

    Raises:
      InputError: If it exists or cannot be written.
    """
    text, clip = self.text, self.clip
    parts = Parts(
      schedule=self.denoiser.schedule,
      unet=self.denoiser.config,
      unet_tree=self.denoiser.params,
      autoencoder=self.mels.config,
      autoencoder_tree=self.mels.params,
      vocoder=self.vocoder.config,
      vocoder_tree=self.vocoder.params,
      text=text and text.config,
      text_tree=text and text.params,
      clip=clip and clip.config,
      clip_tree=clip and clip.params,
      window_s=self.window_s,
    )
    make_an_audio_parts.write_orbax(folder, parts, text and text.words)

  def extent(self, duration_s: Seconds, length: Length = "exact") -> Extent:
    """How wide the latent of a sound is, and what of it is heard.

    Args:
      duration_s: Seconds, up to 60.
      length: See `Diffusion`.

    Raises:
      InputError: For no duration, or one that is out of range.
    """
    rate = self.sample_rate_hz
    if not isinstance(duration_s, numbers.Real):
      raise InputError(f"duration {shown(duration_s)} must be a number")
    if not 1 / rate <= duration_s <= _LONGEST_S:
      raise InputError(
        f"duration {min(duration_s, 1e300):g} s must be more than 0, and at"
        f" most {_LONGEST_S:g} s: all of a sound is made at once, and this"
        f" model was trained on {self.window_s:g} s"
      )
    samples, column = round(duration_s * rate), self._column
    unit = _unit_of(self.denoiser.config)
    if length == "exact":
      wide = columns_of(samples, self.mels.config, self.denoiser.config)
      return Extent(wide, samples)
    columns = int(duration_s * _PUBLISHED_COLUMNS_HZ)
    if length == "gen_wav":
      columns = max(-(-columns // unit), 1) * unit
      return Extent(columns, columns * column)
    columns = columns // unit * unit
    if not columns:
      raise InputError(
        f"gen_wavs_by_tsv makes nothing of {duration_s:g} s; take at least"
        f" {math.ceil(unit / _PUBLISHED_COLUMNS_HZ * 10) / 10:g} s"
      )
    missing = max(samples - columns * column, 0)
    return Extent(columns, columns * column, missing)

  def _extent(self, duration_s: Seconds | None, sampling: Diffusion) -> Extent:
    """`extent` of a new sound; None for the duration trained on."""
    self._refuse_holes_alone()
    wanted_s = self.window_s if duration_s is None else duration_s
    return self.extent(wanted_s, sampling.length)

  def _refuse_holes_alone(self) -> None:
    if self.denoiser.config.beside:
      raise InputError(
        "this model fills holes alone; use inpaint, or load a text-to-audio"
        " checkpoint"
      )

  @property
  def _column(self) -> int:
    """Samples of a column of a latent."""
    return self.mels.config.ratio * self.mels.config.mel.hop

  def _usual(self) -> Diffusion:
    """The options that suit this model."""
    return usual(self.denoiser.config)

  def _asked(
    self,
    texts: Sequence[str | None],
    sampling: Diffusion,
    seed: int | Sequence[int],
    negative: str | Sequence[str | None] | None,
    **others: Any,
  ) -> prompts.Asked:
    """What was asked for, found to be in order; see `prompts.asked`."""
    asked = prompts.asked(
      texts,
      seed,
      negative,
      sampling,
      options=self.options,
      placement=self.placement,
      **others,
    )
    self.check(sampling)
    if self.text is None and any([*asked.texts, *(asked.negative or ())]):
      raise InputError(
        "this model reads no text: leave the prompt, and what is not wanted,"
        " out"
      )
    return asked

  def _sampled(
    self,
    start: Float[np.ndarray, "b w z c"],
    sampling: Diffusion,
    asked: prompts.Asked,
    plan: Planned,
    embeddings: Float[np.ndarray, "b e"] | None = None,
    **given: Any,
  ) -> Float[np.ndarray, "b w z c"]:
    """What the steps make of `start`."""
    return self.denoiser.sample(
      start,
      sampling,
      plan,
      seeds=asked.seeds,
      **self._contexts(asked, embeddings, sampling.guided),
      **given,
    )

  def _heard(
    self, latents: Float[np.ndarray, "b w z c"], extent: Extent
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds of latents, cut or padded to what was asked for."""
    audio = self.vocoder(self.mels.decode(latents))[:, : extent.samples]
    return np.pad(audio, ((0, 0), (extent.silence,) * 2, (0, 0)))

  def _contexts(
    self,
    asked: prompts.Asked,
    embeddings: Float[np.ndarray, "b e"] | None,
    guided: bool,
  ) -> dict[str, jax.Array]:
    """What is wanted, and what guidance leads away from."""
    if not self.denoiser.config.context_width:
      return {}
    rows = self.denoiser.rows(len(asked.texts))
    if self.text is None:
      return self._seen(embeddings, rows, guided)

    def states(texts: list[str | None]) -> jax.Array:
      return self.text(texts + [None] * (rows - len(texts)))

    away = asked.negative or [None]
    # One row will do where all are alike; it is read by the same program.
    alike = len(set(away)) == 1
    without = states(away[:1])[:1] if alike else states(away)
    return {"context": states(asked.texts), "without": without}

  def _seen(
    self, embeddings: Float[np.ndarray, "b e"] | None, rows: int, guided: bool
  ) -> dict[str, jax.Array]:
    """`_contexts` of embeddings, which are one token each; None for no text."""
    put = self.placement.put
    away = None
    if guided or embeddings is None:
      away = self.clip.nothing()
    if embeddings is None:
      embeddings = np.repeat(away, rows, axis=0)
    wanted = sharding.padded(embeddings, rows)[:, None]
    found = {"context": put(wanted, "batch", None, None)}
    if away is not None:
      found["without"] = put(away[:, None], None, None, None)
    return found

  def _checked(
    self, sound: AnyArray, texts: Sequence[str | None]
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds to edit, found to be in order."""
    sound = checks.samples(sharding.fetch(sound), "sound")
    if sound.ndim != 3 or sound.shape[2] != 1:
      raise InputError(
        f"sound must be [batch, samples, 1]; its shape is {list(sound.shape)}"
      )
    count = len(prompts.checked(texts))
    if len(sound) != count:
      raise InputError(
        f"{len(sound)} sounds and {count} texts; give one text for each"
      )
    self.extent(sound.shape[1] / self.sample_rate_hz)
    return sound

  def _keep(
    self, keep: Any, sound: Float[np.ndarray, "b n 1"]
  ) -> Bool[np.ndarray, "b t m"]:
    """What is to stay, once it is found to be in order."""
    m, keep = self.mels.config.mel, np.asarray(sharding.fetch(keep))
    b, t = len(sound), -(-sound.shape[1] // m.hop)
    if keep.ndim != 3:
      keep = keeping.checked(keep, b, t)[..., None]
      return np.broadcast_to(keep, (b, t, m.n_mels))
    if keep.dtype != bool or keep.shape != (b, t, m.n_mels):
      raise InputError(
        f"keep must be bool of shape [{b}, {t}, {m.n_mels}], one value a band"
        f" of a frame; got {keep.dtype} of shape {list(keep.shape)}"
      )
    return keep

  def _mel(
    self, sound: Float[np.ndarray, "b n 1"]
  ) -> Float[np.ndarray, "b t m"]:
    """Mel spectrograms of sounds with silence behind, in whole columns."""
    n = sound.shape[1]
    columns = self.extent(n / self.sample_rate_hz).columns
    padded = np.pad(sound[..., 0], ((0, 0), (0, columns * self._column - n)))
    # The older recipe centres a frame on the last sample, and has one more.
    frames = columns * self.mels.config.ratio
    return np.asarray(_log_mel(self.mels.config.mel, padded))[:, :frames]

  def _latent(
    self,
    mel: Float[np.ndarray, "b t m"],
    noise: Noise,
    seeds: Sequence[int],
  ) -> Float[np.ndarray, "b w z c"]:
    """Draws of what the latents of mel spectrograms may be, scaled."""
    posterior = self.mels.encode(mel)
    shape = posterior.mean.shape
    given = self._given(noise.posterior, seeds, shape, POSTERIOR)
    return np.asarray(self.mels.config.scale * posterior.sample(given))

  def _start(
    self, noise: Noise, seeds: Sequence[int], columns: int
  ) -> Float[np.ndarray, "b w z c"]:
    """Noise that the steps begin with."""
    c = self.mels.config
    shape = (len(seeds), columns, c.rows, c.channels)
    return self._given(noise.start, seeds, shape, START)

  def _steps(
    self, noise: Noise, sampling: Diffusion, shape: tuple[int, ...]
  ) -> Float[np.ndarray, "s b w z c"] | None:
    """Noise of each step, if it was given."""
    if noise.steps is None:
      return None
    shape = (self.denoiser.steps(sampling), *shape)
    return denoisers.checked(noise.steps, shape, "step_noise")

  def _given(
    self,
    noise: AnyArray | None,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    purpose: int,
  ) -> Float[np.ndarray, "b w z c"]:
    """Noise that was given, or what seeds give."""
    if noise is None:
      return denoisers.drawn(seeds, shape[1:], purpose)
    names = {START: "noise", POSTERIOR: "posterior_noise"}
    return denoisers.checked(noise, shape, names[purpose])


def columns_of(samples: int, latent: AutoencoderConfig, net: UNetConfig) -> int:
  """How many columns a latent has that holds so many samples."""
  unit = _unit_of(net)
  columns = -(-samples // (latent.ratio * latent.mel.hop))
  return -(-columns // unit) * unit


def _unit_of(config: UNetConfig) -> int:
  """Latents are a multiple of so many columns wide."""
  return math.lcm(_COLUMNS, config.ratio)


def usual(config: UNetConfig) -> Diffusion:
  """The options that suit a U-Net, which may read nothing."""
  return Diffusion() if config.context_width else Diffusion(guidance=1.0)
