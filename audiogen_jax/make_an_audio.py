"""Make-An-Audio on one page: how a sentence becomes a sound, by diffusion.

    texts -> `text` -> states of CLAP           what each prompt says
    noise, states -> `denoiser` -> latent       a small image, in some steps
    latent -> `mels.decode` -> mel spectrogram
    mel spectrogram -> `vocoder` -> audio

A sound that is edited comes in at the other end: its latent, made noisy, is
what the steps begin with (`vary`), or stays while the rest is made (`inpaint`).

Everything here is numpy at the door and JAX inside.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from audiogen_jax import families
from audiogen_jax.audio import joining
from audiogen_jax.convert import make_an_audio_loading as loading
from audiogen_jax.convert import make_an_audio_parts
from audiogen_jax.convert.make_an_audio_parts import FAMILY
from audiogen_jax.core import keeping, sharding, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import AnyArray, Seconds
from audiogen_jax.diffusion.sampler import Known
from audiogen_jax.diffusion.sampling import Diffusion
from audiogen_jax.families import Description, Progress
from audiogen_jax.text import prompts
from audiogen_jax.text_to_latents import (
  Noise,
  TextToLatents,
  usual,
)


class MakeAnAudio(TextToLatents):
  """Text to sound by latent diffusion (Huang et al., ICML 2023).

  A `families.TextToAudio`.  Sounds of any length up to a minute can be asked
  for; those trained on are `window_s` long.
  """

  @classmethod
  def from_pretrained(
    cls,
    source: str | Path,
    *,
    dtype: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ) -> "MakeAnAudio":
    """Loads a model.

    Args:
      source: A folder or a gs:// URI in our own format (Orbax), or a folder
        with the published files (see `convert.make_an_audio_folder`).
      dtype: "float32" or "bfloat16" for U-Net and autoencoder; None for
        bfloat16 on TPU and GPU, float32 on CPU.  All else is float32.
      mesh: Devices; axes called `data` and `tensor` split prompts and heads.
        None for this process's own devices along `data`.  With devices of
        several processes all of them must load the model and call its methods
        alike; each gets the whole result.

    Raises:
      InputError: For whatever is missing, damaged, or of the wrong kind.
    """
    compute = types.resolve_dtype(dtype)
    placement = Placement.make(mesh)
    parts = make_an_audio_parts.open_parts(source)
    return cls(
      loading.denoiser(parts, placement, compute),
      loading.mels(parts, placement, compute),
      loading.vocoder(parts, placement),
      loading.text(parts, placement),
      loading.embedder(parts, placement),
      window_s=parts.window_s,
    )

  @classmethod
  def describe(cls, source: str | Path) -> Description:
    """What a source says of its model; raises as `from_pretrained` does."""
    parts = make_an_audio_parts.open_parts(source)
    rows = functools.partial(loading.rows, parts)
    return Description(usual(parts.unet), rows)

  def generate(
    self,
    texts: Sequence[str | None],
    *,
    duration_s: Seconds | None = None,
    sampling: Diffusion | None = None,
    seed: int | Sequence[int] = 0,
    negative: str | Sequence[str | None] | None = None,
    noise: Float[AnyArray, "b w z c"] | None = None,
    step_noise: Float[AnyArray, "s b w z c"] | None = None,
    progress: Progress | None = None,
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds from sentences.

    What a prompt becomes depends on the checkpoint, the prompt, its own seed,
    the duration and the sampling options alone: not on its neighbours or the
    mesh.

    Args:
      texts: Sentences, of which CLAP reads the first 77 tokens; None for
        unconditional.
      duration_s: Seconds, up to 60; None for the duration trained on.
      sampling: Solver, steps and guidance; None for what suits the model.
      seed: Prompt i uses seed + i, or one for each.
      negative: What is not wanted: a text for all rows, or one for each.
        Guidance leads away from it, instead of from no text.
      noise: What the steps begin with, in place of seeds: of
        `extent(duration_s).columns` columns.
      step_noise: Of each step, for η above 0, in place of seeds.
      progress: Called with (runs of the U-Net done, runs in all).

    Returns:
      Sound within ±1 at the model's rate.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    sampling = sampling or self._usual()
    extent = self._extent(duration_s, sampling)
    latents = self.generate_latents(
      texts,
      columns=extent.columns,
      sampling=sampling,
      seed=seed,
      negative=negative,
      noise=noise,
      step_noise=step_noise,
      progress=progress,
    )
    return self._heard(latents, extent)

  def generate_latents(
    self,
    texts: Sequence[str | None],
    *,
    columns: int,
    sampling: Diffusion | None = None,
    seed: int | Sequence[int] = 0,
    negative: str | Sequence[str | None] | None = None,
    noise: Float[AnyArray, "b w z c"] | None = None,
    step_noise: Float[AnyArray, "s b w z c"] | None = None,
    progress: Progress | None = None,
  ) -> Float[np.ndarray, "b w z c"]:
    """Latents of sounds, scaled: what `mels.decode` makes spectrograms of.

    Args:
      columns: Of a latent, such as `extent(duration_s).columns`.
      texts: As all others those of `generate`.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    self._refuse_holes_alone()
    sampling = sampling or self._usual()
    asked = self._asked(texts, sampling, seed, negative, columns=columns)
    return self._new(
      columns, asked, sampling, Noise(noise, steps=step_noise), progress
    )

  def generate_from(
    self,
    embeddings: Float[AnyArray, "b e"],
    *,
    duration_s: Seconds | None = None,
    sampling: Diffusion | None = None,
    seed: int | Sequence[int] = 0,
    noise: Float[AnyArray, "b w z c"] | None = None,
    step_noise: Float[AnyArray, "s b w z c"] | None = None,
    progress: Progress | None = None,
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds of what is to be seen.

    Args:
      embeddings: CLIP's, of norm 1: `clip.pictures([image])` of a picture, or
        of the frames of a video.
      duration_s: As all others those of `generate`.

    Raises:
      InputError: For a model that does not look, or whatever does not fit.
    """
    if self.clip is None:
      raise InputError(
        "this model does not look at pictures; load a checkpoint for pictures,"
        " such as ta54"
      )
    seen = np.asarray(sharding.fetch(embeddings), np.float32)
    width = self.denoiser.config.context_width
    if seen.ndim != 2 or seen.shape[1] != width or not np.isfinite(seen).all():
      raise InputError(
        f"embeddings must be finite, of shape [batch, {width}]; their shape is"
        f" {list(seen.shape)}"
      )
    sampling = sampling or self._usual()
    extent = self._extent(duration_s, sampling)
    alike = dict(extent=extent, embeddings=seen.tolist())
    asked = self._asked([None] * len(seen), sampling, seed, None, **alike)
    given = Noise(noise, steps=step_noise)
    columns = extent.columns
    latents = self._new(columns, asked, sampling, given, progress, seen)
    return self._heard(latents, extent)

  def _new(
    self,
    columns: int,
    asked: prompts.Asked,
    sampling: Diffusion,
    noise: Noise,
    progress: Progress | None,
    embeddings: Float[np.ndarray, "b e"] | None = None,
  ) -> Float[np.ndarray, "b w z c"]:
    """Latents of new sounds."""
    start = self._start(noise, asked.seeds, columns)
    return self._sampled(
      start,
      sampling,
      asked,
      self.denoiser.plan(sampling),
      embeddings=embeddings,
      step_noise=self._steps(noise, sampling, start.shape),
      progress=progress,
    )

  def vary(
    self,
    sound: Float[AnyArray, "b n 1"],
    amount: float | int,
    texts: Sequence[str | None],
    *,
    sampling: Diffusion | None = None,
    seed: int | Sequence[int] = 0,
    negative: str | Sequence[str | None] | None = None,
    noise: Float[AnyArray, "b w z c"] | None = None,
    posterior_noise: Float[AnyArray, "b w z c"] | None = None,
    step_noise: Float[AnyArray, "s b w z c"] | None = None,
    progress: Progress | None = None,
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds made of others to follow a text (SDEdit, Meng et al., 2022).

    A sound's latent is made as noisy as one is when the share `amount` of the
    steps is left, and these are taken: few keep it, many follow the text.

    Args:
      sound: At the model's rate, up to 60 s.
      amount: The share of the steps, in (0, 1]; at least one step.
      texts: Sentences, one for each sound; None for unconditional.
      sampling: As all others those of `generate`.
      noise: What is added to latents, in place of seeds.
      posterior_noise: By which latents are drawn, in place of seeds.

    Returns:
      Sound as long as `sound`.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    self._refuse_holes_alone()
    keeping.check_amount(amount)
    sampling = sampling or self._usual()
    sound = self._checked(sound, texts)
    asked = self._asked(texts, sampling, seed, negative, amount=amount)
    plan = self.denoiser.plan(sampling, amount)
    given = Noise(noise, posterior_noise, step_noise)
    latent = self._latent(self._mel(sound), given, asked.seeds)
    start = self._start(given, asked.seeds, latent.shape[1])
    made = self._sampled(
      self.denoiser.noised(latent, start, plan),
      sampling,
      asked,
      plan,
      step_noise=self._steps(given, sampling, latent.shape),
      progress=progress,
    )
    return self.vocoder(self.mels.decode(made))[:, : sound.shape[1]]

  def outside(
    self, from_s: Seconds, to_s: Seconds, *, samples: int
  ) -> Bool[np.ndarray, " t"]:
    """`keep` of `inpaint` for one hole in a sound of so many samples.

    Raises:
      InputError: If the hole is empty, all of the sound, or lies outside of it.
    """
    hop = self.mels.config.mel.hop
    size = dict(
      frames=-(-samples // hop), frame_rate_hz=self.sample_rate_hz / hop
    )
    return keeping.outside(from_s, to_s, **size)

  def inpaint(
    self,
    sound: Float[AnyArray, "b n 1"],
    keep: Bool[AnyArray, "..."],
    texts: Sequence[str | None],
    *,
    sampling: Diffusion | None = None,
    seed: int | Sequence[int] = 0,
    negative: str | Sequence[str | None] | None = None,
    noise: Float[AnyArray, "b w z c"] | None = None,
    posterior_noise: Float[AnyArray, "b w z c"] | None = None,
    step_noise: Float[AnyArray, "s b w z c"] | None = None,
    progress: Progress | None = None,
  ) -> Float[np.ndarray, "b n 1"]:
    """Sounds of which parts stay, and the rest is made from sentences.

    A checkpoint that was trained to fill holes sees what stays, and where.
    With any other, before each step what stays is brought to that step's noise
    (as RePaint does, Lugmayr et al., 2022), for which none was trained.

    Args:
      sound: At the model's rate, up to 60 s.
      keep: Which of its frames of `mels.config.mel.hop` samples stay, such as
        `outside(1.2, 2.0, samples=n)`, of shape `t` or `b t`; or which bands of
        them, `b t m`.
      texts: Sentences, one for each sound; None for unconditional, and for a
        checkpoint that reads none.
      sampling: As all others those of `vary`.
      step_noise: Of each step, what stays is made noisy by, in place of seeds.

    Returns:
      Sound as long as `sound`, and the same where all bands stay but for 10 ms
      beside each hole.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    sampling = sampling or self._usual()
    sound = self._checked(sound, texts)
    m = self.mels.config.mel
    keep = self._keep(keep, sound)
    alike = dict(keep=keep.tolist())
    asked = self._asked(texts, sampling, seed, negative, **alike)
    given = Noise(noise, posterior_noise, step_noise)
    mel = self._mel(sound)
    behind = (0, 0), (0, mel.shape[1] - keep.shape[1]), (0, 0)
    stays = np.pad(keep, behind, constant_values=True)
    made = self._sampled(
      self._start(given, asked.seeds, mel.shape[1] // self.mels.config.ratio),
      sampling,
      asked,
      self.denoiser.plan(sampling),
      progress=progress,
      **self._hole(mel, stays, given, sampling, asked.seeds),
    )
    filled = np.where(stays, mel, self.mels.decode(made))
    audio = self.vocoder(filled)[:, : sound.shape[1]]
    whole = np.repeat(keep.all(axis=2), m.hop, axis=1)[:, : sound.shape[1]]
    return joining.joined(sound, audio, whole, self.sample_rate_hz)

  def _hole(
    self,
    mel: Float[np.ndarray, "b t m"],
    stays: Bool[np.ndarray, "b t m"],
    noise: Noise,
    sampling: Diffusion,
    seeds: Sequence[int],
  ) -> dict[str, Any]:
    """What the sampler is told of a sound that stays in part."""
    ratio = self.mels.config.ratio
    if self.denoiser.config.beside:
      seen = self._latent(mel * stays, noise, seeds)
      # The published mask is 1 in a hole, and brought to -1 … 1 like the mel.
      mask = 1 - 2 * stays[:, ::ratio, ::ratio, None].astype(np.float32)
      return {"beside": np.concatenate([seen, mask], axis=-1)}
    latent = self._latent(mel, noise, seeds)
    b, w, z, _ = latent.shape
    # A place of the latent stays if all of the image under it does.
    mask = stays.reshape(b, w, ratio, z, ratio).all(axis=(2, 4))[..., None]
    drawn = self._steps(noise, sampling, latent.shape)
    return {"known": Known(latent, mask.astype(np.float32), drawn)}


families.register(FAMILY, MakeAnAudio)
