"""A bank of events: the clips of datasets that say one thing each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions, reading, spec


class Bank:
  """Clips with one label each, by number; at hand in a loader's workers.

  A clip's label is its only tag, or its caption where it has no tags.  Clips
  with several tags are left out.

  Attributes:
    facts: What decides which clips there are, for a loader's digest.
  """

  def __init__(
    self, folders: str, split: str, settings: Mapping[str, Any]
  ) -> None:
    """Reads all labels.

    Args:
      folders: Datasets of sounds, separated by commas.
      split: Of each.
      settings: Rate and channels that they must have.

    Raises:
      InputError: If there is none, one holds other sounds, or no clip of one
        has one label.
    """
    self._sources: list[reading.Examples] = []
    self._clips: list[tuple[int, int, str]] = []
    self.facts: list[Any] = []
    for folder in filter(None, map(str.strip, folders.split(","))):
      builder = reading.read(folder)
      self._check(folder, dict(builder.info.metadata), settings)
      source = reading.Examples(builder, split)
      labels = [_label(source[number]) for number in range(len(source))]
      clips = [
        (len(self._sources), number, label)
        for number, label in enumerate(labels)
        if label
      ]
      if not clips:
        raise InputError(
          f"no clip in {split} of the bank {folder} has one label:"
          f" {len(source)} have none or several tags; name a dataset of single"
          " events"
        )
      self._sources.append(source)
      self._clips += clips
      digest = reading.digest(builder)
      self.facts.append([builder.info.name, split, len(clips), digest])
    if not self._clips:
      raise InputError(
        "no bank: reprogramming takes events from a dataset of sounds with one"
        " label each; name one, such as that of ESC-50"
      )

  def _check(
    self, folder: str, have: Mapping[str, Any], want: Mapping[str, Any]
  ) -> None:
    kind = spec.kind_of(have)
    if kind != "sounds":
      raise InputError(
        f"the bank {folder} holds {kind}, and events are joined as sounds; name"
        " the dataset that they were made of"
      )
    if have != want:
      raise InputError(
        f"the bank {folder} holds {have}, the dataset {dict(want)}; build it"
        f" with --rate {want['rate_hz']} --channels {want['channels']}"
      )

  def __len__(self) -> int:
    return len(self._clips)

  def __getitem__(self, number: int) -> tuple[Float[np.ndarray, "n c"], str]:
    """The sound of a clip, in ±1, and its label."""
    source, at, label = self._clips[number]
    samples = self._sources[source][at]["audio"]
    return samples * np.float32(2**-15), label


def _label(example: Mapping[str, Any]) -> str:
  """What a clip is of; "" where it is not of one thing."""
  tags = [tag.decode() for tag in example["tags"]]
  if tags:
    return captions.of_tags(tags) if len(tags) == 1 else ""
  return captions.clean(example["caption"].decode()).rstrip(" .")
