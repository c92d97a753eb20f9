"""MAGNeT on one page: how a sentence becomes a sound, all frames at once.

    texts -> `encode_text` -> Cond           what each prompt says
    Cond  -> `generate_codes` -> codes       codebook by codebook, each fully
                                             masked at first and uncovered in a
                                             few passes over all frames
    codes -> `codec.decode` -> audio

Text encoder, transformer and codec are AudioGen's; what differs is the
attention mask (`lm.masks`) and how codes are drawn (`lm.masked`).  A sound
takes a few dozen passes, where AudioGen takes one for each of 50 frames a
second, but each of them is of the whole sound: it is fast where reading the
weights is what takes time, and slow where arithmetic does, as on CPUs.
"""

import dataclasses
import functools
import numbers
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax import families, text_to_codes
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import adapters as adapter_files
from audiogen_jax.convert import description, opening
from audiogen_jax.core.config import shown
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray, Seconds
from audiogen_jax.families import Description, Progress
from audiogen_jax.lm import masked
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.masked_sampling import MaskedSampling, Masking
from audiogen_jax.text import prompts
from audiogen_jax.text.encoder import TextEncoder
from audiogen_jax.text_to_codes import Inpainting


class MAGNeT(Inpainting):
  """Text to sound by masked decoding (Ziv et al., ICLR 2024).

  A `families.TextToAudio`.  Sounds are as long as those trained on, or shorter.

  Attributes, besides those of `TextToCodes`:
    masking: How the model attends and hides, and the options that suit it:
      `masking.sampling` is the default of `sampling`.
  """

  options = MaskedSampling

  def __init__(
    self,
    codec: Encodec,
    text: TextEncoder,
    lm: LanguageModel,
    *,
    masking: Masking,
    window_s: Seconds = 10.0,
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
    self.masking = masking

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
  ) -> "MAGNeT":
    """Loads a model; the arguments are those of `AudioGen.from_pretrained`.

    Args:
      source: A hub id such as "facebook/audio-magnet-small", a folder or a
        gs:// URI; in our own format (Orbax) or in the published one.
      text_encoder: Hub id or folder of the T5.
      dtype: "float32", "bfloat16" or "int8" for the language model.
      mesh: Devices; `data` splits prompts, `tensor` heads.
      mask_text_padding: Whether attention skips the padding of shorter texts;
        the released code does not.
      adapters: Folders of adapters (LoRA), each `FOLDER` or `FOLDER@STRENGTH`.

    Raises:
      InputError: For whatever is missing, damaged, or of the wrong kind, such
        as an AudioGen.
    """
    loaded = text_to_codes.load(
      source,
      opening.MASKED,
      text_encoder=text_encoder,
      dtype=dtype,
      mesh=mesh,
      adapters=adapters,
    )
    return cls(
      loaded.codec,
      loaded.text,
      loaded.lm,
      masking=loaded.parts.masking,
      window_s=loaded.parts.window_s,
      text_name=loaded.parts.text_name,
      mask_text_padding=mask_text_padding,
    )

  @classmethod
  def describe(
    cls, source: str | Path, *, adapters: Sequence[str | Path] = ()
  ) -> Description:
    """What a source says of its model; raises as `from_pretrained` does."""
    parts = opening.open_parts(source, family=opening.MASKED, need_text=False)
    opened = adapter_files.open_all(adapters, parts.lm)
    rows = functools.partial(description.rows, parts, opened)
    return Description(parts.masking.sampling, rows)

  def check(self, sampling: MaskedSampling) -> None:
    """Raises InputError for options that this model cannot follow."""
    sampling.check(self.codec.tokens.codebooks, self.codec.tokens.size)

  def save(self, folder: str | Path) -> None:
    """Exports the model; `from_pretrained(folder)` gives the same one.

    Adapters are merged into it.

    Args:
      folder: A local folder or gs:// URI that does not exist yet.

    Raises:
      InputError: If it exists or cannot be written, or weights are int8.
    """
    self._save(folder, masking=self.masking)

  def logits(
    self,
    codes: Int[AnyArray, "b k t"],
    texts: Sequence[str | None],
    *,
    stage: int,
  ) -> Float[np.ndarray, "b k t v"]:
    """Logits of all codes, in place, as a stage of decoding sees them.

    Args:
      codes: Codes in [0, V]; V, the codebook's size, where one is hidden.
      texts: A sentence for each; None for no text.
      stage: The codebook that is being filled, from 0: the first attends to
        all frames, others to a band.  Training makes its logits alone small.

    Raises:
      InputError: If codes and texts do not fit each other or the model.
    """
    tokens, texts = self.codec.tokens, prompts.checked(texts)
    codes = dataclasses.replace(tokens, size=tokens.size + 1).checked(codes)
    self._check_axes(codes, len(texts))
    self._check_length(codes.shape[2])
    if not isinstance(stage, numbers.Integral) or not (
      0 <= stage < tokens.codebooks
    ):
      raise InputError(
        f"stage {shown(stage)} must be a codebook, 0 to {tokens.codebooks - 1}"
      )
    cond = self._condition(texts)
    return masked.logits(
      self.lm, codes, cond, masking=self.masking, stage=int(stage)
    )

  def generate_codes(
    self,
    texts: Sequence[str | None],
    *,
    frames: int,
    sampling: MaskedSampling | None = None,
    seed: int | Sequence[int] = 0,
    prompt_codes: Int[AnyArray, "b k p"] | None = None,
    negative: str | Sequence[str | None] | None = None,
    progress: Progress | None = None,
  ) -> Int[np.ndarray, "b k t"]:
    """Codes of `frames` frames.

    What a prompt becomes depends on the checkpoint, the prompt, its own seed
    and the sampling rules alone: not on its neighbours, padding or the mesh.

    Args:
      texts: Sentences; None for unconditional.
      frames: Frames in all, the prompt's included; no more than the model was
        trained on.  Spans side by side ("nonoverlap") leave away what is no
        whole span: 500 frames become 498.
      sampling: How tokens are drawn; None for what suits the model.
      seed: Prompt i uses seed + i, or one for each.
      prompt_codes: Codes to continue.
      negative: What is not wanted: a text for all rows, or one for each.
        Guidance leads away from it, instead of from no text.
      progress: Called with (passes done, passes in all).

    Raises:
      InputError: If something does not fit; the message names it.
    """
    self._check_length(frames)
    return self._codes(
      texts,
      int(frames),
      prompt_codes,
      sampling=sampling,
      seed=seed,
      negative=negative,
      progress=progress,
    )

  def generate(
    self,
    texts: Sequence[str | None],
    *,
    duration_s: Seconds | None = None,
    sampling: MaskedSampling | None = None,
    seed: int | Sequence[int] = 0,
    prompt: Float[AnyArray, "b p c"] | None = None,
    return_codes: bool = False,
    negative: str | Sequence[str | None] | None = None,
    progress: Progress | None = None,
  ) -> (
    Float[np.ndarray, "b n c"]
    | tuple[Float[np.ndarray, "b n c"], Int[np.ndarray, "b k t"]]
  ):
    """Sounds from sentences.

    Args:
      texts: Sentences; None for unconditional.
      duration_s: Seconds in all, the prompt's included; None for the duration
        trained on, which is the longest.
      sampling: How tokens are drawn; None for what suits the model.
      seed: Prompt i uses seed + i, or one for each.
      prompt: Sounds to continue, at the codec's rate.
      return_codes: Also return the codes.
      negative: What is not wanted: a text for all rows, or one for each.
        Guidance leads away from it, instead of from no text.
      progress: Called with (passes done, passes in all).

    Returns:
      Sound at the codec's rate, not limited to ±1; with `return_codes`, a pair.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    wanted_s = self.window_s if duration_s is None else duration_s
    # Whatever is wrong is said before a long sound is encoded.
    frames = self.codec.tokens.some_frames("duration", wanted_s)
    self._check_length(frames)
    codes = self.generate_codes(
      texts,
      frames=frames,
      sampling=sampling,
      seed=seed,
      prompt_codes=None if prompt is None else self.codec.encode(prompt),
      negative=negative,
      progress=progress,
    )
    audio = self.codec.decode(codes)
    return (audio, codes) if return_codes else audio

  def _codes(
    self,
    texts: Sequence[str | None],
    frames: int,
    prompt: Int[AnyArray, "b k p"] | None,
    keep: Bool[np.ndarray, "b p"] | None = None,
    *,
    sampling: MaskedSampling | None,
    seed: int | Sequence[int],
    negative: str | Sequence[str | None] | None,
    progress: Progress | None,
  ) -> Int[np.ndarray, "b k t"]:
    """Codes of `frames` frames, of the prompt all or those kept among them."""
    sampling = sampling or self.masking.sampling
    alike = dict(frames=frames, keep=None if keep is None else keep.tolist())
    texts, seeds, unwanted = self._asked(
      texts, sampling, seed, negative, **alike
    )
    prompt = self._prompt(prompt, len(texts))
    # Whatever is wrong is said before the text encoder runs.
    self.check(sampling)
    self.masking.frames(
      sampling, frames, prompt.shape[2] if keep is None else 0
    )
    return masked.generate(
      self.lm,
      self._condition(texts),
      masking=self.masking,
      frames=frames,
      seeds=seeds,
      sampling=sampling,
      prompt=prompt,
      keep=keep,
      negative=unwanted and self._condition(unwanted),
      progress=progress,
    )

  def _check_length(self, frames: int) -> None:
    """Raises InputError for frames that the model was not trained on."""
    tokens = self.codec.tokens
    tokens.check_frames(frames)
    most = tokens.frames(self.window_s)
    if frames > most:
      asked_s = frames / tokens.frame_rate_hz
      raise InputError(
        f"{asked_s:g} s are {frames} frames, and this model makes"
        f" {self.window_s:g} s, {most} frames, at most: it sees them all at"
        " once; ask for less"
      )


families.register(opening.MASKED, MAGNeT)
