"""`audiogen generate`: a sound, or thousands."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import typer

from audiogen_jax.audio import drawing, io
from audiogen_jax.audiogen import AudioGen
from audiogen_jax.cli import models, terminal
from audiogen_jax.cli.manifest import Manifest
from audiogen_jax.convert import sources
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm import windows
from audiogen_jax.lm.rules import Sampling
from audiogen_jax.text import tokenizer

_ROWS = 8  # sounds made together on each device


class _Job(NamedTuple):
  """A sound to make."""

  text: str | None
  seed: int
  path: Path
  entry: dict[str, Any]  # its line of the manifest


def generate(
  prompts: Annotated[
    list[str] | None, typer.Argument(help="What to hear; one sound each.")
  ] = None,
  prompts_file: Annotated[
    Path | None,
    typer.Option(
      "--prompts",
      help="A file with one prompt a line.  The folder of the sounds gets a"
      " manifest.jsonl; sounds that it names are not made again.",
    ),
  ] = None,
  model: models.Model = models.DEFAULT_MODEL,
  text_encoder: models.TextEncoder = None,
  output: Annotated[
    Path,
    typer.Option(
      "-o",
      "--output",
      help="A .wav, .flac or .ogg file, or a folder for files named after the"
      " prompts.",
    ),
  ] = Path("."),
  duration: Annotated[float, typer.Option(help="Seconds.")] = 5.0,
  stride: Annotated[
    float,
    typer.Option(
      help="Sounds longer than the model's window are made window by window,"
      " each so many seconds further: with more it is faster, and hears less of"
      " what came before."
    ),
  ] = windows.STRIDE_S,
  continue_from: Annotated[
    Path | None,
    typer.Option(
      help="A sound to continue; the duration includes it.  Without prompts it"
      " is continued unconditionally."
    ),
  ] = None,
  seed: Annotated[int, typer.Option(help="Prompt i uses seed + i.")] = 0,
  guidance: Annotated[
    float | None,
    typer.Option(
      help="Classifier-free guidance; 1 for none.  [default: what suits the"
      f" model; {Sampling.guidance:g} for the published ones]"
    ),
  ] = None,
  temperature: Annotated[
    float, typer.Option(help="0 takes the likeliest token.")
  ] = Sampling.temperature,
  top_k: Annotated[
    int | None,
    typer.Option(
      help="Draw among the k likeliest; 0 for all."
      f"  [default: {Sampling.top_k}]"
    ),
  ] = None,
  top_p: Annotated[
    float,
    typer.Option(help="Draw from the nucleus of mass p, instead of top-k."),
  ] = Sampling.top_p,
  dtype: Annotated[
    str | None,
    typer.Option(
      help="float32, bfloat16 or int8.  [default: bfloat16 on TPU and GPU,"
      " float32 on CPU]"
    ),
  ] = None,
  batch: Annotated[
    int | None,
    typer.Option(
      help=f"Sounds made together.  [default: {_ROWS} a device]", min=1
    ),
  ] = None,
  normalize: Annotated[
    bool, typer.Option(help="Bring the loudness to -14 LUFS.")
  ] = True,
  spectrogram: Annotated[
    bool, typer.Option(help="Draw a PNG beside each sound.")
  ] = False,
) -> None:
  """Make sounds from sentences."""
  texts = read_prompts(prompts, prompts_file, continue_from)
  stems = [models.stem(text, seed + i) for i, text in enumerate(texts)]
  paths = io.name_outputs(output, stems, models.SUFFIXES)
  sampling = Sampling(
    temperature=temperature,
    top_k=Sampling.top_k if top_k is None else top_k,
    top_p=top_p,
    guidance=_guidance(model) if guidance is None else guidance,
  )
  if not 0 < duration < math.inf:
    raise InputError(f"duration {duration} s must be more than 0")
  settings = {
    "model": model,
    "duration_s": duration,
    "stride_s": stride,
    "guidance": sampling.guidance,
    "temperature": temperature,
    "top_k": sampling.top_k,
    "top_p": top_p,
    "dtype": dtype,
    "normalize": normalize,
    "continue_from": continue_from and str(continue_from),
  }
  jobs = [
    _Job(
      text,
      seed + i,
      path,
      {"file": path.name, "prompt": text, "seed": seed + i} | settings,
    )
    for i, (text, path) in enumerate(zip(texts, paths, strict=True))
  ]
  manifest = None
  if prompts_file is not None and output.suffix not in models.SUFFIXES:
    manifest = Manifest(output)
  left = [job for job in jobs if not (manifest and manifest.holds(job.entry))]
  if len(left) < len(jobs):
    terminal.say(f"{len(jobs) - len(left)} of {len(jobs)} are there already")
  if not left:
    return
  with terminal.bar() as bar:
    task = bar.add_task(f"loading {model}", total=None)
    audiogen = AudioGen.from_pretrained(
      model, text_encoder=text_encoder, dtype=dtype
    )
    codec = audiogen.codec
    if top_k is not None and top_k > codec.tokens.size:
      raise InputError(
        f"top-k {top_k} is above the codebook size {codec.tokens.size}; take"
        f" {codec.tokens.size} or less, or 0 for all"
      )
    rate = codec.config.sample_rate_hz
    sound = None
    if continue_from is not None:
      sound, _ = io.read(
        continue_from, rate_hz=rate, channels=codec.config.channels
      )
    left = _by_length(left, audiogen.text.tokenizer)
    size = batch or _ROWS * jax.local_device_count()
    start, speed = time.monotonic(), ""
    for first in range(0, len(left), size):
      part = left[first : first + size]
      rows = len(part)
      label = f"sampling {first + 1}-{first + rows} of {len(left)}{speed}"
      bar.update(task, description=f"compiling, {label}", completed=0)

      def report(
        done: int, total: int, first=first, rows=rows, label=label
      ) -> None:
        if done:
          # Of all, not of this batch: the bar shows when the last is done.
          done, total = first * total + rows * done, len(left) * total
          bar.update(task, description=label, completed=done, total=total)

      audio = audiogen.generate(
        [job.text for job in part],
        duration_s=duration,
        stride_s=stride,
        sampling=sampling,
        seed=[job.seed for job in part],
        prompt=None if sound is None else np.stack([sound] * rows),
        progress=report,
      )
      if normalize:
        audio = models.normalize_loudness(audio, rate)
      for job, one in zip(part, audio, strict=True):
        io.write(job.path, one, rate)
        if spectrogram:
          picture = job.path.with_suffix(".png")
          drawing.spectrogram(picture, one, rate, title=job.text or "")
        if manifest:
          manifest.add(job.entry)
      made_s = (first + rows) * duration
      speed = f", {made_s / (time.monotonic() - start):.1f} s of sound a second"
  for job in jobs:
    terminal.say(str(job.path))


def _guidance(model: str) -> float:
  """What suits the model."""
  return sources.open_parts(model, need_text=False).guidance


def _by_length(jobs: list[_Job], words: tokenizer.Tokenizer) -> list[_Job]:
  """Short texts first: a batch is as wide as its longest.

  Raises:
    InputError: For a text that is too long, before the hours of work.
  """
  texts = [job.text for job in jobs]
  _, mask = tokenizer.pad(words, texts)
  order = np.argsort(mask.sum(axis=1), kind="stable")
  return [jobs[i] for i in order]


def read_prompts(
  given: Sequence[str] | None, file: Path | None, sound: Path | None
) -> list[str | None]:
  """All prompts, or one None to continue a sound without text."""
  prompts = list(given or [])
  for i, prompt in enumerate(prompts):
    if not prompt.strip():
      raise InputError(f"prompt {i + 1} is empty; say what to hear")
  if file is not None:
    if not file.is_file():
      raise InputError(f"{file} is not a file with prompts")
    lines = []
    for i, line in enumerate(file.read_bytes().splitlines()):
      try:
        lines.append(line.decode("utf-8-sig" if i == 0 else "utf-8").strip())
      except UnicodeDecodeError as error:
        raise InputError(
          f"{file}, line {i + 1}, is not UTF-8 text (byte {error.start + 1});"
          " save the file as UTF-8"
        ) from None
    lines = [line for line in lines if line]
    if not lines:
      raise InputError(f"{file} holds no prompts; put one on each line")
    prompts += lines
  if prompts:
    return prompts
  if sound is None:
    raise InputError('no prompt; for example: audiogen generate "a dog barks"')
  return [None]
