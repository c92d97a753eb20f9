"""Our families as contestants, of the published sizes or as they are loaded."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from audiogen_jax import families
from audiogen_jax.audiogen import AudioGen
from audiogen_jax.benchmark import diffusing, machine, roofline, weights
from audiogen_jax.benchmark.roofline import Passes
from audiogen_jax.benchmark.sample import Own, Run, Work
from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.convert import make_an_audio_parts, opening
from audiogen_jax.core import types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Seconds
from audiogen_jax.lm import model
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.masked_sampling import (
  MaskedSampling,
  Masking,
  usual_steps,
)
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.patterns import Pattern
from audiogen_jax.lm.sampling import Sampling
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.magnet import MAGNeT
from audiogen_jax.make_an_audio import MakeAnAudio
from audiogen_jax.text import t5
from audiogen_jax.text.encoder import TextEncoder
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import ByteTokenizer
from audiogen_jax.text_to_codes import TextToCodes

# "300m", "1p5b" and "3b": the sizes that were published.
SCALES = {
  "300m": TransformerConfig(width=1024, layers=24, heads=16, ff=4096),
  "1p5b": TransformerConfig(),
  "3b": TransformerConfig(width=2048, layers=48, heads=32, ff=8192),
}
# Small: texts are read once a prompt, and this is about what comes after.
TEXT = T5Config(
  vocabulary=259, width=1024, layers=2, heads=16, head_size=64, ff=2048
)
PROMPT = "a dog barks"
PROMPT_TOKENS = 12  # its bytes with the end mark
_CHUNK_S = 0.5


class _Codes:
  """A family that writes codes.

  Attributes:
    model: That of the family.
    dtype: Of its language model's weights.
  """

  def __init__(self, model: TextToCodes) -> None:
    self.model = model
    self.dtype = model.lm.dtype

  def tokens(self, work: Work) -> int:
    """Tokens of one sound, all codebooks together."""
    tokens = self.model.codec.tokens
    return tokens.frames(work.duration_s) * tokens.codebooks


class Autoregressive(_Codes):
  """An AudioGen: a step a frame."""

  name = AudioGen.__name__

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""
    return _timed(self.model, work, Sampling(guidance=work.guidance))

  def passes(self, work: Work) -> Passes:
    """What the language model must read and compute."""
    lm = self.model.lm
    return roofline.autoregressive(
      lm.config, lm.params, **_asked(self.model.codec.tokens, lm.dtype, work)
    )

  def latency_s(self, work: Work) -> Seconds:
    """Seconds to the first chunk of sound; the median of three streams."""
    found = []
    for _ in range(4):  # the first one may compile
      start = time.perf_counter()
      stream = self.model.stream(
        [PROMPT] * work.batch,
        chunk_s=min(_CHUNK_S, work.duration_s),
        duration_s=work.duration_s,
        window_s=work.duration_s,
        sampling=Sampling(guidance=work.guidance),
      )
      next(stream)
      found.append(time.perf_counter() - start)
      stream.close()
    return machine.median(found[1:])


class Masked(_Codes):
  """A MAGNeT: all frames in a few dozen passes, so nothing to stream."""

  name = MAGNeT.__name__

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""
    return _timed(self.model, work, self._sampling(work))

  def passes(self, work: Work) -> Passes:
    """What the language model must read and compute."""
    lm = self.model.lm
    return roofline.masked(
      lm.config,
      lm.params,
      passes=sum(self._sampling(work).decoding_steps),
      **_asked(self.model.codec.tokens, lm.dtype, work),
    )

  def latency_s(self, work: Work) -> None:
    """None: the first half second is ready when the last one is."""

  def _sampling(self, work: Work) -> MaskedSampling:
    usual = self.model.masking.sampling
    return MaskedSampling(
      guidance=work.guidance, decoding_steps=usual.decoding_steps
    )


FAMILIES: dict[str, type[Autoregressive] | type[Masked]] = {
  opening.FAMILY: Autoregressive,
  opening.MASKED: Masked,
}


# Of all that can be measured.
NAMES = (*FAMILIES, make_an_audio_parts.FAMILY)


def opened(source: str, **options: Any) -> Own:
  """A model of any family that can be measured so.

  Raises:
    InputError: For one of another family, and as `families.load`.
  """
  found = families.load(source, **options)
  if isinstance(found, AudioGen):
    return Autoregressive(found)
  if isinstance(found, MAGNeT):
    return Masked(found)
  if isinstance(found, MakeAnAudio) and found.text is not None:
    return diffusing.Diffusing(found)
  raise InputError(
    f"{source} holds a {type(found).__name__}, and this measures what makes"
    f" sounds of texts: {', '.join(NAMES)}"
  )


def shape(family: str, scale: str) -> LMConfig:
  """The language model of a published size, of a family that has one.

  Raises:
    InputError: If there is no such family or size.
  """
  check(family, scale)
  if family == opening.FAMILY:
    return LMConfig(transformer=SCALES[scale])
  return LMConfig(transformer=SCALES[scale], pattern=Pattern("parallel"))


def check(family: str, scale: str) -> None:
  """Raises InputError if there is no such family or size."""
  for what, given, known in (
    ("family", family, NAMES),
    ("scale", scale, SCALES),
  ):
    if given not in known:
      raise InputError(f"{what} {given!r} is not one of {', '.join(known)}")


def passes(family: str, scale: str, work: Work, dtype: jnp.dtype) -> Passes:
  """What a published size would read and compute, without its weights.

  Args:
    family: Of `FAMILIES`.
    scale: Of `SCALES`.
    work: What is made, with AudioGen-medium's codec.
    dtype: Of the weights, a floating-point one.

  Raises:
    InputError: If there is no such family or size.
  """
  config = shape(family, scale)
  params = _shapes(config, dtype)
  asked = _asked(encodec.EncodecConfig().tokens, dtype, work)
  if family == opening.FAMILY:
    return roofline.autoregressive(config, params, **asked)
  steps = sum(usual_steps(config.codebooks))
  return roofline.masked(config, params, passes=steps, **asked)


def random(
  family: str,
  scale: str,
  *,
  dtype: str | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Own:
  """A model of that size with random weights, AudioGen-medium's codec beside.

  A Make-An-Audio was published in one size, whatever the scale.

  Raises:
    InputError: If there is no such family or size.
  """
  if family == make_an_audio_parts.FAMILY:
    return diffusing.random(dtype=dtype, mesh=mesh)
  config = shape(family, scale)
  compute, placement = types.sampling_dtype(dtype), Placement.make(mesh)
  drawn = functools.partial(weights.drawn, placement)
  params = drawn(
    lambda key: model.unstack(model.init(config, key)),
    model.AXES,
    types.float_of(compute),
  )
  codec, whole = encodec.EncodecConfig(), jnp.dtype(jnp.float32)
  rooms = (
    Encodec(
      codec,
      drawn(lambda key: encodec.init(codec, key), encodec.AXES, whole),
      placement,
    ),
    TextEncoder(
      TEXT,
      drawn(lambda key: t5.init(TEXT, key), t5.AXES, whole),
      ByteTokenizer(),
      placement,
    ),
    LanguageModel.of(config, params, dtype=compute, placement=placement),
  )
  if family == opening.FAMILY:
    return Autoregressive(AudioGen(*rooms))
  return Masked(MAGNeT(*rooms, masking=Masking()))


@functools.lru_cache(maxsize=4)
def _shapes(config: LMConfig, dtype: jnp.dtype) -> types.Tree:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype),
    jax.eval_shape(lambda: model.init(config, jax.random.key(0))),
  )


def _timed(
  made: TextToCodes, work: Work, sampling: Sampling | MaskedSampling
) -> Run:
  start = time.perf_counter()
  codes = made.generate_codes(
    [PROMPT] * work.batch,
    frames=made.codec.tokens.frames(work.duration_s),
    sampling=sampling,
  )
  lm_s = time.perf_counter() - start
  made.codec.decode(codes)
  return Run(lm_s, time.perf_counter() - start)


def _asked(
  tokens: types.TokenSpec, dtype: jnp.dtype, work: Work
) -> dict[str, int]:
  return {
    "rows": work.batch * (2 if work.guidance != 1 else 1),
    "frames": tokens.frames(work.duration_s),
    "text": PROMPT_TOKENS,
    "itemsize": types.float_of(dtype).itemsize,
  }
