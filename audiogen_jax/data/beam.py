"""The builder under Apache Beam, for corpora that no single machine decodes.

The same records become the same examples; TFDS's own writer shuffles and shards
them, on whatever runner the options name.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import builder, shards, sources
from audiogen_jax.data.captions import CaptionRules
from audiogen_jax.data.listings import Record
from audiogen_jax.data.shards import About, BuildReport, LeftOut
from audiogen_jax.data.spec import SoundSpec


def build(
  name: str,
  root: str | os.PathLike,
  folder: str | os.PathLike,
  *,
  options: str,
  spec: SoundSpec | None = None,
  rules: CaptionRules | None = None,
  drop_speech: bool | None = None,
) -> tuple[Path, BuildReport]:
  """Builds the dataset of one source; see `builder.build`.

  What cannot be read is left out, logged and counted in Beam's metrics; a run
  that fails is the runner's to repeat.

  Args:
    options: Beam's pipeline options, as on a command line.

  Returns:
    Where it lies, in TFDS's own layout: `folder/name/1.0.0`; what it holds and
    what the source lacked.

  Raises:
    InputError: If Beam is not installed, or as `builder.build` does.
  """
  try:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError:
    raise InputError(
      "Apache Beam is not installed: pip install 'audiogen_jax[beam]'"
    ) from None
  try:
    Pipeline(options=PipelineOptions(options.split()))
  except ValueError as error:  # before anything is read
    raise InputError(f"Beam options {options!r}: {error}") from None
  spec = spec or SoundSpec()
  reading = sources.read(name, root, rules=rules, drop_speech=drop_speech)
  about = builder.about(name, spec)
  dataset = _builder_class(name)(
    about,
    builder.by_split(reading.records),
    spec,
    data_dir=os.fspath(folder),
    file_format="array_record",
  )
  dataset.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      beam_options=PipelineOptions(options.split())
    )
  )
  written = Path(dataset.data_dir)
  examples = {name: s.num_examples for name, s in dataset.info.splits.items()}
  report = BuildReport(examples, reading.left_out)
  shards.write_report(written, about, report)
  return written, report


def _builder_class(source: str) -> type[tfds.core.GeneratorBasedBuilder]:
  """TFDS names a dataset after its class, so each source needs its own."""

  class Sounds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = source
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, about: About, items, spec: SoundSpec, **options) -> None:
      self._about, self._items, self._spec = about, items, spec
      super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
      return self._about.info(self)

    def _split_generators(self, dl_manager):
      del dl_manager  # the files are here already
      return {
        split: self._generate_examples(records)
        for split, records in self._items.items()
      }

    def _generate_examples(self, records: list[Record]):
      import apache_beam

      return (
        apache_beam.Create(records)
        | apache_beam.Reshuffle()  # else one worker would decode them all
        | apache_beam.FlatMap(_keyed, spec=self._spec)
      )

  return Sounds


def _keyed(
  record: Record, spec: SoundSpec
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """What TFDS sorts an example by, and the example; or nothing."""
  from apache_beam.metrics import Metrics

  result = builder.example(record, spec)
  if isinstance(result, LeftOut):
    Metrics.counter("audiogen_jax", "left out").inc()
    logging.warning("left out: %s: %s", result.what, result.reason)
    return
  yield record.id, result
