"""Others that make sounds the same way, with random weights of the same shape.

They need PyTorch, which nothing else here does.
"""

import importlib.util
import time
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.benchmark.ours import PROMPT_TOKENS, TEXT
from audiogen_jax.benchmark.sample import Contestant, Run, Work
from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core import types
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.model import LMConfig


def open_rival(name: str, ours: AudioGen) -> Contestant:
  """A rival of the shape of `ours`.

  Raises:
    InputError: If it is unknown, what it needs is missing, or the shape is
      beyond it.
  """
  check_known(name)
  try:
    return RIVALS[name][0](ours)
  except ValueError as error:
    raise InputError(f"{name} has no such model: {error}") from None


def check_known(name: str) -> None:
  """Raises InputError if there is no such rival, or it misses something."""
  if name not in RIVALS:
    raise InputError(f"rival {name!r} is not one of {', '.join(RIVALS)}")
  check_installed(name, RIVALS[name][1])


def check_installed(name: str, packages: Sequence[str]) -> None:
  """Raises InputError if one of the packages is missing."""
  for package in packages:
    if importlib.util.find_spec(package) is None:
      raise InputError(
        f"{name} needs {package}, which is not installed; pip install {package}"
      )


class Transformers:
  """`MusicgenForConditionalGeneration`, eager or compiled.

  Compiled it keeps a cache of fixed size and runs its step through
  `torch.compile`, as its documentation says to.
  """

  def __init__(self, ours: AudioGen, *, compiled: bool = False) -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    self.name = f"transformers{', compiled' if compiled else ''}"
    self._torch = torch
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Beside int8 the type that the rest of ours has.
    half = types.float_of(ours.lm.dtype).itemsize == 2
    model = transformers.MusicgenForConditionalGeneration(
      transformers.MusicgenConfig(
        text_encoder=_t5(transformers),
        audio_encoder=_encodec(transformers, ours.codec.config),
        decoder=_decoder(transformers, ours.lm.config),
      )
    )
    self._model = model.eval().to(
      device, torch.bfloat16 if half else torch.float32
    )
    self._device = device
    for config in (model.generation_config, model.decoder.generation_config):
      config.decoder_start_token_id = ours.lm.config.size
      config.pad_token_id = config.bos_token_id = ours.lm.config.size
    if compiled:
      model.generation_config.cache_implementation = "static"
      model.forward = torch.compile(model.forward)
    self._rate = ours.codec.tokens.frame_rate_hz
    self._extra = ours.lm.steps(100) - 100  # what the delays add
    self._codec_s = 0.0
    decode = model.audio_encoder.decode

    def timed(*arguments, **options):
      self._wait()
      start = time.perf_counter()
      audio = decode(*arguments, **options)
      self._wait()
      self._codec_s = time.perf_counter() - start
      return audio

    model.audio_encoder.decode = timed

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""
    torch = self._torch
    ids = torch.randint(
      3, 250, (work.batch, PROMPT_TOKENS), device=self._device
    )
    start = time.perf_counter()
    with torch.inference_mode():
      self._model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=250,
        guidance_scale=work.guidance,
        max_new_tokens=int(work.duration_s * self._rate) + self._extra,
      )
    self._wait()
    total_s = time.perf_counter() - start
    return Run(total_s - self._codec_s, total_s)

  def _wait(self) -> None:
    if self._device == "cuda":
      self._torch.cuda.synchronize()


def _t5(transformers: ModuleType) -> dict:
  config = transformers.T5Config(
    vocab_size=TEXT.vocabulary,
    d_model=TEXT.width,
    num_layers=TEXT.layers,
    num_heads=TEXT.heads,
    d_kv=TEXT.head_size,
    d_ff=TEXT.ff,
  )
  return config.to_dict()


def _encodec(transformers: ModuleType, codec: EncodecConfig) -> dict:
  seanet = codec.seanet
  # Codebooks are counted by the bit rate, there.
  rate = codec.bitrate / 1000
  config = transformers.EncodecConfig(
    sampling_rate=codec.sample_rate_hz,
    target_bandwidths=[rate],
    audio_channels=seanet.channels,
    hidden_size=seanet.width,
    num_filters=seanet.filters,
    num_residual_layers=seanet.residual_layers,
    upsampling_ratios=list(seanet.ratios),
    use_causal_conv=seanet.causal,
    num_lstm_layers=seanet.lstm_layers,
    codebook_size=codec.rvq.size,
    codebook_dim=codec.rvq.width,
  )
  return config.to_dict()


