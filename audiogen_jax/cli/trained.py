"""Models that a study trains: their configurations, and their runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from audiogen_jax import families
from audiogen_jax.core import config
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import changed
from audiogen_jax.train import configuration, loop, workdir
from audiogen_jax.train.codes_task import CodesTask
from audiogen_jax.train.configuration import PREFIX


class Configured:
  """A configuration by which points are trained that name no model."""

  def __init__(self, option: str, file: str | None, words: list[str]) -> None:
    """Reads nothing yet.

    Args:
      option: What names it on the command line.
      file: `FILE.py` or `FILE.py:VARIANT`, if it was named.
      words: Changes of its keys, such as `--config.KEY=VALUE`.
    """
    self._option, self._file, self._words = option, file, words
    self._used = False

  def of_sounds(
    self,
    remedy: str,
    data: Path,
    options: Mapping[str, Any],
    variant: str = "",
  ) -> ConfigDict:
    """What to train for a model that makes sounds of captions.

    Args:
      remedy: What could be named in its place, for the message.
      data: To train on, if it names no folders.
      options: Of sampling, by name, that the model will be given.
      variant: One more than was asked for.

    Raises:
      InputError: If none was named, as `configuration.changed`, or for what
        would make no sounds after hours of training.
    """
    values = self._values(remedy, data, variant)
    task = configuration.TASKS[values.task]
    if not issubclass(task, CodesTask):
      raise InputError(
        f"{self._file} trains a {values.task}, which makes no sounds of"
        " captions; name the configuration of a language model"
      )
    changed(families.known()[task.family].options(), options, self._file)
    return values

  def of_codec(self, remedy: str, data: Path, variant: str) -> ConfigDict:
    """What to train for a codec; arguments and errors as of `of_sounds`."""
    values = self._values(remedy, data, variant)
    if values.task != "codec":
      raise InputError(f"{self._file} trains a {values.task}, and no codec")
    return values

  def check_used(self) -> None:
    """Raises InputError if it was named, and nothing is trained by it."""
    if not self._used and (self._file or self._words):
      word = self._file or self._words[0]
      raise InputError(
        f"{word[:100]} is not used, for every point has a model; leave it out"
      )

  def _values(self, remedy: str, data: Path, variant: str = "") -> ConfigDict:
    """What to train; see `of_sounds`."""
    if self._file is None:
      raise InputError(
        f"name a model ({remedy}), or what to train in its place"
        f" ({self._option} configs/NAME.py)"
      )
    self._used = True
    name, _, asked = self._file.partition(":")
    variants = "+".join(filter(None, (asked, variant)))
    prefix = f"{self._option}."
    words = [
      f"{PREFIX}{word.removeprefix(prefix)}"
      if word.startswith(prefix)
      else word
      for word in self._words
    ]
    values = configuration.changed(f"{name}:{variants}", words)
    values.data.folders = values.data.folders or str(data)
    return values


class Training(NamedTuple):
  """A run whose export is wanted.

  Attributes:
    values: What is trained.
    folder: Its work folder.
  """

  values: ConfigDict
  folder: Path

  @property
  def model(self) -> Path:
    """Where the trained model will be."""
    return self.folder / "export"

  def asked(self, prefix: str) -> dict[str, Any]:
    """What decides how it comes out, by dotted name behind a prefix."""
    run, task = configuration.parse(self.values)
    settings = config.as_dict(run) | config.as_dict(task)
    bound = {"loop.steps": run.loop.steps} | workdir.bound(settings)
    return {f"{prefix}{name}": value for name, value in bound.items()}

  def run(self) -> None:
    """Trains; within `processes.distributed`.

    Raises:
      InputError, Stopped: As `loop.train`.
    """
    # Orbax and JAX tell of every step they take, and warn of what is meant.
    logging.set_verbosity(logging.ERROR)
    run, task = configuration.parse(self.values)
    loop.train(run, task.opened(), str(self.folder))
