"""What is in a dataset: a table of numbers and a picture of distributions."""

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiogen_jax.audio import io
from audiogen_jax.data import reading, spec

_MOST = 10_000  # clips of a split that are looked at
_FLOOR_DB = -96.0  # of 16 bits


@dataclasses.dataclass(frozen=True)
class SplitSummary:
  """Numbers of one split.

  Attributes:
    clips: All of them.
    looked_at: How many the rest was read from, evenly spread.
    durations_s: Duration of each clip that was looked at.
    levels_db: RMS of each below full scale; empty for codes and latents.
    caption_words: Words of each caption.
    tags: How often each occurs.
    sources: How often each occurs.
  """

  clips: int
  looked_at: int
  durations_s: np.ndarray
  levels_db: np.ndarray
  caption_words: np.ndarray
  tags: Mapping[str, int]
  sources: Mapping[str, int]

  @property
  def hours(self) -> float:
    """Hours of the whole split; an estimate where not all was looked at."""
    return float(self.durations_s.mean()) * self.clips / 3600


def summarise(
  folder: str | os.PathLike,
  *,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, object], dict[str, SplitSummary]]:
  """The settings of a dataset, and a summary of each split that holds clips.

  Raises:
    InputError: If there is no dataset.
  """
  builder = reading.read(folder)
  settings = dict(builder.info.metadata)
  sizes = {
    name: split.num_examples
    for name, split in builder.info.splits.items()
    if split.num_examples
  }
  total, done, summaries = sum(min(n, _MOST) for n in sizes.values()), 0, {}
  for name, size in sizes.items():
    source = reading.Examples(builder, name)
    numbers = np.linspace(0, size, min(size, _MOST), endpoint=False, dtype=int)
    rows = []
    for number in numbers:
      rows.append(_look(source[int(number)], settings))
      done += 1
      if progress:
        progress(done, total)
    durations, levels, words, tags, sources = zip(*rows, strict=True)
    summaries[name] = SplitSummary(
      clips=size,
      looked_at=len(rows),
      durations_s=np.array(durations),
      levels_db=np.array([level for level in levels if level is not None]),
      caption_words=np.array(words),
      tags=collections.Counter(tag for some in tags for tag in some),
      sources=collections.Counter(sources),
    )
  return settings, summaries


def _look(
  example: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[float, float | None, int, list[str], str]:
  """Duration in s, level in dB below full scale, words, tags and source."""
  level = None
  if "audio" in example:
    samples = example["audio"]
    duration_s = len(samples) / settings["rate_hz"]
    power = np.mean(np.square(samples.astype(np.float32) / 2**15))
    level = max(float(10 * np.log10(power + 1e-12)), _FLOOR_DB)
  else:
    held = example[spec.kind_of(settings)]
    duration_s = len(held) / spec.rate_hz(settings)
  words = len(example["caption"].decode().split())
  tags = [tag.decode() for tag in example["tags"]]
  return duration_s, level, words, tags, example["source"].decode()


def draw(
  path: str | os.PathLike, title: str, summaries: Mapping[str, SplitSummary]
) -> None:
  """Draws a PNG: durations, levels and lengths of captions of all splits."""
  # Half a second to import, and whoever draws nothing should not pay for it.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  panels = [
    ("duration, s", lambda s: s.durations_s),
    ("level, dB below full scale", lambda s: s.levels_db),
    ("words in a caption", lambda s: s.caption_words),
  ]
  panels = [
    (label, values)
    for label, values in panels
    if any(len(values(s)) for s in summaries.values())
  ]
  figure = Figure(figsize=(4 * len(panels), 3.4), dpi=150, layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  for axes, (label, values) in zip(
    np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
  ):
    every = np.concatenate([values(s) for s in summaries.values()])
    whole = label.startswith("words")
    low, high = float(every.min()), float(every.max())
    if whole:  # a bar for each number of words
      edges = np.arange(low - 0.5, high + 1)
    else:
      margin = 0.05 * max(high - low, 1.0)
      edges = np.linspace(low - margin, high + margin, 41)
    axes.hist(
      [values(s) for s in summaries.values()],
      bins=edges,
      stacked=True,
      label=list(summaries),
    )
    axes.set(xlabel=label, ylabel="clips")
    axes.spines[["top", "right"]].set_visible(False)
  figure.axes[0].legend(frameon=False)
  figure.suptitle(title, parse_math=False)
  with io.whole(Path(path)) as part:
    figure.savefig(part, format="png")
