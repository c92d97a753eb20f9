"""`audiogen generate`: a sound, or thousands."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

from audiogen_jax import families
from audiogen_jax.audio import io
from audiogen_jax.cli import flags, making, models, scorers, terminal
from audiogen_jax.cli import prompts as prompts_of
from audiogen_jax.cli.source import USUAL_AMOUNT, Source
from audiogen_jax.core import processes
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import changed
from audiogen_jax.core.options import plain as option_values
from audiogen_jax.evaluate.choosing import BestOf
from audiogen_jax.lm import windows

_DURATION_S = 5.0


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
  adapters: models.Adapters = None,
  output: Annotated[
    Path,
    typer.Option(
      "-o",
      "--output",
      help="A .wav, .flac or .ogg file, or a folder for files named after the"
      " prompts.",
    ),
  ] = Path("."),
  duration: Annotated[
    float | None,
    typer.Option(help=f"Seconds.  \\[default: {_DURATION_S:g}]"),
  ] = None,
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
  inpaint: Annotated[
    Path | None,
    typer.Option(
      help="A sound that is kept but for a hole, from --from to --to.  Without"
      " prompts it is filled unconditionally."
    ),
  ] = None,
  from_s: Annotated[
    float | None,
    typer.Option(
      "--from",
      help="Where the hole begins, in seconds.  \\[default: the beginning]",
    ),
  ] = None,
  to_s: Annotated[
    float | None,
    typer.Option(
      "--to", help="Where the hole ends, in seconds.  \\[default: the end]"
    ),
  ] = None,
  vary: Annotated[
    Path | None,
    typer.Option(
      help="A sound to vary, another way for each seed: of MAGNeT a share"
      " of it is made again, of Make-An-Audio its last steps."
    ),
  ] = None,
  amount: Annotated[
    float | None,
    typer.Option(
      help="The share of --vary, above 0 and up to 1: more keeps less."
      f"  \\[default: {USUAL_AMOUNT:g}]"
    ),
  ] = None,
  image: Annotated[
    Path | None,
    typer.Option(
      help="A picture of what is to be heard, for a model that looks at them."
    ),
  ] = None,
  video: Annotated[
    Path | None,
    typer.Option(help="A video, of which four frames are looked at."),
  ] = None,
  negative: Annotated[
    str | None,
    typer.Option(help='What is not wanted, such as "music, speech".'),
  ] = None,
  seed: Annotated[int, typer.Option(help="Prompt i uses seed + i.")] = 0,
  best_of: Annotated[
    int,
    typer.Option(
      help="Make so many of each prompt, and keep the one that scores best.",
      min=1,
    ),
  ] = 1,
  scorer: Annotated[str | None, typer.Option(help=scorers.HELP)] = None,
  options: flags.Options = None,
  dtype: models.Dtype = None,
  batch: making.Batch = None,
  mesh: making.Mesh = None,
  loudness: Annotated[
    float,
    typer.Option(
      help="LUFS of each sound; peaks are bent by a compressor, not cut.",
      min=-70.0,
      max=0.0,
    ),
  ] = models.LOUDNESS_LUFS,
  normalize: Annotated[
    bool,
    typer.Option(help="Bring the loudness there; without, samples may clip."),
  ] = True,
  spectrogram: Annotated[
    bool, typer.Option(help="Draw a PNG beside each sound.")
  ] = False,
) -> None:
  """Make sounds from sentences.

  Several processes (a Cloud TPU slice, SLURM, or JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID) share the prompts out; with --mesh they
  make each batch together.  The folder must be one that all of them see.
  """
  source = Source(
    continue_from, inpaint, from_s, to_s, vary, amount, image, video
  )
  texts = prompts_of.read(prompts, prompts_file, source.path)
  seen = source.seen and source.seen.stem
  stems = [models.stem(text or seen, seed + i) for i, text in enumerate(texts)]
  paths = io.name_outputs(output, stems, models.SUFFIXES)
  source.check(model, duration)
  sampling = changed(families.describe(model).sampling, options, model)
  if duration is None and source.edited is None:
    duration = _DURATION_S
  if best_of > 1:
    scorer = scorer or scorers.USUAL
  elif scorer is not None:
    raise InputError(
      f"--scorer {scorer} without --best-of: say of how many, such as"
      " --best-of 4"
    )
  if duration is not None and not 0 < duration < math.inf:
    raise InputError(f"duration {duration} s must be more than 0")
  settings = {
    "model": model,
    "duration_s": duration,
    "stride_s": stride,
    "dtype": dtype,
    "loudness_lufs": loudness if normalize else None,
  }
  settings |= source.settings() | option_values(sampling)
  also = {"adapters": adapters, "negative": negative}
  if scorer is not None:
    also |= {"best_of": best_of, "scorer": scorer}
  settings |= {name: value for name, value in also.items() if value}
  keeps = prompts_file is not None and output.suffix not in models.SUFFIXES
  jobs = making.jobs(texts, paths, seed, settings)

  def prepared(
    texts: Sequence[str | None], report: making.Report
  ) -> making.Work:
    loaded = making.opened(
      model, mesh, text_encoder=text_encoder, dtype=dtype, adapters=adapters
    )
    asked = _asked(loaded, model, duration, stride, sampling, negative)
    call, given = source.asked(loaded, model)
    if scorer is not None:
      length_s = duration or len(given["sound"]) / loaded.sample_rate_hz
      judge = scorers.opened(scorer, loaded, length_s, report)
      judge.check(texts)
      call = BestOf(call, judge, best_of, loaded.sample_rate_hz)
    lufs = settings["loudness_lufs"]
    return making.Work(loaded, call, asked | given, lufs, spectrogram)

  with processes.distributed():
    made = making.make(jobs, prepared, output if keeps else None, batch)
    if made and jax.process_index() == 0:
      for job in jobs:
        terminal.say(str(job.path))


def _asked(
  loaded: families.TextToAudio,
  name: str,
  duration_s: float | None,
  stride_s: float,
  sampling: Any,
  negative: str | None,
) -> dict[str, Any]:
  """Arguments of what makes sounds, those alone that the family takes.

  Raises:
    InputError: For a stride, or a negative prompt, where it takes none.
  """
  families.check(loaded, sampling)
  asked = {"sampling": sampling}
  if duration_s is not None:
    asked["duration_s"] = duration_s
  if duration_s is not None and families.takes(loaded, "stride_s"):
    asked["stride_s"] = stride_s
  elif stride_s != windows.STRIDE_S:
    raise InputError(f"{name} makes no windows: leave --stride out")
  if negative:
    if not families.takes(loaded, "negative"):
      raise InputError(f"{name} reads no negative prompt: leave it out")
    asked["negative"] = negative
  return asked
