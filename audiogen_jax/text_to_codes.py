"""What models that write a codec's codes have in common.

Text encoder, language model, codec; how they are loaded, asked and saved:

texts -> `encode_text` -> Cond           what each prompt says
Cond  -> codes                           each family in its own way
codes -> `codec.decode` -> audio
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import adapters as adapter_files
from audiogen_jax.convert import loading, opening
from audiogen_jax.convert.opening import Parts
from audiogen_jax.core import keeping, seeds, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, fetch
from audiogen_jax.core.types import AnyArray, Cond, Seconds
from audiogen_jax.lm import lora, model
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.masked_sampling import Masking
from audiogen_jax.text import prompts, tokenizer
from audiogen_jax.text.encoder import TextEncoder


class TextToCodes:
  """Text encoder, language model and codec of a family that writes codes.

  Attributes:
    options: The class of `sampling`.
    codec: Sound <-> codes.
    text: Sentences -> states.
    lm: Codes and states -> codes.
    window_s: The duration trained on, in seconds.
    text_name: Where the text encoder came from.
    sample_rate_hz: Of the sounds.
    channels: Of the sounds.
    placement: The devices that the language model lies on.
    ranges: Narrower ends of options, for this model.
  """

  options: ClassVar[type]

  def __init__(
    self,
    codec: Encodec,
    text: TextEncoder,
    lm: LanguageModel,
    *,
    window_s: Seconds = Parts.window_s,
    text_name: str | None = None,
    mask_text_padding: bool = True,
  ) -> None:
    self.codec = codec
    self.text = text
    self.lm = lm
    self.window_s = window_s
    self.text_name = text_name
    self.sample_rate_hz = codec.config.sample_rate_hz
    self.channels = codec.config.channels
    self.placement = lm.placement
    self.ranges = {"top_k": (0, codec.tokens.size)}
    self._mask_text_padding = mask_text_padding

  def text_lengths(self, texts: Sequence[str | None]) -> list[int]:
    """Tokens of each text; raises InputError for a text of more than 512."""
    _, mask = tokenizer.pad(self.text.tokenizer, prompts.checked(texts))
    return mask.sum(axis=1).tolist()

  def encode_text(self, texts: Sequence[str | None]) -> Cond:
    """What each text says, at the language model's width.

    Args:
      texts: Sentences; None or "" for no text.

    Returns:
      numpy arrays, as long as the longest text, with zeros where a row has no
      text.  The mask shows what attention reads: of a row without text one
      vector of zeros.

    Raises:
      InputError: For a text of more than 512 tokens.
    """
    texts = prompts.checked(texts)
    states, mask = (fetch(x)[: len(texts)] for x in self._condition(texts))
    longest = np.count_nonzero(mask.any(axis=0))
    return Cond(states[:, :longest], mask[:, :longest])

  def _condition(self, texts: list[str | None]) -> Cond:
    """What each text says, in buckets: it stays on the devices."""
    return self.lm.condition(
      *self.text(texts),
      rows=self.lm.rows(len(texts)),
      mask_padding=self._mask_text_padding,
    )

  def _asked(
    self,
    texts: Sequence[str | None],
    sampling: Any,
    seed: int | Sequence[int],
    negative: str | Sequence[str | None] | None,
    **others: Any,
  ) -> prompts.Asked:
    """What was asked for, found to be in order; see `prompts.asked`."""
    return prompts.asked(
      texts,
      seed,
      negative,
      sampling,
      options=self.options,
      placement=self.lm.placement,
      **others,
    )

  def _prompt(
    self, codes: AnyArray | None, texts: int
  ) -> Int[np.ndarray, "b k p"]:
    """Codes to continue; none of no frames."""
    if codes is None:
      return np.zeros((texts, self.codec.tokens.codebooks, 0), np.int32)
    return self._checked(codes, texts)

  def _checked(self, codes: AnyArray, texts: int) -> Int[np.ndarray, "b k t"]:
    codes = self.codec.tokens.checked(fetch(codes))
    self._check_axes(codes, texts)
    return codes

  def _check_axes(self, codes: AnyArray, texts: int) -> None:
    (b, k, _), known = codes.shape, self.codec.tokens.codebooks
    self._check_rows(b, texts)
    if k != known:
      raise InputError(f"codes have {k} codebooks; the model {known}")

  def _check_rows(self, sounds: int, texts: int) -> None:
    if sounds != texts:
      raise InputError(
        f"{sounds} sounds and {texts} texts; give one text for each"
      )

  def _save(self, folder: str | Path, **family: Any) -> None:
    """Exports the model, adapters merged.

    Args:
      folder: As for `save`.
      **family: Further fields of `opening.Parts`.
    """
    if self.lm.dtype == jnp.int8:
      raise InputError(
        "int8 weights cannot be saved; load the model as float32"
      )
    parts = Parts(
      codec=self.codec.config,
      codec_tree=self.codec.variables,
      lm=self.lm.config,
      lm_tree=lora.merged(model.stack(self.lm.params)),
      text=self.text.config,
      text_tree=self.text.params,
      text_name=self.text_name,
      window_s=self.window_s,
      **family,
    )
    opening.write_orbax(folder, parts, tokenizer=self.text.tokenizer)


# Sounds alone, or with their codes.
Sounds: TypeAlias = (
  Float[np.ndarray, "b n c"]
  | tuple[Float[np.ndarray, "b n c"], Int[np.ndarray, "b k t"]]
)


class Inpainting(TextToCodes):
  """Of models that write all frames at once: parts of a sound made again.

  Attributes, besides those of `TextToCodes`:
    masking: How the model attends and hides.
  """

  masking: Masking

  def outside(
    self, from_s: Seconds, to_s: Seconds, *, samples: int
  ) -> Bool[np.ndarray, " t"]:
    """`keep` of `inpaint` for one hole in a sound of so many samples.

    Raises:
      InputError: If the hole is empty, all of the sound, or lies outside of it.
    """
    hop = self.codec.config.hop
    size = dict(
      frames=-(-samples // hop), frame_rate_hz=self.sample_rate_hz / hop
    )
    return keeping.outside(from_s, to_s, **size)

  def inpaint(
    self,
    sound: Float[AnyArray, "b n c"],
    keep: Bool[AnyArray, "b t"] | Bool[AnyArray, " t"],
    texts: Sequence[str | None],
    *,
    sampling: Any = None,
    seed: int | Sequence[int] = 0,
    negative: str | Sequence[str | None] | None = None,
    return_codes: bool = False,
    progress: Callable[[int, int], None] | None = None,
  ) -> Sounds:
    """Sounds of which parts stay, and the rest is made from sentences.

    Codes of kept frames stay as `codec.encode` gives them.  They sound as the
    codec gives them back, `codec.decode(codec.encode(sound))`, but for as far
    beside a hole as its decoder reaches (`codec.decode_changed`).

    Args:
      sound: At the codec's rate; no longer than the sounds trained on.
      keep: Which of its frames stay, such as `outside(1.2, 2.0, samples=n)`.
      texts: Sentences; None for unconditional.
      sampling: How tokens are drawn; None for what suits the model.
      seed: Prompt i uses seed + i, or one for each.
      negative: What is not wanted, as for `generate`.
      return_codes: Also return the codes.
      progress: Called with (passes done, passes in all).

    Returns:
      Sound as long as `sound`; with `return_codes`, a pair.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    frames = self._frames(sound, texts)
    keep = keeping.checked(fetch(keep), len(sound), frames)
    options = dict(sampling=sampling, seed=seed, negative=negative)
    options |= dict(progress=progress)
    return self._filled(texts, sound, keep, return_codes, **options)

  def vary(
    self,
    sound: Float[AnyArray, "b n c"],
    amount: float | int,
    texts: Sequence[str | None],
    *,
    sampling: Any = None,
    seed: int | Sequence[int] = 0,
    negative: str | Sequence[str | None] | None = None,
    return_codes: bool = False,
    progress: Callable[[int, int], None] | None = None,
  ) -> Sounds:
    """Sounds of which a random share is made again, in spans.

    Args:
      sound: At the codec's rate; no longer than the sounds trained on.
      amount: The share, in (0, 1]; at least a span is made.
      texts: As all others those of `inpaint`; a row's seed also says which
        frames are made.
    """
    size = dict(frames=self._frames(sound, texts), span=self.masking.span)
    each = seeds.checked(seed, len(sound))
    keep = keeping.scattered(each, amount, **size)
    options = dict(sampling=sampling, seed=each, negative=negative)
    options |= dict(progress=progress)
    return self._filled(texts, sound, keep, return_codes, **options)

  def _filled(
    self,
    texts: Sequence[str | None],
    sound: Float[AnyArray, "b n c"],
    keep: Bool[np.ndarray, "b t"],
    return_codes: bool,
    **options: Any,
  ) -> Sounds:
    """Sounds of which the frames that are not kept are made."""
    known = self.codec.encode(sound)
    codes = self._codes(texts, keep.shape[1], known, keep, **options)
    audio = self.codec.decode_changed(codes, known, ~keep)
    audio = audio[:, : np.shape(sound)[1]]
    return (audio, codes) if return_codes else audio

  def _frames(
    self, sound: Float[AnyArray, "b n c"], texts: Sequence[str | None]
  ) -> int:
    """Frames of sounds; raises InputError if they do not fit model or texts."""
    frames = self.codec.frames(sound)
    self._check_length(frames)
    self._check_rows(len(sound), len(prompts.checked(texts)))
    return frames

  @abc.abstractmethod
  def _codes(
    self,
    texts: Sequence[str | None],
    frames: int,
    prompt: Int[AnyArray, "b k p"] | None,
    keep: Bool[np.ndarray, "b p"] | None = None,
    **options: Any,
  ) -> Int[np.ndarray, "b k t"]:
    """Codes of `frames` frames, of the prompt all or those kept among them."""

  @abc.abstractmethod
  def _check_length(self, frames: int) -> None:
    """Raises InputError for frames that the model was not trained on."""


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model's parts, and what runs.

  Attributes:
    parts: What the source says.
    codec: Sound <-> codes.
    text: Sentences -> states.
    lm: Codes and states -> codes.
  """

  parts: Parts
  codec: Encodec
  text: TextEncoder
  lm: LanguageModel


def load(
  source: str | Path,
  family: str,
  *,
  text_encoder: str | Path | None,
  dtype: str | None,
  mesh: jax.sharding.Mesh | None,
  adapters: Sequence[str | Path],
) -> Loaded:
  """Loads what a family's page is made of; see `AudioGen.from_pretrained`.

  Raises:
    InputError: For whatever is missing, damaged, or of the wrong kind.
  """
  compute = types.sampling_dtype(dtype)
  placement = Placement.make(mesh)
  parts = opening.open_parts(source, family=family, text_encoder=text_encoder)
  if parts.lm is None:
    raise InputError(f"{source} is a codec without a language model")
  opened = adapter_files.open_all(adapters, parts.lm)
  return Loaded(
    parts,
    loading.codec(parts, placement),
    loading.text_encoder(parts, placement),
    loading.language_model(parts, placement, compute, opened),
  )