def _decoder(transformers: ModuleType, lm: LMConfig) -> dict:
  t = lm.transformer
  if lm.prepend_text or lm.pattern.kind != "delay":
    raise InputError(
      "transformers has delayed codebooks and cross-attention only; compare"
      " another model"
    )
  config = transformers.MusicgenDecoderConfig(
    vocab_size=lm.size,
    num_hidden_layers=t.layers,
    ffn_dim=t.ff,
    num_attention_heads=t.heads,
    hidden_size=t.width,
    num_codebooks=lm.codebooks,
  )
  return config.to_dict()


class TransformersCodec:
  """`EncodecModel`, a `Coder` of `benchmark.coding`."""

  name = "transformers"

  def __init__(self, ours: EncodecConfig) -> None:
    import torch
    import transformers

    self._torch = torch
    torch.manual_seed(0)
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    config = transformers.EncodecConfig(**_encodec(transformers, ours))
    try:
      self._model = transformers.EncodecModel(config).eval().to(self._device)
    except ValueError as error:
      raise InputError(f"transformers has no such codec: {error}") from None

  def encode(self, audio: np.ndarray) -> None:
    """Sound `b n c` to codes."""
    torch = self._torch
    x = torch.from_numpy(audio.swapaxes(1, 2).copy()).to(self._device)
    with torch.inference_mode():
      self._model.encode(x).audio_codes.cpu()

  def decode(self, codes: np.ndarray) -> None:
    """Codes `b k t` to sound."""
    torch = self._torch
    x = torch.from_numpy(codes.astype(np.int64))[None].to(self._device)
    with torch.inference_mode():
      self._model.decode(x, [None]).audio_values.cpu()


class Published:
  """The released PyTorch code, where it can be imported."""

  name = "audiocraft"

  def __init__(self, ours: AudioGen) -> None:
    import torch
    from audiocraft.models.lm import LMModel
    from audiocraft.modules import codebooks_patterns, conditioners

    self._torch = torch
    self._codec = ours.codec
    self._extra = ours.lm.steps(100) - 100
    lm, t = ours.lm.config, ours.lm.config.transformer
    torch.manual_seed(0)
    fuser = conditioners.ConditionFuser(
      {
        "cross": ["description"],
        "prepend": [],
        "sum": [],
        "input_interpolate": [],
      }
    )
    self._lm = LMModel(
      codebooks_patterns.DelayedPatternProvider(
        lm.codebooks, delays=list(lm.pattern.delays)
      ),
      conditioners.ConditioningProvider({}),
      fuser,
      n_q=lm.codebooks,
      card=lm.size,
      dim=t.width,
      num_heads=t.heads,
      hidden_scale=t.ff // t.width,
      num_layers=t.layers,
      cross_attention=True,
      causal=True,
      memory_efficient=True,
      bias_ff=False,
      bias_attn=False,
      bias_proj=False,
      norm_first=True,
      activation="gelu",
    ).eval()
    self._text = torch.randn(1, PROMPT_TOKENS, t.width)

  def run(self, work: Work) -> Run:
    """Makes the codes of `work`; their sound is left to our codec."""
    torch = self._torch
    rows = 2 * work.batch
    text = self._text.repeat(rows, 1, 1)
    text[work.batch :] = 0
    # What its generate loop hands to every step, made by hand: texts are
    # encoded elsewhere.
    told = {"description": (text, torch.ones(rows, PROMPT_TOKENS))}
    frames = self._codec.tokens.frames(work.duration_s)
    start = time.perf_counter()
    with torch.inference_mode(), self._lm.streaming():
      steps = torch.full((work.batch, self._lm.n_q, 1), self._lm.card)
      for _ in range(frames + self._extra):
        steps = self._lm._sample_next_token(
          steps, told, {}, True, 1.0, 250, 0.0, cfg_coef=work.guidance
        )
    lm_s = time.perf_counter() - start
    return Run(lm_s, lm_s)


RIVALS = {
  "transformers": (Transformers, ("torch", "transformers")),
  "transformers-compiled": (
    lambda ours: Transformers(ours, compiled=True),
    ("torch", "transformers"),
  ),
  "audiocraft": (Published, ("torch", "audiocraft")),
}
