"""What tasks share that are trained on sounds alone, and look at no texts."""

from collections.abc import Mapping
from typing import Any

from audiogen_jax.core.abstract import Program
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data.spec import SoundSpec


class SoundsTask:
  """A task of one part, which makes no sounds of texts: see `task.Task`."""

  rate_hz: int

  def check_parts(self) -> None:
    """There is one part alone, which fits itself."""

  def tokenizer(self) -> None:
    """Texts are not looked at."""

  @property
  def wants(self) -> SoundSpec:
    """What the rows of a dataset must hold."""
    return SoundSpec(self.rate_hz, 1)

  def check_data(self, settings: Mapping[str, Any], folders: str) -> None:
    """Accepts any dataset of sounds."""

  def sampling_programs(
    self, rows: int, placement: Placement
  ) -> dict[str, Program]:
    """No sounds are made of texts."""
    return {}
