"""AudioGen on one page: how a sentence becomes a sound.

    texts -> `encode_text` -> Cond           what each prompt says
    Cond  -> `generate_codes` -> codes       one jitted loop, K integers a frame
    codes -> `codec.decode` -> audio

Everything here is numpy at the door and JAX inside.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax import families, text_to_codes
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import adapters as adapter_files
from audiogen_jax.convert import description, opening
from audiogen_jax.core.sharding import fetch
from audiogen_jax.core.types import AnyArray, Seconds
from audiogen_jax.families import Description, Progress
from audiogen_jax.lm import sampler, windows
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.sampling import Sampling, TracedSampling
from audiogen_jax.text import prompts
from audiogen_jax.text.encoder import TextEncoder
from audiogen_jax.text_to_codes import TextToCodes

_REPORT_EVERY = 25  # steps between two reports of progress


class AudioGen(TextToCodes):
  """Text to sound; a `families.TextToAudio`.

  Attributes, besides those of `TextToCodes`:
    guidance: Default of `sampling`.
  """

  options = Sampling

  def __init__(
    self,
    codec: Encodec,
    text: TextEncoder,
    lm: LanguageModel,
    *,
    window_s: Seconds = opening.Parts.window_s,
    guidance: float = opening.Parts.guidance,
    text_name: str | None = None,
    mask_text_padding: bool = True,
  ) -> None:
    super().__init__(
      codec,
      text,
      lm,
      window_s=window_s,
      text_name=text_name,
      mask_text_padding=mask_text_padding,
    )
    self.guidance = guidance

  @classmethod
  def from_pretrained(
    cls,
    source: str | Path,
    *,
    text_encoder: str | Path | None = None,
    dtype: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
    mask_text_padding: bool = True,
    adapters: Sequence[str | Path] = (),
  ) -> "AudioGen":
    """Loads a model.

    Args:
      source: An embedded name, a hub id such as "facebook/audiogen-medium", a
        folder or a gs:// URI; in our own format (Orbax), in the published one,
        or a MusicGen folder of Hugging Face.
      text_encoder: Hub id or folder of the T5; by default the one that comes
        along, lies in `t5/` beside the checkpoint, or that the checkpoint
        names.
      dtype: "float32", "bfloat16" or "int8" for the language model; None for
        bfloat16 on TPU and GPU, float32 on CPU.  Codec and text encoder are
        always float32, as in the published code.
      mesh: Devices; axes called `data` and `tensor` split prompts and heads.
        None for this process's own devices along `data`.  With devices of
        several processes (`jax.distributed`) all of them must load the model
        and call its methods alike; each gets the whole result.
      mask_text_padding: Whether attention skips the padding of shorter texts.
        The released code does not, and lets a prompt's result depend on its
        neighbours; False reproduces that.
      adapters: Folders of adapters (LoRA) that training left, each `FOLDER` or
        `FOLDER@STRENGTH`; see `lm.set_strengths`.

    Raises:
      InputError: For whatever is missing, damaged, or of the wrong kind.
    """
    loaded = text_to_codes.load(
      source,
      opening.FAMILY,
      text_encoder=text_encoder,
      dtype=dtype,
      mesh=mesh,
      adapters=adapters,
    )
    return cls(
      loaded.codec,
      loaded.text,
      loaded.lm,
      window_s=loaded.parts.window_s,
      guidance=loaded.parts.guidance,
      text_name=loaded.parts.text_name,
      mask_text_padding=mask_text_padding,
    )

  @classmethod
  def describe(
    cls, source: str | Path, *, adapters: Sequence[str | Path] = ()
  ) -> Description:
    """What a source says of its model; raises as `from_pretrained` does."""
    parts = opening.open_parts(source, need_text=False)
    opened = adapter_files.open_all(adapters, parts.lm)
    rows = functools.partial(description.rows, parts, opened)
    return Description(Sampling(guidance=parts.guidance), rows)

  def check(self, sampling: Sampling) -> None:
    """Raises InputError for options that this model cannot follow."""
    TracedSampling.make(sampling, self.codec.tokens.size)

  def save(self, folder: str | Path) -> None:
    """Exports the model; `from_pretrained(folder)` gives the same one.

    Adapters are merged into it.

    Args:
      folder: A local folder or gs:// URI that does not exist yet.

    Raises:
      InputError: If it exists or cannot be written, or weights are int8.
    """
    self._save(folder, guidance=self.guidance)

  def logits(
    self, codes: Int[AnyArray, "b k t"], texts: Sequence[str | None]
  ) -> tuple[Float[np.ndarray, "b k t v"], Bool[np.ndarray, "k t"]]:
    """Teacher-forced logits, and which of them training would use.

    Raises:
      InputError: If codes and texts do not fit each other or the model.
    """
    texts = prompts.checked(texts)
    codes = self._checked(codes, len(texts))
    return self.lm.logits(codes, self._condition(texts))

  def generate_codes(
    self,
    texts: Sequence[str | None],
    *,
    frames: int,
    sampling: Sampling | None = None,
    seed: int | Sequence[int] = 0,
    prompt_codes: Int[AnyArray, "b k p"] | None = None,
    negative: str | Sequence[str | None] | None = None,
    progress: Progress | None = None,
  ) -> Int[np.ndarray, "b k t"]:
    """Codes of `frames` frames in one window.

    What a prompt becomes depends on the checkpoint, the prompt, its own seed
    and the sampling rules alone: not on its neighbours, padding or the mesh.

    Args:
      texts: Sentences; None for unconditional.
      frames: Frames in all, the prompt's included.
      sampling: How tokens are drawn; None for the model's own guidance.
      seed: Prompt i uses seed + i, or one for each.
      prompt_codes: Codes to continue.
      negative: What is not wanted: a text for all rows, or one for each.
        Guidance leads away from it, instead of from no text.
      progress: Called with (steps done, steps in all).

    Raises:
      InputError: If something does not fit; the message names it.
    """
    tokens, prompt, known = self.codec.tokens, prompt_codes, 0
    tokens.check_frames(frames)
    if prompt is not None:
      prompt = tokens.checked(fetch(prompt))
      known = prompt.shape[2]
    parts = windows.windows(known, frames, frames, 0)
    how = sampling, seed, negative, progress
    *_, codes = self._sample(texts, prompt, parts, *how)
    return codes

  def generate(
    self,
    texts: Sequence[str | None],
    *,
    duration_s: Seconds = 5.0,
    sampling: Sampling | None = None,
    seed: int | Sequence[int] = 0,
    prompt: Float[AnyArray, "b p c"] | None = None,
    window_s: Seconds | None = None,
    stride_s: Seconds = windows.STRIDE_S,
    return_codes: bool = False,
    negative: str | Sequence[str | None] | None = None,
    progress: Progress | None = None,
  ) -> (
    Float[np.ndarray, "b n c"]
    | tuple[Float[np.ndarray, "b n c"], Int[np.ndarray, "b k t"]]
  ):
    """Sounds from sentences.

    Sounds longer than a window are made window by window: each continues the
    last `window_s - stride_s` seconds of what there is (MusicGen's released
    code).

    Args:
      texts: Sentences; None for unconditional.
      duration_s: Seconds in all, the prompt's included.
      sampling: How tokens are drawn; None for the model's own guidance.
      seed: Prompt i uses seed + i, or one for each.
      prompt: Sounds to continue, at the codec's rate.
      window_s: Seconds of a window; None for the duration trained on.
      stride_s: Seconds by which windows move on.
      return_codes: Also return the codes.
      negative: What is not wanted: a text for all rows, or one for each.
        Guidance leads away from it, instead of from no text.
      progress: Called with (steps done, steps in all).

    Returns:
      Sound at the codec's rate, not limited to ±1; with `return_codes`, a pair.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    known, parts = self._plan(duration_s, window_s, stride_s, prompt)
    how = sampling, seed, negative, progress
    *_, codes = self._sample(texts, known, parts, *how)
    audio = self.codec.decode(codes)
    return (audio, codes) if return_codes else audio

  def stream(
    self,
    texts: str | Sequence[str | None],
    *,
    chunk_s: Seconds = 0.5,
    duration_s: Seconds = 5.0,
    sampling: Sampling | None = None,
    seed: int | Sequence[int] = 0,
    prompt: Float[AnyArray, "b p c"] | None = None,
    window_s: Seconds | None = None,
    stride_s: Seconds = windows.STRIDE_S,
    negative: str | Sequence[str | None] | None = None,
  ) -> Iterator[Float[np.ndarray, "b n c"]]:
    """`generate`, heard while it is being made.

    The codec looks a few frames ahead (0.1 s in AudioGen's), so sound comes a
    little after its codes.  Joined together the chunks are what `generate`
    gives, but for rounding: 1e-5 of full scale.  A codec that has to see the
    whole (one with a norm over time) gives all in one chunk.

    Args:
      texts: Sentences, or one; None for unconditional.
      chunk_s: Seconds of a chunk, about.  Others are those of `generate`.

    Returns:
      Stretches of sound, one after another.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    known, parts = self._plan(duration_s, window_s, stride_s, prompt)
    every = self.codec.tokens.some_frames("chunk", chunk_s)
    texts, frames = prompts.checked(texts), parts[-1][2]
    how = sampling, seed, negative, None, every
    codes = self._sample(texts, known, parts, *how)
    size = dict(rows=len(texts), frames=frames, most=every)
    return self.codec.decode_stream(codes, **size)

  def _plan(
    self,
    duration_s: Seconds,
    window_s: Seconds | None,
    stride_s: Seconds,
    prompt: Float[AnyArray, "b p c"] | None,
  ) -> tuple[np.ndarray | None, list[tuple[int, int, int]]]:
    """Codes to continue, and the windows to sample."""
    window_s = self.window_s if window_s is None else window_s
    tokens = self.codec.tokens
    # Whatever is wrong is said before a long sound is encoded.
    windows.plan(tokens, 0, duration_s, window_s, stride_s)
    codes = None if prompt is None else self.codec.encode(prompt)
    known = 0 if codes is None else codes.shape[2]
    return codes, windows.plan(tokens, known, duration_s, window_s, stride_s)

  def _sample(
    self,
    texts: Sequence[str | None],
    prompt: Int[AnyArray, "b k p"] | None,
    parts: list[tuple[int, int, int]],
    sampling: Sampling | None,
    seed: int | Sequence[int],
    negative: str | Sequence[str | None] | None,
    progress: Progress | None,
    every: int | None = None,
  ) -> Iterator[Int[np.ndarray, "b k t"]]:
    """Codes so far, in the end all of them, window by window."""
    sampling = sampling or Sampling(guidance=self.guidance)
    texts, seeds, unwanted = self._asked(
      texts, sampling, seed, negative, windows=parts
    )
    done, codes = 0, self._prompt(prompt, len(texts))
    total = sum(self.lm.steps(end - at, known - at) for at, known, end in parts)
    if progress:
      progress(0, total)
      every = every or _REPORT_EVERY
    cond = self._condition(texts)
    options = dict(seeds=seeds, sampling=sampling, every=every)
    options["negative"] = unwanted and self._condition(unwanted)
    for i, (at, _, end) in enumerate(parts):
      before, known = codes[:, :, :at], codes[:, :, at:]
      window = dict(frames=end - at, prompt=known, window=i)
      for steps, new in sampler.generate(self.lm, cond, **window, **options):
        done += steps
        if progress:
          progress(done, total)
        codes = np.concatenate([before, new], axis=2)
        yield codes


families.register(opening.FAMILY, AudioGen)
