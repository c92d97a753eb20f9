"""AudioGen on one page: how a sentence becomes a sound.

    texts -> `encode_text` -> Cond           what each prompt says
    Cond  -> `generate_codes` -> codes       one jitted loop, K integers a frame
    codes -> `codec.decode` -> audio

Everything here is numpy at the door and JAX inside.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import engine, sources
from audiogen_jax.core import types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import AnyArray, Cond, Seconds
from audiogen_jax.lm import model
from audiogen_jax.lm.rules import Sampling
from audiogen_jax.lm.sampler import LanguageModel
from audiogen_jax.text import t5, tokenizer
from audiogen_jax.text.t5 import TextEncoder

# Steps done, steps in all.
Progress: TypeAlias = Callable[[int, int], None]


def load_codec(
  source: str | Path, *, mesh: jax.sharding.Mesh | None = None
) -> Encodec:
  """The codec of a model, or a codec alone; the source as for `AudioGen`.

  Raises:
    InputError: If there is none, or it is damaged.
  """
  parts = sources.open_parts(source, need_text=False)
  return _codec(parts, Placement.make(mesh))


class AudioGen:
  """Text to sound.

  Attributes:
    codec: Sound <-> codes.
    text: Sentences -> states.
    lm: Codes and states -> codes.
    window_s: The duration trained on, in seconds.
    text_name: Where the text encoder came from.
  """

  def __init__(
    self,
    codec: Encodec,
    text: TextEncoder,
    lm: LanguageModel,
    *,
    window_s: Seconds = 10.0,
    text_name: str | None = None,
    mask_text_padding: bool = True,
  ):
    self.codec = codec
    self.text = text
    self.lm = lm
    self.window_s = window_s
    self.text_name = text_name
    self._mask_text_padding = mask_text_padding

  @classmethod
  def from_pretrained(
    cls,
    source: str | Path,
    *,
    text_encoder: str | Path | None = None,
    dtype: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
    mask_text_padding: bool = True,
  ) -> "AudioGen":
    """Loads a model.

    Args:
      source: An embedded name, a hub id such as "facebook/audiogen-medium", a
        folder or a gs:// URI; in our own format (Orbax), in the published one,
        or a MusicGen folder of Hugging Face.
      text_encoder: Hub id or folder of the T5; by default the one that comes
        along, lies in `t5/` beside the checkpoint, or that the checkpoint
        names.
      dtype: "float32" or "bfloat16" for the language model; None for bfloat16
        on TPU and GPU, float32 on CPU.  Codec and text encoder are always
        float32, as in the published code.
      mesh: Devices; axes called `data` and `tensor` split prompts and heads.
        None for all local devices along `data`.
      mask_text_padding: Whether attention skips the padding of shorter texts.
        The released code does not, and lets a prompt's result depend on its
        neighbours; False reproduces that.

    Raises:
      InputError: For whatever is missing, damaged, or of the wrong kind.
    """
    compute = types.resolve_dtype(dtype)
    placement = Placement.make(mesh)
    parts = sources.open_parts(source, text_encoder=text_encoder)
    if parts.lm is None:
      raise InputError(f"{source} is a codec without a language model")
    abstract = _as(engine.abstract(model.init, parts.lm), compute)
    params = sources.realise(parts.lm_tree, abstract, model.AXES, placement)
    lm = LanguageModel(
      parts.lm, model.unstack(params), dtype=compute, placement=placement
    )
    abstract = engine.abstract(t5.init, parts.text)
    params = sources.realise(parts.text_tree, abstract, t5.AXES, placement)
    words = tokenizer.load(parts.tokenizer)
    return cls(
      _codec(parts, placement),
      TextEncoder(parts.text, params, words, placement),
      lm,
      window_s=parts.window_s,
      text_name=parts.text_name,
      mask_text_padding=mask_text_padding,
    )

  def save(self, folder: str | Path) -> None:
    """Exports the model; `from_pretrained(folder)` gives the same one.

    Args:
      folder: A local folder or gs:// URI that does not exist yet.

    Raises:
      InputError: If it exists or cannot be written.
    """
    parts = engine.Parts(
      codec=self.codec.config,
      codec_tree=self.codec.variables,
      lm=self.lm.config,
      lm_tree=model.stack(self.lm.params),
      text=self.text.config,
      text_tree=self.text.params,
      text_name=self.text_name,
      window_s=self.window_s,
    )
    sources.write_orbax(folder, parts, tokenizer=self.text.tokenizer)

  def encode_text(self, texts: Sequence[str | None]) -> Cond:
    """What each text says, at the language model's width.

    Args:
      texts: Sentences; None or "" for no text.

    Raises:
      InputError: For a text of more than 512 tokens.
    """
    states, mask = self.text([text or None for text in texts])
    cond = self.lm.condition(states, mask)
    if not self._mask_text_padding:
      return Cond(cond.states, np.ones_like(mask))
    visible = mask.copy()
    visible[:, 0] = True  # no text: one zero vector to look at
    return Cond(cond.states, visible)

  def logits(
    self, codes: Int[AnyArray, "b k t"], texts: Sequence[str | None]
  ) -> tuple[Float[np.ndarray, "b k t v"], Bool[np.ndarray, "k t"]]:
    """Teacher-forced logits, and which of them training would use.

    Raises:
      InputError: If codes and texts do not fit each other or the model.
    """
    self._check_codes(codes, len(texts))
    return self.lm.logits(codes, self.encode_text(texts))

  def generate_codes(
    self,
    texts: Sequence[str | None],
    *,
    frames: int,
    sampling: Sampling = Sampling(),
    seed: int | Sequence[int] = 0,
    prompt_codes: Int[AnyArray, "b k p"] | None = None,
    progress: Progress | None = None,
  ) -> Int[np.ndarray, "b k t"]:
    """Codes of `frames` frames in one window.

    What a prompt becomes depends on the checkpoint, the prompt, its own seed
    and
    the sampling rules alone: not on its neighbours, padding or the mesh.

    Args:
      texts: Sentences; None for unconditional.
      frames: Frames in all, the prompt's included.
      sampling: How tokens are drawn.
      seed: Prompt i uses seed + i, or one for each.
      prompt_codes: Codes to continue.
      progress: Called with (steps done, steps in all).

    Raises:
      InputError: If something does not fit; the message names it.
    """
    return self._sample(
      texts, frames, frames, 0, sampling, seed, prompt_codes, progress
    )

  def generate(
    self,
    texts: Sequence[str | None],
    *,
    duration_s: Seconds = 5.0,
    sampling: Sampling = Sampling(),
    seed: int | Sequence[int] = 0,
    prompt: Float[AnyArray, "b p c"] | None = None,
    window_s: Seconds | None = None,
    stride_s: Seconds = 2.0,
    return_codes: bool = False,
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
      sampling: How tokens are drawn.
      seed: Prompt i uses seed + i, or one for each.
      prompt: Sounds to continue, at the codec's rate.
      window_s: Seconds of a window; None for the duration trained on.
      stride_s: Seconds by which windows move on.
      return_codes: Also return the codes.
      progress: Called with (steps done, steps in all).

    Returns:
      Sound at the codec's rate, not limited to ±1; with `return_codes`, a pair.

    Raises:
      InputError: If something does not fit; the message names it.
    """
    tokens = self.codec.tokens
    window_s = self.window_s if window_s is None else window_s
    for name, value in (
      ("duration", duration_s),
      ("window", window_s),
      ("stride", stride_s),
    ):
      if not 1 / tokens.frame_rate_hz <= value < float("inf"):
        raise InputError(
          f"{name} {value} s must be at least one frame,"
          f" {1 / tokens.frame_rate_hz:g} s"
        )
    frames, window = tokens.frames(duration_s), tokens.frames(window_s)
    stride = tokens.frames(stride_s)
    if frames > window and stride >= window:
      raise InputError(
        f"stride {stride_s} s must be shorter than the window, {window_s} s"
      )
    known = None if prompt is None else self.codec.encode(prompt)
    if known is not None and known.shape[2] >= frames:
      raise InputError(
        f"duration {duration_s} s is not longer than the sound to continue,"
        f" {known.shape[2] / tokens.frame_rate_hz:g} s; ask for more"
      )
    codes = self._sample(
      texts, frames, window, stride, sampling, seed, known, progress
    )
    audio = self.codec.decode(codes)
    return (audio, codes) if return_codes else audio

  def _sample(
    self, texts, frames, window, stride, sampling, seed, prompt, progress
  ) -> np.ndarray:
    """Codes of `frames` frames, window by window."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    b, tokens = len(texts), self.codec.tokens
    if not b:
      raise InputError("no prompt was given; pass at least one text or None")
    seeds = _seeds(seed, b)
    if prompt is None:
      prompt = np.zeros((b, tokens.codebooks, 0), np.int32)
    else:
      self._check_codes(prompt, b)
    codes = np.asarray(prompt, np.int32)
    if codes.shape[2] >= frames:
      raise InputError(
        f"the prompt has {codes.shape[2]} frames and {frames} were asked for in"
        f" all; ask for more than {codes.shape[2]}"
      )
    windows = _windows(codes.shape[2], frames, window, stride)
    total = sum(
      self.lm.steps(end - at, known - at) for at, known, end in windows
    )
    done = 0

    def report(steps: int) -> None:
      nonlocal done
      done += steps
      progress(done, total)

    if progress:
      progress(0, total)
    cond = self.encode_text(texts)
    for i, (at, _, end) in enumerate(windows):
      new = self.lm.generate(
        cond,
        frames=end - at,
        seeds=seeds,
        sampling=sampling,
        prompt=codes[:, :, at:],
        window=i,
        progress=report if progress else None,
      )
      codes = np.concatenate([codes[:, :, :at], new], axis=2)
    return codes

  def _check_codes(self, codes: AnyArray, texts: int) -> None:
    b, k, _ = np.shape(codes)
    tokens = self.codec.tokens
    if b != texts:
      raise InputError(f"{b} sounds and {texts} texts; give one text for each")
    if k != tokens.codebooks:
      raise InputError(
        f"codes have {k} codebooks; the model {tokens.codebooks}"
      )
    codes = np.asarray(codes)
    if codes.size and not 0 <= codes.min() <= codes.max() < tokens.size:
      raise InputError(
        f"codes lie in [{codes.min()}, {codes.max()}]; the model's lie in"
        f" [0, {tokens.size - 1}]"
      )


def _windows(
  known: int, frames: int, window: int, stride: int
) -> list[tuple[int, int, int]]:
  """Windows as (first frame, first unknown frame, end)."""
  at = 0
  if known >= window:  # a prompt longer than a window: its end is what counts
    at = known - (window - stride)
  windows = []
  while known < frames:
    end = min(at + window, frames)
    windows.append((at, known, end))
    at, known = at + stride, end
  return windows


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
  """One seed a prompt."""
  if isinstance(seed, int | np.integer):
    seeds = [int(seed) + i for i in range(count)]
  else:
    seeds = [int(s) for s in seed]
  if len(seeds) != count:
    raise InputError(
      f"{len(seeds)} seeds for {count} prompts; give one for each"
    )
  if min(seeds) < 0 or max(seeds) >= 2**32:
    raise InputError(
      f"seeds {min(seeds)} … {max(seeds)} must lie in [0, 4294967295]"
    )
  return seeds


def _as(tree: types.Tree, dtype: jnp.dtype) -> types.Tree:
  """Shapes with another type."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), tree)


def _codec(parts: engine.Parts, placement: Placement) -> Encodec:
  abstract = engine.abstract(encodec.init, parts.codec)
  variables = sources.realise(
    parts.codec_tree, abstract, encodec.AXES, placement
  )
  return Encodec(parts.codec, variables, placement)
