"""How sounds of captions are made: by which model, in which way."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from audiogen_jax import families
from audiogen_jax.audio import io
from audiogen_jax.cli import making, models
from audiogen_jax.core.options import plain as option_values
from audiogen_jax.evaluate import sound_sets
from audiogen_jax.evaluate.sound_sets import SoundSet


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a sound of each caption of a set is made.

  Attributes:
    model: Its source.
    sampling: Its options.
    duration_s: Of each sound.
    seed: Clip i uses seed + i.
    dtype: Type of the weights; None for what suits the machine.
    text_encoder: Source of the T5; None for what comes with the model.
    adapters: Of the model; None for none.
    batch: Sounds made together; None for `making.ROWS` a device.
    mesh: Devices that make each batch together; None for each process's own.
    opened: What loads the model, as `making.opened` does.
  """

  model: str
  sampling: Any
  duration_s: float
  seed: int = 0
  dtype: str | None = None
  text_encoder: str | None = None
  adapters: Sequence[str] | None = None
  batch: int | None = None
  mesh: str | None = None
  opened: Callable[..., families.TextToAudio] = making.opened

  @property
  def settings(self) -> dict[str, Any]:
    """What every sound depends on, beside its caption and seed."""
    settings = {"model": self.model, "duration_s": self.duration_s}
    settings |= {"dtype": self.dtype} | option_values(self.sampling)
    return settings | ({"adapters": self.adapters} if self.adapters else {})

  def make(self, real: SoundSet, out: Path) -> SoundSet:
    """A sound for each clip, as loud as the model makes it.

    Those that the folder's manifest names are there already.  Within
    `processes.distributed`; several processes share the sounds out.

    Args:
      real: Clips, each with a caption.
      out: A folder, made if need be.

    Returns:
      The sounds, by the names of the clips.

    Raises:
      InputError: If the folder cannot be used, as for `making.make`.
    """
    texts = [real.captions[name] for name in real.names]
    paths = io.name_outputs(out, list(real.names), models.SUFFIXES)
    jobs = making.jobs(texts, paths, self.seed, self.settings)
    making.make(jobs, self._prepared, out, self.batch)
    files = dict(zip(real.names, paths, strict=True))
    return sound_sets.of_files(str(out), out, files, real.captions)

  def _prepared(
    self, texts: Sequence[str | None], report: making.Report
  ) -> making.Work:
    loaded = self.opened(
      self.model,
      self.mesh,
      text_encoder=self.text_encoder,
      dtype=self.dtype,
      adapters=self.adapters,
    )
    families.check(loaded, self.sampling)
    asked = {"sampling": self.sampling, "duration_s": self.duration_s}
    return making.Work(loaded, loaded.generate, asked, None, False)
