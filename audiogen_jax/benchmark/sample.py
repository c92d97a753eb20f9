"""How fast sounds are made: ours and others', on the same work in turn."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.benchmark import machine
from audiogen_jax.codec import encodec
from audiogen_jax.codec.codec import Encodec
from audiogen_jax.core import sharding, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement
from audiogen_jax.core.types import Seconds
from audiogen_jax.lm import model
from audiogen_jax.lm.language_model import LanguageModel
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.lm.sampling import Sampling
from audiogen_jax.lm.transformer import TransformerConfig
from audiogen_jax.text import t5
from audiogen_jax.text.encoder import TextEncoder
from audiogen_jax.text.t5 import T5Config
from audiogen_jax.text.tokenizer import ByteTokenizer

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
PROMPT = "a dog barks"  # 12 bytes with its end mark
_CHUNK_S = 0.5


@dataclasses.dataclass(frozen=True)
class Work:
  """What is made.

  Attributes:
    batch: Prompts at once.
    duration_s: Seconds of each sound.
    guidance: As in `Sampling`.
  """

  batch: int
  duration_s: Seconds
  guidance: float = 3.0


class Run(NamedTuple):
  """Seconds of one run: of the language model, and from sentence to sound."""

  lm_s: float
  total_s: float


@runtime_checkable
class Contestant(Protocol):
  """Anything that makes sounds."""

  name: str

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""


@dataclasses.dataclass(frozen=True)
class SampleFigures:
  """What one contestant took for one piece of work.

  Attributes:
    name: The contestant's.
    work: What was made.
    steps: Steps of the language model.
    codebooks: Tokens a step.
    first_s: The first run, compilation included.
    runs: Those after it.
    compile_s: Seconds of compilation in the first run; None if not known.
    latency_s: From sentence to the first half second of sound, compiled; None
      if it does not stream.
    floor_bytes: Bytes that a step must read: weights and live cache.
    bandwidth: Bytes a second that the machine reads.
    peak_bytes: Most memory of device or process so far; None if others ran
      beside.
  """

  name: str
  work: Work
  steps: int
  codebooks: int
  first_s: float
  runs: Sequence[Run]
  compile_s: float | None = None
  latency_s: float | None = None
  floor_bytes: float | None = None
  bandwidth: float | None = None
  peak_bytes: int | None = None

  @property
  def step_s(self) -> float:
    """Seconds a step, the median."""
    return machine.median([run.lm_s for run in self.runs]) / self.steps

  @property
  def total_s(self) -> float:
    """Seconds from sentences to sounds, the median."""
    return machine.median([run.total_s for run in self.runs])

  @property
  def tokens_per_s(self) -> float:
    """Tokens of all prompts and codebooks."""
    return self.work.batch * self.codebooks / self.step_s

  @property
  def sound_per_s(self) -> float:
    """Seconds of sound a second."""
    return self.work.batch * self.work.duration_s / self.total_s

  @property
  def floor_share(self) -> float | None:
    """How near to the limit of memory: 1 is at it."""
    if self.floor_bytes is None:
      return None
    return self.floor_bytes / self.bandwidth / self.step_s

  def plain(self) -> dict[str, Any]:
    """Plain values, for JSON."""
    told = dataclasses.asdict(self)
    told["runs"] = [run._asdict() for run in self.runs]
    for each in ("step_s", "total_s", "tokens_per_s", "sound_per_s"):
      told[each] = getattr(self, each)
    return told | {"floor_share": self.floor_share}


def compare(
  ours: "Ours",
  rivals: Sequence[Contestant],
  works: Sequence[Work],
  *,
  runs: int,
  progress: Callable[[str, int, int], None],
) -> list[SampleFigures]:
  """Every contestant on all of the work, in turn.

  Runs alternate, so that whatever else the machine does meets all alike.

  Raises:
    InputError: If the sounds cannot fit into memory.
  """
  told = ours.audiogen.codec.config
  for work in works:
    machine.check_memory(
      work.batch, work.duration_s, told.sample_rate_hz * told.channels
    )
  found, done, contestants = [], itertools.count(), [ours, *rivals]
  lm, tokens = ours.audiogen.lm, ours.audiogen.codec.tokens
  total = len(works) * len(contestants) * (runs + 1)
  speed = machine.bandwidth()

  def run(work: Work, each: Contestant) -> tuple[Run, float, float]:
    what = f"{each.name}, {work.batch} x {work.duration_s} s"
    progress(what, next(done), total)
    with machine.compilations() as compiling:
      start = time.perf_counter()
      given = each.run(work)
      took_s = time.perf_counter() - start
    return given, took_s, math.fsum(compiling)

  for work in works:
    taken = machine.in_turn(contestants, functools.partial(run, work), runs)
    (_, _, compile_s), _ = taken[0]
    frames = tokens.frames(work.duration_s)
    known = {
      "compile_s": compile_s,
      "latency_s": ours.latency_s(work),
      "floor_bytes": floor_bytes(lm, work, frames),
      "bandwidth": speed,
      "peak_bytes": None if rivals else machine.peak_bytes(),
    }
    found += [
      SampleFigures(
        name=each.name,
        work=work,
        steps=lm.steps(frames),
        codebooks=lm.config.codebooks,
        first_s=first_s,
        runs=[given for given, *_ in later],
        **(known if each is ours else {}),
      )
      for each, ((_, first_s, _), later) in zip(contestants, taken, strict=True)
    ]
  return found


class Ours:
  """This package."""

  name = "audiogen_jax"

  def __init__(self, audiogen: AudioGen) -> None:
    self.audiogen = audiogen

  def run(self, work: Work) -> Run:
    """Makes the sounds of `work`."""
    start = time.perf_counter()
    codes = self.audiogen.generate_codes(
      [PROMPT] * work.batch,
      frames=self.audiogen.codec.tokens.frames(work.duration_s),
      sampling=Sampling(guidance=work.guidance),
    )
    lm_s = time.perf_counter() - start
    self.audiogen.codec.decode(codes)
    return Run(lm_s, time.perf_counter() - start)

  def latency_s(self, work: Work) -> float:
    """Seconds to the first chunk of sound; the median of three streams."""
    found = []
    for _ in range(4):  # the first one may compile
      start = time.perf_counter()
      stream = self.audiogen.stream(
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


def floor_bytes(lm: LanguageModel, work: Work, frames: int) -> float:
  """Bytes that one step must read, on all devices together, on average.

  Weights of the layers and the heads; keys and values of the steps so far, of
  the text and, under guidance, of either half.  What was rounded up to buckets
  does not count.
  """
  weights = sum(
    leaf.size * leaf.dtype.itemsize
    for path, leaf in jax.tree_util.tree_leaves_with_path(lm.params)
    if _read_each_step(sharding.path_name(path))
  )
  t = lm.config.transformer
  rows = work.batch * (2 if work.guidance != 1 else 1)
  text = len(ByteTokenizer().ids(PROMPT))
  seen = frames / 2 + (text if t.cross_attention else 0)
  seen += text if lm.config.prepend_text else 0
  size = types.float_of(lm.dtype).itemsize
  return weights + rows * 2 * t.width * t.layers * seen * size


def _read_each_step(name: str) -> bool:
  """Whether a decoding step reads all of a parameter.

  Not of embeddings, of which it reads K rows, nor of what reads the text.
  """
  once = (
    "embed",
    "text_proj",
    "cross_attn/kv",
    "cross_attn/k/",
    "cross_attn/v",
  )
  return not any(part in name for part in once)


def random(
  scale: str, *, dtype: str | None = None, mesh: jax.sharding.Mesh | None = None
) -> AudioGen:
  """A model of that size with random weights, AudioGen-medium's codec beside.

  Raises:
    InputError: If there is no such size.
  """
  if scale not in SCALES:
    raise InputError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
  config = LMConfig(transformer=SCALES[scale])
  compute, placement = types.sampling_dtype(dtype), Placement.make(mesh)

  def drawn(init, axes, kind):
    like = jax.eval_shape(init, jax.random.key(0))
    places = sharding.shardings(like, axes, placement)

    def draw(key):
      return jax.tree.map(lambda x: x.astype(kind), init(key))

    return jax.jit(draw, out_shardings=places)(jax.random.key(0))

  params = drawn(
    lambda key: model.unstack(model.init(config, key)),
    model.AXES,
    types.float_of(compute),
  )
  codec = encodec.EncodecConfig()
  return AudioGen(
    Encodec(
      codec,
      drawn(
        lambda key: encodec.init(codec, key),
        encodec.AXES,
        jnp.float32,
      ),
      placement,
    ),
    TextEncoder(
      TEXT,
      drawn(lambda key: t5.init(TEXT, key), t5.AXES, jnp.float32),
      ByteTokenizer(),
      placement,
    ),
    LanguageModel.of(config, params, dtype=compute, placement=placement),
  )
