"""`audiogen encode`, `decode`, `convert` and `info`."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from jaxtyping import Float
from rich.table import Table

from audiogen_jax import families
from audiogen_jax.audio import dsp, io
from audiogen_jax.cli import terminal
from audiogen_jax.codec import codes_file
from audiogen_jax.convert import export, formats
from audiogen_jax.convert.loading import load_codec
from audiogen_jax.core.errors import InputError

DEFAULT_MODEL = "nano"  # comes with the package
LOUDNESS_LUFS = -14.0  # of AudioGen's documented examples
SUFFIXES = (".wav", ".flac", ".ogg")

Model = Annotated[
  str,
  typer.Option(
    help="nano, which is small and comes along; a hub id such as"
    " facebook/audiogen-medium; a folder or gs:// URI in our own format, the"
    " published one or Hugging Face's."
  ),
]
TextEncoder = Annotated[
  str | None,
  typer.Option(
    help="Hub id or folder of the T5.  \\[default: what comes with the model,"
    " or what it names]"
  ),
]
Dtype = Annotated[
  str | None,
  typer.Option(
    help="float32, bfloat16 or int8.  \\[default: bfloat16 on TPU and GPU,"
    " float32 on CPU]"
  ),
]
Adapters = Annotated[
  list[str] | None,
  typer.Option(
    "--adapters",
    help="FOLDER or FOLDER@STRENGTH of adapters (LoRA) that a training left;"
    " again for more.  A strength of 1 is as they were trained.",
  ),
]


def encode(
  sounds: Annotated[list[Path], typer.Argument(help="Sound files.")],
  model: Model = DEFAULT_MODEL,
  output: Annotated[
    Path, typer.Option("-o", "--output", help="A .npz file or a folder.")
  ] = Path("."),
) -> None:
  """Turn sounds into codes (.npz)."""
  paths = io.name_outputs(output, [sound.stem for sound in sounds], (".npz",))
  codec = load_codec(model)
  config = codec.config
  with terminal.bar() as bar:
    for sound, path in bar.track(
      list(zip(sounds, paths, strict=True)), description="encoding"
    ):
      audio, _ = io.read(
        sound, rate_hz=config.sample_rate_hz, channels=config.channels
      )
      codes, scales = codec.encode_chunks(audio[None])
      seconds = len(audio) / config.sample_rate_hz
      bits = codes[0].size * math.log2(codec.tokens.size)
      held = codes_file.Codes(
        codes[0], scales[0], len(audio), config.sample_rate_hz
      )
      with io.whole(path) as work, work.open("wb") as file:
        codes_file.write(file, held)
      terminal.say(
        f"{path}: {codes.shape[2]} x {codes.shape[1] * codes.shape[3]} codes,"
        f" {bits / seconds / 1000:.2f} kbit/s"
      )


def decode(
  codes: Annotated[list[Path], typer.Argument(help=".npz files of codes.")],
  model: Model = DEFAULT_MODEL,
  output: Annotated[
    Path,
    typer.Option(
      "-o", "--output", help="A .wav, .flac or .ogg file, or a folder."
    ),
  ] = Path("."),
) -> None:
  """Turn codes back into sounds."""
  paths = io.name_outputs(output, [source.stem for source in codes], SUFFIXES)
  codec = load_codec(model)
  rate = codec.config.sample_rate_hz
  with terminal.bar() as bar:
    for source, path in bar.track(
      list(zip(codes, paths, strict=True)), description="decoding"
    ):
      held = codes_file.read(source)
      if held.sample_rate_hz != rate:
        raise InputError(
          f"{source} was made at {held.sample_rate_hz} Hz, {model} works at"
          f" {rate} Hz; decode with the model that encoded it"
        )
      audio = codec.decode_chunks(
        held.codes[None], held.scales[None], held.length
      )
      io.write(path, audio[0], rate)
      terminal.say(str(path))


def convert(
  source: Annotated[str, typer.Argument(help="Hub id, folder or gs:// URI.")],
  target: Annotated[str, typer.Argument(help="A folder that does not exist.")],
  to: Annotated[
    str, typer.Option(help=f"One of {', '.join(export.FORMATS)}.")
  ] = "orbax",
  text_encoder: TextEncoder = None,
  adapters: Adapters = None,
  dtype: Annotated[
    str | None,
    typer.Option(
      help=f"Of the weights: one of {', '.join(export.DTYPES)}.  \\[default: as"
      " they are stored]"
    ),
  ] = None,
) -> None:
  """Write a model in another format."""
  with terminal.bar() as bar:
    bar.add_task(f"converting {source}", total=None)
    outside = export.convert(
      source,
      target,
      to=to,
      text_encoder=text_encoder,
      dtype=dtype,
      adapters=adapters or (),
    )
  beside = f"; the text encoder, {outside}, stays outside" if outside else ""
  terminal.say(f"{target} ({to}){beside}")


def info(
  model: Annotated[str, typer.Argument(help="Hub id, folder or gs:// URI.")],
  adapters: Adapters = None,
) -> None:
  """Say what a model is, and whether adapters fit it."""
  family, _ = families.of(model)
  format = formats.recognise(formats.locate(model)).name
  described = families.describe(model, adapters=adapters)
  table = Table(title=model, show_header=False, title_justify="left")
  for row in [("family", family), ("format", format), *described.rows()]:
    table.add_row(*row)
  terminal.out.print(table)


def normalize_loudness(
  audio: Float[np.ndarray, "b n c"], rate_hz: int, target_lufs: float
) -> Float[np.ndarray, "b n c"]:
  """Brings each sound to a loudness; no sample clips."""
  return np.asarray(_normalize(audio, rate_hz, target_lufs=target_lufs))


def named(model: str, adapters: Sequence[str] | None) -> str:
  """A model with its adapters, for the title of a table."""
  return " + ".join([model, *(adapters or ())])


_normalize = jax.jit(dsp.normalize_loudness, static_argnums=1)


def stem(text: str | None, seed: int) -> str:
  """Name of a result, without its suffix."""
  words = re.sub(r"\W+", "-", (text or "continued").lower()).strip("-")
  # File systems count bytes, 255 at most.
  words = words[:60].encode()[:200].decode(errors="ignore")
  return f"{words or 'sound'}_seed{seed}"
